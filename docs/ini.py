"""What `etc/guest.ini` says of itself, for the man page and for the table of settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

INI = Path(__file__).parents[1] / "etc" / "guest.ini"


class Block(NamedTuple):
    """A comment and the settings below it, also those that are commented out.

    `title` is the line `[section]` and what stands behind it, where the block begins a section.
    """

    section: str
    title: tuple[str, str] | None
    comment: str
    settings: list[str]


def blocks() -> Iterator[Block]:
    """Yield the file in its order; blocks have an empty line between them."""
    section = ""
    for text in re.split(r"\n\n+", INI.read_text("utf-8").strip()):
        lines = text.splitlines()
        header = re.match(r"(\[(\w+)\])\s*;?\s*(.*)", lines[0])
        title = None
        if header:
            section, title = header[2], (header[1], header[3])
        comments = [line[2:].strip() for line in lines if line.startswith("; ")]
        settings = [line.lstrip(";") for line in lines if re.match(r";?\w+ =", line)]
        yield Block(section, title, " ".join(comments), settings)
