"""`guestctl events`: what happened on this host, as it happens or since a time.

The daemons keep the last entries of all instances; each has a number, so that one who follows
asks for what came after the last one seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from guestmtce.ctl import story
from guestmtce.ctl.ask import Reply, listed, number
from guestmtce.ctl.instances import SHORT_UUID, matching
from guestmtce.ctl.table import Style, cell

FOLLOW_SECS = 1.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")

Event = Mapping[str, object]
Ask = Callable[[Mapping[str, object]], list[Reply]]


def parse_span(text: str) -> float:
    """Return the seconds of `90s`, `10m`, `1h`, `2d`; raises ValueError."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError("not a span of time such as 90s, 10m, 1h or 2d")
    return float(int(match[1]) * _UNITS[match[2]])


class Teller:
    """Makes lines of events: when, who, of which instance, what.

    `brief`: for a person at a terminal, so the day stands on a line of its own, and a UUID is its
    beginning.
    """

    def __init__(self, style: Style, *, brief: bool) -> None:
        self._style = style
        self._brief = brief
        self._day = ""

    def lines(self, daemon: str, event: Event) -> Iterator[str]:
        """Yield one event as a line, and before it the day if that is new."""
        uuid = str(event.get("uuid", ""))
        who = cell(event.get("name") or (uuid[:SHORT_UUID] if self._brief else uuid))
        at = event.get("at")
        day, told = story.day(at), story.sentence(event, self._style)
        if not self._brief:
            yield f"{day} {story.clock(at)}  {daemon}  {who}  {told}"
            return
        if day != self._day:
            self._day = day
            yield self._style.mark("heading", day)
        short = daemon.replace("guest", "").lower()
        yield f"{story.clock(at)}  {short:<6}  {who:<{SHORT_UUID}}  {told}"


class Follower:
    """Asks for events that have not been seen. `ask` asks both daemons one request.

    `asked` names the instance that is meant, None: all; `since` is the earliest time of interest.
    An event has the name that any event of its instance gives.
    """

    def __init__(self, ask: Ask, asked: str | None = None, since: float | None = None) -> None:
        self.replies: list[Reply] = []
        self._ask = ask
        self._asked = asked
        self._since = since
        self._seen: dict[str, int] = {}
        self._names: dict[str, str] = {}

    def poll(self) -> Iterator[tuple[str, Event]]:
        """Yield (daemon, event) of what is new, in the order of its time."""
        self.replies = self._ask({"command": "events"})
        heard = listed(self.replies, "events")
        for event in (event for events in heard.values() for event in events):
            uuid, name = str(event.get("uuid", "")), event.get("name")
            self._names[uuid] = str(name) if name else self._names.get(uuid, "")
        meant = self._meant()
        found = []
        for daemon, last in listed(self.replies, "next").items():
            # One that was started again counts from the beginning.
            seen = self._seen.get(daemon, 0) if last >= self._seen.get(daemon, 0) else 0
            self._seen[daemon] = last
            found += [
                (daemon, {**event, "name": self._names[str(event.get("uuid", ""))]})
                for event in heard.get(daemon, ())
                if event.get("number", 0) > seen and self._is_wanted(event, meant)
            ]
        yield from sorted(found, key=lambda item: _time(item[1]))

    def _meant(self) -> set[str] | None:
        """Return the instances that are asked for, None for all."""
        if self._asked is None:
            return None
        rows = [{"uuid": uuid, "name": name} for uuid, name in self._names.items()]
        return {str(row["uuid"]) for row in matching(rows, self._asked)}

    def _is_wanted(self, event: Event, meant: set[str] | None) -> bool:
        if self._since is not None and _time(event) < self._since:
            return False
        return meant is None or str(event.get("uuid", "")) in meant


def _time(event: Event) -> float:
    return number(event.get("at")) or 0.0
