"""`guestctl why`: what happened to an instance, as a short story in plain words with times.

The daemon remembers entries (`core.shared.history`); here those that matter are chosen and
told: from the last time that all was well before the latest trouble, to now.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from guestmtce.core.shared.history import What
from guestmtce.ctl.ask import number
from guestmtce.ctl.instances import diagnosis_of, health
from guestmtce.ctl.table import Style, cell

# How each kind of entry begins its sentence; what the daemon said of it follows.
_WORDS: Mapping[What | None, str] = {
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
    What.RESTARTED: "started anew",
    What.RECEIVED: "heard",
    What.QUEUED: "for the VIM",
    What.TOLD: "told the VIM",
    What.UNTOLD: "not told to the VIM",
    What.MOVED: "moved",
}
_TROUBLE = frozenset({What.LOSS, What.ILL, What.EXIT, What.STOPPED, What.CLOSED, What.GONE})
_GOOD = frozenset({What.HEARTBEATING, What.WELL})
_ALARMS = frozenset({What.LOSS, What.ILL})
_KINDS: Mapping[str, What] = {what.value: what for what in What}
# Shown before the trouble, so that a reader sees from what it came.
_LEAD = 2
# Times after the year 9999 are no times.
_LATEST = 253_370_764_800
_PLAIN = Style(colour=False)

Entries = Sequence[Mapping[str, object]]


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


def clock(at: object) -> str:
    """Return a wall-clock time of this host as `03:12:07.4`."""
    tenths = int(_seconds(at) * 10)
    return f"{time.strftime('%H:%M:%S', time.localtime(tenths // 10))}.{tenths % 10}"


def day(at: object) -> str:
    """Return the day of a wall-clock time, as `2026-11-25`."""
    return time.strftime("%Y-%m-%d", time.localtime(_seconds(at)))


def _seconds(at: object) -> float:
    known = number(at)
    return known if known is not None and 0 <= known < _LATEST else 0.0


def sentence(entry: Mapping[str, object], style: Style = _PLAIN) -> str:
    """Return one entry in words."""
    what = str(entry.get("what"))
    kind = _KINDS.get(what)
    words = style.mark("bad" if kind in _ALARMS else "", _WORDS.get(kind, cell(what)))
    detail = entry.get("detail")
    return f"{words}: {cell(detail)}" if detail else words


def timeline(entries: Entries, style: Style = _PLAIN) -> list[str]:
    """Return the entries as lines `03:12:07.4  …`, with a line for each new day."""
    lines: list[str] = []
    today = ""
    for entry in entries:
        at = entry.get("at")
        if day(at) != today:
            today = day(at)
            lines.append(today)
        lines.append(f"  {clock(at)}  {sentence(entry, style)}")
    return lines


def why(shown: Mapping[str, Any], now: float, style: Style) -> list[str]:
    """Return the story that each daemon has of an instance; `now` is the wall clock's."""
    stories = [_story(daemon, instance, now, style) for daemon, instance in shown.items()]
    return [line for place, lines in enumerate(stories) for line in [""] * bool(place) + lines]


def _story(daemon: str, instance: Mapping[str, Any], now: float, style: Style) -> list[str]:
    name, uuid = instance.get("name"), cell(instance.get("uuid"))
    title = f"{cell(name)} ({uuid})" if name else uuid
    host = instance.get("host")
    where = f" on {cell(host)}" if host else ""
    lines = [style.mark("heading", f"{title}{where}, as {daemon} saw it")]
    if diagnosis_of(instance) is not None:
        lines.append(f"now: {health(instance, now)}")
    else:
        lines.append("now: not here; this is what is remembered of it")
    entries = instance.get("history", ())
    if not entries:
        return [*lines, "nothing is remembered of it"]
    return [*lines, *timeline(choose(entries), style)]
