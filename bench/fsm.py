"""Microseconds of the state machines for one heartbeat: answer read, interval over, challenge."""

from __future__ import annotations

import itertools
import time
from typing import Any

from bench._measure import microseconds, show
from guestmtce.core.server.instance import Instance
from guestmtce.core.server.machine import Attempt, TimerName
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.settings import ServerSettings
from tests.peers import wire

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
_ANSWER = (
    b'\n{"version":3,"revision":1,"msg_type":"challenge_response","sequence":30,'
    b'"heartbeat_response":%d,"heartbeat_health":"healthy","corrective_action":"none",'
    b'"log_msg":""}\n'
)


class _Port:
    """Connects, and does nothing else, at the cost of the call."""

    def connect(self) -> Attempt:
        return Attempt.OPENED

    def __getattr__(self, _name: str) -> Any:
        return self._ignore

    def _ignore(self, *_args: object, **_options: object) -> None:
        pass


class Beating:
    """An instance whose guest has said init; `beat` is one answer and the next challenge."""

    def __init__(self) -> None:
        numbers = itertools.count(1_000_000_000)
        self.worker = Worker(
            "compute-0",
            ServerSettings(2401, 2411),
            clock=time.monotonic,
            random_number=lambda: next(numbers),
            wall=time.time,
        )
        self._instance = Instance(UUID, self.worker, _Port())
        self._instance.file_found()
        self._instance.received(wire.message("init", 1, **wire.init_body()))
        self._challenges = self._instance.heartbeat.challenges

    def beat(self) -> None:
        """The guest answers, and the interval is over."""
        self._instance.received(_ANSWER % self._challenges[-1])
        self._instance.timer_rang(TimerName.TICK, 0.0)


def run() -> None:
    beating = Beating()
    show("one heartbeat, without sockets and timers", microseconds(beating.beat), "µs")
    assert beating.worker.stats.heartbeats >= 100_000, "it must have been heartbeating"
