"""What waits to be told to the VIM, in lanes: one for each instance, and for each host asked about.

Order is kept in a lane, and one message of a lane is on its way at a time. Lanes with an alarm
or an answer to a vote have their turn first: a vote is waited for, a state is not. Within each
of the two groups a lane keeps its turn, whatever is added to it.

A message that nobody wants to hear any more is dropped when its lane's turn comes, or by a sweep
every 10 s (so that the counts of a VIM that is down stay true). One that has to wait for its
time is put aside until then; the others of its lane go on.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from guestmtce.core.shared.limits import Gap

MAX_ACTIONS = 4
SWEEP_SECS = 10.0


class Kind(str, Enum):
    """What a request to the VIM is for."""

    SERVICE = "service"
    ALARM = "alarm"
    ACTION = "action"
    HOST_STATE = "host_state"
    INSTANCES = "instances"


# A state told or asked twice does no harm; a second alarm is a second order to reboot.
QUERIES = frozenset({Kind.HOST_STATE, Kind.INSTANCES})
HARMLESS = QUERIES | {Kind.SERVICE}
URGENT = frozenset({Kind.ALARM, Kind.ACTION})
# Another agent is the active one: what is not told here is its to tell.
NOT_ACTIVE = "not_active"
# Why an alarm or an answer is not told any more.
VOID_REASONS = (
    "deleted",
    "expired",
    "heartbeats",
    "moved",
    NOT_ACTIVE,
    "replaced",
    "reporting_off",
    "superseded",
)


class Spacing(NamedTuple):
    """Keeps messages apart that have one `key`: `gap` knows when the last was told."""

    gap: Gap
    key: Hashable

    def over_at(self) -> float:
        """Return when the next one may be told."""
        return self.gap.over_at(self.key)

    def note(self, now: float) -> None:
        """One is told at `now`."""
        self.gap.note(now, self.key)


@dataclass(eq=False)
class Message:
    """One thing to tell or ask.

    `detail` is what its body is made from when it is written: a VimAlarm, a GuestAnswer, the UUID
    of the host that is asked about. A `service` event has none, it tells the state of that moment.
    `expires` is when nobody wants to hear it any more, `due` when it may be told; both are
    seconds of the loop's clock. `spacing` keeps it apart from the last one like it that
    was told. `tries` counts how often the VIM may have heard it. `void` says why it
    must not be told (again) though it is on its way. `on_over` is called when nobody will tell it
    any more: it was written whole, or is void, and not for our own reasons alone (`NOT_ACTIVE`).
    """

    kind: Kind
    detail: object = None
    expires: float = float("inf")
    due: float = float("-inf")
    spacing: Spacing | None = None
    tries: int = 0
    void: str = ""
    on_over: Callable[[], object] | None = None

    def end(self) -> None:
        """It will not be told any more: say so, once."""
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()

    @property
    def urgent(self) -> bool:
        """True for what is told once, and must be: an alarm, or an answer to a vote."""
        return self.kind in URGENT


@dataclass(eq=False)
class _Lane:
    """`turn` are messages in the order in which they are told, `aside` those that wait."""

    key: str
    turn: list[Message] = field(default_factory=list)
    aside: list[Message] = field(default_factory=list)
    current: Message | None = None

    def waiting(self) -> list[Message]:
        return self.turn + self.aside

    def of(self, kind: Kind) -> list[Message]:
        return [message for message in self.waiting() if message.kind is kind]

    def remove(self, message: Message) -> None:
        (self.turn if message in self.turn else self.aside).remove(message)


class Lanes:
    """The lanes. `on_drop(key, message, reason)` is told of what will never be delivered.

    Only alarms and actions are told of and counted, in `dropped` by reason: a state that is not
    told or asked now is so some other time.
    """

    def __init__(self, on_drop: Callable[[str, Message, str], object]) -> None:
        self.dropped: Counter[str] = Counter()
        self._on_drop = on_drop
        self._lanes: dict[str, _Lane] = {}
        self._urgent: OrderedDict[str, _Lane] = OrderedDict()
        self._ready: OrderedDict[str, _Lane] = OrderedDict()
        self._aside: list[tuple[float, int, _Lane, Message]] = []
        self._sequence = 0
        self._sweep_at: float | None = None

    def __iter__(self) -> Iterator[Message]:
        """Iterate over the messages that wait; those on their way do not count."""
        for lane in self._lanes.values():
            yield from lane.waiting()

    def keys_in_use(self) -> list[str]:
        """Return the keys of the lanes that have a message waiting or on its way."""
        return list(self._lanes)

    @property
    def has_turns(self) -> bool:
        """True if a lane has something to tell now."""
        return bool(self._urgent or self._ready)

    def put(self, key: str, message: Message, now: float) -> None:
        """Queue a message of the lane `key`, in place of what it makes obsolete.

        A lane holds one of each kind, and the last four actions.
        """
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        kind = message.kind
        if kind in QUERIES and lane.current is not None and lane.current.kind is kind:
            return
        same = lane.of(kind)
        if len(same) >= (MAX_ACTIONS if kind is Kind.ACTION else 1):
            self._remove(lane, same[0], "replaced")
        self._insert(lane, message, now)
        self._file(lane)

    def withdraw(
        self, key: str, kinds: Collection[Kind], reason: str, only: Callable[[object], bool]
    ) -> None:
        """Drop a lane's messages of `kinds` whose detail satisfies `only`.

        One on its way is not tried again.
        """
        lane = self._lanes.get(key)
        if lane is None:
            return
        for message in lane.waiting():
            if message.kind in kinds and only(message.detail):
                self._remove(lane, message, reason)
        current = lane.current
        if current is not None and current.kind in kinds and only(current.detail):
            current.void = reason
        self._file(lane)

    def take(self, now: float) -> tuple[str, Message] | None:
        """Take the message whose turn it is; its lane waits until `release`."""
        found = self._next(now, self._urgent, self._ready)
        if found is None:
            return None
        lane, message = found
        lane.turn.remove(message)
        lane.current = message
        return lane.key, message

    def take_probe(self, now: float) -> tuple[str, Message] | None:
        """Take what does no harm: a waiting state, else the state of one that has an alarm."""
        found = self._next(now, self._ready, self._urgent)
        if found is None:
            return None
        lane, message = found
        if message.kind in HARMLESS:
            lane.turn.remove(message)
        else:
            message = Message(Kind.SERVICE, void="probe")
        lane.current = message
        return lane.key, message

    def _next(self, now: float, *groups: OrderedDict[str, _Lane]) -> tuple[_Lane, Message] | None:
        """Return the first message that may be told now, and its lane, out of its group."""
        for lanes in groups:
            while lanes:
                _key, lane = lanes.popitem(last=False)
                message = self._first_due(lane, now)
                if message is not None:
                    return lane, message
                self._file(lane)
        return None

    def release(self, key: str) -> None:
        """Let a lane go on: its message on its way has ended."""
        lane = self._lanes[key]
        lane.current = None
        self._file(lane)

    def put_back(self, key: str, message: Message, now: float, *, first: bool) -> None:
        """Queue a message that has to be told again, unless a newer one says the same.

        `first`: before all others of its lane, as nobody has heard it yet.
        """
        lane = self._lanes[key]
        if message.kind is not Kind.ACTION and lane.of(message.kind):
            self._drop(key, message, "replaced")
        elif message.expires <= now:
            self._drop(key, message, "expired")
        else:
            self._insert(lane, message, now, first=first)

    def drop(self, key: str, message: Message) -> None:
        """Count a message that ended undelivered and is void."""
        self._drop(key, message, message.void)

    def turn_to(self, now: float) -> None:
        """Bring back what was put aside and is due, and sweep if it is time."""
        while self._aside and self._aside[0][0] <= now:
            _when, _number, lane, message = heapq.heappop(self._aside)
            if message in lane.aside:
                lane.aside.remove(message)
                lane.turn.append(message)
                self._file(lane)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep(now)

    def wake_at(self) -> float | None:
        """Return when `turn_to` has something to do."""
        times = [] if self._sweep_at is None else [self._sweep_at]
        if self._aside:
            times.append(self._aside[0][0])
        return min(times, default=None)

    def _insert(self, lane: _Lane, message: Message, now: float, *, first: bool = False) -> None:
        if message.expires < float("inf") and self._sweep_at is None:
            self._sweep_at = now + SWEEP_SECS
        if message.due > now:
            self._put_aside(lane, message)
        else:
            lane.turn.insert(0 if first else len(lane.turn), message)

    def _put_aside(self, lane: _Lane, message: Message) -> None:
        self._sequence += 1
        lane.aside.append(message)
        heapq.heappush(self._aside, (message.due, self._sequence, lane, message))

    def _first_due(self, lane: _Lane, now: float) -> Message | None:
        """Return the first message of a lane's turn that may be told now.

        Those that have expired are dropped; those that came too soon are put aside.
        """
        while lane.turn:
            message = lane.turn[0]
            if message.expires <= now:
                self._remove(lane, message, "expired")
            elif message.spacing is not None and message.spacing.over_at() > now:
                lane.turn.remove(message)
                message.due = message.spacing.over_at()
                self._put_aside(lane, message)
            else:
                return message
        return None

    def _sweep(self, now: float) -> None:
        self._sweep_at = None
        for lane in list(self._lanes.values()):
            for message in lane.waiting():
                if message.expires <= now:
                    self._remove(lane, message, "expired")
                elif message.expires < float("inf"):
                    self._sweep_at = now + SWEEP_SECS
            self._file(lane)

    def _remove(self, lane: _Lane, message: Message, reason: str) -> None:
        lane.remove(message)
        self._drop(lane.key, message, reason)

    def _drop(self, key: str, message: Message, reason: str) -> None:
        if reason != NOT_ACTIVE:  # otherwise its guestServer has to say it to the other agent
            message.end()
        if message.urgent:
            self.dropped[reason] += 1
            self._on_drop(key, message, reason)

    def _file(self, lane: _Lane) -> None:
        """Move the lane to `_urgent` or `_ready`, keeping its place if it is there already.

        A lane with a message on its way, or with none whose turn it is, is in neither; one
        with nothing at all is forgotten.
        """
        if lane.current is not None:
            return
        urgent = any(message.urgent for message in lane.turn)
        right, wrong = (self._urgent, self._ready) if urgent else (self._ready, self._urgent)
        wrong.pop(lane.key, None)
        if lane.turn:
            right.setdefault(lane.key, lane)
            return
        right.pop(lane.key, None)
        if not lane.aside:
            del self._lanes[lane.key]
