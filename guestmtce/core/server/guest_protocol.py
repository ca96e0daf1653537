"""The guest channel, protocol 3.1: framing and messages (protocol.md).

Replaces guestSvrMsg's parser and header. Sans-I/O: bytes in, typed messages out; numbers and
words in, bytes out. Everything that a guest sends is checked here, once, and typed after that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn, Union

from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.text import clean, decode_rough_json, encode_json
from guestmtce.core.shared.vocabulary import (
    EVENTS,
    NAME_LIMIT,
    NOTIFICATIONS,
    VOTE_RESULTS,
    CorrectiveAction,
    Event,
    Health,
    Notification,
    Timeouts,
    VoteResult,
)

VERSION = 3
MESSAGE_LIMIT = 1056
# Why a message is refused: every reason that a bad message is counted under.
BAD_MESSAGES = (
    "bad_header",
    "bad_key",
    "bad_version",
    "invocation_id",
    "nack",
    "not_json",
    "not_object",
    "rate",
    "too_deep",
    "too_long",
    "unsupported_type",
)
LOG_MSG_LIMIT = 224
CHALLENGE_LIMIT = 2**31

_DEPTH_LIMIT = 8
_INTERVAL_LIMIT_MS = 86_400_000
_SECS_LIMIT = 86_400
_NUMBER_LIMIT = 2**63
_MSG_TYPE_LIMIT = 64
_FREE_TEXT = "log_msg"
_NACK_TYPE = "nack"


class Terms(NamedTuple):
    """What a guest asks for at init; the defaults hold until it does (behaviour.md)."""

    name: str = ""
    interval_ms: int = 1000
    timeouts: Timeouts = Timeouts(restart=120, shutdown=10, suspend=10, resume=10, vote=10)
    corrective_action: CorrectiveAction = CorrectiveAction.LOG


class Init(NamedTuple):
    """The guest's client has started, or has heard nothing for a while."""

    invocation_id: int
    terms: Terms


class ChallengeResponse(NamedTuple):
    """An answer to a challenge. `health_known` is False for a word outside the vocabulary."""

    number: int
    health: Health
    health_known: bool
    corrective_action: CorrectiveAction
    log_msg: str


class ActionResponse(NamedTuple):
    """An answer to a vote or notify; None stands for a word outside the vocabulary."""

    invocation_id: int
    event: Event | None
    notification: Notification | None
    vote: VoteResult | None
    log_msg: str


class Exit(NamedTuple):
    """The guest's client ends on purpose."""

    log_msg: str


GuestMessage = Union[Init, ChallengeResponse, ActionResponse, Exit]


class Framer:
    """Splits a byte stream at newlines into messages, in memory for one message at most.

    The result does not depend on how the bytes were split. A message over MESSAGE_LIMIT is
    thrown away up to its newline and comes out as None, once. `tail` is what has come of a
    message that is not whole yet.
    """

    __slots__ = ("_discarding", "tail")

    def __init__(self) -> None:
        self.tail = b""
        self._discarding = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the messages that `data` completes, in order; None for one that is too long."""
        messages: list[bytes | None] = []
        *lines, self.tail = (self.tail + data).split(b"\n")
        for line in lines:
            if self._discarding:
                self._discarding = False
            elif len(line) > MESSAGE_LIMIT:
                messages.append(None)
            elif line:
                messages.append(line)
        if not self._discarding and len(self.tail) > MESSAGE_LIMIT:
            self._discarding = True
            messages.append(None)
        if self._discarding:
            self.tail = b""
        return messages


def decode(line: bytes) -> GuestMessage:
    """Return the message in `line`.

    Raises ProtocolError: its `reason` is the counter, its `answer` the text of the nack, or
    None where silence is the answer (protocol.md, Bad input).
    """
    members = _parse(line)
    if members.get("msg_type") == _NACK_TYPE:
        # Answered by a nack, two that refuse each other would never end.
        raise ProtocolError("nack")
    version = _integer(members, "version", "bad_header")
    if version < VERSION:
        raise ProtocolError("bad_version", f"Bad version: {version}, expect version: {VERSION}")
    _integer(members, "revision", "bad_header")
    msg_type = members.get("msg_type")
    if not isinstance(msg_type, str):
        _fail("msg_type", "bad_header")
    _integer(members, "sequence", "bad_header")
    read = _READERS.get(msg_type)
    if read is None:
        shown = clean(msg_type, _MSG_TYPE_LIMIT)
        raise ProtocolError("unsupported_type", f"unsupported message type: {shown}")
    return read(members)


def _parse(line: bytes) -> dict[str, object]:
    """Return the message's members; an old client's raw text in `log_msg` is understood."""
    try:
        members = decode_rough_json(line, _FREE_TEXT)
    except ValueError:
        raise ProtocolError("not_json") from None
    if not isinstance(members, dict):
        raise ProtocolError("not_object")
    # The count is a bound of the depth, and costs nothing for what guests really send.
    if line.count(b"{") + line.count(b"[") > _DEPTH_LIMIT and _depth(members) > _DEPTH_LIMIT:
        raise ProtocolError("too_deep")
    return members


def _depth(value: object) -> int:
    """Return how many objects and arrays are inside one another, without recursion."""
    depth = 0
    level: list[object] = [value]
    while level:
        inner: list[object] = []
        found = False
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            else:
                continue
            found = True
        depth += found
        level = inner
    return depth


def _fail(key: str, reason: str = "bad_key") -> NoReturn:
    raise ProtocolError(reason, f"failed to parse {key}")


def _integer(members: dict[str, object], key: str, reason: str = "bad_key") -> int:
    value = members.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        _fail(key, reason)
    return value


def _number(members: dict[str, object], key: str, limit: int = _NUMBER_LIMIT - 1) -> int:
    value = _integer(members, key)
    if not 0 <= value <= limit:
        _fail(key)
    return value


def _secs(members: dict[str, object], key: str) -> int:
    return _number(members, key, _SECS_LIMIT)


def _string(members: dict[str, object], key: str) -> str:
    value = members.get(key)
    if not isinstance(value, str):
        _fail(key)
    return value


def _read_init(members: dict[str, object]) -> Init:
    invocation_id = _number(members, "invocation_id")
    name = clean(_string(members, "name"), NAME_LIMIT)
    interval_ms = _integer(members, "heartbeat_interval_ms")
    if interval_ms > _INTERVAL_LIMIT_MS:
        _fail("heartbeat_interval_ms")
    timeouts = Timeouts(
        vote=_secs(members, "vote_secs"),
        shutdown=_secs(members, "shutdown_notice_secs"),
        suspend=_secs(members, "suspend_notice_secs"),
        resume=_secs(members, "resume_notice_secs"),
        restart=_secs(members, "restart_secs"),
    )
    action = CorrectiveAction.parse(_string(members, "corrective_action"))
    return Init(invocation_id, Terms(name, interval_ms, timeouts, action))


def _read_challenge_response(members: dict[str, object]) -> ChallengeResponse:
    number = _number(members, "heartbeat_response")
    health = _string(members, "heartbeat_health")
    action = CorrectiveAction.parse(_string(members, "corrective_action"))
    return ChallengeResponse(
        number=number,
        health=Health.HEALTHY if health == Health.HEALTHY.value else Health.UNHEALTHY,
        health_known=health in (Health.HEALTHY.value, Health.UNHEALTHY.value),
        corrective_action=action,
        log_msg=clean(_string(members, "log_msg"), LOG_MSG_LIMIT),
    )


def _read_action_response(members: dict[str, object]) -> ActionResponse:
    return ActionResponse(
        invocation_id=_number(members, "invocation_id"),
        event=EVENTS.get(_string(members, "event_type")),
        notification=NOTIFICATIONS.get(_string(members, "notification_type")),
        vote=VOTE_RESULTS.get(_string(members, "vote_result")),
        log_msg=clean(_string(members, "log_msg"), LOG_MSG_LIMIT),
    )


def _read_exit(members: dict[str, object]) -> Exit:
    return Exit(clean(_string(members, "log_msg"), LOG_MSG_LIMIT))


_READERS: dict[str, Callable[[dict[str, object]], GuestMessage]] = {
    "init": _read_init,
    "challenge_response": _read_challenge_response,
    "action_response": _read_action_response,
    "exit": _read_exit,
}

# What we send, written out: the bytes are the contract, and a challenge is made by one format.
_HEADER = b'\n{"version":3,"revision":1,"msg_type":"%s","sequence":%%d,'
_INIT_ACK = _HEADER % b"init_ack" + b'"invocation_id":%d}\n'
_CHALLENGE = _HEADER % b"challenge" + b'"heartbeat_challenge":%d}\n'
_ACTION_NOTIFY = (
    _HEADER % b"action_notify"
    + b'"invocation_id":%d,"event_type":"%s","notification_type":"%s","timeout_ms":%d}\n'
)
_NACK = _HEADER % b"nack" + b'"invocation_id":%d,"log_msg":%s}\n'


class Writer:
    """Writes our messages to one guest.

    `sequence` is the number of the last one, they count from 1; `invocation_id` is that of the
    guest's last init.
    """

    __slots__ = ("invocation_id", "sequence")

    def __init__(self, invocation_id: int = 0, sequence: int = 0) -> None:
        self.invocation_id = invocation_id
        self.sequence = sequence

    def init_ack(self) -> bytes:
        """Return the answer to an init."""
        return _INIT_ACK % (self._next(), self.invocation_id)

    def challenge(self, number: int) -> bytes:
        """Return a challenge; `number` is 0 … 2**31 - 1."""
        self.sequence += 1
        return _CHALLENGE % (self.sequence, number)

    def action_notify(self, event: Event, notification: Notification, timeout_ms: int) -> bytes:
        """Return a vote (revocable) or notify (irrevocable) for the guest."""
        words = event.value.encode(), notification.value.encode()
        return _ACTION_NOTIFY % (self._next(), self.invocation_id, *words, timeout_ms)

    def nack(self, log_msg: str) -> bytes:
        """Return a refusal that says what was wrong with the guest's message, cut to its limit."""
        text = encode_json(clean(log_msg, LOG_MSG_LIMIT)).encode("ascii")
        return _NACK % (self._next(), self.invocation_id, text)

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence
