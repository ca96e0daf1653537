"""Text for a terminal: tables, fields, colour; everything in it made safe first.

What is shown came from guests in the end, so every cell goes through `cell`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guestmtce.runtime.log import one_line

_GAP = "  "
_LEAST_WIDTH = 6
_RESET = "\x1b[0m"
_COLOURS = {
    "healthy": "\x1b[32m",
    "degraded": "\x1b[33m",
    "down": "\x1b[31m",
    "silent": "\x1b[31m",
    "forbidden": "\x1b[31m",
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


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Iterable[str],
    style: Style,
    room: int | None = None,
) -> list[str]:
    """Return aligned lines, a heading first; a column that no row has is left out.

    `room`: how many columns the terminal has. What is wider is cut, the widest column first.
    """
    shown = [column for column in columns if any(column in row for row in rows)]
    heading = [column.upper().replace("_", "-") for column in shown]
    grid = [heading, *([cell(row.get(column)) for column in shown] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*grid)]
    if room is not None:
        widths = _fit(widths, room - len(_GAP) * (len(widths) - 1))
    lines = [
        _line([cut(text, most) for text, most in zip(cells, widths)], widths) for cells in grid
    ]
    return [style.mark("heading", lines[0]), *lines[1:]]


def _fit(widths: list[int], room: int) -> list[int]:
    """Return widths that are `room` at most together, if that can be: the widest ones give."""
    fitted = list(widths)
    over = sum(fitted) - room
    while over > 0 and max(fitted) > _LEAST_WIDTH:
        widest = fitted.index(max(fitted))
        fitted[widest] -= 1
        over -= 1
    return fitted


def cut(text: str, most: int) -> str:
    """Return `text` in `most` columns at most, an ellipsis at its end if it was cut."""
    if width(text) <= most:
        return text
    while text and width(text) > most - 1:
        text = text[:-1]
    return text + "…"


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
