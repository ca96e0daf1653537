"""What happened, in order, to or by a guestServer: one form for a recording and for a replay."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from tests.peers import wire

_GUEST_MESSAGES = frozenset({"init", "challenge_response", "action_response", "exit"})
_HOST_MESSAGES = frozenset({"init_ack", "challenge", "action_notify", "nack"})
_NUMBER = re.compile(r'"heartbeat_challenge":\d+')
_SEQUENCE = re.compile(r'"sequence":\d+,?')


class Event(NamedTuple):
    """One message, connect, close or act.

    `said` tells guestServer's outputs from its inputs. `who` is the instance (the end of its
    UUID), empty for what concerns all. `text` is the message, compact, without what is random:
    the number of a challenge and the sequence.
    """

    at: float
    who: str
    said: bool
    name: str
    text: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.who, self.name, self.text)))


def who(uuid: str) -> str:
    return uuid[-3:]


def compact(text: str) -> str:
    """JSON without spaces, its keys in their order; other text as it is."""
    try:
        return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    except ValueError:
        return text


def guest_event(at: float, instance: str, said: bool, line: str) -> Event:
    """A line on the guest channel; what is none of that side's messages is `rubbish`."""
    name = _message_type(line)
    known = name in (_HOST_MESSAGES if said else _GUEST_MESSAGES)
    text = _without_chance(compact(line))
    return Event(at, instance, said, name if known else "rubbish", text)


def _message_type(line: str) -> str:
    try:
        message = json.loads(line)
    except ValueError:
        return ""
    return str(message.get("msg_type")) if isinstance(message, dict) else ""


def _without_chance(text: str) -> str:
    return _SEQUENCE.sub("", _NUMBER.sub('"heartbeat_challenge":N', text))


def said_datagram(at: float, name: str, buf: str) -> Event:
    return Event(at, uuid_in(buf), True, name, compact(buf))


def heard_datagram(at: float, name: str, buf: str) -> Event:
    return Event(at, uuid_in(buf), False, name, buf)


def uuid_in(buf: str) -> str:
    match = re.search(r'"uuid": ?"([^"]*)"', buf)
    return who(match[1]) if match else ""


def own_datagram(at: float, data: bytes) -> Event:
    """A datagram of our guestServer: 1060 bytes, all zero but command and compact payload."""
    head = wire.DATAGRAM_HEAD.unpack_from(data)
    payload = data[wire.DATAGRAM_HEAD.size :].rstrip(b"\0").decode("ascii")
    assert len(data) == wire.DATAGRAM_SIZE
    assert not any(head[0])
    assert not any(head[1:4] + head[5:])
    assert payload == json.dumps(json.loads(payload), separators=(",", ":"))
    return said_datagram(at, wire.NAMES[head[4]], payload)


class OwnLines:
    """Lines of our guestServer to one guest: each framed, compact, and numbered from 1."""

    def __init__(self) -> None:
        self._sequence = 0

    def feed(self, data: bytes) -> list[tuple[str, dict[str, Any]]]:
        """Take whole messages; return each as it is and decoded."""
        parts = data.decode("ascii").split("\n")
        assert not any(parts[::2]), "a newline before each message and one after it"
        return [(line, self._check(line)) for line in parts[1::2]]

    def _check(self, line: str) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(line)
        assert line == json.dumps(message, separators=(",", ":"))
        self._sequence += 1
        assert message["sequence"] == self._sequence
        return message
