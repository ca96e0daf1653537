"""What --version prints: the version, and the commit that it was built of."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from guestmtce import __commit__, __version__

_GIT_SECS = 5


def full_version() -> str:
    """Return version and commit, such as `1.1.0 (0123456789ab)`; in a checkout git is asked."""
    return f"{__version__} ({__commit__ or _commit_of_checkout()})"


def _commit_of_checkout() -> str:
    import subprocess  # noqa: PLC0415 - no daemon needs it

    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = ["git", "-C", checkout, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            [*command, "--exclude=*"], capture_output=True, check=True, timeout=_GIT_SECS
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown commit"
    return done.stdout.decode("ascii", "replace").strip()


class ShowVersion(argparse.Action):
    """Print program, version and commit, and exit: looked up when asked for, not at each start."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: Any) -> None:
        """Do it."""
        print(f"{parser.prog} {full_version()}")  # noqa: T201
        parser.exit()
