"""Does guestAgent slow down with its inventory? Cost per command and event at 500 and 50,000.

    python3 -m bench.agent_inventory [--small N] [--large N]

Exits 1 if a command costs more than 1.5 times as much in the large inventory as in the small
one, or if one round of audit of the large one takes longer than half of its period.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from guestmtce.core.agent import audit, commands, events, schedule
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Host
from guestmtce.core.agent.vim_commands import parse_command
from guestmtce.core.agent.vim_queue import Ended
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.history import Entry
from guestmtce.core.shared.mtc_message import InstanceInformation, Record
from guestmtce.core.shared.text import encode_json
from guestmtce.core.shared.vocabulary import Command, CorrectiveAction, Timeouts

INSTANCES_PER_HOST = 50
COMMANDS_PER_BATCH = 500
BATCHES = 21
LIMIT = 1.5
HEADERS = {"user-agent": "vim/1.0"}
TIMEOUTS = Timeouts(restart=301, shutdown=5, suspend=6, resume=7, vote=3)


class Nowhere:
    """A port that encodes what is sent, and sends it nowhere."""

    def send(
        self,
        _host: Host,
        command: Command,
        record: Record,
        _expires: float | None = None,
        **_more: bool,
    ) -> None:
        """Encode only."""
        mtc_message.encode_agent_command(command, {"source": "127.0.0.1", **record.members()})

    def ask_mtc_agent(self) -> None:
        """Nobody to ask."""

    def why(self, _uuid: str, _text: str) -> None:
        """Nobody asks."""

    def remember(self, _uuid: str, _entry: Entry) -> None:
        """Nobody reads."""

    def warn(self, _text: str, *_args: object) -> None:
        """Nobody to warn."""


class Bench:
    """A core with `count` heartbeating instances, 50 on a host."""

    def __init__(self, count: int) -> None:
        self.agent = Agent(Nowhere(), time.time)
        self.uuids = [f"8d80875b-fa73-4ccb-bce3-{number:012d}" for number in range(count)]
        for index, uuid in enumerate(self.uuids):
            number = index // INSTANCES_PER_HOST
            if index % INSTANCES_PER_HOST == 0:
                host = Host(f"compute-{number}", f"8aee436e-d564-459e-a0d8-{number:012d}")
                host.reporting = host.got_instances = True
                self.agent.inventory.add_host(host)
            instance = self.agent.add_instance(uuid, host, True, 0.0)
            instance.heartbeating = True
        self.random = random.Random(7)

    def command(self, method: str, path: str, members: dict[str, Any] | None = None) -> None:
        """One command of the VIM, from its bytes to those of the answer."""
        body = json.dumps(members).encode() if members else b""
        command = parse_command(method, path, HEADERS, body)
        encode_json(commands.execute(self.agent, command, 1.0).members)

    def answer(self, uuid: str, command: Command = Command.QRY_INST) -> None:
        """One datagram of a guestServer, from its bytes on."""
        host = self.agent.inventory.instances[uuid].host
        info = InstanceInformation(
            host.hostname, uuid, True, True, CorrectiveAction.REBOOT, TIMEOUTS
        )
        data = mtc_message.encode_server_event(command, info.members())
        events.take_event(self.agent, host, mtc_message.decode(data), 1.0)

    def drain(self) -> None:
        """Let a VIM that takes everything have what is due."""
        while deliveries := self.agent.queue.poll(1.0):
            for delivery in deliveries:
                self.agent.queue.done(delivery, Ended.TAKEN, 1.0)

    def mixture(self) -> None:
        """What a busy VIM and its guestServers do, to instances at random."""
        uuid = self.random.choice(self.uuids)
        hostname = self.agent.inventory.instances[uuid].host.hostname
        body = {"uuid": uuid, "hostname": hostname}
        service = {"service": "heartbeat", "state": "enabled"}
        self.command("GET", f"/v1/instances/{uuid}")
        self.command("PATCH", f"/v1/instances/{uuid}", {**body, "services": [service]})
        self.command("POST", f"/v1/instances/{uuid}/vote", {**body, "action": "pause"})
        self.answer(uuid, Command.HEARTBEAT_RUNNING)
        self.drain()

    def audit_round(self) -> None:
        """Every host audited, every instance in the answers."""
        for host in self.agent.inventory.hosts.values():
            audit.audit(self.agent, host, 1.0)
        for uuid in self.uuids:
            self.answer(uuid)


def timed(call: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=500)
    parser.add_argument("--large", type=int, default=50_000)
    chosen = parser.parse_args(arguments)
    small, large = Bench(chosen.small), Bench(chosen.large)
    gc.collect()
    gc.freeze()
    costs: dict[int, list[float]] = {chosen.small: [], chosen.large: []}
    for _ in range(BATCHES):  # in turn, so that a noisy machine is noisy to both
        for count, bench in ((chosen.small, small), (chosen.large, large)):
            costs[count].append(timed(bench.mixture, COMMANDS_PER_BATCH))
    for count, batches in costs.items():
        microseconds = statistics.median(batches) * 1e6
        print(f"{count:6d} instances: {microseconds:7.1f} µs for 3 commands and 1 event")
    ratio = statistics.median(costs[chosen.large]) / statistics.median(costs[chosen.small])
    print(f"ratio {ratio:.2f}, at most {LIMIT}")
    seconds = timed(large.audit_round, 1)
    allowed = schedule.PERIOD_SECS / 2
    print(f"one audit of {chosen.large} instances: {seconds:.2f} s, at most {allowed:.0f}")
    return 0 if ratio <= LIMIT and seconds <= allowed else 1


def run() -> None:
    main([])


if __name__ == "__main__":
    sys.exit(main())
