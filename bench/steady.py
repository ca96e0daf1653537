"""50 guests at 400 ms for a minute: no miss, no RUNNING or STOPPED."""

from __future__ import annotations

import time

from bench._measure import show
from bench._server import BenchServer

COUNT = 50
INTERVAL_MS = 400
SECS = 60


def run() -> None:
    server = BenchServer(COUNT, INTERVAL_MS)
    try:
        told = len(server.agent.told)
        before = server.summary()
        time.sleep(SECS)
        after = server.summary()
        show("heartbeats", after["heartbeats"] - before["heartbeats"])
        show("misses", after["misses"] - before["misses"])
        show("host stalls", after["host_stalls"] - before["host_stalls"])
        show("events told to the agent", len(server.agent.told.since(told)))
    finally:
        server.close()
