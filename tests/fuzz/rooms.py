"""What stands behind the doors: whole daemons and a guest client, as they take an input.

A room is opened anew for each series of inputs, so that a series follows from its seed alone.
Time goes on in it, so that what an input set off rings.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from guest import guest_client
from guestmtce.core.agent import vim_answers
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.http_framing import HttpError, RequestFramer
from guestmtce.runtime.control import ControlServer, Handler
from guestmtce.runtime.http_client import read_answer
from guestmtce.runtime.http_message import read_request
from tests.fuzz import corpus
from tests.simulation import SimulatedLoop
from tests.unit.agent_rig import AgentRig
from tests.unit.agent_support import CoreRig
from tests.unit.core_support import Rig
from tests.unit.server_support import Server

Enter = Callable[[bytes], object]
# Every so many inputs some seconds of simulated time go by.
INPUTS_AT_ONCE = 20
SECONDS = 3.0


class InternalError(Exception):
    """A callback of a daemon raised: the loop has logged it, and went on."""


class _Time:
    """Lets time go by now and then, and looks whether the loop has caught an error."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._inputs = 0

    def input_taken(self) -> None:
        self._inputs += 1
        self._loop.settle()
        if self._inputs % INPUTS_AT_ONCE == 0:
            self._loop.advance(SECONDS)
        if self._loop.errors:
            raise InternalError


@contextlib.contextmanager
def guest_channel() -> Iterator[Enter]:
    """One instance's machines, which raise nothing; each input comes in two pieces."""
    rigs: list[Rig] = []

    def enter(data: bytes) -> None:
        if not rigs or not rigs[-1].instance.connection.connected:
            rigs[:] = [Rig()]
            rigs[-1].connect()
        half = len(data) // 2
        rigs[-1].instance.received(data[:half])
        rigs[-1].instance.received(data[half:])

    yield enter


@contextlib.contextmanager
def guest_server() -> Iterator[Enter]:
    """guestServer's UDP port, one guest heartbeating behind it."""
    server = Server().start()
    try:
        server.beating(corpus.UUID)
        time = _Time(server.loop)

        def enter(data: bytes) -> None:
            server.agent.send_raw(data)
            time.input_taken()

        yield enter
    finally:
        server.close()


@contextlib.contextmanager
def guest_agent() -> Iterator[Enter]:
    """guestAgent's UDP ports: the one for workers, and mtcAgent's for what is signed so."""
    with contextlib.closing(AgentRig()) as rig:
        rig.ready()
        time = _Time(rig.loop)

        def enter(data: bytes) -> None:
            send = rig.mtc_sends if data.startswith(b"cgts") else rig.server_sends
            send(data)
            time.input_taken()

        yield enter


@contextlib.contextmanager
def command_port() -> Iterator[Enter]:
    """The command API: what comes over one connection, and each answer to its end."""
    with contextlib.closing(AgentRig()) as rig:
        rig.ready()
        time = _Time(rig.loop)

        def enter(data: bytes) -> None:
            framer = RequestFramer()
            half = len(data) // 2
            for piece in (data[:half], data[half:]):
                framer.receive(piece)
                with contextlib.suppress(HttpError):
                    while (frame := framer.next_request()) is not None:
                        response = rig.agent.http_api.answer(read_request(frame))
                        if not isinstance(response.body, bytes):
                            b"".join(response.body)
            time.input_taken()

        yield enter


@contextlib.contextmanager
def vim_answer() -> Iterator[Enter]:
    """What the VIM answers to guestAgent's two questions, and what is learned of it."""
    rigs: list[CoreRig] = []

    def enter(data: bytes) -> None:
        if not rigs or len(rigs[-1].agent.inventory.instances) > 1000:
            rigs[:] = [CoreRig()]
        rig = rigs[-1]
        rig.add_host()
        host = rig.host()
        host.reporting, host.got_instances = None, False
        rig.audit()
        rig.now += 1
        asked = rig.queue.poll(rig.now)
        for at_end in (False, True):
            with contextlib.suppress(HTTPException, PeerError):
                _status, body = read_answer(data, at_end=at_end)
                for delivery in asked:
                    with contextlib.suppress(PeerError):
                        vim_answers.learn(rig.agent, delivery, body or b"", rig.now)
        for delivery in asked:
            rig.queue.done(delivery, corpus.TAKEN, rig.now)
        rig.sent()

    yield enter


@contextlib.contextmanager
def control_socket() -> Iterator[Enter]:
    """Both daemons' control sockets; what they answer is one line with an object."""
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(contextlib.closing(AgentRig())).ready()
        server = Server().start()
        stack.callback(server.close)
        server.beating(corpus.UUID)
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        doors = [
            _ControlDoor(server.loop, str(root / "server"), server.app.commands()),
            _ControlDoor(agent.loop, str(root / "agent"), agent.agent.commands()),
        ]
        for door in doors:
            stack.callback(door.server.close)

        def enter(data: bytes) -> None:
            for door in doors:
                door.ask(data)

        yield enter


class _ControlDoor:
    """One daemon's control socket, with the commands that are its own."""

    def __init__(self, loop: SimulatedLoop, path: str, commands: dict[str, Handler]) -> None:
        def answer(request: dict[str, object]) -> dict[str, object]:
            command = commands.get(str(request["command"]))
            return command(request) if command else {"error": "unknown command"}

        self.server = ControlServer(loop, path, answer)
        self._loop = loop
        self._path = path
        self._time = _Time(loop)

    def ask(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self._path)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            self._time.input_taken()
            client.setblocking(False)
            received = b""
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while piece := client.recv(1 << 16):
                    received += piece
                    self._loop.settle()
        if received:
            line, newline, rest = received.partition(b"\n")
            assert newline, received
            assert not rest, received
            assert isinstance(json.loads(line), dict), received


class _Client(guest_client.Actions):
    """The guest client from its device on: channel, framing, protocol, and its answers."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.host, ours = socket.socketpair()
        self.host.setblocking(False)
        ours.setblocking(False)
        self._now = 0.0
        self._asked: list[guest_client.Notification] = []
        settings = guest_client.Settings()._replace(event_script="/bin/true")
        self.protocol = guest_client.GuestProtocol(settings, self, lambda: corpus.INVOCATION_ID)
        self.channel = guest_client.Channel(
            self._selector,
            "/dev/virtio-ports/x",
            lambda _path: ours.detach(),
            on_up=lambda: self.protocol.connected(self._now),
            on_down=self.protocol.disconnected,
            on_message=lambda line: self.protocol.receive(line, self._now),
        )
        self.channel.deadline = 0.0
        self.channel.tick(0.0)

    def send(self, message: bytes) -> None:
        self.channel.send(message)

    def start_event(self, notification: guest_client.Notification) -> None:
        assert notification.answer_within() >= 0
        self._asked.append(notification)

    def take(self, data: bytes) -> None:
        self.host.sendall(data)
        self._now += 0.5
        while ready := self._selector.select(0):
            for key, mask in ready:
                key.data(mask)
        for asked in self._asked:
            self.protocol.event_answered(asked.consent(), "")
        self._asked.clear()
        self.protocol.tick(self._now)
        self.protocol.set_health(healthy=len(data) % 2 == 0, text="")
        with contextlib.suppress(BlockingIOError):
            for line in self.host.recv(1 << 16).split(b"\n"):
                assert not line or json.loads(line)["msg_type"], line

    def close(self) -> None:
        self.channel.close()
        self.host.close()
        self._selector.close()


@contextlib.contextmanager
def client() -> Iterator[Enter]:
    """The guest client's device."""
    with contextlib.closing(_Client()) as made:
        yield made.take
