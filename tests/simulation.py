"""A clock that moves only when the loop would sleep: hours of a daemon in milliseconds.

Descriptors are real, so that everything but time is as in production. On loopback and UNIX
sockets what is sent is readable at once, which makes a run repeatable.
"""

from __future__ import annotations

import selectors
from typing import Any, Callable

from guestmtce.runtime.loop import Loop

# Real time that the kernel gets to bring what is on its way.
KERNEL_SECS = 2.0


class Clock:
    """Seconds that stand still until somebody moves them."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class SimulatedSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, moves the clock there.

    `in_flight()` says whether the kernel still has something to bring, as TCP may: then the clock
    waits for it, so that a busy machine changes nothing.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.limit = float("inf")
        self.in_flight: Callable[[], bool] = lambda: False

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout != 0 and self.in_flight():
            ready = super().select(KERNEL_SECS)
        if not ready and timeout is not None and timeout > 0:
            self._clock.now = min(self._clock.now + timeout, self.limit)
        return ready

    def anything_ready(self) -> bool:
        """Return whether a descriptor is, or will be without the clock's moving."""
        return bool(super().select(KERNEL_SECS if self.in_flight() else 0))


class SimulatedLoop(Loop):
    """A loop on simulated time, with ways to run a part of it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.simulated = SimulatedSelector(self.clock)
        self.turns = 0
        super().__init__(self.clock, self.simulated)

    def run_once(self) -> None:
        """One turn, counted: a loop that spins has many in no time."""
        self.turns += 1
        super().run_once()

    def advance(self, seconds: float) -> None:
        """Run everything that happens in the next `seconds` of simulated time."""
        end = self.clock.now + seconds
        wake = self.call_later(seconds, lambda: None)
        self.simulated.limit = end
        while self.clock.now < end or wake.active:
            self.run_once()
        self.simulated.limit = float("inf")
        self.settle()

    def settle(self) -> None:
        """Run until nothing is ready and no timer is due."""
        for _ in range(10_000):
            self.call_soon(lambda: None)
            self.run_once()
            if self._sleep_time() != 0 and not self.simulated.anything_ready():
                return
        raise AssertionError("the loop does not come to rest")

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Run until `condition()` holds, or for `seconds` of simulated time; True if it held."""
        end = self.clock.now + seconds
        while not condition():
            if self.clock.now >= end:
                return False
            self.advance(0.01)
        return True
