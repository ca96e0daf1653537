"""The two wire formats as the peers use them: the maintenance datagram and guest messages."""

from __future__ import annotations

import json
import re
import struct
from typing import Any, NamedTuple

MESSAGE_LIMIT = 1056

# datagrams.md: hdr, ver, rev, res, cmd, num, parm[5], buf; little endian, packed.
DATAGRAM_HEAD = struct.Struct("<64sHHIII5I")
DATAGRAM_SIZE = 1060
BUF_SIZE = DATAGRAM_SIZE - DATAGRAM_HEAD.size

GUEST_SIGNATURE = b"guest msg header:"
MTC_SIGNATURE = b"cgts mtc cmd req:"

COMMANDS = {
    "ADD_HOST": 0x11110010,
    "DEL_HOST": 0x11110011,
    "MOD_HOST": 0x11110012,
    "QRY_HOST": 0x11110013,
    "ADD_INST": 0x11110020,
    "DEL_INST": 0x11110021,
    "MOD_INST": 0x11110022,
    "QRY_INST": 0x11110023,
    "VOTE_INST": 0x11110024,
    "NOTIFY_INST": 0x11110025,
    "LOOPBACK": 0x01010101,
    "MONITOR_READY": 0xF0F0F0F0,
    "LOSS": 0x0000FEAD,
    "RUNNING": 0x0110FEAD,
    "STOPPED": 0x0100FEAD,
    "ILLHEALTH": 0x0001FEAD,
    "VOTE_NOTIFY": 0xFEEDFEED,
}
# What a new peer adds to each message beside what it says.
STAMP = frozenset({"epoch", "seq", "id", "re", "of"})
NAMES = {code: name for name, code in COMMANDS.items()}


class Datagram(NamedTuple):
    """A received maintenance datagram; `name` is hexadecimal for an unknown command."""

    name: str
    body: dict[str, Any]
    header: bytes
    size: int
    at: float = 0.0


def pack(
    name: str, body: dict[str, Any] | None, signature: bytes = b"", full: bool = True
) -> bytes:
    """Return a datagram. `full` False truncates it after the used part of buf."""
    text = b"" if body is None else json.dumps(body, separators=(",", ":")).encode() + b"\0"
    if len(text) > BUF_SIZE:
        raise ValueError(f"{len(text)} bytes do not fit buf")
    head = DATAGRAM_HEAD.pack(signature, 0, 0, 0, COMMANDS[name], 0, 0, 0, 0, 0, 0)
    return head + (text.ljust(BUF_SIZE, b"\0") if full else text)


def unpack(data: bytes, at: float = 0.0) -> Datagram:
    """Return what `data` says; raise ValueError when it is no maintenance datagram."""
    if not DATAGRAM_HEAD.size <= len(data) <= DATAGRAM_SIZE:
        raise ValueError(f"{len(data)} bytes")
    header, _ver, _rev, _res, command, *_rest = DATAGRAM_HEAD.unpack_from(data)
    text = data[DATAGRAM_HEAD.size :].split(b"\0", 1)[0]
    body = json.loads(text) if text else {}
    if not isinstance(body, dict):
        raise ValueError("not an object")
    return Datagram(NAMES.get(command, hex(command)), body, header, len(data), at)


def as_old_peer(datagram: Datagram) -> Datagram | None:
    """Return what an old peer makes of it: LOOPBACK is ignored, members are read by name."""
    if datagram.name == "LOOPBACK":
        return None
    body = {key: value for key, value in datagram.body.items() if key not in STAMP}
    return datagram._replace(body=body)


def unstamped(data: bytes) -> bytes:
    """Return a datagram without the members that an old peer does not read, and nothing else."""
    text = data[DATAGRAM_HEAD.size :].split(b"\0", 1)[0]
    rest = re.sub(rb',?"(?:epoch|seq|re|of)":[0-9]+', b"", text)
    rest = re.sub(rb',?"id":"[0-9.]+"', b"", rest).replace(b"{,", b"{")
    full = len(data) == DATAGRAM_SIZE
    whole = data[: DATAGRAM_HEAD.size] + rest
    return whole.ljust(DATAGRAM_SIZE, b"\0") if full else whole


def message(msg_type: str, sequence: int, **body: Any) -> bytes:
    """Return one message of the guest channel, framed; `body` keeps its order."""
    head = {"version": 3, "revision": 1, "msg_type": msg_type, "sequence": sequence}
    return b"\n" + json.dumps({**head, **body}, separators=(",", ":")).encode() + b"\n"


def init_body(**changed: Any) -> dict[str, Any]:
    """Return the body of a valid init, with some keys `changed`."""
    return {
        "invocation_id": 1804289383,
        "name": "vm-1",
        "heartbeat_interval_ms": 1000,
        "vote_secs": 9,
        "shutdown_notice_secs": 9,
        "suspend_notice_secs": 9,
        "resume_notice_secs": 14,
        "restart_secs": 301,
        "corrective_action": "reboot",
        **changed,
    }


class MessageReader:
    """Collects messages from a stream; strict: what is not a good message raises ValueError."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take bytes; return the messages that they complete."""
        *lines, self._tail = (self._tail + data).split(b"\n")
        messages = []
        for line in filter(None, lines):
            if len(line) > MESSAGE_LIMIT:
                raise ValueError(f"a message of {len(line)} bytes")
            found = json.loads(line.decode("utf-8"))
            if not isinstance(found, dict) or list(found)[:4] != [
                "version",
                "revision",
                "msg_type",
                "sequence",
            ]:
                raise ValueError(f"not a message: {line!r}")
            messages.append(found)
        return messages
