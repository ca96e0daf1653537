"""The maintenance datagram: guestServer - guestAgent, mtcAgent - guestAgent (datagrams.md).

Replaces mtc_message_type and its casts. Sans-I/O: bytes in, typed message out, and back.
The frame comes first, then a record for each thing that is said in it. No other module knows
the keys of the JSON: a record's `members` writes them and its `of` reads and checks them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.text import (
    clean,
    decode_rough_json,
    shorten,
    shorten_to_fit,
    usual_address,
)
from guestmtce.core.shared.vocabulary import (
    EVENTS,
    HEARTBEAT_SERVICE,
    NAME_LIMIT,
    NOTIFICATIONS,
    SWITCHES,
    Command,
    CorrectiveAction,
    Event,
    Notification,
    Switch,
    Timeouts,
    VoteResult,
    canonical_uuid,
)

# hdr, ver, rev, res, cmd, num, parm[5], buf
MTC_MESSAGE = struct.Struct("<64sHHIII20s960s")
MTC_HEADER = struct.Struct("<64sHHIII20s")

BUFFER_SIZE = 960
PAYLOAD_LIMIT = BUFFER_SIZE - 1
HOSTNAME_LIMIT = 255
REASON_LIMIT = 224
# Of a datagram so many bytes at most are an instance's name: the rest always fits beside it.
_NAME_BYTES = 128
_WORD_LIMIT = 32
_SECONDS = re.compile(r"[0-9]{1,6}")
_FREE_TEXT = "reason"

AGENT_SIGNATURE = b"guest msg header:\0"
MTC_SIGNATURE = b"cgts mtc cmd req:\0"
SIGNATURE_SIZE = 18
SERVER_SIGNATURE = bytes(SIGNATURE_SIZE)
SERVICE_NAME = b"guestAgent"

_NO_PARAMETERS = bytes(20)

T = TypeVar("T")


@dataclass(frozen=True)
class MtcMessage:
    """One datagram, decoded: its command code, its signature and the members of its JSON."""

    command: int
    signature: bytes = SERVER_SIGNATURE
    members: dict[str, object] = field(default_factory=dict)

    def text(self, key: str, limit: int = HOSTNAME_LIMIT) -> str:
        """Return the non-empty string under `key`; raises ProtocolError."""
        value = self.members.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= limit:
            raise _bad(key)
        return value

    def optional(self, key: str, limit: int = HOSTNAME_LIMIT) -> str:
        """Return the string under `key`, cleaned and cut; "" for what is no string."""
        value = self.members.get(key)
        return clean(value, limit) if isinstance(value, str) else ""

    def seconds(self, key: str) -> int:
        """Return the whole seconds that stand under `key` as text; raises ProtocolError."""
        text = self.text(key)
        if not _SECONDS.fullmatch(text):
            raise _bad(key)
        return int(text)

    def uuid(self, key: str = "uuid") -> str:
        """Return the UUID under `key` in lower case; raises ProtocolError."""
        uuid = canonical_uuid(self.text(key))
        if uuid is None:
            raise _bad(key)
        return uuid

    def switch(self, key: str) -> bool:
        """Return True for `enabled`, False for `disabled`; raises ProtocolError."""
        return self._meaning(key, SWITCHES)

    def event(self, key: str = "event") -> Event:
        """Return the platform event under `key`; raises ProtocolError."""
        return self._meaning(key, EVENTS)

    def notification(self, key: str = "notification_type") -> Notification:
        """Return the notification type under `key`; raises ProtocolError."""
        return self._meaning(key, NOTIFICATIONS)

    def _meaning(self, key: str, words: Mapping[str, T]) -> T:
        """Return what the word under `key` means; raises ProtocolError for another one."""
        word = self.text(key)
        if word not in words:
            raise _bad(key)
        return words[word]


def _bad(key: str) -> ProtocolError:
    return ProtocolError("bad_member", f"failed to parse {key}")


def decode(data: bytes) -> MtcMessage:
    """Return the message in one datagram of 100 to 1060 bytes; raises ProtocolError.

    `buf` ends at its first NUL; an empty one gives no members (MONITOR_READY to mtcAgent).
    """
    if not MTC_HEADER.size <= len(data) <= MTC_MESSAGE.size:
        raise ProtocolError("bad_length")
    hdr, _ver, _rev, _res, command, _num, _parm = MTC_HEADER.unpack_from(data)
    payload = data[MTC_HEADER.size :].partition(b"\0")[0]
    members = _parse_object(payload) if payload else {}
    return MtcMessage(command, hdr[:SIGNATURE_SIZE], members)


def _parse_object(payload: bytes) -> dict[str, object]:
    try:
        members = decode_rough_json(payload, _FREE_TEXT, first_wins=True)
    except ValueError:
        raise ProtocolError("not_json") from None
    if not isinstance(members, dict):
        raise ProtocolError("not_object")
    return members


def encode(
    command: Command,
    members: dict[str, object] | None,
    *,
    signature: bytes,
    full_size: bool = False,
) -> bytes:
    """Return the datagram for `command`, ended after its JSON or padded to 1060 bytes.

    A payload over 959 bytes is shortened in its `reason`, never cut in mid-JSON;
    raises ProtocolError if it does not fit even so.
    """
    payload = b""
    if members is not None:
        payload = shorten_to_fit(members, _FREE_TEXT, PAYLOAD_LIMIT).encode("ascii")
        if len(payload) > PAYLOAD_LIMIT:
            raise ProtocolError("too_long")
    if full_size:
        return MTC_MESSAGE.pack(signature, 0, 0, 0, command, 0, _NO_PARAMETERS, payload)
    header = MTC_HEADER.pack(signature, 0, 0, 0, command, 0, _NO_PARAMETERS)
    return header + payload


def encode_server_event(command: Command, members: dict[str, object]) -> bytes:
    """Return a datagram of guestServer: all-zero signature, always 1060 bytes."""
    return encode(command, members, signature=SERVER_SIGNATURE, full_size=True)


def encode_agent_command(command: Command, members: dict[str, object]) -> bytes:
    """Return a command of guestAgent to a guestServer."""
    return encode(command, members, signature=AGENT_SIGNATURE)


def encode_ready_for_mtc_agent() -> bytes:
    """Return the 100 bytes that ask mtcAgent to send ADD_HOST for every host."""
    return encode(Command.MONITOR_READY, None, signature=AGENT_SIGNATURE + SERVICE_NAME)


class Record(Protocol):
    """What one kind of message says."""

    def members(self) -> dict[str, object]:
        """Return the members of its JSON, in the order in which they are sent."""


class Ready(NamedTuple):
    """MONITOR_READY: the guestServer of a host has started."""

    hostname: str

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return {"hostname": self.hostname}

    @classmethod
    def of(cls, message: MtcMessage) -> Ready:
        """Read it; raises ProtocolError."""
        return cls(message.text("hostname"))


class InstanceInformation(NamedTuple):
    """RUNNING, STOPPED, ILLHEALTH and an answer to QRY_INST: how an instance is.

    `corrective_action` is the one from init, in ILLHEALTH that of the unhealthy response.
    `name` is what the guest calls itself: for people, and said to a new guestAgent only.
    """

    hostname: str
    uuid: str
    reporting: bool
    heartbeating: bool
    corrective_action: CorrectiveAction
    timeouts: Timeouts
    name: str = ""

    def members(self) -> dict[str, object]:
        """Return the members of its JSON: all values are strings."""
        members: dict[str, object] = {
            "hostname": self.hostname,
            "uuid": self.uuid,
            "reporting": Switch.of(self.reporting),
            "heartbeating": Switch.of(self.heartbeating),
            "repair-action": self.corrective_action,
            **{f"{name}-to": str(secs) for name, secs in self.timeouts._asdict().items()},
        }
        name = shorten(self.name, _NAME_BYTES)
        return {**members, "name": name} if name else members

    @classmethod
    def of(cls, message: MtcMessage) -> InstanceInformation:
        """Read it; an unknown action is UNKNOWN. Raises ProtocolError."""
        return cls(
            message.text("hostname"),
            message.uuid(),
            message.switch("reporting"),
            message.switch("heartbeating"),
            CorrectiveAction.parse(message.text("repair-action")),
            Timeouts(*(message.seconds(f"{name}-to") for name in Timeouts._fields)),
            message.optional("name", NAME_LIMIT),
        )


class Loss(NamedTuple):
    """LOSS: an instance does not answer any more."""

    hostname: str
    uuid: str

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return self._asdict()

    @classmethod
    def of(cls, message: MtcMessage) -> Loss:
        """Read it; raises ProtocolError."""
        return cls(message.text("hostname"), message.uuid())


class VoteAnswer(NamedTuple):
    """VOTE_NOTIFY: what came of a vote or notify.

    `vote` is a word that an old peer may have taken from anywhere; `reason` is guest text.
    """

    hostname: str
    uuid: str
    notification: Notification
    event: Event
    vote: str
    reason: str

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return {
            "hostname": self.hostname,
            "uuid": self.uuid,
            "notification_type": self.notification,
            "event-type": self.event,
            "vote": self.vote,
            "reason": self.reason,
        }

    @classmethod
    def of(cls, message: MtcMessage) -> VoteAnswer:
        """Read it; a missing vote is `unknown`, a missing reason empty. Raises ProtocolError."""
        return cls(
            message.text("hostname"),
            message.uuid(),
            message.notification(),
            message.event("event-type"),
            message.optional("vote", _WORD_LIMIT) or VoteResult.UNKNOWN,
            message.optional("reason", REASON_LIMIT),
        )


class InstanceState(NamedTuple):
    """ADD_INST, MOD_INST and DEL_INST: an instance, and whether its losses are reported."""

    uuid: str
    reporting: bool

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return {
            "uuid": self.uuid,
            "service": HEARTBEAT_SERVICE,
            "state": Switch.of(self.reporting),
        }

    @classmethod
    def of(cls, message: MtcMessage) -> InstanceState:
        """Read it; raises ProtocolError.

        There is one service, so a message without it means that one, as it did to the old daemon.
        """
        if "service" in message.members and message.text("service") != HEARTBEAT_SERVICE:
            raise ProtocolError("service", "unknown service")
        return cls(message.uuid(), message.switch("state"))


class HostState(NamedTuple):
    """MOD_HOST to a guestServer: whether losses on its host are reported."""

    uuid: str
    reporting: bool

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return {"uuid": self.uuid, "heartbeat": Switch.of(self.reporting)}

    @classmethod
    def of(cls, message: MtcMessage) -> HostState:
        """Read it: it is for the host that it was sent to. Raises ProtocolError."""
        return cls(message.optional("uuid"), message.switch("heartbeat"))


class Query(NamedTuple):
    """QRY_INST: tell how each instance is."""

    def members(self) -> dict[str, object]:
        """Return no members."""
        return {}


class Ask(NamedTuple):
    """VOTE_INST and NOTIFY_INST: ask the guest, or tell it."""

    uuid: str
    event: Event

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return self._asdict()

    @classmethod
    def of(cls, message: MtcMessage) -> Ask:
        """Read it; raises ProtocolError."""
        return cls(message.uuid(), message.event())


class HostEntry(NamedTuple):
    """ADD_HOST and MOD_HOST of mtcAgent: a host of the inventory; None and "" are not said."""

    hostname: str
    uuid: str
    ip: str | None
    personality: str

    def members(self) -> dict[str, object]:
        """Return the members of its JSON."""
        return self._asdict()

    @classmethod
    def of(cls, message: MtcMessage) -> HostEntry:
        """Read it; raises ProtocolError."""
        return cls(
            message.text("hostname"),
            message.uuid(),
            usual_address(message.members.get("ip")),
            message.optional("personality"),
        )
