"""A guestServer with many guests, set up and looked at from outside."""

from __future__ import annotations

import time
from typing import Any

from bench._guests import Guests, uuid_of
from bench._measure import Sample
from guestmtce.runtime import control
from tests.peers.agent import ScriptedAgent
from tests.peers.root import Root

_ADDS_AT_ONCE = 50
_SETTLE_SECS = 2.0


class BenchServer:
    """guestServer under a root of its own, with `count` reported guests that heartbeat.

    `heartbeating_after` is how many seconds it took from the first socket file on; `empty` is
    the daemon before it knew of any instance.
    """

    def __init__(self, count: int, interval_ms: int) -> None:
        self.root = Root()
        self.agent = ScriptedAgent(self.root)
        self._daemon = self.root.start_server()
        self.pid = self._daemon.pid
        self.empty = self.sample()
        self._guests: Guests | None = None
        for number in range(count):
            self.agent.add(uuid_of(number))
            if number % _ADDS_AT_ONCE == 0:
                time.sleep(0.005)
        begun = time.monotonic()
        if count:
            self._guests = Guests(self.root.channels, count, interval_ms)
        while self.summary()["heartbeating"] < count:
            time.sleep(0.1)
            if time.monotonic() > begun + 120:
                raise RuntimeError(f"not heartbeating: {self.summary()}")
        self.heartbeating_after = time.monotonic() - begun
        time.sleep(_SETTLE_SECS)

    def ask(self, command: str) -> dict[str, Any]:
        path = self.root.path / "var/run/guestServer.ctl"
        return control.ask(str(path), {"command": command})

    def summary(self) -> dict[str, Any]:
        return dict(self.ask("status")["summary"])

    def buckets(self, name: str) -> dict[str, int]:
        """Return a histogram's cumulative counts by upper bound."""
        found = {}
        for line in self.ask("metrics")["metrics"].splitlines():
            if line.startswith(f"{name}_bucket"):
                label, count = line.rsplit(" ", 1)
                found[label.split('"')[1]] = int(count)
        return found

    def log(self) -> str:
        """Return all that the daemon has logged."""
        return self._daemon.log

    def sample(self) -> Sample:
        return Sample.of(self.pid)

    def close(self) -> None:
        if self._guests is not None:
            self._guests.close()
        self.root.stop()
        self.agent.close()
        self.root.remove()


def share(before: dict[str, int], after: dict[str, int]) -> str:
    """Return what part of the observations between two looks is within which bound."""
    counts = {bound: after[bound] - before[bound] for bound in after}
    total = counts["+Inf"]
    if not total:
        return "none"
    parts = []
    for bound, count in counts.items():
        parts.append(f"{count / total:.2%} in {float(bound) * 1000:g} ms")
        if count == total:
            break
    return ", ".join(parts[-4:])
