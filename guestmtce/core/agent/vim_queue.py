"""What waits to be told to the VIM, and when it is worth telling (vim.md, "Rules for events").

Sans-I/O: the owner asks `poll` what to write now, writes it, and says with `done` how it ended.
Order is kept per lane (an instance, or a host whose state is asked for), one request of a lane
is on its way at a time, four in all. Lanes with an alarm or an answer to a vote go first: a
vote is waited for, a state is not.

A VIM that refuses or hangs gets one harmless request at a time, a probe, until one ends well
(decision 12). Replaces guestHttpUtil, which waited up to 20 s in each call and then forgot.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

MAX_CONNECTIONS = 4
MAX_ACTIONS = 4
HUNG_SECS = 2.0
FIRST_RETRY_SECS = 1.0
MAX_RETRY_SECS = 30.0
_COMPACT_THRESHOLD = 256


class Kind(str, Enum):
    """What a request to the VIM is for."""

    SERVICE = "service"
    ALARM = "alarm"
    ACTION = "action"
    HOST_STATE = "host_state"
    INSTANCES = "instances"


# A state told or asked twice does no harm; a second alarm is a second order to reboot.
_QUERIES = frozenset({Kind.HOST_STATE, Kind.INSTANCES})
_HARMLESS = _QUERIES | {Kind.SERVICE}
_URGENT = frozenset({Kind.ALARM, Kind.ACTION})
_AT_MOST = {Kind.ACTION: MAX_ACTIONS}


class Ended(Enum):
    """How a request ended, in the words of vim.md."""

    NOT_DELIVERED = "not delivered"
    TIMED_OUT = "timed out"
    TAKEN = "taken"
    TAKEN_BADLY = "reset or 5xx"


@dataclass(eq=False)
class Event:
    """One thing to tell or ask.

    `detail` is what its body is made from when it is written; a `service` event has none, it
    tells the state of that moment. `expires` is when nobody wants to hear it any more. One
    that is not `wanted` is not tried again; one that is `over` is neither queued nor on its way.
    """

    kind: Kind
    detail: Any = None
    expires: float | None = None
    wanted: bool = True
    over: bool = False


@dataclass(eq=False)
class Delivery:
    """An event on its way: write it, then call `done`."""

    key: str
    event: Event
    started: float
    is_probe: bool = False
    late: bool = False


@dataclass(eq=False)
class _Lane:
    key: str
    events: list[Event] = field(default_factory=list)
    current: Delivery | None = None
    waiting: bool = False
    retry_at: float = 0.0
    retries: int = 0

    def find(self, kind: Kind) -> Event | None:
        return next((event for event in self.events if event.kind is kind), None)


def backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: 1, 2, 4, … 30."""
    return min(MAX_RETRY_SECS, FIRST_RETRY_SECS * 2.0 ** min(failures - 1, 8))


class VimQueue:
    """The lanes, the VIM's health, and what to write next.

    `on_drop(key, kind, reason)` is told of every alarm and action that will never be
    delivered; `dropped` counts them by reason, `ended` requests by how they ended.
    """

    def __init__(self, on_drop: Callable[[str, Kind, str], object] = lambda *_: None) -> None:
        self.ended: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.suspect = False
        self._on_drop = on_drop
        self._lanes: dict[str, _Lane] = {}
        self._urgent: OrderedDict[str, _Lane] = OrderedDict()
        self._ready: OrderedDict[str, _Lane] = OrderedDict()
        self._waiting: list[tuple[float, int, _Lane]] = []
        self._expiring: list[tuple[float, int, str, Event]] = []
        self._expiring_limit = _COMPACT_THRESHOLD
        self._sequence = 0
        self._flying: list[Delivery] = []
        self._probe: Delivery | None = None
        self._failures = 0
        self._failed_at = 0.0
        self._retry_at = 0.0

    def __len__(self) -> int:
        """Events that wait; those on their way do not count."""
        return sum(len(lane.events) for lane in self._lanes.values())

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return len(self._flying)

    def put(
        self, key: str, kind: Kind, now: float, detail: Any = None, expires: float | None = None
    ) -> None:
        """Queue an event of the lane `key`, in place of what it makes obsolete.

        A lane holds one of each kind, and the last four actions.
        """
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        if kind in _QUERIES and lane.current is not None and lane.current.event.kind is kind:
            return
        same = [queued for queued in lane.events if queued.kind is kind]
        if len(same) >= _AT_MOST.get(kind, 1):
            self._remove(lane, same[0], "replaced")
        event = Event(kind, detail, expires)
        lane.events.append(event)
        if expires is not None:
            self._expire_at(expires, key, event)
        if kind is Kind.SERVICE:
            lane.waiting = False
        self._file(lane)
        self._hasten(now)

    def withdraw(
        self, key: str, *kinds: Kind, reason: str, only: Callable[[Any], bool] = lambda _: True
    ) -> None:
        """Drop a lane's queued events of `kinds`; one on its way will not be tried again.

        Of those, only events whose detail satisfies `only`.
        """
        lane = self._lanes.get(key)
        if lane is None:
            return
        for event in list(lane.events):
            if event.kind in kinds and only(event.detail):
                self._remove(lane, event, reason)
        current = lane.current.event if lane.current is not None else None
        if current is not None and current.kind in kinds and only(current.detail):
            current.wanted = False
        self._file(lane)

    def forget(self, key: str, reason: str = "deleted") -> None:
        """Drop everything of a lane: its instance or host is gone."""
        self.withdraw(key, *Kind, reason=reason)

    def vim_spoke(self, now: float) -> None:
        """The VIM has just sent a command: if it was thought dead, try it soon."""
        self._hasten(now)

    def poll(self, now: float) -> list[Delivery]:
        """Return what to write now."""
        self._mark_late(now)
        self._drop_expired(now)
        while self._waiting and self._waiting[0][0] <= now:
            when, _number, lane = heapq.heappop(self._waiting)
            if when == lane.retry_at and self._lanes.get(lane.key) is lane:
                lane.waiting = False
                self._file(lane)
        started = []
        while len(self._flying) < MAX_CONNECTIONS:
            delivery = self._next(now)
            if delivery is None:
                break
            started.append(delivery)
        return started

    def done(self, delivery: Delivery, ended: Ended, now: float) -> None:
        """Say how a delivery ended; what has to be told again is queued again."""
        self.ended[ended.name.lower()] += 1
        self._flying.remove(delivery)
        lane = self._lanes[delivery.key]
        lane.current = None
        if ended in (Ended.NOT_DELIVERED, Ended.TIMED_OUT):
            self._vim_failed(delivery, now)
        else:
            self.suspect = False
            self._failures = 0
        if self._probe is delivery:
            self._probe = None
        if _again(delivery.event, ended):
            self._put_back(lane, delivery, ended, now)
        else:
            delivery.event.over = True
            lane.retries = 0
        self._file(lane)

    def wake_at(self) -> float | None:
        """Return when `poll` has something to do even if nothing else happens."""
        times = [each.started + HUNG_SECS for each in self._flying if not each.late]
        if self._waiting:
            times.append(self._waiting[0][0])
        if self._expiring:
            times.append(self._expiring[0][0])
        free = self._probe is None and self.in_flight < MAX_CONNECTIONS
        if self.suspect and free and (self._urgent or self._ready):
            times.append(self._retry_at)
        return min(times, default=None)

    def describe(self) -> dict[str, Any]:
        """Return what guestctl and the state dump show."""
        waiting = Counter(
            event.kind.value for lane in self._lanes.values() for event in lane.events
        )
        return {
            "suspect": self.suspect,
            "in_flight": self.in_flight,
            "waiting": dict(waiting),
            "ended": dict(self.ended),
            "dropped": dict(self.dropped),
        }

    def _next(self, now: float) -> Delivery | None:
        if self.suspect:
            if self._probe is not None or now < self._retry_at:
                return None
            return self._start_probe(now)
        for lanes in (self._urgent, self._ready):
            if lanes:
                _key, lane = lanes.popitem(last=False)
                return self._start(lane, lane.events.pop(0), now)
        return None

    def _start_probe(self, now: float) -> Delivery | None:
        """Send what does no harm: a waiting state, else the state of one that has an alarm."""
        lanes = self._ready or self._urgent
        if not lanes:
            return None
        _key, lane = lanes.popitem(last=False)
        event = lane.events[0]
        if event.kind in _HARMLESS:
            lane.events.pop(0)
        else:
            event = Event(Kind.SERVICE, wanted=False)
        self._probe = self._start(lane, event, now)
        self._probe.is_probe = True
        return self._probe

    def _start(self, lane: _Lane, event: Event, now: float) -> Delivery:
        lane.current = Delivery(lane.key, event, now)
        self._flying.append(lane.current)
        return lane.current

    def _put_back(self, lane: _Lane, delivery: Delivery, ended: Ended, now: float) -> None:
        event = delivery.event
        if event.kind is not Kind.ACTION and lane.find(event.kind) is not None:
            self._drop(lane, event, "replaced")
        elif event.expires is not None and event.expires <= now:
            self._drop(lane, event, "expired")
        elif ended is Ended.NOT_DELIVERED:
            lane.events.insert(0, event)
        else:
            # The VIM may have heard it: behind what it has not heard, and later each time.
            lane.events.append(event)
            lane.retries += 1
            lane.waiting = True
            lane.retry_at = now + backoff(lane.retries)
            heapq.heappush(self._waiting, (lane.retry_at, self._next_number(), lane))

    def _vim_failed(self, delivery: Delivery, now: float) -> None:
        """Four requests that fail together are one failure of the VIM."""
        if not self.suspect or delivery is self._probe:
            self._failures += 1
            self._failed_at = now
            self._retry_at = now + backoff(self._failures)
        self.suspect = True

    def _hasten(self, now: float) -> None:
        """Something new to say, or a sign of life: do not wait out a long retry delay."""
        if self.suspect:
            self._retry_at = min(self._retry_at, max(now, self._failed_at + FIRST_RETRY_SECS))

    def _mark_late(self, now: float) -> None:
        for delivery in self._flying:
            if not delivery.late and now >= delivery.started + HUNG_SECS:
                delivery.late = True
                if not self.suspect:
                    self.suspect = True
                    self._failed_at = now
                    self._retry_at = now + FIRST_RETRY_SECS

    def _drop_expired(self, now: float) -> None:
        while self._expiring and self._expiring[0][0] <= now:
            _when, _number, key, event = heapq.heappop(self._expiring)
            lane = self._lanes.get(key)
            if lane is not None and event in lane.events:
                self._remove(lane, event, "expired")
                self._file(lane)

    def _expire_at(self, when: float, key: str, event: Event) -> None:
        """Remember when to drop an event; now and then forget those that are over anyway."""
        heapq.heappush(self._expiring, (when, self._next_number(), key, event))
        if len(self._expiring) > self._expiring_limit:
            self._expiring = [entry for entry in self._expiring if not entry[-1].over]
            heapq.heapify(self._expiring)
            self._expiring_limit = 2 * len(self._expiring) + _COMPACT_THRESHOLD

    def _remove(self, lane: _Lane, event: Event, reason: str) -> None:
        lane.events.remove(event)
        self._drop(lane, event, reason)

    def _file(self, lane: _Lane) -> None:
        """Put a lane where `_next` finds it, or nowhere if it has nothing to say now.

        A lane keeps its turn. What is only to be repeated waits for its time; what is urgent
        does not wait for that.
        """
        if lane.current is not None:
            return
        urgent = any(event.kind in _URGENT for event in lane.events)
        right, wrong = (self._urgent, self._ready) if urgent else (self._ready, self._urgent)
        wrong.pop(lane.key, None)
        if not lane.events:
            right.pop(lane.key, None)
            del self._lanes[lane.key]
        elif urgent or not lane.waiting:
            right.setdefault(lane.key, lane)
        else:
            right.pop(lane.key, None)

    def _drop(self, lane: _Lane, event: Event, reason: str) -> None:
        event.over = True
        if event.kind in _URGENT:  # a state that is not told or asked now is so some other time
            self.dropped[reason] += 1
            self._on_drop(lane.key, event.kind, reason)

    def _next_number(self) -> int:
        self._sequence += 1
        return self._sequence


def _again(event: Event, ended: Ended) -> bool:
    """Return whether an event has to be told again (vim.md: delivered is never repeated)."""
    if not event.wanted:
        return False
    if ended is Ended.NOT_DELIVERED:
        return True
    return event.kind is Kind.SERVICE and ended is not Ended.TAKEN
