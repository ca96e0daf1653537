"""Feeds a recording to a guestServer of ours, and notes what comes out as it came.

guestAgent and the guests are sockets on the player's loop: the daemon's own loop, on simulated
time, or a loop of the test's with the daemon in a process.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from guestmtce.runtime.loop import Loop
from tests.peers import wire
from tests.peers.reactor import unix_listener
from tests.peers.root import COMPUTE_0, CONTROLLER, Root
from tests.replay.recording import Act, Answer, ChallengeCounter, Place, Recording, instance_of
from tests.replay.trace import (
    Event,
    OwnLines,
    guest_event,
    own_datagram,
)

STRANGER = "127.0.0.9"
READ_SIZE = 1 << 20


class Subject(Protocol):
    """The guestServer under test."""

    def start(self) -> object: ...

    def reload(self) -> object: ...

    def terminate(self) -> object: ...


class GuestEnd:
    """QEMU's end of one channel: one client at a time."""

    def __init__(self, player: Player, path: Path) -> None:
        self.path = path
        self.unsaid: list[bytes] = []
        self._player = player
        self._lines = OwnLines()
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None

    @property
    def instance(self) -> str:
        return instance_of(self.path.name)

    def listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._listener = unix_listener(self.path)
        self._player.loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def rename(self, path: Path) -> None:
        self.path = self.path.rename(path)

    def close_listener(self) -> None:
        """QEMU is killed: its file stays."""
        if self._listener is not None:
            self._player.loop.unwatch(self._listener)
            self._listener.close()
            self._listener = None

    def hang_up(self) -> None:
        if self._connection is not None:
            self._player.loop.unwatch(self._connection)
            self._connection.close()
            self._connection = None
            self._player.note(self.instance, "closed", said=True)

    def say(self, data: bytes) -> None:
        """Write; without a connection as soon as there is one, as a real guest says init again."""
        if self._connection is None:
            self.unsaid.append(data)
            return
        for line in filter(None, data.decode().split("\n")):
            self._player.heard(self.instance, line)
        self._connection.sendall(data)

    def say_bytewise(self, data: bytes) -> None:
        """One byte in each turn of the loop."""
        assert self._connection is not None
        self._connection.sendall(data[:1])
        if len(data) > 1:
            self._player.loop.call_soon(self.say_bytewise, data[1:])

    def deleted(self) -> None:
        """The instance was deleted: if it comes back, its numbers start again."""
        self._lines = OwnLines()

    def _accept(self, _ready: int) -> None:
        if self._connection is not None or self._listener is None:
            return
        self._connection, _ = self._listener.accept()
        self._connection.setblocking(False)
        self._player.note(self.instance, "connect", said=True)
        self._player.loop.watch(self._connection, selectors.EVENT_READ, self._read)
        unsaid, self.unsaid = self.unsaid, []
        for data in unsaid:
            self.say(data)

    def _read(self, _ready: int) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(READ_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            self.hang_up()
        for line, message in self._lines.feed(data):
            self._player.said(self.instance, line, message)


class Player:
    """One replay: `events` is what happened; `unfed` what could not be fed."""

    def __init__(self, recording: Recording, loop: Loop, root: Root, subject: Subject) -> None:
        self.loop = loop
        self.events: list[Event] = []
        self._recording = recording
        self._root = root
        self._subject = subject
        self._guests: dict[str, GuestEnd] = {}
        self._places = ChallengeCounter()
        self._answered: set[Place] = set()
        self._started_at = loop.time()
        self._agent = self._open(CONTROLLER)
        self._stranger = self._open(STRANGER)
        self._acts: dict[str, Callable[[Act], object]] = {
            "start": lambda _act: self._subject.start(),
            "reload": lambda _act: self._subject.reload(),
            "terminate": lambda _act: self._subject.terminate(),
            "listen": self._listen,
            "rename": lambda act: self._guest(act).rename(self._path(act)),
            "close_listener": lambda act: self._guest(act).close_listener(),
            "hang_up": lambda act: self._guest(act).hang_up(),
            "say": self._say,
            "datagram": self._send,
        }

    @property
    def time(self) -> float:
        """Seconds since the daemon's start."""
        return self.loop.time() - self._started_at

    @property
    def unfed(self) -> list[str]:
        """Answers to challenges that did not come, and what found no connection."""
        answers = self._recording.answers
        never = [
            answer.text for place in set(answers) - self._answered for answer in answers[place]
        ]
        unsaid = [data.decode() for guest in self._guests.values() for data in guest.unsaid]
        return [text.strip() for text in never + unsaid]

    def begin(self) -> None:
        """Start the daemon, and plan everything that comes after."""
        acts = iter(self._recording.acts)
        for act in acts:
            self._do(act)
            if act.what == "start":
                self._started_at = self.loop.time() - act.at
                break
        for act in acts:
            self.loop.call_later(act.at - self.time, self._do, act)

    def close(self) -> None:
        for guest in self._guests.values():
            guest.close_listener()
            guest.hang_up()
        for sock in (self._agent, self._stranger):
            self.loop.unwatch(sock)
            sock.close()

    def note(self, instance: str, name: str, *, said: bool) -> None:
        self.events.append(Event(self.time, instance, said, name))

    def heard(self, instance: str, line: str) -> None:
        """The guest of `instance` says something."""
        event = guest_event(self.time, instance, False, line)
        self.events.append(event)
        if event.name == "init":
            self._places.init(instance)

    def said(self, instance: str, line: str, message: dict[str, Any]) -> None:
        """The guest of `instance` is told something."""
        self.events.append(guest_event(self.time, instance, True, line))
        if message["msg_type"] == "challenge":
            place = self._places.challenge(instance)
            self._answered.add(place)
            for answer in self._recording.answers_to(place):
                self.loop.call_later(
                    answer.delay, self._answer, instance, answer, message["heartbeat_challenge"]
                )

    def _answer(self, instance: str, answer: Answer, number: int) -> None:
        guest = next(each for each in self._guests.values() if each.instance == instance)
        guest.say(answer.with_number(number).encode())

    def _do(self, act: Act) -> None:
        if act.event is not None:
            self.events.append(act.event._replace(at=self.time))
        self._acts[act.what](act)

    def _guest(self, act: Act) -> GuestEnd:
        return self._guests[act.guest]

    def _path(self, act: Act) -> Path:
        return self._root.path / act.path.lstrip("/")

    def _listen(self, act: Act) -> None:
        path = self._path(act)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._guests.setdefault(act.guest, GuestEnd(self, path)).listen()

    def _say(self, act: Act) -> None:
        if act.bytewise:
            self.heard(self._guest(act).instance, act.data.decode().strip())
            self._guest(act).say_bytewise(act.data)
        else:
            self._guest(act).say(act.data)

    def _open(self, address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind((address, self._root.agent_port))
        self.loop.watch(sock, selectors.EVENT_READ, lambda _ready: self._receive(sock))
        return sock

    def _send(self, act: Act) -> None:
        sock = self._stranger if act.stranger else self._agent
        sock.sendto(act.data, (COMPUTE_0, self._root.server_port))
        for guest in self._guests.values():
            if act.event and (act.event.name, act.event.who) == ("DEL_INST", guest.instance):
                guest.deleted()

    def _receive(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = sock.recv(READ_SIZE)
                if wire.unpack(data).name != "LOOPBACK":
                    self.events.append(own_datagram(self.time, wire.unstamped(data)))
