"""What --version prints: the version, and the commit that it was built of."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from guestmtce import __commit__, __version__

_GIT_SECS = 5
_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_COMMIT_DIGITS = 12
_COMMIT = re.compile(f"[0-9a-f]{{{_COMMIT_DIGITS}}}")


def full_version() -> str:
    """Return version and commit, such as `1.1.0 (0123456789ab)`.

    An installed package knows it, a source archive has it in a file, in a checkout git is asked.
    """
    return f"{__version__} ({__commit__ or commit_of_source(_SOURCE)})"


def commit_of_source(directory: str) -> str:
    """Return the commit of the sources in `directory`, an unpacked archive or a checkout."""
    try:
        with open(os.path.join(directory, "COMMIT"), encoding="ascii") as file:
            text = file.read(_COMMIT_DIGITS)
    except (OSError, ValueError):
        text = ""
    # In a checkout it holds what git replaces when it makes an archive.
    return text if _COMMIT.fullmatch(text) else _ask_git(directory)


def _ask_git(checkout: str) -> str:
    import subprocess  # noqa: PLC0415 - no daemon needs it

    command = ["git", "-C", checkout, "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            [*command, f"--abbrev={_COMMIT_DIGITS}"],
            capture_output=True,
            check=True,
            timeout=_GIT_SECS,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown commit"
    return done.stdout.decode("ascii", "replace").strip()


class ShowVersion(argparse.Action):
    """Print program, version and commit, and exit: looked up when asked for, not at each start."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object) -> None:
        """Print it, and exit."""
        print(f"{parser.prog} {full_version()}")  # noqa: T201 - a terminal asked
        parser.exit()
