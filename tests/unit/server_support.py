"""A whole guestServer on simulated time: real files and sockets, hours in milliseconds.

The guests and the agent live on the server's own loop, so that what they are sent is answered
before the clock moves on.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import tempfile
from pathlib import Path
from typing import Any

from guestmtce.core.shared.settings import ServerSettings
from guestmtce.server.app import GuestServer
from tests.peers import wire
from tests.peers.reactor import unix_listener
from tests.peers.root import COMPUTE_0, CONTROLLER, free_ports
from tests.simulation import SimulatedLoop

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
OTHER = "8d80875b-fa73-4ccb-bce3-1cd4df104402"
HOSTS = f"{CONTROLLER} controller\n{COMPUTE_0} compute-0\n"


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


class Agent:
    """guestAgent's socket; `got` has the datagrams that came, as an old agent reads them.

    With `is_new` it has all, as they are.
    """

    def __init__(self, loop: SimulatedLoop, address: str, port: int, server: tuple[str, int]):
        self.got: list[wire.Datagram] = []
        self.is_new = False
        self._loop = loop
        self.server = server
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.bind((address, port))
        loop.watch(self._socket, selectors.EVENT_READ, self._read)

    def _read(self, _ready: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram = wire.unpack(self._socket.recv(65536), self._loop.clock.now)
                heard = datagram if self.is_new else wire.as_old_peer(datagram)
                if heard is not None:
                    self.got.append(heard)

    def send(self, name: str, **body: Any) -> None:
        self.send_raw(wire.pack(name, {"source": CONTROLLER, **body}, wire.GUEST_SIGNATURE))

    def send_raw(self, data: bytes) -> None:
        self._socket.sendto(data, self.server)
        self._loop.settle()

    def provision(self, uuid: str = UUID, name: str = "ADD_INST", state: str = "enabled") -> None:
        self.send(name, uuid=uuid, service="heartbeat", state=state)

    def delete(self, uuid: str = UUID) -> None:
        self.provision(uuid, "DEL_INST", "disabled")

    def take(self) -> list[wire.Datagram]:
        """Return what has come since the last call."""
        self._loop.settle()
        got, self.got = self.got, []
        return got

    def names(self) -> list[str]:
        return [datagram.name for datagram in self.take()]

    def close(self) -> None:
        self._loop.unwatch(self._socket)
        self._socket.close()


class Guest:
    """QEMU and its guest: listens at the channel's path, answers challenges when `answers`.

    `accepted` has the time of each connection, `heard` the messages of the present one.
    """

    def __init__(self, server: Server, uuid: str = UUID, form: str = "cgcs.heartbeat.{}.sock"):
        self.uuid = uuid
        self.path = server.channels / form.format(uuid)
        self.accepted: list[float] = []
        self.closed: list[float] = []
        self.heard: list[dict[str, Any]] = []
        self.answers = True
        self.inits = True
        self.reads = True
        self.hangs_up = False
        self.init = wire.init_body()
        self.connection: socket.socket | None = None
        self._loop = server.loop
        self.listener: socket.socket | None = None
        self._reader = wire.MessageReader()
        self._sequence = 0
        self.listen()

    def listen(self, backlog: int = 1) -> None:
        """Be there: QEMU starts, taking over the path."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.listener = unix_listener(self.path, backlog)
        self._loop.watch(self.listener, selectors.EVENT_READ, self._accept)

    def stop(self, *, unlink: bool) -> None:
        """QEMU ends; killed, it leaves its file behind."""
        self.hang_up()
        if self.listener is not None:
            self._loop.unwatch(self.listener)
            self.listener.close()
            self.listener = None
        if unlink:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def hang_up(self) -> None:
        if self.connection is not None:
            self._loop.unwatch(self.connection)
            self.connection.close()
            self.connection = None

    def say(self, msg_type: str, **body: Any) -> None:
        self._sequence += 1
        self.say_raw(wire.message(msg_type, self._sequence, **body))

    def say_raw(self, data: bytes) -> None:
        assert self.connection is not None
        self.connection.sendall(data)

    def say_init(self, **changes: Any) -> None:
        self.say("init", **{**self.init, **changes})

    def types(self) -> list[str]:
        return [message["msg_type"] for message in self.heard]

    def read(self) -> None:
        """Read what has come, now; also when `reads` is off."""
        assert self.connection is not None
        try:
            data = self.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.closed.append(self._loop.clock.now)
            self.hang_up()
            return
        self.take(data)

    def take(self, data: bytes) -> None:
        """Hear what was read, and answer."""
        for message in self._reader.feed(data):
            self.heard.append(message)
            if message["msg_type"] == "challenge" and self.answers:
                self.answer(message["heartbeat_challenge"])

    def answer(self, number: int, health: str = "healthy", action: str = "none") -> None:
        self.say(
            "challenge_response",
            heartbeat_response=number,
            heartbeat_health=health,
            corrective_action=action,
            log_msg="",
        )

    def _accept(self, _ready: int) -> None:
        assert self.listener is not None
        if self.connection is not None:
            return  # one client at a time; a second one waits in the queue
        try:
            self.connection, _ = self.listener.accept()
        except BlockingIOError:
            return
        self.connection.setblocking(False)
        self.accepted.append(self._loop.clock.now)
        self.heard = []
        self._reader = wire.MessageReader()
        if self.hangs_up:
            self.hang_up()
            return
        if self.inits:
            self.say_init()
        if self.reads:
            self._loop.watch(self.connection, selectors.EVENT_READ, lambda _ready: self.read())


class Server:
    """The app on its loop, under a root of its own, with one agent peer."""

    def __init__(
        self, controller: str = CONTROLLER, address: str = COMPUTE_0, **settings: Any
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="mtce-guest-")
        self.root = Path(self._temporary.name)
        self.channels = self.root / "var/lib/libvirt/qemu"
        self.channels.mkdir(parents=True)
        for flag in ("etc/platform/.initial_config_complete", "var/run/.goenabled"):
            (self.root / flag).parent.mkdir(parents=True, exist_ok=True)
            (self.root / flag).touch()
        self.write_hosts(f"{controller} controller\n{address} compute-0\n")
        agent_port, server_port = free_ports(2)
        self.settings = ServerSettings(agent_rx_port=agent_port, rx_port=server_port, **settings)
        self.loop = SimulatedLoop()
        self.agent = Agent(self.loop, controller, agent_port, (address, server_port))
        self.guests: list[Guest] = []
        self.app = GuestServer(self.loop, self.settings, "compute-0", str(self.root))

    def write_hosts(self, text: str) -> None:
        (self.root / "etc/hosts").write_text(text)

    def renew(self, hosts: str) -> None:
        """Have a guestServer that has never seen another hosts file than this."""
        self.write_hosts(hosts)
        self.app = GuestServer(self.loop, self.settings, "compute-0", str(self.root))

    def start(self) -> Server:
        self.app.start()
        self.loop.settle()
        return self

    def guest(self, uuid: str = UUID, **attributes: Any) -> Guest:
        """A guest that begins to listen; the server learns of it in the next turn."""
        made = Guest(self, uuid, **attributes)
        self.guests.append(made)
        return made

    def beating(self, uuid: str = UUID) -> Guest:
        """A guest that is reported and heartbeats; the agent's journal is empty after it."""
        self.agent.provision(uuid)
        made = self.guest(uuid)
        assert self.loop.run_until(lambda: self.heartbeating(uuid), 5)
        self.loop.advance(1.5)  # READY is said
        self.agent.take()
        return made

    def heartbeating(self, uuid: str = UUID) -> bool:
        channel = self.app.channels.get(uuid)
        return channel is not None and channel.instance.heartbeat.heartbeating

    def connected(self, uuid: str = UUID) -> bool:
        channel = self.app.channels.get(uuid)
        return channel is not None and channel.instance.connection.connected

    def close(self) -> None:
        assert self.loop.errors == 0, "a callback failed, see the log"
        self.app.stop(lambda: None)
        for guest in self.guests:
            guest.stop(unlink=True)
        self.agent.close()
        self.loop.close()
        self._temporary.cleanup()
