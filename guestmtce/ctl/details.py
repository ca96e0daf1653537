"""`guestctl status` and `show`: all the numbers that a daemon gives, in lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guestmtce.core.shared import condition
from guestmtce.ctl import instances, story
from guestmtce.ctl.ask import number
from guestmtce.ctl.table import Style, cell, fields

# Told as the health, or below.
_TOLD_OTHERWISE = ("condition", "since", "detail", "history", "exchanges")


def status(shown: Mapping[str, Any], style: Style) -> list[str]:
    """Return `status` as text: a line for each daemon, its numbers below."""
    lines: list[str] = []
    for daemon, entry in shown.items():
        if lines:
            lines.append("")
        state = entry["state"]
        about = cell(entry.get("reason"))
        if "pid" in entry:
            uptime = duration(entry.get("uptime_secs"))
            about = f"pid {cell(entry['pid'])}, version {cell(entry.get('version'))}, up {uptime}"
        lines.append(f"{style.mark('heading', daemon)}: {style.mark(state, state)} ({about})")
        lines += [f"  problem: {cell(problem)}" for problem in entry.get("problems", ())]
        lines += fields(entry.get("summary", {}), "  ")
    return lines


def duration(value: object) -> str:
    """Return a number of seconds as an operator would say it: `3 d 4 h`, `5 min 6 s`."""
    seconds = number(value)
    if seconds is None:
        return "?"
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (secs, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2])


def show(shown: Mapping[str, Any], now: float, style: Style) -> list[str]:
    """Return `show` as text: what each daemon knows of the instance, its history last."""
    lines: list[str] = []
    for daemon, entry in shown.items():
        if lines:
            lines.append("")
        lines += [style.mark("heading", daemon), *fields(_plain(entry, now), "  ")]
        if entry.get("history"):
            lines += [style.mark("heading", "history"), *story.timeline(entry["history"], style)]
        if entry.get("exchanges"):
            lines.append(style.mark("heading", "last messages"))
            lines += [_exchange(exchange) for exchange in entry["exchanges"]]
    return lines


def _plain(entry: Mapping[str, object], now: float) -> dict[str, object]:
    """Return the members that are told as they are, with the health in words before them."""
    plain = {key: value for key, value in entry.items() if key not in _TOLD_OTHERWISE}
    first = {key: plain.pop(key) for key in ("uuid", "host", "name") if key in plain}
    if instances.diagnosis_of(entry) is not None:
        first["health"] = instances.health(entry, now)
        first["since"] = _moment(entry.get("since"), now)
    if "last_answer" in plain:
        first["last_answer"] = _moment(plain.pop("last_answer"), now)
    return {**first, **plain}


def _moment(value: object, now: float) -> str:
    """Return a time of the wall clock, and how long ago that is."""
    at = number(value)
    if at is None:
        return "-"
    return f"{story.day(at)} {story.clock(at)}, {condition.duration(now - at)} ago"


def _exchange(exchange: Mapping[str, object]) -> str:
    took = exchange.get("ms")
    tail = "" if took is None else f"  {cell(took)} ms"
    return f"  {story.clock(exchange.get('at'))}  {cell(exchange.get('what'))}{tail}"
