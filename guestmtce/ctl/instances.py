"""Instances as guestctl lists them: found by name, UUID or prefix, what is wrong first.

Rows are what the daemons' control sockets say; everything printed goes through `cell`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from guestmtce.core.shared.condition import CONDITIONS, Condition, Diagnosis, duration, in_words
from guestmtce.core.shared.text import plural, printable
from guestmtce.ctl.ask import number
from guestmtce.ctl.table import Column, Style, cell, cut, table
from guestmtce.runtime.log import one_line
from guestmtce.runtime.wall import moment

Row = Mapping[str, object]

SHORT_UUID = 8
# Text and the number after it. A number of more digits is no number that anybody counts with.
_RUNS = re.compile("([^0-9]+|)([0-9]{1,18}|)")


def diagnosis_of(row: Row) -> Diagnosis | None:
    """Return what a daemon says of the instance's condition; None if it says nothing known."""
    condition = CONDITIONS.get(str(row.get("condition")))
    if condition is None:
        return None
    detail = row.get("detail")
    return Diagnosis(
        condition,
        number(row.get("since")),
        one_line(detail) if isinstance(detail, str) else "",
    )


def health(row: Row, now: float) -> str:
    """Return the condition in words, as of `now` (wall clock)."""
    diagnosis = diagnosis_of(row)
    return "?" if diagnosis is None else in_words(diagnosis, now, moment)


# Columns by name: the heading is the name in capitals, the value is made from a row and the time.
COLUMNS: dict[str, Callable[[Row, float], str]] = {
    "name": lambda row, _now: cell(row.get("name")),
    "instance": lambda row, _now: cell(str(row.get("uuid", ""))[:SHORT_UUID]),
    "uuid": lambda row, _now: cell(row.get("uuid")),
    "host": lambda row, _now: cell(row.get("host")),
    "health": health,
    "last-answer": lambda row, now: _ago(row.get("last_answer"), now),
    "reporting": lambda row, _now: "on" if row.get("reporting") is True else "off",
    "action": lambda row, _now: cell(row.get("corrective_action")),
    "interval": lambda row, _now: _milliseconds(row.get("interval_ms")),
    "misses": lambda row, _now: str(row.get("misses", "-")),
    "losses": lambda row, _now: str(row.get("failures", "-")),
    "state": lambda row, _now: cell(row.get("state")),
    "channel": lambda row, _now: cell(row.get("channel")),
}
# What fits 80 columns, and what `-o wide` adds.
NARROW = ("name", "instance", "host", "health", "last-answer", "reporting")
WIDE = (
    "name",
    "uuid",
    "host",
    "health",
    "last-answer",
    "reporting",
    "action",
    "interval",
    "losses",
    "state",
)


# How the usual columns give way on a narrow terminal: the UUID if each row has a name besides.
_LEAVE_NAMED = {"instance": 1, "last-answer": 2, "reporting": 3}
_LEAVE_UNNAMED = {"last-answer": 1, "reporting": 2}
_MARKS = {
    Condition.LOST: "bad",
    Condition.ILL: "bad",
    Condition.FLOODING: "odd",
    Condition.SILENT: "odd",
    Condition.UNKNOWN: "odd",
    Condition.NO_CHANNEL: "odd",
}


def _ago(answered_at: object, now: float) -> str:
    at = number(answered_at)
    if at is None:
        return "-"
    secs = max(0.0, now - at)
    return f"{secs:.1f} s" if secs < 10 else duration(secs)  # noqa: PLR2004 - a digit less


def _milliseconds(value: object) -> str:
    return f"{value} ms" if isinstance(value, int) else "-"


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows sorted: what is wrong first, then by name and UUID."""

    def key(row: Row) -> tuple[int, list[tuple[str, int]], str]:
        diagnosis = diagnosis_of(row)
        rank = -1 if diagnosis is None else diagnosis.rank
        return rank, _natural(str(row.get("name", ""))), str(row.get("uuid", ""))

    return sorted(rows, key=key)


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts vm-2 before vm-10."""
    return [(text, int(digits or 0)) for text, digits in _RUNS.findall(name)]


def matching(rows: Sequence[Row], asked: str) -> list[Row]:
    """Return the rows that `asked` may mean: by UUID, else by name, else by prefix of either."""
    word = asked.lower()
    for fits in (
        lambda row: row.get("uuid") == word,
        lambda row: row.get("name") == asked,
        lambda row: str(row.get("uuid", "")).startswith(word),
        lambda row: str(row.get("name", "")).startswith(asked),
    ):
        found = [row for row in rows if fits(row)]
        if found and asked:
            return found
    return []


def selected(
    rows: Sequence[Row], *, conditions: Sequence[Condition] = (), host: str | None = None
) -> list[Row]:
    """Return the rows of these conditions and this host; without either, all of them."""
    words = {condition.value for condition in conditions}
    return [
        row
        for row in rows
        if (not words or row.get("condition") in words) and host in (None, row.get("host"))
    ]


def columns(option: str | None) -> tuple[str, ...]:
    """Return the columns that `-o` names; raises ValueError for one that there is not."""
    if option is None:
        return NARROW
    if option == "wide":
        return WIDE
    names = tuple(option.lower().split(","))
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise ValueError(f"no column {printable(unknown[0])}; there are {', '.join(COLUMNS)}")
    return names


def lines(
    rows: Sequence[Row], option: str | None, now: float, style: Style, room: int | None
) -> list[str]:
    """Return the rows as a table of the columns that `-o` names.

    A usual column that says nothing of any row is left out. On a terminal `room` columns wide the
    usual ones give way; those that were asked for do not, and lines are cut at the edge.
    """
    names = columns(option)
    named = all(row.get("name") for row in rows)
    leave = (_LEAVE_NAMED if named else _LEAVE_UNNAMED) if option is None else {}
    texts = [{name: COLUMNS[name](row, now) for name in names} for row in rows]
    if option is None:
        names = tuple(name for name in names if any(text[name] != "-" for text in texts))
    found = table(
        texts,
        [Column(name, leave.get(name, 0)) for name in names],
        style,
        room if option is None else None,
        {"health": [_mark(row) for row in rows]},
    )
    return found if room is None else [cut(line, room) for line in found]


def _mark(row: Row) -> str:
    diagnosis = diagnosis_of(row)
    return "" if diagnosis is None else _MARKS.get(diagnosis.condition, "")


def summary(rows: Sequence[Row]) -> str:
    """Return how many instances there are, and how many are how: `3 instances: 1 lost, 2 ok`."""
    counts = Counter(str(row.get("condition")) for row in rows)
    known = [f"{counts[word]} {word}" for word in CONDITIONS if counts[word]]
    total = f"{len(rows)} {plural('instance', len(rows))}"
    return f"{total}: {', '.join(known)}" if known else total
