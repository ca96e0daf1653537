"""What came through the network, as its receiver could know it: what the oracle judges by.

A receiver believes a life of its peer once a probe of its own was answered under that epoch; one
that it gave up for another, only when that one has been silent. The network sees the probes and
answers too, so that it knows the same without asking a daemon.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.peers import wire

# For so long the life that is believed must say nothing before one that was given up is believed.
SILENT_SECS = 5.0
OTHER = {"agent": "server", "server": "agent"}
Key = tuple[str, str]


@dataclass
class Passage:
    """One datagram about an instance: when it was sent, first said, and taken in if it was.

    `taken` is None while it has not arrived, or if its receiver could not believe it; `last` is
    when a copy of it came for the last time, the same if there was one only.
    """

    sent: float
    said: float
    taken: float | None = None
    last: float | None = None

    def taken_by(self, at: float) -> bool:
        """Whether its receiver had it at that time."""
        return self.taken is not None and self.taken <= at


@dataclass(eq=False)
class Evidence:
    """All passages by name and instance, and what was acknowledged for good.

    `probes` are the times at which a role's process probed; `finals` those at which the sender of
    an order heard that it is done, `finals_said` those at which it was told so.
    """

    passages: dict[Key, list[Passage]] = field(default_factory=lambda: defaultdict(list))
    probes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    finals: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    finals_said: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    _said: dict[tuple[int, int], tuple[Key, float]] = field(default_factory=dict)
    _lives: dict[str, int] = field(default_factory=dict)
    _believed: dict[str, int] = field(default_factory=dict)
    _heard_at: dict[str, float] = field(default_factory=dict)
    _given_up: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def forget(self) -> None:
        """Drop what is history; who believes whom stays."""
        for each in (self.passages, self.probes, self.finals, self.finals_said, self._said):
            each.clear()

    def dies(self, role: str) -> None:
        """A process ends: the next one believes nobody yet."""
        for each in (self._lives, self._believed, self._heard_at, self._given_up):
            each.pop(role, None)

    def sent(self, datagram: wire.Datagram, receiver: str, now: float) -> Passage:
        """Note a datagram on its way to a role."""
        body = datagram.body
        epoch, seq = body.get("epoch"), body.get("seq")
        key = datagram.name, str(body.get("uuid", ""))
        if epoch is not None:
            self._lives[OTHER[receiver]] = epoch
        said = now
        if seq and "re" not in body:  # an answer bears the number of what was said last
            said = self._said.setdefault((epoch, seq), (key, now))[1]
        elif datagram.name == "LOOPBACK" and "ack" not in body:
            self.probes[OTHER[receiver]].append(now)
        elif "ack" in body and not body.get("queued") and (body["of"], body["ack"]) in self._said:
            self.finals_said[self._said[body["of"], body["ack"]][0]].append(now)
        passage = Passage(now, said)
        self.passages[key].append(passage)
        return passage

    def arrived(self, datagram: wire.Datagram, receiver: str, passage: Passage, now: float) -> None:
        """Note that a copy of it came through."""
        body = datagram.body
        epoch = body.get("epoch")
        if "ack" in body and body["of"] == self._lives.get(receiver):
            self._acknowledged(body, receiver, now)
        believed = self._believed.get(receiver)
        if epoch is not None and epoch == believed:
            self._heard_at[receiver] = now
        if epoch in (None, believed):
            passage.last = now
            if passage.taken is None:
                passage.taken = now

    def _acknowledged(self, body: dict[str, int], receiver: str, now: float) -> None:
        if not body["ack"]:
            self._believe(receiver, body["epoch"], now)
        elif not body.get("queued"):
            said = self._said.get((body["of"], body["ack"]))
            if said is not None:
                self.finals[said[0]].append(now)

    def _believe(self, receiver: str, epoch: int, now: float) -> None:
        before, given_up = self._believed.get(receiver), self._given_up[receiver]
        is_silent = now - self._heard_at.get(receiver, float("-inf")) >= SILENT_SECS
        if epoch == before or (epoch in given_up and not is_silent):
            return
        if before is not None:
            given_up.add(before)
        given_up.discard(epoch)
        self._believed[receiver] = epoch

    def taken(self, name: str, uuid: str, begin: float, end: float) -> Iterator[float]:
        """Yield when what was first said in that time about an instance was taken in."""
        for passage in self.passages.get((name, uuid), ()):
            if passage.taken is not None and begin <= passage.said and passage.taken_by(end):
                yield passage.taken

    def said(self, order: Key, begin: float, end: float) -> Iterator[Passage]:
        """Yield what was sent of an order in that time."""
        for passage in self.passages.get(order, ()):
            if begin <= passage.sent <= end:
                yield passage

    def tries(self, order: Key, role: str, begin: float, end: float) -> int:
        """Count how often a role's process said an order, or probed for who would hear it."""
        probes = sum(begin <= at <= end for at in self.probes.get(role, ()))
        return probes + sum(1 for _ in self.said(order, begin, end))
