"""Floods of 10,000 inputs a second beside 20 healthy guests: what they cost the healthy ones.

    SECONDS=60 KIND=logs GUESTS=1,100 python3 -m bench floods

Each kind, or that which KIND names, for SECONDS (20), by so many guests as GUESTS says (1, 10
and 100). "From challenge to answer" is the healthy guests' time from the daemon's challenge to
its taking the answer: they answer at once, so it is what the daemon made them wait, and what
the machine did, which "lateness of this bench" shows: how late an idle process woke meanwhile.
At the end of each, while the flood goes on, a guest is stopped: its LOSS has to be in the log.
Needs no root.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench._guests import INIT, Guests, uuid_of
from bench._measure import rest, seconds, show
from bench._server import BenchServer, share

HEALTHY = 20
INTERVAL_MS = 1000
INPUTS_A_SECOND = 10_000
_FIRST_FLOODER = 5000
_VICTIM = 4000
_LOST_WITHIN_SECS = 10.0
_LOSS = "{} (vm): HEARTBEAT_LOSS"
_TURN_SECS = 0.01
_WRONG_VERSION = b'\n{"version":2,"revision":1,"msg_type":"exit","sequence":1,"log_msg":""}\n'
_WRONG_ANSWER = (
    b'\n{"version":3,"revision":1,"msg_type":"challenge_response","sequence":2,'
    b'"heartbeat_response":1,"heartbeat_health":"healthy","corrective_action":"none",'
    b'"log_msg":""}\n'
)
_EXIT = b'\n{"version":3,"revision":1,"msg_type":"exit","sequence":3,"log_msg":"bye"}\n'
# Each of the two is worth a line in the log.
_INIT_AND_EXIT = INIT % INTERVAL_MS + _EXIT
KINDS = {
    "rubbish": b"x\n",
    "empty lines": b"\n",
    "a line without end": b"x" * 100,
    "messages that are nacked": _WRONG_VERSION,
    "answers to no challenge": _WRONG_ANSWER,
    "logs": _INIT_AND_EXIT,
}
_INPUTS_EACH = {"logs": 2}


def run() -> None:
    kinds = [os.environ["KIND"]] if "KIND" in os.environ else [*KINDS]
    counts = [int(count) for count in os.environ.get("GUESTS", "1,10,100").split(",")]
    server = BenchServer(HEALTHY, INTERVAL_MS)
    try:
        for kind in kinds:
            for count in counts:
                _measure(server, kind, count)
    finally:
        server.close()


def _measure(server: BenchServer, kind: str, count: int) -> None:
    print(f" {kind}, by {count} guests, {INPUTS_A_SECOND:,} inputs a second each")
    lines = server.log().count("\n")
    floods = Floods(server.root.channels, count, kind)
    try:
        time.sleep(2)
        before, first = server.summary(), server.buckets("guestmtce_response_seconds")
        told = len(server.agent.told)
        begin = server.sample()
        late = rest(seconds())
        end = server.sample()
        after, last = server.summary(), server.buckets("guestmtce_response_seconds")
        events = [event.name for event in server.agent.told.since(told)]
        lines = server.log().count("\n") - lines
        loss = _lose_one(server)
    finally:
        floods.close()
    show("CPU of one core", end.cpu_percent_since(begin), "%")
    show("resident memory", end.rss_mib, "MiB")
    show("heartbeats of the healthy", after["heartbeats"] - before["heartbeats"])
    show("misses", after["misses"] - before["misses"])
    show("events told to the agent", len(events))
    show("lines in the log, of all", lines)
    print(f"  from challenge to answer: {share(first, last)}")
    print(f"  lateness of this bench: 99 % {late.p99 * 1e3:.1f} ms, most {late.most * 1e3:.0f} ms")
    print(f"  load {os.getloadavg()[0]:.1f}; a guest that is stopped now: {loss}", flush=True)


def _lose_one(server: BenchServer) -> str:
    """Stop a healthy guest; return what became of its LOSS."""
    uuid, told = uuid_of(_VICTIM), len(server.agent.told)
    server.agent.add(uuid)
    victim = Guests(server.root.channels, 1, INTERVAL_MS, first=_VICTIM)
    try:
        server.agent.wait_for("RUNNING", uuid, since=told)
        logged, told = server.log().count(_LOSS.format(uuid)), len(server.agent.told)
        begun = time.monotonic()
        victim.signal(signal.SIGSTOP)
        if not _within(lambda: server.log().count(_LOSS.format(uuid)) > logged):
            return "its loss is not in the log"
        after = time.monotonic() - begun
        time.sleep(0.5)
        events = [event.name for event in server.agent.told.since(told)]
        return f"lost in the log after {after:.1f} s; told {', '.join(events)}"
    finally:
        victim.signal(signal.SIGCONT)
        victim.close()
        (server.root.channels / f"cgcs.heartbeat.{uuid}.sock").unlink()
        server.agent.delete(uuid)


def _within(is_so: Callable[[], bool]) -> bool:
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() > begun + _LOST_WITHIN_SECS:
            return False
        time.sleep(0.05)
    return True


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
    flood = KINDS[kind] * int(INPUTS_A_SECOND * _TURN_SECS / _INPUTS_EACH.get(kind, 1))
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
