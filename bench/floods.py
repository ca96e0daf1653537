"""Floods of 10,000 inputs a second beside 20 healthy guests: what they cost the healthy ones.

Each kind for BENCH_SECS (20; 60 for the record), by 1, 10 and 100 guests. "p99" is the time
from the daemon's challenge to its taking the answer, of the healthy guests alone: they answer
at once, so it is what the daemon made them wait. Needs no root.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench._guests import uuid_of
from bench._measure import seconds, show
from bench._server import BenchServer, share

HEALTHY = 20
INTERVAL_MS = 1000
INPUTS_A_SECOND = 10_000
_FIRST_FLOODER = 5000
_TURN_SECS = 0.01
_WRONG_VERSION = b'\n{"version":2,"revision":1,"msg_type":"exit","sequence":1,"log_msg":""}\n'
_WRONG_ANSWER = (
    b'\n{"version":3,"revision":1,"msg_type":"challenge_response","sequence":2,'
    b'"heartbeat_response":1,"heartbeat_health":"healthy","corrective_action":"none",'
    b'"log_msg":""}\n'
)
KINDS = {
    "rubbish": b"x\n",
    "empty lines": b"\n",
    "a line without end": b"x" * 100,
    "messages that are nacked": _WRONG_VERSION,
    "answers to no challenge": _WRONG_ANSWER,
}
COUNTS = (1, 10, 100)


def run() -> None:
    server = BenchServer(HEALTHY, INTERVAL_MS)
    try:
        for kind in KINDS:
            for count in COUNTS:
                _measure(server, kind, count)
    finally:
        server.close()


def _measure(server: BenchServer, kind: str, count: int) -> None:
    print(f" {kind}, by {count} guests, {INPUTS_A_SECOND:,} inputs a second each")
    floods = Floods(server.root.channels, count, kind)
    try:
        time.sleep(2)
        before, first = server.summary(), server.buckets("guestmtce_response_seconds")
        told = len(server.agent.told)
        begin = server.sample()
        time.sleep(seconds())
        end = server.sample()
        after, last = server.summary(), server.buckets("guestmtce_response_seconds")
        events = [event.name for event in server.agent.told.since(told)]
    finally:
        floods.close()
    show("CPU of one core", end.cpu_percent_since(begin), "%")
    show("resident memory", end.rss_mib, "MiB")
    show("heartbeats of the healthy", after["heartbeats"] - before["heartbeats"])
    show("misses", after["misses"] - before["misses"])
    show("events told to the agent", len(events))
    print(f"  from challenge to answer: {share(first, last)}")


class Floods:
    """A process in which `count` guests flood; they never say init, so they answer nothing."""

    def __init__(self, directory: Path, count: int, kind: str) -> None:
        command = [sys.executable, "-m", "bench.floods", str(directory), str(count), kind]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def close(self) -> None:
        """End the process; the guests' files go with it."""
        self._process.communicate()


def main() -> None:
    """Be those guests: python3 -m bench.floods DIRECTORY COUNT KIND, until standard input ends."""
    directory, count, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    os.chdir(directory)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    listeners = {}
    for number in range(_FIRST_FLOODER, _FIRST_FLOODER + count):
        listener = socket.socket(socket.AF_UNIX)
        name = f"cgcs.heartbeat.{uuid_of(number)}.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        listener.bind(name)
        listener.listen(1)
        selector.register(listener, selectors.EVENT_READ)
        listeners[listener] = name
    guests: list[socket.socket] = []
    flood = KINDS[kind] * int(INPUTS_A_SECOND * _TURN_SECS)
    while True:
        for key, _ready in selector.select(_TURN_SECS):
            if not isinstance(key.fileobj, socket.socket):
                for name in listeners.values():
                    os.unlink(name)
                return
            guest, _ = key.fileobj.accept()
            guest.setblocking(False)
            guests.append(guest)
        for guest in guests:
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                guest.recv(65536)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                guest.send(flood)


if __name__ == "__main__":
    main()
