"""The state dump: JSON with a line for each item of each member, for grep; and logging it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)

_MAX_LOGGED_LINES = 500
_LINES_AT_ONCE = 5
_LINES_PAUSE_SECS = 0.01

T = TypeVar("T")

encode = json.JSONEncoder(default=str).encode


def lines(members: Mapping[str, object]) -> Iterator[str]:
    """Yield a JSON object, line by line."""
    yield "{"
    for key, comma in _with_commas(members):
        value = members[key]
        if isinstance(value, Mapping):
            yield f"{encode(key)}: {{"
            for name, inner in _with_commas(value):
                yield f"  {encode(str(name))}: {encode(value[name])}{inner}"
            yield f"}}{comma}"
        elif isinstance(value, (list, tuple)):
            yield f"{encode(key)}: ["
            for index, inner in _with_commas(range(len(value))):
                yield f"  {encode(value[index])}{inner}"
            yield f"]{comma}"
        else:
            yield f"{encode(key)}: {encode(value)}{comma}"
    yield "}"


def _with_commas(items: Collection[T]) -> Iterator[tuple[T, str]]:
    """Yield each item with the comma that follows it, the last one without."""
    last = len(items) - 1
    for index, item in enumerate(items):
        yield item, "," if index < last else ""


class DumpLog:
    """Logs a dump a few lines at a time: syslog's queue holds ten, and we do not wait for it."""

    def __init__(self, loop: Loop) -> None:
        self._timers = Timers(loop)

    def begin(self, dumped: Sequence[str]) -> None:
        """Log as much as is sensible of a dump; what is left of the one before is not logged."""
        logged = [*dumped[:_MAX_LOGGED_LINES]]
        if len(dumped) > _MAX_LOGGED_LINES:
            logged.append(f"and {len(dumped) - _MAX_LOGGED_LINES} lines more in the file")
        self._log(logged)

    def _log(self, logged: Sequence[str]) -> None:
        for line in logged[:_LINES_AT_ONCE]:
            log.info("dump: %s", line)
        rest = logged[_LINES_AT_ONCE:]
        if rest:
            self._timers.start("rest", _LINES_PAUSE_SECS, self._log, rest)
        else:
            self._timers.cancel_all()
