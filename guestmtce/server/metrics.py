"""guestServer's metrics (operations.md, Metrics), and their file for a node exporter."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from guestmtce.core.shared.limits import EveryNth
from guestmtce.runtime.files import write_atomic
from guestmtce.runtime.loop import Loop, Timer
from guestmtce.runtime.metrics import Registry

if TYPE_CHECKING:
    from guestmtce.server.app import GuestServer

log = logging.getLogger(__name__)

FILE_SECS = 15.0
# Answers may take as long as a guest's interval, so the buckets go on to a minute.
_RESPONSE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_LOG_EVERY = 240


class ServerMetrics:
    """The registry; most values are read from the server's own counters when rendered."""

    def __init__(self, loop: Loop, server: GuestServer) -> None:
        self.registry = Registry()
        self._loop = loop
        self._server = server
        self._path: str | None = None
        self._timer: Timer | None = None
        self._throttle = EveryNth(_LOG_EVERY)
        self._register()

    def start(self, path: str | None) -> None:
        """Write the file at `path` every 15 s from now on; None: no file."""
        self.stop()
        self._path = path
        if path is not None:
            self._write()

    def stop(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def render(self) -> str:
        """Return the metrics as Prometheus text."""
        return self.registry.render()

    def _write(self) -> None:
        if self._path is None:
            return
        self._timer = self._loop.call_later(FILE_SECS, self._write)
        try:
            write_atomic(self._path, self.render())
        except OSError as error:
            if self._throttle.hit("write") is not None:
                log.warning("cannot write %s: %s", self._path, error.strerror)

    def _register(self) -> None:
        stats, intake = self._server.worker.stats, self._server.link.intake
        add = self.registry.collect
        add("gauge", "guestmtce_instances", "Instances by state.", self._states, ("state",))
        for name, help_text, read in (
            ("heartbeats", "Healthy answers in time.", lambda: stats.heartbeats),
            ("heartbeat_misses", "Challenges without an answer.", lambda: stats.misses),
            ("heartbeat_losses", "Instances lost.", lambda: stats.losses),
            ("unhealthy", "Unhealthy answers.", lambda: stats.unhealthy),
            ("late_responses", "Answers after their window.", lambda: stats.late_responses),
            ("host_stalls", "Intervals forgiven as this host stood still.", self._stalls),
            ("loop_errors", "Callbacks that failed.", lambda: self._loop.errors),
        ):
            add("counter", f"guestmtce_{name}_total", help_text, read)
        for name, help_text, counter, label in (
            ("votes", "Votes and notifications ended.", stats.votes, "result"),
            ("bad_messages", "Guest messages refused.", stats.bad_messages, "reason"),
            ("datagrams_dropped", "Datagrams not taken or not sent.", intake.dropped, "reason"),
        ):
            self._add_counter(name, help_text, counter, label)
        add(
            "counter",
            "guestmtce_datagrams_total",
            "Datagrams taken and sent.",
            self._datagrams,
            ("direction", "cmd"),
        )
        lateness = self.registry.histogram(
            "guestmtce_challenge_lateness_seconds", "How late interval timers rang."
        )
        stats.on_lateness = lateness.observe
        response = self.registry.histogram(
            "guestmtce_response_seconds", "From challenge to answer.", _RESPONSE_BUCKETS
        )
        stats.on_response = response.observe
        add("gauge", "guestmtce_loop_lag_seconds", "Lateness of the last timer.", self._lag)
        add("gauge", "guestmtce_host_reporting", "Host-level reporting.", self._reporting)

    def _add_counter(self, name: str, help_text: str, counter: Counter[str], label: str) -> None:
        def read() -> Mapping[tuple[str, ...], int]:
            return {(key,): count for key, count in counter.items()}

        self.registry.collect("counter", f"guestmtce_{name}_total", help_text, read, (label,))

    def _states(self) -> dict[tuple[str, ...], int]:
        states = Counter(c.instance.heartbeat.state.value for c in self._server.channels.values())
        return {(state,): count for state, count in states.items()}

    def _stalls(self) -> int:
        return self._server.worker.stats.host_stalls

    def _lag(self) -> float:
        return self._loop.lag

    def _reporting(self) -> int:
        return int(self._server.worker.reporting)

    def _datagrams(self) -> dict[tuple[str, ...], int]:
        intake = self._server.link.intake
        counts: dict[tuple[str, ...], int] = {}
        for direction, counter in (("in", intake.received), ("out", intake.sent)):
            counts.update({(direction, name): count for name, count in counter.items()})
        return counts
