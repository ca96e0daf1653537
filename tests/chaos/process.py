"""A daemon on simulated time that can be killed, while the others live on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.simulation import SimulatedLoop


class Process:
    """A loop for one daemon, which can be killed: it then does nothing more and says nothing."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.time = loop.time
        self._timers: list[Any] = []
        self._sweep_at = 1000
        self._watched: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Any:
        return self._keep(self._loop.call_later(delay, callback, *args))

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Any:
        return self._keep(self._loop.call_at(when, callback, *args))

    def call_soon(self, callback: Callable[..., object], *args: object) -> Any:
        return self._keep(self._loop.call_soon(callback, *args))

    def watch(self, fd: Any, events: int, callback: Callable[[int], object]) -> None:
        self._watched[id(fd)] = fd
        self._loop.watch(fd, events, callback)

    def unwatch(self, fd: Any) -> None:
        self._watched.pop(id(fd), None)
        self._loop.unwatch(fd)

    def kill(self) -> None:
        """As SIGKILL does: the kernel closes what was open."""
        for timer in self._timers:
            timer.cancel()
        for fd in self._watched.values():
            self._loop.unwatch(fd)
            if isinstance(fd, int):
                os.close(fd)
            else:
                fd.close()
        self._timers.clear()
        self._watched.clear()

    def sweep(self) -> None:
        """Forget the timers that have rung."""
        self._timers = [each for each in self._timers if each.active]
        self._sweep_at = 2 * len(self._timers) + 1000

    def _keep(self, timer: Any) -> Any:
        if len(self._timers) > self._sweep_at:
            self.sweep()
        self._timers.append(timer)
        return timer
