"""A scripted guestAgent: tells guestServers what to do, and keeps what they say with its time."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import Any, NamedTuple

from tests.peers import wire
from tests.peers.journal import Journal
from tests.peers.reactor import Reactor
from tests.peers.root import COMPUTE_0, CONTROLLER, Root

RECEIVE_BUFFER = 4 * 1024 * 1024


class Told(NamedTuple):
    """What a guestServer at address `source` said; `at` is monotonic seconds."""

    at: float
    source: str
    name: str
    body: dict[str, Any]

    @property
    def uuid(self) -> str:
        return str(self.body.get("uuid", ""))


class ScriptedAgent:
    """guestAgent's end of the link: `told` is a journal of every event and answer.

    It speaks to the guestServer at `server`, unless a call names another; `address` is its own.
    """

    def __init__(
        self,
        root: Root,
        *,
        address: str = CONTROLLER,
        server: str = COMPUTE_0,
        reactor: Reactor | None = None,
    ) -> None:
        self.told: Journal[Told] = Journal()
        self.address = address
        self._server = server
        self._server_port = root.server_port
        self._own_reactor = reactor is None
        self._reactor = reactor or Reactor()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.bind((address, root.agent_port))
        self._socket.setblocking(False)
        self._reactor.call(self._reactor.watch, self._socket, selectors.EVENT_READ, self._read)

    def wait_for(
        self, name: str, uuid: str = "", *, timeout: float = 10.0, since: int = 0, **values: Any
    ) -> Told:
        """Wait for an event by name, of an instance if one is given, with these members."""
        members = {**({"uuid": uuid} if uuid else {}), **values}

        def fits(told: Told) -> bool:
            return told.name == name and members.items() <= told.body.items()

        return self.told.wait_for(fits, timeout, since)

    def names(self, uuid: str = "", since: int = 0) -> list[str]:
        """Return the names of what was told, of one instance if one is given, in order."""
        return [told.name for told in self.told.since(since) if uuid in ("", told.uuid)]

    def add(self, uuid: str, reporting: bool = True, **options: Any) -> None:
        """ADD_INST."""
        self._instance("ADD_INST", uuid, reporting, options)

    def modify(self, uuid: str, reporting: bool, **options: Any) -> None:
        """MOD_INST."""
        self._instance("MOD_INST", uuid, reporting, options)

    def delete(self, uuid: str, **options: Any) -> None:
        """DEL_INST."""
        self._instance("DEL_INST", uuid, False, options)

    def vote(self, uuid: str, event: str, **options: Any) -> None:
        """VOTE_INST: ask for the guest's consent."""
        self.send("VOTE_INST", {"uuid": uuid, "event": event}, **options)

    def notify(self, uuid: str, event: str, **options: Any) -> None:
        """NOTIFY_INST: have the guest told."""
        self.send("NOTIFY_INST", {"uuid": uuid, "event": event}, **options)

    def mod_host(self, reporting: bool, uuid: str = "", **options: Any) -> None:
        """MOD_HOST: host-level reporting."""
        word = "enabled" if reporting else "disabled"
        self.send("MOD_HOST", {"uuid": uuid, "heartbeat": word}, **options)

    def query(self, **options: Any) -> None:
        """QRY_INST."""
        self.send("QRY_INST", {}, **options)

    def ask(self, timeout: float = 10.0) -> dict[str, dict[str, Any]]:
        """Query, and return the answers by instance once none has come for a quarter second."""
        since = len(self.told)
        self.query()
        end = time.monotonic() + timeout
        seen = -1
        while seen != len(self.told) and time.monotonic() < end:
            seen = len(self.told)
            time.sleep(0.25)
        return {told.uuid: told.body for told in self.told.since(since) if told.name == "QRY_INST"}

    def send(self, name: str, body: dict[str, Any], *, server: str = "") -> None:
        """Send any command with our address as its source."""
        data = wire.pack(name, {"source": self.address, **body}, wire.GUEST_SIGNATURE)
        self.send_raw(data, server=server)

    def send_raw(self, data: bytes, *, server: str = "") -> None:
        """Send any datagram."""
        self._socket.sendto(data, (server or self._server, self._server_port))

    def close(self) -> None:
        if self._own_reactor:
            self._reactor.stop()
        else:
            self._reactor.call(self._reactor.unwatch, self._socket)
        self._socket.close()

    def __enter__(self) -> ScriptedAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _instance(self, name: str, uuid: str, reporting: bool, options: dict[str, Any]) -> None:
        state = "enabled" if reporting else "disabled"
        self.send(name, {"uuid": uuid, "service": "heartbeat", "state": state}, **options)

    def _read(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                data, source = self._socket.recvfrom(65536)
                now = time.monotonic()
                found = wire.as_old_peer(wire.unpack(data, now))
                if found is not None:
                    self.told.append(Told(now, source[0], found.name, found.body))
