"""The thirty guests: how each behaves, and what can befall it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.chaos.real.plan import Member
from tests.peers.guest import ScriptedGuest
from tests.peers.reactor import Reactor
from tests.peers.relay import Relay
from tests.peers.root import REPOSITORY, Daemon, Root

INTERVAL_MS = 1000
SLOW_SECS = 0.6
FLAP_SECS = 4.0
PIECE_BYTES = 11
RUBBISH_SECS = 0.05
# What a careless health script prints, pasted raw into the answer: a tab, a CR, an escape
# sequence, Latin-1, UTF-8 cut in the middle, a mark that turns the text around.
ROUGH = b"a\tb\r\x1b[31m caf\xe9 \xe2\x82 \xe2\x80\xaex"
_PLACE = b"ROUGH"


class Guest(Protocol):
    """What a plan does to a guest."""

    def hang(self) -> None: ...
    def come_back(self) -> None: ...
    def fall_ill(self) -> None: ...
    def be_well(self) -> None: ...
    def crash(self) -> None: ...
    def start(self) -> None: ...
    def move(self, directory: Path) -> None: ...
    def calm(self) -> None: ...
    def close(self) -> None: ...


class _Channel(ScriptedGuest):
    """Says what it says with rough text in it where there is a place for it."""

    def send_raw(self, data: bytes) -> None:
        super().send_raw(data.replace(_PLACE, ROUGH))


class Scripted:
    """A guest in this process; `behaviour` as the plan names them."""

    def __init__(self, member: Member, uuid: str, directory: Path, reactor: Reactor) -> None:
        self._reactor = reactor
        self._uuid = uuid
        self._member = member
        self._habit: Callable[[], None] | None = HABITS.get(member.behaviour, _none)(self)
        self._hung = False
        self.channel = self._appear(directory)
        if self._habit is not None:
            reactor.call(self._go_on)

    def _appear(self, directory: Path) -> _Channel:
        channel = _Channel(
            directory,
            self._uuid,
            reactor=self._reactor,
            split=PIECE_BYTES if self._member.behaviour == "dribbling" else 0,
            name=self._member.name,
            heartbeat_interval_ms=INTERVAL_MS,
        )
        channel.delay = SLOW_SECS if self._member.behaviour == "slow" else 0.0
        channel.auto_init = channel.auto_answer = self._member.behaviour != "endless"
        if self._member.behaviour == "rough":
            channel.log_msg = _PLACE.decode()
            channel.votes = {"reboot": ("accept", _PLACE.decode())}
        return channel

    def _go_on(self) -> None:
        if self._habit is not None:
            self._habit()

    def every(self, seconds: float, what: Callable[[], object]) -> Callable[[], None]:
        """Return a habit: do that now and then, until `calm`."""

        def habit() -> None:
            what()
            self._reactor.later(seconds, self._go_on)

        return habit

    def hang_up(self) -> None:
        """Close its channel; it is there again at once."""
        self.channel.hang_up()

    def hang(self) -> None:
        self._reactor.call(self._answer, False)

    def come_back(self) -> None:
        """Its client starts anew, as a rebooted guest's does."""
        self._reactor.call(self._answer, True)
        self.channel.send_init()

    def _answer(self, answers: bool) -> None:
        channel = self.channel
        channel.auto_answer = channel.auto_init = channel.auto_vote = answers

    def fall_ill(self) -> None:
        self._reactor.call(self._feel, "unhealthy", "log")

    def be_well(self) -> None:
        self._reactor.call(self._feel, "healthy", "none")

    def _feel(self, health: str, action: str) -> None:
        self.channel.health, self.channel.corrective_action = health, action

    def crash(self) -> None:
        self.channel.crash()

    def start(self) -> None:
        self.channel.listen()

    def move(self, directory: Path) -> None:
        """It ends here and appears there."""
        self.channel.remove()
        self.channel = self._appear(directory)

    def calm(self) -> None:
        self._habit = None

    def close(self) -> None:
        self.channel.remove()


def _none(_guest: Scripted) -> None:
    return None


def _flap(guest: Scripted) -> Callable[[], None]:
    return guest.every(FLAP_SECS, guest.hang_up)


def _talk_rubbish(guest: Scripted) -> Callable[[], None]:
    """Lines that are no message, answers to nothing, half a line, between good answers."""
    lines = b"\n".join((b"{}", b'{"version":3', b"\xff\xfe", b"[" * 200, b"null", b"x" * 40))
    return guest.every(RUBBISH_SECS, lambda: guest.channel.send_raw(b"\n" + lines + b"\n"))


def _never_end_a_line(guest: Scripted) -> Callable[[], None]:
    return guest.every(RUBBISH_SECS, lambda: guest.channel.send_raw(b"y" * 2000))


HABITS: dict[str, Callable[[Scripted], Any]] = {
    "flapping": _flap,
    "rubbish": _talk_rubbish,
    "endless": _never_end_a_line,
}


class Client:
    """The real guest client as a process, behind a relay that plays QEMU."""

    def __init__(self, member: Member, uuid: str, root: Root, reactor: Reactor) -> None:
        place = root.path / member.name
        place.mkdir()
        self._fault = place / "fault"
        self._relay = Relay(root.channels, uuid, place / "port", reactor=reactor)
        samples = REPOSITORY / "guest" / "samples"
        command = [sys.executable, str(REPOSITORY / "guest" / "guest_client.py"), "-f"]
        command += ["--config", str(REPOSITORY / "guest" / "guest-client.conf")]
        command += ["--socket", str(place / "port"), "--name", member.name]
        command += ["--interval-ms", str(INTERVAL_MS), "--corrective-action", "reboot"]
        command += ["--unhealthy-corrective-action", "log", "--health-interval-ms", "1000"]
        command += ["--health-script", str(samples / "health-script.sh")]
        env = {**os.environ, "FAULT_FILE": str(self._fault), "PYTHONDONTWRITEBYTECODE": "1"}
        self._client = Daemon(command, place / "log", env)

    def hang(self) -> None:
        self._client.signal(signal.SIGSTOP)

    def come_back(self) -> None:
        self._client.signal(signal.SIGCONT)

    def fall_ill(self) -> None:
        self._fault.write_text("fan broken\n")

    def be_well(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fault.unlink()

    def crash(self) -> None:
        self._relay.crash()

    def start(self) -> None:
        self._relay.start()

    def move(self, directory: Path) -> None:
        raise NotImplementedError("the plan moves no client")

    def calm(self) -> None:
        """It has no habit to give up."""

    def close(self) -> None:
        self._client.stop()
        self._relay.close()
