"""guestAgent as a process under 200 commands a second on 50 keep-alive connections.

    python3 -m bench.agent_http [--seconds N] [--rate N] [--connections N] [--hung]

Checks every answer; prints latencies and memory, and how many commands it answers when all
connections ask as fast as they can. With --hung the VIM takes no request
meanwhile. Exits 1 if an answer was wrong or missing, if the median is not under 20 ms, or if
memory has grown by more than 2 MiB between the first and the last tenth of the run.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import socket
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from bench._measure import Sample
from tests.peers import wire
from tests.peers.journal import wait_until
from tests.peers.root import COMPUTE_0, CONTROLLER, Root
from tests.peers.vim import Vim

HOST = "8aee436e-d564-459e-a0d8-26c447920000"
INSTANCES = [f"8d80875b-fa73-4ccb-bce3-{number:012d}" for number in range(200)]
FLAT_OUT_SECS = 5.0
MEDIAN_LIMIT_SECS = 0.02
GROWTH_LIMIT_KIB = 2048


class Client:
    """One keep-alive connection: a command at a time, its answer checked."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((CONTROLLER, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.expected: dict[str, Any] = {}
        self.sent_at = 0.0
        self.received = b""

    def send(self, command: tuple[str, str, dict[str, Any] | None, dict[str, Any]]) -> None:
        """Send (method, path, body, what the answer must contain)."""
        method, path, members, self.expected = command
        body = json.dumps(members).encode() if members else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: vim/1.0\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(head.encode() + body)

    def read(self) -> tuple[float, bool] | None:
        """Return (seconds, whether it is right) when the answer is whole."""
        self.received += self.socket.recv(65536)
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return None
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return None
        answer = json.loads(body)
        right = head.startswith(b"HTTP/1.1 200 ") and self.expected.items() <= answer.items()
        return time.perf_counter() - self.sent_at, right and len(body) == length


def commands(seed: int) -> Any:
    """Yield commands to instances at random, for ever."""
    chance = random.Random(seed)
    while True:
        uuid = chance.choice(INSTANCES)
        about = {"uuid": uuid, "hostname": "compute-0"}
        service = {"service": "heartbeat", "state": "enabled"}
        vote = {**about, "action": "pause"}
        yield "GET", f"/v1/instances/{uuid}", None, about
        yield "PATCH", f"/v1/instances/{uuid}", {**about, "services": [service]}, about
        yield "POST", f"/v1/instances/{uuid}/vote", vote, {**vote, "timeout": "9"}
        yield "GET", f"/v1/hosts/{HOST}", None, {"uuid": HOST, "state": "enabled"}


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"no memory of process {pid}")


def prepare(root: Root, vim: Vim) -> None:
    """One host with 200 heartbeating instances, learned from the VIM."""
    # The last thing that a daemon opens.
    wait_until((root.path / "var/run/guestAgent.ctl").exists, 10, "the agent's start")
    vim.set_host(HOST, "compute-0")
    for uuid in INSTANCES:
        vim.set_instance(uuid, "compute-0")
    body = {"uuid": HOST, "hostname": "compute-0", "ip": COMPUTE_0}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mtc:
        mtc.bind((CONTROLLER, 0))
        mtc.sendto(wire.pack("ADD_HOST", body, wire.MTC_SIGNATURE), (CONTROLLER, root.mtc_cmd_port))
    wait_until(lambda: len(vim.requests) == 2, 10, "the agent's questions")
    info = {
        "reporting": "enabled",
        "heartbeating": "enabled",
        "repair-action": "reboot",
        **{f"{name}-to": "9" for name in ("restart", "shutdown", "suspend", "resume", "vote")},
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((COMPUTE_0, 0))
        for uuid in INSTANCES:
            data = wire.pack("RUNNING", {"hostname": "compute-0", "uuid": uuid, **info})
            server.sendto(data, (CONTROLLER, root.agent_port))
    wait_until(lambda: len(vim.events("service")) >= len(INSTANCES), 10, "the agent's events")


class Load:
    """Sends at a steady rate on whichever connection is free, and collects what comes back."""

    def __init__(self, port: int, connections: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.free: deque[Client] = deque()
        for _ in range(connections):
            client = Client(port)
            self.selector.register(client.socket, selectors.EVENT_READ, client)
            self.free.append(client)
        self.connections = connections
        self.seconds: list[float] = []
        self.wrong = 0

    def collect(self, timeout: float) -> None:
        """Take the answers that come within `timeout` seconds."""
        for key, _ in self.selector.select(max(0.0, timeout)):
            outcome = key.data.read()
            if outcome is not None:
                self.seconds.append(outcome[0])
                self.wrong += not outcome[1]
                self.free.append(key.data)

    def flat_out(self, seconds: float) -> int:
        """Send on every connection as soon as it is free; return how many were answered."""
        todo = commands(2)
        before = len(self.seconds)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            while self.free:
                self.free.popleft().send(next(todo))
            self.collect(0.1)
        self.settle()
        return len(self.seconds) - before

    def settle(self) -> None:
        """Take the answers that are still to come, for 5 s at most."""
        deadline = time.perf_counter() + 5
        while len(self.free) < self.connections and time.perf_counter() < deadline:
            self.collect(0.1)

    def run(self, rate: int, seconds: float, pid: int) -> list[int]:
        """Return samples of memory in KiB."""
        todo = commands(1)
        memory = []
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                self.collect(left)
            while not self.free:
                self.collect(1.0)
            self.free.popleft().send(next(todo))
            if number % rate == 0:
                memory.append(resident_kib(pid))
        self.settle()
        return memory


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--hung", action="store_true", help="the VIM takes no request meanwhile")
    chosen = parser.parse_args(arguments)
    with Root() as root, Vim(root.vim_port) as vim:
        daemon = root.start_agent()
        prepare(root, vim)
        if chosen.hung:
            vim.misbehave("hang")
        load = Load(root.vim_cmd_port, chosen.connections)
        memory = load.run(chosen.rate, chosen.seconds, daemon.pid)
        before = Sample.of(daemon.pid)
        answered = load.flat_out(FLAT_OUT_SECS)
        after = Sample.of(daemon.pid)
    flat_out, load.seconds = load.seconds[-answered:], load.seconds[:-answered]
    wanted = int(chosen.rate * chosen.seconds)
    median = statistics.median(load.seconds)
    worst = sorted(load.seconds)[int(len(load.seconds) * 0.99)]
    tenth = max(1, len(memory) // 10)
    growth = statistics.mean(memory[-tenth:]) - statistics.mean(memory[tenth : 2 * tenth] or memory)
    print(f"{len(load.seconds)} of {wanted} answers, {load.wrong} wrong")
    print(f"median {median * 1e3:.2f} ms, 99 % under {worst * 1e3:.2f} ms")
    print(f"memory {memory[0]} → {memory[-1]} KiB, growth {growth:.0f} KiB")
    cost = (after.cpu_secs - before.cpu_secs) / answered
    print(
        f"flat out: {answered / (after.at - before.at):.0f} commands a second, "
        f"{cost * 1e6:.0f} µs of CPU each, median {statistics.median(flat_out) * 1e3:.1f} ms"
    )
    good = len(load.seconds) == wanted and not load.wrong
    return 0 if good and median < MEDIAN_LIMIT_SECS and growth <= GROWTH_LIMIT_KIB else 1


def run() -> None:
    main(["--seconds", "15"])
    main(["--seconds", "15", "--hung"])


if __name__ == "__main__":
    sys.exit(main())
