"""What to tell or ask the VIM next, and what a request's end means.

The rules are those of http-api.md, "Rules for events".

Sans-I/O: the owner asks `poll` what to write now, writes it, and says with `done` how it ended.
What waits is in `lanes`, whether the VIM takes anything in `vim_health`. Four requests are on
their way at most: the VIM has one thread, and each of its connections holds that thread.

Delivered means that the whole request was written, and the VIM closed, answered, or let the
deadline pass: then it is never repeated, except a `service` event, which is a state. Not
delivered means refused, or failed before the whole request was written: then it is told again.

Replaces guestHttpUtil, which waited up to 20 s in each call and then forgot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from guestmtce.core.agent.lanes import Kind, Lanes, Message, Spacing
from guestmtce.core.agent.vim_health import Input, VimHealth, backoff

MAX_CONNECTIONS = 4


class Ended(Enum):
    """How a request ended, in the words of http-api.md."""

    NOT_DELIVERED = "not delivered"
    TIMED_OUT = "timed out"
    TAKEN = "taken"
    TAKEN_BADLY = "reset or 5xx"


@dataclass(eq=False)
class Delivery:
    """A message on its way since `started`: write it, then call `done`."""

    key: str
    message: Message
    started: float


class Outcomes(Protocol):
    """Who is told what became of a message of the lane `key`."""

    def told(self, key: str, message: Message, ended: Ended) -> object:
        """The VIM was told or asked: the request was written whole. A service may come again."""

    def untold(self, key: str, message: Message, reason: str) -> object:
        """An alarm or action will never be delivered."""


class VimQueue:
    """The lanes, the VIM's health, and what to write next.

    `dropped` counts by reason the alarms and actions that will never be delivered, `ended`
    requests by how they ended.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self.ended: Counter[str] = Counter()
        self.health = VimHealth()
        self._lanes = Lanes(outcomes.untold)
        self._flying: list[Delivery] = []
        self._probe: Delivery | None = None

    def __len__(self) -> int:
        """How many messages wait; those on their way do not count."""
        return sum(1 for _ in self._lanes)

    def waiting(self, kind: Kind) -> int:
        """Return how many messages of a kind wait, or are on their way."""
        flying = sum(each.message.kind is kind for each in self._flying)
        return flying + sum(message.kind is kind for message in self._lanes)

    @property
    def dropped(self) -> Counter[str]:
        """Alarms and actions that will never be delivered, by reason."""
        return self._lanes.dropped

    @property
    def suspect(self) -> bool:
        """True while the VIM does not take requests."""
        return not self.health.is_up

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""
        return len(self._flying)

    def put(
        self,
        key: str,
        kind: Kind,
        now: float,
        detail: object = None,
        expires: float = float("inf"),
        *,
        spacing: Spacing | None = None,
        on_over: Callable[[], object] | None = None,
    ) -> None:
        """Queue a message of the lane `key` (an instance's UUID, or a host's key).

        It replaces what it makes obsolete: a lane holds one of each kind, and the last four
        actions. `spacing` holds it back until the last one like it is old enough. `on_over` is
        called when it was written whole, or is dropped.
        """
        message = Message(kind, detail, expires, spacing=spacing, on_over=on_over)
        self._lanes.put(key, message, now)
        self.health.step(Input.NEWS, now)

    def withdraw(
        self, key: str, *kinds: Kind, reason: str, only: Callable[[object], bool] = lambda _: True
    ) -> None:
        """Drop a lane's queued messages of `kinds`; one on its way will not be tried again.

        Of those, only messages whose detail satisfies `only`.
        """
        self._lanes.withdraw(key, kinds, reason, only)

    def forget(self, key: str, reason: str = "deleted") -> None:
        """Drop everything of a lane: its instance or host is gone."""
        self.withdraw(key, *Kind, reason=reason)

    def forget_all(self, reason: str) -> None:
        """Drop everything of every lane."""
        for key in self._lanes.keys_in_use():
            self.forget(key, reason)

    def vim_spoke(self, now: float) -> None:
        """The VIM has just sent a command: if it was thought dead, try it soon."""
        self.health.step(Input.NEWS, now)

    def poll(self, now: float) -> list[Delivery]:
        """Return what to write now."""
        self.health.look(self._begun(), now)
        self._lanes.turn_to(now)
        started = []
        while len(self._flying) < MAX_CONNECTIONS:
            delivery = self._next(now)
            if delivery is None:
                break
            self._flying.append(delivery)
            started.append(delivery)
        return started

    def _next(self, now: float) -> Delivery | None:
        if self.health.is_up:
            taken = self._lanes.take(now)
            return Delivery(*taken, now) if taken is not None else None
        probe_at = self.health.probe_at()
        if probe_at is None or now < probe_at:
            return None
        taken = self._lanes.take_probe(now)
        if taken is None:
            return None
        self._probe = Delivery(*taken, now)
        self.health.step(Input.PROBED, now)
        return self._probe

    def written(self, delivery: Delivery) -> None:
        """The whole request has gone out: an alarm or an answer is never told again."""
        delivery.message.end()

    def done(self, delivery: Delivery, ended: Ended, now: float) -> None:
        """Say how a delivery ended; what has to be told again is queued again."""
        self.ended[ended.name.lower()] += 1
        self.health.look(self._begun(), now)
        self._flying.remove(delivery)
        self.health.step(self._input_of(delivery, ended), now)
        message, key = delivery.message, delivery.key
        if ended is not Ended.NOT_DELIVERED:
            self.written(delivery)
            if message.spacing is not None:
                message.spacing.note(delivery.started)
            self._outcomes.told(key, message, ended)
        if ended is Ended.NOT_DELIVERED and message.void:
            self._lanes.drop(key, message)
        elif ended is Ended.NOT_DELIVERED:
            self._lanes.put_back(key, message, now, first=True)
        elif message.kind is Kind.SERVICE and ended is not Ended.TAKEN and not message.void:
            # The VIM may have heard it: behind what it has not heard, and later each time.
            message.tries += 1
            message.due = now + backoff(message.tries)
            self._lanes.put_back(key, message, now, first=False)
        self._lanes.release(key)

    def _input_of(self, delivery: Delivery, ended: Ended) -> Input:
        if ended in (Ended.TAKEN, Ended.TAKEN_BADLY):
            return Input.WELL
        return Input.PROBE_FAILED if delivery is self._probe else Input.FAILED

    def wake_at(self) -> float | None:
        """Return when `poll` has something to do even if nothing else happens."""
        times = [self._lanes.wake_at(), self.health.look_at(self._begun())]
        if self._lanes.has_turns and self.in_flight < MAX_CONNECTIONS:
            times.append(self.health.probe_at())
        return min((when for when in times if when is not None), default=None)

    def _begun(self) -> list[float]:
        return [delivery.started for delivery in self._flying]

    def for_operator(self) -> dict[str, object]:
        """Return what guestctl and the state dump show."""
        return {
            "suspect": self.suspect,
            "in_flight": self.in_flight,
            "waiting": dict(Counter(message.kind.value for message in self._lanes)),
            "ended": dict(self.ended),
            "dropped": dict(self.dropped),
        }
