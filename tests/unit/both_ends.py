"""guestServer, guestAgent and the real guest client's protocol in one process, on simulated time.

The sockets between them are real; mtcAgent and the VIM are those of the agent's rig.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import tempfile
from pathlib import Path
from typing import Any

from guest import guest_client
from guestmtce.core.shared.settings import ServerSettings
from guestmtce.runtime.loop import Timer
from guestmtce.server.app import GuestServer
from tests.peers.reactor import unix_listener
from tests.simulation import SimulatedLoop
from tests.unit.agent_rig import HOSTS, AgentRig
from tests.unit.agent_support import UUID


class RealGuest(guest_client.Actions):
    """QEMU's socket with the guest client behind it. While `hung` it neither reads nor speaks.

    Its event script takes `ponders` seconds; `asked` is what it was asked, each with its time.
    """

    def __init__(self, loop: SimulatedLoop, path: Path, **settings: Any) -> None:
        chosen = guest_client.Settings(name="vm", corrective_action="reboot", **settings)
        numbers = itertools.count(1)
        self.client = guest_client.GuestProtocol(chosen, self, lambda: next(numbers))
        self.hung = False
        self.ponders = 0.0
        self.asked: list[tuple[float, guest_client.Notification]] = []
        self._greets = False
        self._script: Timer | None = None
        self._loop = loop
        self._listener = unix_listener(path, 1)
        self._connection: socket.socket | None = None
        self._framer = guest_client.Framer()
        self._timer: Timer | None = None
        loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def send(self, message: bytes) -> None:
        if self._connection is not None:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                self._connection.sendall(message)

    def start_event(self, notification: guest_client.Notification) -> None:
        self.asked.append((self._loop.time(), notification))
        if self._script is not None:
            self._script.cancel()
        self._script = self._loop.call_later(self.ponders, self._answer, notification)

    def _answer(self, notification: guest_client.Notification) -> None:
        self._script = None
        self.client.event_answered(notification.consent(), "")

    def hang(self) -> None:
        self.hung = True

    def recover(self) -> None:
        """Go on; what was asked meanwhile was read by nobody."""
        self.hung = False
        self._greet()
        self._read(0)
        self._tick()

    def flood(self, count: int) -> None:
        """Something else in the guest writes so many lines to the port."""
        self.send(b"x\n" * count)

    def restart(self) -> None:
        """The client ends and is started again."""
        self.client.stop("restart")
        self.client.connected(self._loop.time())
        self._schedule()

    def close_channel(self) -> None:
        """QEMU hangs up, and listens."""
        if self._connection is not None:
            self._loop.unwatch(self._connection)
            self._connection.close()
            self._connection = None
            self.client.disconnected()
            self._schedule()

    def ill(self, action: str = "reboot") -> None:
        self.client.set_health(False, "fan broken", action)

    def well(self) -> None:
        self.client.set_health(True, "")

    def close(self) -> None:
        self.close_channel()
        self._loop.unwatch(self._listener)
        self._listener.close()

    def _accept(self, _ready: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._connection, _ = self._listener.accept()
            self._connection.setblocking(False)
            self._framer = guest_client.Framer()
            self._loop.watch(self._connection, selectors.EVENT_READ, self._read)
            self._greets = True
            self._greet()

    def _greet(self) -> None:
        if self._greets and not self.hung:
            self._greets = False
            self.client.connected(self._loop.time())
            self._schedule()

    def _read(self, _ready: int) -> None:
        if self._connection is None:
            return
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            data = self._connection.recv(65536)
            if not data:
                self.close_channel()
            for line in self._framer.feed(data):
                if not self.hung:
                    self.client.receive(line, self._loop.time())
            self._schedule()

    def _tick(self) -> None:
        if not self.hung:
            self.client.tick(self._loop.time())
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.client.deadline is not None:
            delay = max(0.0, self.client.deadline - self._loop.time())
            self._timer = self._loop.call_later(delay, self._tick)


class BothEnds(AgentRig):
    """One worker with one guest, from the guest's answers to what the VIM hears."""

    WORKERS = ("compute-1",)

    def __init__(self) -> None:
        super().__init__()
        self._worker = tempfile.TemporaryDirectory(prefix="mtce-guest-")
        root = Path(self._worker.name)
        channels = root / "var/lib/libvirt/qemu"
        channels.mkdir(parents=True)
        for path in ("etc/platform/.initial_config_complete", "var/run/.goenabled"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        lines = [f"{address} {name}\n" for name, address in HOSTS.items()]
        (root / "etc/hosts").write_text("".join(lines))
        self.server = self._build_server()
        path = channels / f"cgcs.heartbeat.{UUID}.sock"
        self.guest = RealGuest(self.loop, path, interval_ms=500, event_script="played here")

    def heartbeating(self) -> BothEnds:
        """Let everything come to rest with a guest that reports and heartbeats."""
        self.start()
        self.server.start()
        self.advance(3)
        self.add_host()
        assert self.host_command("enable") == 200
        assert self.create() == 200
        assert self.enable()[0] == 200
        self.advance(15)
        assert self.told_status() == "enabled"
        self.forget()
        return self

    def _build_server(self) -> GuestServer:
        settings = ServerSettings(agent_rx_port=self.ports.agent, rx_port=self.ports.server)
        return GuestServer(self.loop, settings, "compute-0", self._worker.name)

    def restart_server(self) -> None:
        """guestServer ends, and a fresh one comes."""
        self.server.stop(lambda: None)
        self.loop.settle()
        self.server = self._build_server()
        self.server.start()

    def answers(self) -> list[dict[str, Any]]:
        """Return what the VIM heard of votes and notifications."""
        return [body["event-data"] for body in self.vim.events("action")]

    def told_status(self) -> str:
        """Return the last status that the VIM heard."""
        return str(self.vim.events("service")[-1]["event-data"]["services"][0]["status"])

    def alarms(self, state: str) -> list[tuple[float, str]]:
        """Return when the VIM heard alarms of that state, with their actions."""
        found = []
        for seen in self.vim.requests:
            members = seen.what.members if seen.what.method == "PATCH" else {}
            if members.get("event-type") == "alarm":
                (service,) = members["event-data"]["services"]
                if service["state"] == state:
                    found.append((seen.at, service["repair-action"]))
        return found

    def close(self) -> None:
        assert self.loop.errors == 0, "a callback failed, see the log"
        self.server.stop(lambda: None)
        self.guest.close()
        super().close()
        self._worker.cleanup()
