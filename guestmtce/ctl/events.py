"""`guestctl events`: what happened on this host, as it happens or since a time.

The daemons keep the last entries of all instances; each has a number, so that one who follows
asks for what came after the last one seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from guestmtce.ctl import story
from guestmtce.ctl.ask import Reply, number
from guestmtce.ctl.instances import SHORT_UUID
from guestmtce.ctl.table import Style, cell

FOLLOW_SECS = 1.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")

Event = Mapping[str, Any]
Ask = Callable[[Mapping[str, Any]], list[Reply]]


def parse_span(text: str) -> float:
    """Return the seconds of `90s`, `10m`, `1h`, `2d`; raises ValueError."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError("not a span of time such as 90s, 10m, 1h or 2d")
    return float(int(match[1]) * _UNITS[match[2]])


class Teller:
    """Makes lines of events: when, who, of which instance, what.

    An instance is told by the name that one of its events gives. `brief`: for a
    person at a terminal, so the day stands on a line of its own, and a UUID is its beginning.
    """

    def __init__(self, style: Style, *, brief: bool) -> None:
        self._style = style
        self._brief = brief
        self._names: dict[str, str] = {}
        self._day = ""

    def learn(self, found: Iterable[tuple[str, Event]]) -> None:
        """Take the names that events give."""
        names = {str(each.get("uuid")): str(each["name"]) for _, each in found if each.get("name")}
        self._names.update(names)

    def lines(self, daemon: str, event: Event) -> Iterator[str]:
        """Yield one event as a line, and before it the day if that is new."""
        uuid = str(event.get("uuid", ""))
        name = self._names.get(uuid) or (uuid[:SHORT_UUID] if self._brief else uuid)
        at = event.get("at")
        day, who = story.day(at), cell(name)
        told = story.sentence(event, self._style)
        if not self._brief:
            yield f"{day} {story.clock(at)}  {daemon}  {who}  {told}"
            return
        if day != self._day:
            self._day = day
            yield self._style.mark("heading", day)
        short = daemon.replace("guest", "").lower()
        yield f"{story.clock(at)}  {short:<6}  {who:<{SHORT_UUID}}  {told}"


class Follower:
    """Asks for events that have not been seen. `ask` asks both daemons one request."""

    def __init__(self, ask: Ask, wanted: Callable[[Event], bool]) -> None:
        self.replies: list[Reply] = []
        self._ask = ask
        self._wanted = wanted
        self._seen: dict[str, int] = {}

    def poll(self) -> Iterator[tuple[str, Event]]:
        """Yield (daemon, event) of what is new, in the order of its time."""
        self.replies = self._ask({"command": "events"})
        found = []
        for reply in self.replies:
            if reply.answer is None:
                continue
            seen = self._seen.get(reply.daemon, 0)
            if reply.answer.get("next", 0) < seen:
                seen = 0  # it was started again, and counts from the beginning
            found += [
                (reply.daemon, event)
                for event in reply.answer.get("events", ())
                if event.get("number", 0) > seen and self._wanted(event)
            ]
            self._seen[reply.daemon] = reply.answer.get("next", 0)
        yield from sorted(found, key=lambda item: number(item[1].get("at")) or 0.0)


def about(asked: str | None, since: float | None) -> Callable[[Event], bool]:
    """Return a test for events of the instance that `asked` may mean, at or after `since`."""

    def wanted(event: Event) -> bool:
        if since is not None and (number(event.get("at")) or 0.0) < since:
            return False
        if asked is None:
            return True
        uuid, name = str(event.get("uuid", "")), str(event.get("name", ""))
        return uuid.startswith(asked.lower()) or name.startswith(asked)

    return wanted
