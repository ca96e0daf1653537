"""guestAgent's command port beside clients that mean no good: are the VIM's commands answered.

    python3 -m bench.agent_clients [--instances N] [--seconds N]

A VIM commands, one connection for each command as the real one does: first alone, then beside
200 clients that send a byte now and then and come back when they are hung up on, then beside 60
that ask for the list of all instances again and again. Exits 1 if a command was not answered.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from bench._measure import Sample
from bench.agent_inventory import Bench
from guestmtce.agent.http_api import HttpApi
from guestmtce.agent.page import Snapshot
from guestmtce.runtime.http_server import HttpServer
from guestmtce.runtime.loop import Loop

Address = tuple[str, int]


def no_page() -> Snapshot:
    """What the status page would show; nobody asks for it here."""
    raise NotImplementedError


def serve(told: Connection, instances: int) -> None:
    """Serve the command API of so many instances, until killed."""
    loop, bench = Loop(), Bench(instances)
    api = HttpApi(loop, bench.agent, str, no_page, lambda: None)
    server = HttpServer(loop, ("127.0.0.1", 0), api.answer, api.not_a_request)
    told.send((server.address, bench.uuids[0]))
    loop.run()


class Crowd:
    """Clients that are always there: one that is hung up on comes back at once."""

    def __init__(self, address: Address, count: int, first: bytes, then: bytes) -> None:
        self.address, self.first, self.then = address, first, then
        self.selector = selectors.DefaultSelector()
        self.received = 0
        for _ in range(count):
            self.connect()

    def connect(self) -> None:
        """Let one more client come."""
        client = socket.socket()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(self.address)
        self.selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, self.first)

    def turn(self) -> None:
        """Let everybody read what there is, and say the next thing."""
        for key, events in self.selector.select(0):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            try:
                if events & selectors.EVENT_WRITE and key.data:
                    client.send(key.data)
                    self.selector.modify(client, selectors.EVENT_READ, b"")
                data = client.recv(1 << 18) if events & selectors.EVENT_READ else b"-"
                self.received += len(data)
            except OSError:
                data = b""
            if not data:
                self.selector.unregister(client)
                client.close()
                self.connect()

    def nudge(self) -> None:
        """Let everybody send another byte."""
        for key in list(self.selector.get_map().values()):
            if self.then and key.events == selectors.EVENT_READ:
                self.selector.modify(
                    key.fileobj, selectors.EVENT_READ | selectors.EVENT_WRITE, self.then
                )


def crowd(told: Connection, *arguments: Any) -> None:
    """Be the crowd, until killed."""
    clients = Crowd(*arguments)
    told.send("there")
    nudged = time.monotonic()
    while True:
        clients.turn()
        time.sleep(0.002)
        if time.monotonic() - nudged > 0.5:
            nudged = time.monotonic()
            clients.nudge()


def command(address: Address, uuid: str) -> bool:
    """Send one command on a connection of its own; whether it was answered well."""
    request = f"GET /v1/instances/{uuid} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError), socket.create_connection(address, 20) as vim:
        vim.sendall(request.encode())
        return vim.recv(65536).startswith(b"HTTP/1.1 200 ")
    return False


def measure(what: str, address: Address, uuid: str, seconds: float, pid: int) -> bool:
    """Command for so long; print how it went; whether all were answered."""
    before, end = Sample.of(pid), time.monotonic() + seconds
    times, failed = [], 0
    while time.monotonic() < end:
        begun = time.perf_counter()
        failed += not command(address, uuid)
        times.append(time.perf_counter() - begun)
        time.sleep(0.005)
    after = Sample.of(pid)
    times.sort()
    print(
        f"{what}: {len(times) - failed} of {len(times)} commands answered, "
        f"median {statistics.median(times) * 1e3:.1f} ms, "
        f"99 % under {times[int(len(times) * 0.99)] * 1e3:.1f} ms, "
        f"memory {after.rss_mib - before.rss_mib:+.1f} MiB"
    )
    return not failed


@contextlib.contextmanager
def process(function: Callable[..., None], *arguments: object) -> Iterator[tuple[Any, int]]:
    """Run a function beside us; give what it tells first, and its process id."""
    ours, theirs = multiprocessing.Pipe()
    beside = multiprocessing.Process(target=function, args=(theirs, *arguments), daemon=True)
    beside.start()
    try:
        yield ours.recv(), beside.pid or 0
    finally:
        beside.kill()
        beside.join()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=10)
    chosen = parser.parse_args(arguments)
    whole_list = b"GET /v1/instances HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with process(serve, chosen.instances) as ((address, uuid), pid):

        def go(what: str) -> bool:
            return measure(what, address, uuid, chosen.seconds, pid)

        good = go("alone")
        with process(crowd, address, 200, b"G", b"x"):
            good &= go("beside 200 slow clients")
        with process(crowd, address, 60, whole_list, b""):
            good &= go(f"beside 60 lists of {chosen.instances:,} instances")
    return 0 if good else 1


def run() -> None:
    main([])


if __name__ == "__main__":
    sys.exit(main())
