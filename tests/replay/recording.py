"""A recorded exchange with the old guestServer, read for a replay: what was fed, what came out.

Decision 20: an answer to a challenge is fed the same time after our corresponding challenge, with
our number; everything else at its recorded time. Challenges correspond by their place: the k-th
after the same init.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tests.peers import wire
from tests.replay.trace import Event, guest_event, heard_datagram, said_datagram, who

DATA = Path(__file__).resolve().parents[1] / "data" / "transcripts"

# What answers a challenge without giving its number comes this soon after it (seconds).
PROMPT = 0.05
DEFAULT_PATH = "/var/lib/libvirt/qemu/cgcs.heartbeat.8d80875b-fa73-4ccb-bce3-1cd4df104401.sock"

_NUMBER = re.compile(r'"heartbeat_response":(\d+)')
_CHALLENGE = re.compile(r'"heartbeat_challenge":(\d+)')
_GUEST = re.compile(r"\[(\d)\]")
_ACTS = {
    re.compile(r"guestServer started"): "start",
    re.compile(r"guest(?P<guest>\w*): listener created (?P<path>\S+)"): "listen",
    re.compile(r"renamed (?:into place|x\.tmp to (?P<path>\S+))"): "rename",
    re.compile(r"guest(?P<guest>\w*): listener closed"): "close_listener",
    re.compile(r"guest(?P<guest>\w*): closes its end of the connection"): "hang_up",
    re.compile(r"daemon stopped \(SIGSTOP\)"): "freeze",
    re.compile(r"SIGCONT"): "thaw",
    re.compile(r"SIGHUP sent"): "reload",
    re.compile(r"SIGTERM sent"): "terminate",
}
_FOR_ALL = frozenset({"start", "reload", "terminate"})


class Place(NamedTuple):
    """Which challenge: the `number`-th after the `init`-th init of an instance."""

    who: str
    init: int
    number: int


class Act(NamedTuple):
    """Something to do at its time: `what` is one of the acts above, `say` or `datagram`.

    `event` is what it is in a trace; what guests say is noted line by line instead.
    """

    at: float
    what: str
    event: Event | None = None
    guest: str = ""
    path: str = ""
    data: bytes = b""
    stranger: bool = False
    bytewise: bool = False


class Answer(NamedTuple):
    """What a guest says `delay` seconds after a challenge; `offset` is added to its number."""

    delay: float
    text: str
    offset: int | None

    def with_number(self, number: int) -> str:
        if self.offset is None:
            return self.text
        return _NUMBER.sub(f'"heartbeat_response":{number + self.offset}', self.text)


class ChallengeCounter:
    """Tells each challenge's place, from the inits and challenges of a trace."""

    def __init__(self) -> None:
        self._inits: dict[str, int] = defaultdict(int)
        self._next: dict[str, int] = defaultdict(int)

    def init(self, instance: str) -> None:
        self._inits[instance] += 1
        self._next[instance] = 0

    def challenge(self, instance: str) -> Place:
        place = Place(instance, self._inits[instance], self._next[instance])
        self._next[instance] += 1
        return place


def scenarios() -> list[str]:
    return sorted(path.stem for path in DATA.glob("server-*.json"))


class Recording:
    """One scenario: `acts` and `answers` to feed, `events` as they happened, `end` in seconds."""

    def __init__(self, scenario: str) -> None:
        self.data = json.loads((DATA / f"{scenario}.json").read_text())
        self.threshold: int = self.data["config"]["hbs_failure_threshold"]
        self.acts: list[Act] = []
        self.answers: dict[Place, list[Answer]] = defaultdict(list)
        self.challenges: list[Place] = []
        self.events: list[Event] = []
        self.end = 0.0
        self._places = ChallengeCounter()
        self._by_number: dict[int, tuple[Place, float]] = {}
        self._last: dict[str, tuple[Place, float]] = {}
        self._guests: dict[str, str] = {}
        self._frozen_from = 0
        readers: dict[str, Callable[[dict[str, Any]], None]] = {
            "note": self._note,
            "udp": self._datagram,
            "stream": self._stream,
        }
        if not any("started" in step.get("text", "") for step in self.data["steps"]):
            self._act(0.0, "start", "", "")
        for step in self.data["steps"]:
            self.end = step["t"]
            if step.get("text", "").startswith("end of scenario"):
                break
            readers[step["kind"]](step)

    def answers_to(self, place: Place) -> list[Answer]:
        """What the guest answers; to a challenge beyond the recorded ones what it did before."""
        before = [each for each in self.challenges if each.who == place.who and each <= place]
        return self.answers[max(before)] if before else []

    def _note(self, step: dict[str, Any]) -> None:
        for pattern, what in _ACTS.items():
            match = pattern.match(step["text"])
            if match:
                found = match.groupdict()
                guest, path = found.get("guest") or "1", found.get("path") or DEFAULT_PATH
                if what == "rename":
                    guest = next(name for name, old in self._guests.items() if old.endswith(".tmp"))
                self._act(step["t"], what, guest, path)

    def _act(self, at: float, what: str, guest: str, path: str) -> None:
        """Note an act. What happens while the daemon is stopped, it finds all at once later."""
        if what == "freeze":
            self._frozen_from = len(self.acts)
            return
        if what == "thaw":
            frozen = self.acts[self._frozen_from :]
            self.acts[self._frozen_from :] = [act._replace(at=at) for act in frozen]
            return
        if what in ("listen", "rename"):
            self._guests[guest] = path
        instance = "" if what in _FOR_ALL else self._instance(guest)
        event = Event(at, instance, False, what)
        self.acts.append(Act(at, what, event, guest, path))
        self.events.append(event)

    def _instance(self, guest: str) -> str:
        return instance_of(self._guests.get(guest, DEFAULT_PATH))

    def _datagram(self, step: dict[str, Any]) -> None:
        at, name, buf = step["t"], step.get("cmd_name", "unknown"), step.get("buf", "")
        if step["dir"].startswith("server"):
            self.events.append(said_datagram(at, name, buf))
            return
        event = heard_datagram(at, name, buf)
        stranger = step["dir"].startswith("other")
        self.acts.append(Act(at, "datagram", event, data=_pack(step), stranger=stranger))
        self.events.append(event)

    def _stream(self, step: dict[str, Any]) -> None:
        match = _GUEST.search(step["dir"])
        guest = match[1] if match else "1"
        instance = self._instance(guest)
        if "event" in step:
            name = "connect" if step["event"] == "connect" else "closed"
            self.events.append(Event(step["t"], instance, True, name))
        elif step["dir"].startswith("server"):
            self._said(step, instance)
        else:
            self._heard(step, guest, instance)

    def _said(self, step: dict[str, Any], instance: str) -> None:
        for line in filter(None, step["text"].split("\n")):
            event = guest_event(step["t"], instance, True, line)
            self.events.append(event)
            number = _CHALLENGE.search(line)
            if number:
                place = self._places.challenge(instance)
                self.challenges.append(place)
                self._by_number[int(number[1])] = self._last[instance] = place, event.at

    def _heard(self, step: dict[str, Any], guest: str, instance: str) -> None:
        at, text = step["t"], step["text"]
        for line in filter(None, text.split("\n")):
            event = guest_event(at, instance, False, line)
            self.events.append(event)
            if event.name == "init":
                self._places.init(instance)
        answered = self._answered(at, text, instance)
        if answered is None:
            bytewise = step.get("added") == "byte by byte"
            self.acts.append(Act(at, "say", guest=guest, data=text.encode(), bytewise=bytewise))
            return
        place, challenged_at, offset = answered
        self.answers[place].append(Answer(at - challenged_at, text, offset))

    def _answered(
        self, at: float, text: str, instance: str
    ) -> tuple[Place, float, int | None] | None:
        """Which challenge a text answers: by its number, by that minus 1, or by its promptness."""
        match = _NUMBER.search(text)
        number = int(match[1]) if match else -1
        for offset in (0, 1):
            known = self._by_number.get(number - offset)
            if known:
                return (*known, offset)
        if '"challenge_response"' in text and instance in self._last:
            place, challenged_at = self._last[instance]
            if at - challenged_at < PROMPT:
                return place, challenged_at, None
        return None


def instance_of(path: str) -> str:
    match = re.search(r"\.([^.]+)\.sock$", path)
    return who(match[1]) if match else ""


def _pack(step: dict[str, Any]) -> bytes:
    """The datagram byte for byte: its head and payload, truncated after that."""
    if "hex" in step:
        return bytes.fromhex(step["hex"])
    signature = step.get("hdr", wire.GUEST_SIGNATURE.decode()).encode()
    command = int(step["cmd"], 16) if "cmd" in step else wire.COMMANDS[step["cmd_name"]]
    head = wire.DATAGRAM_HEAD.pack(signature, 0, 0, 0, command, 0, 0, 0, 0, 0, 0)
    return head + str(step["buf"]).encode()
