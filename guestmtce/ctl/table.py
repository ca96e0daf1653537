"""Text for a terminal: tables, fields, colour; everything in it made safe first.

What is shown came from guests in the end, so every cell goes through `cell`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from guestmtce.runtime.log import one_line

_GAP = "  "
_LEAST_WIDTH = 12
# What continues a line stands this far to the right of where its text began.
_HANG = 2
_RESET = "\x1b[0m"
_RED, _GREEN, _YELLOW, _BOLD = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m"
_COLOURS = {
    "healthy": _GREEN,
    "degraded": _YELLOW,
    "down": _RED,
    "silent": _RED,
    "forbidden": _RED,
    "bad": _RED,
    "odd": _YELLOW,
    "heading": _BOLD,
}
_COLOUR = re.compile("\x1b\\[[0-9]*m")
# A number stays with the word before it, and its unit with it: `misses 12,`, `up 3 min 5 s`.
_WORD = re.compile(" *[^ ]+(?: [0-9.]+(?: (?:s|ms|min|h|d))?[,;)]?){0,2}(?= |$)")
_COLOUR_OR_TEXT = re.compile(f"({_COLOUR.pattern})")


class Style:
    """How to mark words: with colour or not at all."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def mark(self, kind: str, text: str) -> str:
        """Return `text` in the colour of its kind: a daemon's state, "bad", "odd", "heading"."""
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
    """Return how many columns a terminal gives to `text`; our own colours take none."""
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if text.isascii():
        return len(text)
    columns = 0
    for char in text:
        if not unicodedata.combining(char):
            columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return columns


class Column(NamedTuple):
    """A column of a table: the key of its cells, and how it gives way on a narrow terminal.

    `leaves` 1: left out first, 2: next, ...; 0: never, it is made narrower.
    """

    key: str
    leaves: int = 0

    @property
    def heading(self) -> str:
        """The key in capitals."""
        return self.key.upper().replace("_", "-")


def table(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[Column],
    style: Style,
    room: int | None = None,
    kinds: Mapping[str, Sequence[str]] = {},
) -> list[str]:
    """Return aligned lines, a heading first; a column that no row has is left out.

    `room`: how many columns the terminal has. What is wider gives way: the columns that may
    leave do, the others are cut, the widest first. `kinds`: of a column's key, the kind of each
    row's cell, which is marked so.
    """
    shown = [column for column in columns if any(column.key in row for row in rows)]
    texts = {column: [cell(row.get(column.key)) for row in rows] for column in shown}
    widths = {column: max(map(width, (column.heading, *texts[column]))) for column in shown}
    if room is not None:
        _fit(widths, room)
    shown = [column for column in shown if column in widths]
    fitted = [widths[column] for column in shown]
    heading = [cut(column.heading, most) for column, most in zip(shown, fitted)]
    lines = [style.mark("heading", _line(heading, fitted))]
    for number in range(len(rows)):
        cells = (cut(texts[column][number], most) for column, most in zip(shown, fitted))
        line = list(map(_pad, cells, fitted))
        for place, column in enumerate(shown):
            if column.key in kinds:
                line[place] = style.mark(kinds[column.key][number], line[place])
        lines.append(_GAP.join(line).rstrip())
    return lines


def _fit(widths: dict[Column, int], room: int) -> None:
    """Make `widths` fit the room, if that can be."""

    def over() -> int:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - room

    def spare() -> int:
        return sum(max(0, each - _LEAST_WIDTH) for each in widths.values())

    leaving = sorted((column for column in widths if column.leaves), key=lambda each: each.leaves)
    for column in leaving:
        if over() <= spare():
            break
        del widths[column]
    for _ in range(max(0, over())):
        widest = max(widths, key=lambda column: widths[column])
        if widths[widest] <= 1:
            break
        widths[widest] -= 1


def cut(text: str, most: int) -> str:
    """Return `text` in `most` columns at most, an ellipsis at its end if it was cut."""
    if width(text) <= most:
        return text
    kept, left = "", most - 1
    for part in _COLOUR_OR_TEXT.split(text):
        if part.startswith("\x1b"):
            kept += part  # it begins or ends a colour, and takes no room
        else:
            head = _head(part, left)
            left -= width(head)
            kept += head
            if head != part:
                left = 0
    return kept + "…"


def wrapped(line: str, room: int) -> list[str]:
    """Return `line` as lines of `room` columns at most, broken between words where that can be.

    What goes on stands below the text of the line's last column: after its last gap of two
    spaces or more in the first half of the room.
    """
    if width(line) <= room:
        return [line]
    hang = " " * _hang(line, room)
    lines = [""]
    for word in _WORD.findall(line):
        rest = word
        if width(lines[-1] + word) > room and lines[-1].strip():
            lines.append(hang)
            rest = word.lstrip(" ")
        while width(lines[-1] + rest) > room:
            head = _head(rest, room - width(lines[-1])) or rest[0]
            lines[-1] += head
            rest = rest[len(head) :]
            lines.append(hang)
        lines[-1] += rest
    return lines


def _hang(line: str, room: int) -> int:
    plain = _COLOUR.sub("", line)
    gaps = [gap.end() for gap in re.finditer("(?<=[^ ])  +", plain)]
    indent = len(plain) - len(plain.lstrip(" "))
    return max((gap for gap in gaps if gap <= room // 2), default=min(indent + _HANG, room // 2))


def _head(word: str, room: int) -> str:
    """Return as much of a word as `room` columns take."""
    used = 0
    for number, char in enumerate(word):
        used += width(char)
        if used > room:
            return word[:number]
    return word


def fields(values: Mapping[str, object], indent: str = "") -> list[str]:
    """Return aligned `name  value` lines."""
    names = [cell(name) for name in values]
    room = max(map(width, names), default=0)
    return [
        indent + _line([name, cell(value)], [room, 0])
        for name, value in zip(names, values.values())
    ]


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return _GAP.join(map(_pad, cells, widths)).rstrip()


def _pad(text: str, room: int) -> str:
    return text + " " * (room - width(text))
