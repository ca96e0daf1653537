"""Text for a terminal: tables, fields, colour; everything in it made safe first.

What is shown came from guests in the end, so every cell goes through `cell`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guestmtce.runtime.log import one_line

_GAP = "  "
_RESET = "\x1b[0m"
_COLOURS = {
    "healthy": "\x1b[32m",
    "degraded": "\x1b[33m",
    "down": "\x1b[31m",
    "silent": "\x1b[31m",
    "heading": "\x1b[1m",
}


class Style:
    """How to mark words: with colour or not at all."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def mark(self, kind: str, text: str) -> str:
        """Return `text` in the colour of its kind (a state, or "heading")."""
        colour = _COLOURS.get(kind, "") if self._colour else ""
        return f"{colour}{text}{_RESET}" if colour else text


def cell(value: object) -> str:
    """Return a JSON value as one printable word or phrase."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{one_line(str(key))} {cell(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return one_line(str(value))


def width(text: str) -> int:
    """Return how many columns a terminal gives to `text`."""
    if text.isascii():
        return len(text)
    columns = 0
    for char in text:
        if not unicodedata.combining(char):
            columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return columns


def table(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], style: Style) -> list[str]:
    """Return aligned lines, a heading first; a column that no row has is left out."""
    shown = [column for column in columns if any(column in row for row in rows)]
    heading = [column.upper().replace("_", "-") for column in shown]
    grid = [heading, *([cell(row.get(column)) for column in shown] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*grid)]
    lines = [_line(cells, widths) for cells in grid]
    return [style.mark("heading", lines[0]), *lines[1:]]


def fields(values: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return aligned `name  value` lines."""
    names = [cell(name) for name in values]
    room = max(map(width, names), default=0)
    return [
        indent + _line([name, cell(value)], [room, 0])
        for name, value in zip(names, values.values())
    ]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text + " " * (room - width(text)) for text, room in zip(cells, widths))
    return _GAP.join(padded).rstrip()
