"""`guestctl why`: what happened to an instance, as a short story in plain words with times.

The daemon remembers entries (`core.shared.history`); here those that matter are chosen and
told: from the last time that all was well before the latest trouble, to now.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from guestmtce.core.shared.condition import in_words
from guestmtce.core.shared.history import What
from guestmtce.ctl.instances import diagnosis_of
from guestmtce.ctl.table import Style, cell

# How each kind of entry begins its sentence; what the daemon said of it follows.
_WORDS = {
    What.FOUND: "socket file found",
    What.CONNECTED: "channel open",
    What.CLOSED: "channel closed",
    What.GONE: "socket file gone",
    What.INIT: "init",
    What.HEARTBEATING: "heartbeating",
    What.MISS: "challenge unanswered",
    What.LOSS: "LOST",
    What.STOPPED: "heartbeat ended",
    What.ILL: "ILL",
    What.WELL: "well again",
    What.EXIT: "the guest's client exits",
    What.ASKED: "asked",
    What.ANSWERED: "answered",
    What.ENDED: "ask ended",
    What.HELD: "silence expected",
    What.REPORTING: "reporting",
    What.REFUSED: "bad message",
    What.ACKNOWLEDGED: "guestAgent",
    What.RECEIVED: "heard",
    What.QUEUED: "for the VIM",
    What.TOLD: "told the VIM",
    What.UNTOLD: "not told to the VIM",
    What.MOVED: "moved",
}
_TROUBLE = frozenset({What.LOSS, What.ILL, What.EXIT, What.STOPPED, What.CLOSED, What.GONE})
_GOOD = frozenset({What.HEARTBEATING, What.WELL})
_KINDS = {what.value: what for what in What}
# Shown before the trouble, so that a reader sees from what it came.
_LEAD = 2

Entries = Sequence[Mapping[str, Any]]


def choose(entries: Entries) -> Entries:
    """Return the entries that tell the latest trouble: from shortly before it to the end.

    Of an instance that never was in trouble, all of them.
    """
    kinds = [entry.get("what") for entry in entries]
    latest = max((index for index, kind in enumerate(kinds) if kind in _TROUBLE), default=None)
    if latest is None:
        return entries
    before = (index for index in range(latest - 1, -1, -1) if kinds[index] in _GOOD)
    start = next(before, 0)
    return entries[max(0, start - _LEAD) :]


def clock(at: float) -> str:
    """Return a wall-clock time of this host as `03:12:07.4`."""
    tenths = int(at * 10)
    return f"{time.strftime('%H:%M:%S', time.localtime(tenths // 10))}.{tenths % 10}"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))


def sentence(entry: Mapping[str, Any]) -> str:
    """Return one entry in words."""
    what = str(entry.get("what"))
    words = _WORDS.get(_KINDS[what], what) if what in _KINDS else cell(what)
    detail = entry.get("detail")
    return f"{words}: {cell(detail)}" if detail else words


def timeline(entries: Entries) -> list[str]:
    """Return the entries as lines `03:12:07.4  …`, with a line for each new day."""
    lines: list[str] = []
    day = ""
    for entry in entries:
        at = float(entry.get("at", 0.0))
        if _day(at) != day:
            day = _day(at)
            lines.append(day)
        lines.append(f"  {clock(at)}  {sentence(entry)}")
    return lines


def why(daemon: str, instance: Mapping[str, Any], now: float, style: Style) -> list[str]:
    """Return the story that one daemon has of an instance; `now` is the wall clock's."""
    name, uuid = instance.get("name"), cell(instance.get("uuid"))
    title = f"{cell(name)} ({uuid})" if name else uuid
    lines = [style.mark("heading", f"{title} on {cell(instance.get('host'))}, as {daemon} saw it")]
    diagnosis = diagnosis_of(instance)
    if diagnosis is not None:
        lines.append(f"now: {in_words(diagnosis, now)}")
    entries = instance.get("history", ())
    if not entries:
        return [*lines, "nothing is remembered of it"]
    return [*lines, *timeline(choose(entries))]
