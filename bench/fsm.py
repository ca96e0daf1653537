"""Microseconds of the state machines for one heartbeat: answer read, interval over, challenge."""

from __future__ import annotations

import itertools
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


def run() -> None:
    numbers = itertools.count(1_000_000_000)
    seconds = itertools.count()
    settings = ServerSettings(2401, 2411)
    worker = Worker(
        "compute-0", settings, clock=lambda: next(seconds), random_number=lambda: next(numbers)
    )
    instance = Instance(UUID, worker, _Port())
    instance.file_found()
    instance.received(wire.message("init", 1, **wire.init_body()))
    challenges = instance.heartbeat.challenges

    def beat() -> None:
        instance.received(_ANSWER % challenges[-1])
        instance.timer_rang(TimerName.TICK, 0.0)

    show("one heartbeat, without sockets and timers", microseconds(beat), "µs")
    assert worker.stats.heartbeats >= 100_000, "it must have been heartbeating"
