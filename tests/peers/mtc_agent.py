"""mtcAgent: owns the hosts, tells guestAgent about them when asked, and when the test says so."""

from __future__ import annotations

import selectors
import socket
import time
from typing import Any

from tests.peers import wire
from tests.peers.journal import Journal
from tests.peers.reactor import Reactor


class MtcAgent:
    """Receives at `address`:`event_port`; sends commands to the agent at `address`:`cmd_port`.

    `received` has every datagram of the agent: MONITOR_READY is the only kind it may send.
    """

    def __init__(
        self, event_port: int, cmd_port: int, address: str = "127.0.0.1", answers: bool = True
    ) -> None:
        # Whether MONITOR_READY is answered with ADD_HOST for every host, as mtcAgent does.
        self.answers = answers
        self.hosts: dict[str, dict[str, Any]] = {}
        self.received: Journal[wire.Datagram] = Journal()
        self._agent = (address, cmd_port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, event_port))
        self._socket.setblocking(False)
        self._reactor = Reactor()
        self._reactor.call(self._reactor.watch, self._socket, selectors.EVENT_READ, self._read)

    def add_host(
        self,
        hostname: str,
        uuid: str,
        ip: str = "127.0.0.2",
        personality: str = "worker",
        tell: bool = True,
    ) -> None:
        """Take the host into the inventory, and `tell` the agent now."""
        body = {"hostname": hostname, "uuid": uuid, "ip": ip, "personality": personality}
        self.hosts[hostname] = body
        if tell:
            self.send("ADD_HOST", body)

    def mod_host(self, hostname: str, **changed: Any) -> None:
        """Change the host's values and send MOD_HOST with all of them."""
        self.hosts[hostname].update(changed)
        self.send("MOD_HOST", self.hosts[hostname])

    def send(
        self, name: str, body: dict[str, Any] | None, signature: bytes = wire.MTC_SIGNATURE
    ) -> None:
        """Send any command; another `signature` must make the agent ignore it."""
        self.send_raw(wire.pack(name, body, signature))

    def send_raw(self, data: bytes) -> None:
        """Send any datagram to the agent's command port."""
        self._socket.sendto(data, self._agent)

    def close(self) -> None:
        self._reactor.stop()
        self._socket.close()

    def __enter__(self) -> MtcAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, _events: int) -> None:
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, ConnectionRefusedError):
            return
        datagram = wire.unpack(data, time.monotonic())
        self.received.append(datagram)
        if datagram.name == "MONITOR_READY" and self.answers:
            for body in list(self.hosts.values()):
                self.send("ADD_HOST", body)
