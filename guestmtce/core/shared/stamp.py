"""What a datagram carries beside what it says: which one it is, and which one it answers.

Sans-I/O. Typed values for the members that the reliable delivery adds to every message
(`Stamp`), and for the two things that LOOPBACK says (`Probe`, `Acknowledgement`). Old peers
read members by name and ignore LOOPBACK, so none of this changes anything for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Union

from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.mtc_message import MtcMessage

EPOCH_LIMIT = 2**31  # an epoch is 1 or more
NUMBER_LIMIT = 2**53
ID_LIMIT = 64
VERSION_LIMIT = 32


def new_epoch(number_below: Callable[[int], int]) -> int:
    """Return an epoch for what begins to talk, by a source of random numbers."""
    return 1 + number_below(EPOCH_LIMIT - 1)


class Stamp(NamedTuple):
    """Which message this is: the `seq`-th that process `epoch` says to this role.

    `id` stays the same for one order whatever restarts. `re` is the `seq` of the query that is
    answered, `of` how many answers that has.
    """

    epoch: int
    seq: int
    id: str = ""
    re: int | None = None
    of: int | None = None

    def members(self) -> dict[str, object]:
        """Return the members that are added to the message's own."""
        own = self.id or None
        given = {"epoch": self.epoch, "seq": self.seq, "re": self.re, "of": self.of, "id": own}
        return {key: value for key, value in given.items() if value is not None}

    @classmethod
    def of_message(cls, message: MtcMessage) -> Stamp | None:
        """Read it; None if the sender is an old one. Raises ProtocolError."""
        members = message.members
        if "epoch" not in members:
            return None
        identity = members.get("id", "")
        if not isinstance(identity, str) or len(identity) > ID_LIMIT:
            raise ProtocolError("bad_stamp")
        return cls(
            _epoch(members, "epoch"),
            _number(members, "seq"),
            identity,
            _number(members, "re") if "re" in members else None,
            _number(members, "of") if "of" in members else None,
        )


class Probe(NamedTuple):
    """LOOPBACK that asks whether anybody acknowledges, and under which epoch."""

    epoch: int

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return {"epoch": self.epoch, "seq": 0}


class Acknowledgement(NamedTuple):
    """LOOPBACK that answers: process `epoch` has message `ack` of process `of`; 0 is a probe.

    `queued`: an order is held, but what it wants is not done yet. `version` of the program is
    told in the answer to a probe, for people.
    """

    epoch: int
    of: int
    ack: int
    queued: bool = False
    version: str = ""

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        members: dict[str, object] = {"epoch": self.epoch, "of": self.of, "ack": self.ack}
        if self.queued:
            members["queued"] = True
        return {**members, "version": self.version} if self.version else members


Loopback = Union[Probe, Acknowledgement]


def read_loopback(message: MtcMessage) -> Loopback:
    """Return what a LOOPBACK says; raises ProtocolError for one that is not ours."""
    members = message.members
    epoch = _epoch(members, "epoch")
    if "ack" not in members:
        return Probe(epoch)
    queued = members.get("queued") is True
    version = message.optional("version", VERSION_LIMIT)
    return Acknowledgement(epoch, _epoch(members, "of"), _number(members, "ack"), queued, version)


def _epoch(members: dict[str, object], key: str) -> int:
    return _integer(members, key, 1, EPOCH_LIMIT)


def _number(members: dict[str, object], key: str) -> int:
    return _integer(members, key, 0, NUMBER_LIMIT)


def _integer(members: dict[str, object], key: str, least: int, limit: int) -> int:
    value = members.get(key)
    if type(value) is not int or not least <= value < limit:
        raise ProtocolError("bad_stamp")
    return value
