"""The maintenance datagram: guestServer - guestAgent, mtcAgent - guestAgent (server-agent.md).

Replaces mtc_message_type and its casts. Sans-I/O: bytes in, typed message out, and back.
The JSON in `buf` is read here into a dict of checked shape; the readers below take from it
what one kind of message must carry.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.text import decode_json, shorten_to_fit
from guestmtce.core.shared.vocabulary import (
    EVENTS,
    NOTIFICATIONS,
    SWITCHES,
    Command,
    Event,
    Notification,
    canonical_uuid,
)

# hdr, ver, rev, res, cmd, num, parm[5], buf
MTC_MESSAGE = struct.Struct("<64sHHIII20s960s")
MTC_HEADER = struct.Struct("<64sHHIII20s")

BUFFER_SIZE = 960
PAYLOAD_LIMIT = BUFFER_SIZE - 1
HOSTNAME_LIMIT = 255

AGENT_SIGNATURE = b"guest msg header:\0"
MTC_SIGNATURE = b"cgts mtc cmd req:\0"
SIGNATURE_SIZE = 18
SERVER_SIGNATURE = bytes(SIGNATURE_SIZE)
SERVICE_NAME = b"guestAgent"

_NO_PARAMETERS = bytes(20)


@dataclass(frozen=True)
class MtcMessage:
    """One datagram, decoded: its command code, its signature and the members of its JSON."""

    command: int
    signature: bytes = SERVER_SIGNATURE
    members: dict[str, Any] = field(default_factory=dict)

    def text(self, key: str, limit: int = HOSTNAME_LIMIT) -> str:
        """Return the non-empty string under `key`; raises ProtocolError."""
        value = self.members.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= limit:
            raise ProtocolError("bad_member", f"failed to parse {key}")
        return value

    def uuid(self, key: str = "uuid") -> str:
        """Return the UUID under `key` in lower case; raises ProtocolError."""
        uuid = canonical_uuid(self.text(key))
        if uuid is None:
            raise ProtocolError("bad_member", f"failed to parse {key}")
        return uuid

    def switch(self, key: str) -> bool:
        """Return True for `enabled`, False for `disabled`; raises ProtocolError."""
        value = SWITCHES.get(self.text(key))
        if value is None:
            raise ProtocolError("bad_member", f"failed to parse {key}")
        return value

    def event(self, key: str = "event") -> Event:
        """Return the platform event under `key`; raises ProtocolError."""
        event = EVENTS.get(self.text(key))
        if event is None:
            raise ProtocolError("bad_member", f"failed to parse {key}")
        return event

    def notification(self, key: str = "notification_type") -> Notification:
        """Return the notification type under `key`; raises ProtocolError."""
        notification = NOTIFICATIONS.get(self.text(key))
        if notification is None:
            raise ProtocolError("bad_member", f"failed to parse {key}")
        return notification


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


def _parse_object(payload: bytes) -> dict[str, Any]:
    try:
        members = decode_json(payload.decode("utf-8"))
    except ValueError:
        raise ProtocolError("not_json") from None
    if not isinstance(members, dict):
        raise ProtocolError("not_object")
    return members


def encode(
    command: Command,
    members: dict[str, Any] | None,
    *,
    signature: bytes,
    free_text: str = "reason",
    full_size: bool = False,
) -> bytes:
    """Return the datagram for `command`, ended after its JSON or padded to 1060 bytes.

    A payload over 959 bytes is shortened in its member `free_text`, never cut in mid-JSON;
    raises ProtocolError if it does not fit even so.
    """
    payload = b""
    if members is not None:
        payload = shorten_to_fit(members, free_text, PAYLOAD_LIMIT).encode("ascii")
        if len(payload) > PAYLOAD_LIMIT:
            raise ProtocolError("too_long")
    if full_size:
        return MTC_MESSAGE.pack(signature, 0, 0, 0, command, 0, _NO_PARAMETERS, payload)
    header = MTC_HEADER.pack(signature, 0, 0, 0, command, 0, _NO_PARAMETERS)
    return header + payload


def encode_server_event(command: Command, members: dict[str, Any]) -> bytes:
    """Return a datagram of guestServer: all-zero signature, always 1060 bytes."""
    return encode(command, members, signature=SERVER_SIGNATURE, full_size=True)


def encode_agent_command(command: Command, members: dict[str, Any]) -> bytes:
    """Return a command of guestAgent to a guestServer."""
    return encode(command, members, signature=AGENT_SIGNATURE)


def encode_ready_for_mtc_agent() -> bytes:
    """Return the 100 bytes that ask mtcAgent to send ADD_HOST for every host."""
    return encode(Command.MONITOR_READY, None, signature=AGENT_SIGNATURE + SERVICE_NAME)
