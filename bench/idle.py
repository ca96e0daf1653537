"""Wake-ups of guestServer in an idle minute: nothing to do, and 100 silent channels."""

from __future__ import annotations

import time

from bench._guests import uuid_of
from bench._measure import show
from bench._server import BenchServer
from tests.peers.reactor import unix_listener

SECS = 60
SILENT = 100


def run() -> None:
    server = BenchServer(0, 1000)
    try:
        server.agent.query()
        _measure(server, "no channel")
        listeners = [
            unix_listener(server.root.channels / f"cgcs.heartbeat.{uuid_of(number)}.sock")
            for number in range(SILENT)
        ]
        _measure(server, f"{SILENT} channels whose guests have not booted yet")
        for listener in listeners:
            listener.close()
    finally:
        server.close()


def _measure(server: BenchServer, what: str) -> None:
    time.sleep(1)
    begin = server.sample()
    time.sleep(SECS)
    end = server.sample()
    show(f"{what}: wake-ups in a minute", end.sleeps - begin.sleeps)
    show(f"{what}: CPU", (end.cpu_secs - begin.cpu_secs) * 1000, "ms")
