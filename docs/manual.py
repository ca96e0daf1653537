"""Writes the man pages: `python3 -m docs.manual DIRECTORY`.

Their text is that of `--help` and of the shipped ini, so that they cannot say anything else.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs import ini
from guestmtce import __version__
from guestmtce.agent import main as guest_agent
from guestmtce.ctl import app as guestctl
from guestmtce.runtime import options
from guestmtce.runtime.daemon import Program
from guestmtce.server import main as guest_server

_INI_PURPOSE = (
    "One file serves both daemons, under two names. What stands here is what the file says of "
    "itself; a setting that is commented out shows its default."
)

_SEE_ALSO = ("guestServer(8)", "guestAgent(8)", "guestctl(1)", "guest.ini(5)", "guest-client(8)")


def pages() -> dict[str, str]:
    """Return each page's file name and its roff text."""
    terminal = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"  # argparse wraps its help to it
    try:
        helps = {
            "guestServer.8": _help(guest_server.PROGRAM),
            "guestAgent.8": _help(guest_agent.PROGRAM),
            "guestctl.1": guestctl.build_parser().format_help(),
        }
    finally:
        os.environ.pop("COLUMNS")
        if terminal is not None:
            os.environ["COLUMNS"] = terminal
    summaries = {
        "guestServer.8": "heartbeat the virtual machines of a worker",
        "guestAgent.8": "between the VIM and the guestServers",
        "guestctl.1": "show what guestServer and guestAgent know, and why",
    }
    written = {
        name: "\n".join(_of_help(name, summaries[name], text)) + "\n"
        for name, text in helps.items()
    }
    written["guest.ini.5"] = "\n".join(_of_ini()) + "\n"
    return written


def _help(program: Program[Any]) -> str:
    return options.build_parser(program.name, program.purpose).format_help()


def _head(name: str, summary: str) -> Iterator[str]:
    title, _dot, section = name.rpartition(".")
    yield f'.TH "{_quoted(title.upper())}" {section} "" "mtce-guest {__version__}"'
    yield ".SH NAME"
    yield _quoted(f"{title} - {summary}")


def _of_help(name: str, summary: str, text: str) -> Iterator[str]:
    """Yield the page of a program: its usage, then a section for each part of its help."""
    usage, purpose, *blocks = re.split(r"\n\n(?=\S)", text.strip())
    yield from _head(name, summary)
    yield ".SH SYNOPSIS"
    yield from _verbatim(re.sub("^(usage: |       )", "", usage, flags=re.MULTILINE))
    yield ".SH DESCRIPTION"
    yield _quoted(" ".join(purpose.split()))
    for block in blocks:
        heading, colon, body = block.partition(":\n")
        if colon and "\n" not in heading:
            yield f".SH {_quoted(heading.upper())}"
            yield from _verbatim(_dedent(body))
        else:
            yield ".PP"
            yield _quoted(" ".join(block.split()))
    yield from _see_also(name)


def _of_ini() -> Iterator[str]:
    """Yield the page of the configuration: sections, then each comment with its settings."""
    yield from _head("guest.ini.5", "configuration of guestServer and guestAgent")
    yield ".SH DESCRIPTION"
    yield _quoted(_INI_PURPOSE)
    for _section, title, comment, settings in ini.blocks():
        if title:
            yield f".SH {_quoted(title[0])}"
            yield from [_quoted(title[1])] if title[1] else []
        if settings:
            yield ".TP"
            yield _quoted(settings[0])
            for setting in settings[1:]:
                yield ".TQ"
                yield _quoted(setting)
        elif comment:
            yield ".PP"
        if comment:
            yield _quoted(comment)
    yield from _see_also("guest.ini.5")


def _see_also(name: str) -> Iterator[str]:
    own = f"{name.rpartition('.')[0]}({name[-1]})"
    yield ".SH SEE ALSO"
    yield _quoted(", ".join(page for page in _SEE_ALSO if page != own))


def _verbatim(text: str) -> Iterator[str]:
    yield ".nf"
    yield from (_quoted(line) for line in text.splitlines())
    yield ".fi"


def _dedent(text: str) -> str:
    return re.sub(r"^  ", "", text, flags=re.MULTILINE)


def _quoted(text: str) -> str:
    """Return text in which roff sees no command of its own."""
    safe = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{safe}" if safe[:1] in (".", "'") else safe


def main(directory: str) -> int:
    """Write every page into `directory`."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        Path(directory, name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
