"""What the functional tests of guestServer share: a place with a root, an agent and guests."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.peers.agent import ScriptedAgent
from tests.peers.guest import ScriptedGuest
from tests.peers.journal import wait_until
from tests.peers.reactor import Reactor
from tests.peers.root import Daemon, Root

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


class Place:
    """A root, a scripted agent, and guests that share its thread."""

    def __init__(self, path: Path | None = None) -> None:
        self.root = Root(path, {"timeouts": {"start_delay": 0}})
        self.reactor = Reactor()
        self.agent = ScriptedAgent(self.root, reactor=self.reactor)
        self.guests: list[ScriptedGuest] = []
        self.server: Daemon

    def start(self, *options: str) -> Place:
        """Start guestServer, and wait until the agent has heard of it."""
        since = len(self.agent.told)
        self.server = self.root.start_server(*options)
        self.agent.wait_for("MONITOR_READY", since=since)
        return self

    def guest(self, uuid: str = UUID, **options: Any) -> ScriptedGuest:
        """A guest that listens from now on."""
        made = ScriptedGuest(self.root.channels, uuid, reactor=self.reactor, **options)
        self.guests.append(made)
        return made

    def beating(self, uuid: str = UUID, **options: Any) -> ScriptedGuest:
        """A guest whose heartbeat the agent has been told of."""
        since = len(self.agent.told)
        self.agent.add(uuid)
        made = self.guest(uuid, **options)
        self.agent.wait_for("RUNNING", uuid, since=since)
        return made

    def change(self, guest: ScriptedGuest, **attributes: Any) -> None:
        """Change what a guest does, between two messages and not in the midst of one."""

        def apply() -> None:
            for name, value in attributes.items():
                setattr(guest, name, value)

        self.reactor.call(apply)

    def descriptors(self) -> int:
        """How many descriptors the daemon has open."""
        return len(os.listdir(f"/proc/{self.server.pid}/fd"))

    def idle_descriptors(self) -> int:
        """How many there are once what we asked of it has been hung up on its side, too."""
        readings = []
        for _ in range(10):
            readings.append(self.descriptors())
            time.sleep(0.05)
        return min(readings)

    def wait_descriptors(self, count: int) -> None:
        wait_until(lambda: self.descriptors() == count, 10, f"{count} descriptors")

    def close(self) -> None:
        self.root.stop()
        for guest in self.guests:
            guest.close()
        self.agent.close()
        self.reactor.stop()
        logs = [daemon.log for daemon in self.root.daemons]
        self.root.close()
        for log in logs:
            assert "Traceback" not in log, log


@contextlib.contextmanager
def started(path: Path | None = None, *options: str) -> Iterator[Place]:
    """Yield a place with a running guestServer."""
    place = Place(path)
    try:
        yield place.start(*options)
    finally:
        place.close()
