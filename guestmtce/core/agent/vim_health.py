"""Whether the VIM takes requests, and when to try one that does not (decision 12).

The VIM has one thread and recognises no duplicates: a second alarm is a second order to reboot.
So an alarm, or an answer to a vote, is written only to a VIM that is *up*. A connect that
failed, a request that ran into its deadline, or one that is outstanding for 2 s makes it
*suspect*: from then on one harmless request at a time is written, a probe, after 1, 2, 4 … 30 s.
The VIM is *probing* while that one is outstanding. Whatever ends well, the probe or what was
written before, says that the VIM is up again. Something new to tell it, or a command from it,
shortens a long wait to a second after the last failure; a probe that fails before its time makes
the next wait no longer, or much news in a short outage would make a long one of it.

Requests that were on their way when the VIM became suspect and fail as well say nothing new:
four that fail together are one failure. What a request is, this module does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

HUNG_SECS = 2.0
FIRST_RETRY_SECS = 1.0
MAX_RETRY_SECS = 30.0


class State(Enum):
    """What is known of the VIM."""

    UP = "up"
    SUSPECT = "suspect"
    PROBING = "probing"


class Input(Enum):
    """What can happen to a request to the VIM, and what else counts."""

    WELL = "a request ended well"
    FAILED = "a request failed"
    PROBE_FAILED = "the probe failed"
    HUNG = "a request is outstanding for 2 s"
    PROBED = "a probe was written"
    NEWS = "something new to tell, or a command of the VIM"


def backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: 1, 2, 4, … 30."""
    return min(MAX_RETRY_SECS, FIRST_RETRY_SECS * 2.0 ** min(failures - 1, 8))


class VimHealth:
    """The state of the VIM. Times are seconds of the loop's clock."""

    def __init__(self) -> None:
        self.state = State.UP
        self._failures = 0
        self._failed_at = 0.0
        self._retry_at = 0.0
        self._hastened = False
        self._looked_at = float("-inf")

    @property
    def is_up(self) -> bool:
        """True if anything may be written to the VIM."""
        return self.state is State.UP

    def step(self, event: Input, now: float) -> None:
        """Apply one input; one without a row in this state is ignored (see IGNORED)."""
        row = TABLE.get((self.state, event))
        if row is not None:
            self.state = row.next_state
            row.handler(self, now)

    def look(self, begun: Iterable[float], now: float) -> None:
        """Look for requests, begun at these times, that have become outstanding for 2 s."""
        since, self._looked_at = self._looked_at, now
        if any(since < when + HUNG_SECS <= now for when in begun):
            self.step(Input.HUNG, now)

    def look_at(self, begun: Iterable[float]) -> float | None:
        """Return when the next of those requests is outstanding for 2 s, if that matters."""
        if not self.is_up:
            return None
        times = (when + HUNG_SECS for when in begun)
        return min((when for when in times if when > self._looked_at), default=None)

    def probe_at(self) -> float | None:
        """Return from when on a probe may be written, None if none may."""
        return self._retry_at if self.state is State.SUSPECT else None

    def _recover(self, _now: float) -> None:
        self._failures = 0
        self._hastened = False

    def _back_off(self, now: float) -> None:
        self._failures += not self._hastened
        self._hastened = False
        self._failed_at = now
        self._retry_at = now + backoff(self._failures)

    def _hasten(self, now: float) -> None:
        soon = max(now, self._failed_at + FIRST_RETRY_SECS)
        if soon < self._retry_at:
            self._retry_at, self._hastened = soon, True

    def _wait(self, _now: float) -> None:
        """Nothing more: the probe's end decides."""


class Row(NamedTuple):
    """A row of the table: the next state, and what is done on the way."""

    next_state: State
    handler: Callable[[VimHealth, float], None]


TABLE: dict[tuple[State, Input], Row] = {
    (State.UP, Input.FAILED): Row(State.SUSPECT, VimHealth._back_off),
    (State.UP, Input.HUNG): Row(State.SUSPECT, VimHealth._back_off),
    (State.SUSPECT, Input.WELL): Row(State.UP, VimHealth._recover),
    (State.SUSPECT, Input.PROBED): Row(State.PROBING, VimHealth._wait),
    (State.SUSPECT, Input.NEWS): Row(State.SUSPECT, VimHealth._hasten),
    (State.PROBING, Input.WELL): Row(State.UP, VimHealth._recover),
    (State.PROBING, Input.PROBE_FAILED): Row(State.SUSPECT, VimHealth._back_off),
}

IGNORED = frozenset(
    {
        (State.UP, Input.WELL),
        (State.UP, Input.PROBE_FAILED),
        (State.UP, Input.PROBED),
        (State.UP, Input.NEWS),
        (State.SUSPECT, Input.FAILED),
        (State.SUSPECT, Input.PROBE_FAILED),
        (State.SUSPECT, Input.HUNG),
        (State.PROBING, Input.FAILED),
        (State.PROBING, Input.HUNG),
        (State.PROBING, Input.PROBED),
        (State.PROBING, Input.NEWS),
    }
)
