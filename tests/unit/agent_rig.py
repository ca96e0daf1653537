"""guestAgent itself, in this process, on simulated time, with its peers on real loopback sockets.

The peers are as thin as can be: they record what they get and say what the test tells them.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from guestmtce.agent.app import GuestAgent
from guestmtce.core.shared.settings import AgentSettings
from guestmtce.runtime.datagram import DatagramSocket, bound_socket
from tests.peers import wire
from tests.peers.root import COMPUTE_0, COMPUTE_1, CONTROLLER, CONTROLLER_0, free_ports
from tests.simulation import SimulatedLoop
from tests.unit.agent_support import HOST_0, INFO, UUID

HOSTS = {
    "controller": CONTROLLER,
    "controller-0": CONTROLLER_0,
    "compute-0": COMPUTE_0,
    "compute-1": COMPUTE_1,
}
# A VIM's behaviour: the raw request in, the raw answer out; None never answers.
Behaviour = Callable[[bytes], "bytes | None"]


class Seen(NamedTuple):
    """Something that the agent said, and when (seconds since the rig began)."""

    at: float
    what: Any


class VimRequest(NamedTuple):
    """A request of the agent to the VIM."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def members(self) -> Any:
        return json.loads(self.body) if self.body else None


def read_request(raw: bytes) -> VimRequest | None:
    """Return the request in `raw`, None while it is not complete."""
    head, end, body = raw.partition(b"\r\n\r\n")
    if not end:
        return None
    lines = head.decode("ascii").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    if len(body) < int(headers.get("content-length", 0)):
        return None
    method, target, _version = lines[0].split(" ")
    return VimRequest(method, target, headers, body)


def vim_answer(members: Any, status: str = "200 OK") -> bytes:
    body = json.dumps(members).encode() if members is not None else b""
    return f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n".encode() + body


class SimulatedVim:
    """Accepts the agent's requests on the rig's loop; `behaviour` says what it answers."""

    def __init__(self, rig: PeersRig) -> None:
        self.requests: list[Seen] = []
        self.behaviour: Behaviour = lambda _raw: b""
        self.open = 0
        self.most_open = 0
        self._rig = rig
        self._listener: socket.socket | None = None
        self._port = 0
        self._hung: list[socket.socket] = []
        self.listen()

    @property
    def port(self) -> int:
        return self._port

    def listen(self) -> None:
        """Take connections (again)."""
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((CONTROLLER, self._port))
        self._port = self._listener.getsockname()[1]
        self._listener.listen(16)
        self._listener.setblocking(False)
        self._rig.loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def refuse(self) -> None:
        """Take no connections: they are refused."""
        if self._listener is not None:
            self._rig.loop.unwatch(self._listener)
            self._listener.close()
            self._listener = None

    def hang(self) -> None:
        """Accept and read nothing, as a VIM whose one thread is busy elsewhere."""
        assert self._listener is not None
        self._rig.loop.unwatch(self._listener)

    def go_on(self) -> None:
        """Serve what has waited."""
        assert self._listener is not None
        self._rig.loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def events(self, kind: str = "", uuid: str = "") -> list[dict[str, Any]]:
        """Return the bodies of the events seen, of one kind and instance if given."""
        bodies = [seen.what.members for seen in self.requests if seen.what.method == "PATCH"]
        return [
            body
            for body in bodies
            if kind in ("", body["event-type"]) and uuid in ("", body["uuid"])
        ]

    def close(self) -> None:
        self.refuse()
        for connection in self._hung:
            connection.close()

    def _accept(self, _events: int) -> None:
        if self._listener is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                self._read_from(connection)

    def _read_from(self, connection: socket.socket) -> None:
        received = bytearray()

        def read(_events: int) -> None:
            try:
                data = connection.recv(65536)
            except OSError:
                data = b""
            received.extend(data)
            request = read_request(bytes(received))
            if request is not None or not data:
                self._rig.loop.unwatch(connection)
                self.open -= 1
                self._answer(connection, request, bytes(received))

        self._rig.loop.watch(connection, selectors.EVENT_READ, read)

    def _answer(self, connection: socket.socket, request: VimRequest | None, raw: bytes) -> None:
        if request is None:
            connection.close()
            return
        self.requests.append(Seen(self._rig.time, request))
        answer = self.behaviour(raw)
        if answer is None:
            self._hung.append(connection)
            return
        with contextlib.suppress(OSError):
            connection.sendall(answer)
        connection.close()


class Ports(NamedTuple):
    """The ports of a scenario; the last one is TCP."""

    agent: int
    server: int
    mtc_cmd: int
    mtc_event: int
    commands: int

    @classmethod
    def free(cls) -> Ports:
        return cls(*free_ports(4), *free_ports(1, socket.SOCK_STREAM))


class PeersRig:
    """mtcAgent, two workers and a VIM on one loop; every output is recorded with its time."""

    WORKERS: tuple[str, ...] = ("compute-0", "compute-1")

    def __init__(self, loop: SimulatedLoop, ports: Ports) -> None:
        self.loop = loop
        self.ports = ports
        self._began = loop.time()
        self.vim = SimulatedVim(self)
        self.to_mtc: list[Seen] = []
        self.to_servers: list[Seen] = []
        self._mtc = DatagramSocket(
            loop, bound_socket((CONTROLLER, ports.mtc_event)), self._mtc_received
        )
        self.servers = {
            name: DatagramSocket(
                loop,
                bound_socket((HOSTS[name], ports.server)),
                lambda data, _host, _port, name=name: self._server_received(name, data),
            )
            for name in self.WORKERS
        }

    @property
    def time(self) -> float:
        return self.loop.time() - self._began

    def close(self) -> None:
        self.vim.close()
        self._mtc.close()
        for server in self.servers.values():
            server.close()
        self.loop.close()

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    def mtc_says(self, name: str, **members: Any) -> None:
        self.mtc_sends(wire.pack(name, members, wire.MTC_SIGNATURE))

    def mtc_sends(self, data: bytes) -> None:
        self._mtc.send(data, (CONTROLLER, self.ports.mtc_cmd))
        self.loop.settle()

    def server_says(self, name: str, hostname: str = "compute-0", **members: Any) -> None:
        self.server_sends(wire.pack(name, {"hostname": hostname, **members}), hostname)

    def server_sends(self, data: bytes, sender: str = "compute-0") -> None:
        self.servers[sender].send(data, (CONTROLLER, self.ports.agent))
        self.loop.settle()

    def info(
        self, name: str, hostname: str = "compute-0", uuid: str = UUID, **members: str
    ) -> None:
        self.server_says(name, hostname, uuid=uuid, **{**INFO, **members})

    def command(self, method: str, path: str, members: Any = None) -> tuple[int, Any]:
        """Return status and JSON of the answer to a command of the VIM."""
        body = b"" if members is None else json.dumps(members).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost:{self.ports.commands}\r\n"
            "Connection: close\r\nContent-Type: application/json\r\nUser-Agent: vim/1.0\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        status, answer = self.raw_command(head.encode() + body)
        return status, json.loads(answer) if answer else None

    def raw_command(self, data: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer; the connection is closed then."""
        with socket.create_connection(("127.0.0.1", self.ports.commands)) as client:
            client.setblocking(False)
            client.sendall(data)
            received = b""
            deadline = time.monotonic() + 10
            while not _is_complete(received, data):
                assert time.monotonic() < deadline, "no answer"
                self.loop.settle()
                with contextlib.suppress(BlockingIOError):
                    received += client.recv(1_000_000)
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body

    def host_command(self, verb: str, uuid: str = HOST_0, hostname: str = "compute-0") -> int:
        members = {"uuid": uuid, "hostname": hostname}
        return self.command("PUT", f"/v1/hosts/{uuid}/{verb}", members)[0]

    def create(self, uuid: str = UUID, hostname: str = "compute-0") -> int:
        members = {"uuid": uuid, "hostname": hostname, "services": ["heartbeat"]}
        return self.command("POST", f"/v1/instances/{uuid}", members)[0]

    def enable(
        self, uuid: str = UUID, hostname: str = "compute-0", state: str = "enabled"
    ) -> tuple[int, Any]:
        service = {"service": "heartbeat", "state": state}
        members = {"uuid": uuid, "hostname": hostname, "services": [service]}
        return self.command("PATCH", f"/v1/instances/{uuid}", members)

    def ask(self, verb: str, action: str, uuid: str = UUID) -> tuple[int, Any]:
        members = {"uuid": uuid, "hostname": "compute-0", "action": action}
        return self.command("POST", f"/v1/instances/{uuid}/{verb}", members)

    def add_host(self, hostname: str = "compute-0", uuid: str = HOST_0) -> None:
        self.mtc_says(
            "ADD_HOST", uuid=uuid, hostname=hostname, ip=HOSTS[hostname], personality="worker"
        )

    def told(self, name: str = "", server: str = "compute-0") -> list[dict[str, Any]]:
        """Return the JSON of the datagrams that a guestServer got, of one command if given."""
        return [
            seen.what[1].body
            for seen in self.to_servers
            if seen.what[0] == server and name in ("", seen.what[1].name)
        ]

    def forget(self) -> None:
        """Look only at what comes from now on."""
        self.vim.requests.clear()
        self.to_servers.clear()
        self.to_mtc.clear()

    def _mtc_received(self, data: bytes, _host: str, _port: int) -> None:
        self.to_mtc.append(Seen(self.time, data))

    def _server_received(self, name: str, data: bytes) -> None:
        heard = wire.as_old_peer(wire.unpack(data))
        if heard is not None:
            self.to_servers.append(Seen(self.time, (name, heard, data)))


def _is_complete(answer: bytes, request: bytes) -> bool:
    """Whether a whole answer has arrived, by its length."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    if not end or request.startswith(b"HEAD ") or length is None:
        return bool(end)
    return len(body) >= int(length[1])


class AgentRig(PeersRig):
    """The agent in this process, on simulated time, under a root of its own."""

    def __init__(self) -> None:
        super().__init__(SimulatedLoop(), Ports.free())
        # Addresses that are on no interface of this host, as the agent is to see it.
        self.away: set[str] = set()
        self._root = tempfile.TemporaryDirectory(prefix="mtce-agent-")
        (Path(self._root.name) / "etc").mkdir()
        self.write_hosts(HOSTS)
        self.settings = AgentSettings(
            rx_port=self.ports.agent,
            vim_cmd_port=self.ports.commands,
            server_rx_port=self.ports.server,
            vim_port=self.vim.port,
            mtc_cmd_port=self.ports.mtc_cmd,
            mtc_event_port=self.ports.mtc_event,
            hostname="controller-0",
        )
        self.agent = self.build()

    def write_hosts(self, hosts: dict[str, str]) -> None:
        """Write the hosts file: name → address."""
        lines = [f"{address} {name}\n" for name, address in hosts.items()]
        (Path(self._root.name) / "etc/hosts").write_text("".join(lines))

    def build(self) -> GuestAgent:
        return GuestAgent(
            self.loop,
            self.settings,
            "controller-0",
            self._root.name,
            is_here=lambda address: address not in self.away,
        )

    def start(self) -> AgentRig:
        self.agent.start()
        self.loop.settle()
        return self

    def restart(self) -> None:
        """The agent goes, a fresh one comes: as after a swact."""
        self.agent.stop(lambda: None)
        self.loop.settle()
        self.agent = self.build()
        self.start()

    def close(self) -> None:
        self.agent.stop(lambda: None)
        self.agent.vim_api.stop()
        super().close()
        self._root.cleanup()

    def ready(self) -> AgentRig:
        """One host, one instance, reporting, heartbeating; nothing left to look at."""
        self.start()
        self.add_host()
        assert self.host_command("enable") == 200
        assert self.create() == 200
        assert self.enable()[0] == 200
        self.info("RUNNING")
        self.forget()
        return self
