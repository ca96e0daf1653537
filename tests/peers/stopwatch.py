"""Seconds for a test with a bound in real time, without those that a busy machine took."""

from __future__ import annotations

import threading
import time
from typing import Any

_STEP_SECS = 0.005


class Stopwatch:
    """Runs from its making; a thread sleeps in short steps, and what these overran was starved.

    `with Stopwatch() as watch: ...; assert watch.secs < 0.5` fails if the daemon took its time,
    and not if the machine had none for it, nor for us. `starved` are those seconds, `longest`
    the most of them in a row.
    """

    def __init__(self) -> None:
        self.starved = 0.0
        self.longest = 0.0
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def secs(self) -> float:
        """Seconds since its making in which this machine was there for us."""
        return time.monotonic() - self._began - self.starved

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(_STEP_SECS):
            now = time.monotonic()
            late = max(0.0, now - last - 2 * _STEP_SECS)
            self.starved += late
            self.longest = max(self.longest, late)
            last = now
