"""The hosts that guestAgent knows, as `guestctl hosts` lists them: what is wrong first.

Rows are what the daemon's control socket says; everything printed goes through `cell`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from guestmtce.core.shared.condition import duration
from guestmtce.core.shared.text import plural
from guestmtce.ctl.ask import number
from guestmtce.ctl.table import Column, Style, cell, table

Row = Mapping[str, object]

OLD = "old"
# The heading is the key in capitals. What says least gives way first on a narrow terminal.
_COLUMNS = (
    Column("host"),
    Column("last-heard"),
    Column("version", leaves=3),
    Column("instances"),
    Column("lost"),
    Column("ill"),
    Column("reporting", leaves=2),
    Column("ip", leaves=1),
)


def version(row: Row) -> str:
    """Return what is known of the guestServer's version, in a word.

    One of this release says it. An older one that acknowledges does not, and one that does not
    acknowledge is `old`: what gets lost on the way from it is lost.
    """
    if row.get("acknowledges") is True:
        return cell(row.get("version") or "acknowledges")
    return OLD if row.get("acknowledges") is False else "-"


def last_heard(row: Row, now: float) -> str:
    """Return when the guestServer said its last word: `3 s ago`, `silent, 5 min ago`, `never`."""
    heard = number(row.get("last_heard"))
    ago = "never" if heard is None else f"{duration(now - heard)} ago"
    return f"silent, {ago}" if row.get("silent") is True and heard is not None else ago


_CELLS: dict[str, Callable[[Row, float], str]] = {
    "host": lambda row, _now: cell(row.get("hostname")),
    "last-heard": last_heard,
    "version": lambda row, _now: version(row),
    "instances": lambda row, _now: cell(row.get("instances")),
    "lost": lambda row, _now: cell(row.get("lost")),
    "ill": lambda row, _now: cell(row.get("ill")),
    "reporting": lambda row, _now: cell(row.get("reporting")),
    "ip": lambda row, _now: cell(row.get("ip")),
}


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows sorted: silent hosts, then those with lost and ill instances, by name."""

    def key(row: Row) -> tuple[bool, float, float, str]:
        lost, ill = number(row.get("lost")) or 0, number(row.get("ill")) or 0
        return row.get("silent") is not True, -lost, -ill, str(row.get("hostname"))

    return sorted(rows, key=key)


def summary(rows: Sequence[Row]) -> str:
    """Return how many hosts there are, and what is wrong: `3 hosts: 1 silent, 2 lost, 1 ill`."""
    total = f"{len(rows)} {plural('host', len(rows))}"
    wrong = {
        "silent": sum(row.get("silent") is True for row in rows),
        "lost": sum(int(number(row.get("lost")) or 0) for row in rows),
        "ill": sum(int(number(row.get("ill")) or 0) for row in rows),
    }
    words = ", ".join(f"{count} {word}" for word, count in wrong.items() if count)
    return f"{total}: {words}" if words else total


def lines(rows: Sequence[Row], now: float, style: Style, room: int | None) -> list[str]:
    """Return the rows as a table, on a terminal `room` columns wide."""
    marks = {
        "last-heard": ["bad" if row.get("silent") is True else "" for row in rows],
        "lost": ["bad" if row.get("lost") else "" for row in rows],
        "ill": ["bad" if row.get("ill") else "" for row in rows],
    }
    cells = [{name: read(row, now) for name, read in _CELLS.items()} for row in rows]
    return table(cells, _COLUMNS, style, room, marks)
