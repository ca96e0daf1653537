"""The words and numbers that both daemons share.

Replaces guestBase.h and guest_heartbeat_msg_defs.h. Imports nothing of the project.
"""

from __future__ import annotations

import re
from enum import Enum, IntEnum
from typing import NamedTuple

# What a guest calls itself, in bytes of UTF-8.
NAME_LIMIT = 64
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def canonical_uuid(text: str) -> str | None:
    """Return `text` in lower case if it is a UUID (8-4-4-4-12 hexadecimal), else None."""
    return text.lower() if _UUID.fullmatch(text) else None


class Word(str, Enum):
    """A word as it stands on a wire; `str(word)` is that text."""

    def __str__(self) -> str:
        return str(self.value)


class CorrectiveAction(Word):
    """What a guest wants done when it is lost or ill (protocol.md, Messages)."""

    NONE = "none"
    REBOOT = "reboot"
    STOP = "stop"
    LOG = "log"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, text: str) -> CorrectiveAction:
        """Return the member, UNKNOWN for a word outside the vocabulary (decision 16)."""
        return _ACTIONS.get(text, cls.UNKNOWN)


class Health(Word):
    """A guest's own judgement. A word outside the vocabulary counts as unhealthy."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Event(Word):
    """What the platform does, or has done, to an instance."""

    STOP = "stop"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    RESUME = "resume"
    RESIZE_BEGIN = "resize_begin"
    RESIZE_END = "resize_end"
    LIVE_MIGRATE_BEGIN = "live_migrate_begin"
    LIVE_MIGRATE_END = "live_migrate_end"
    COLD_MIGRATE_BEGIN = "cold_migrate_begin"
    COLD_MIGRATE_END = "cold_migrate_end"


class Notification(Word):
    """A revocable notification is a vote; an irrevocable one is a notify."""

    REVOCABLE = "revocable"
    IRREVOCABLE = "irrevocable"


class VoteResult(Word):
    """A guest's answer to a vote or notify."""

    ACCEPT = "accept"
    REJECT = "reject"
    COMPLETE = "complete"
    TIMEOUT = "timeout"
    ERROR = "error"
    UNKNOWN = "unknown"


class Switch(Word):
    """A state or status as text: services, hosts, reporting, heartbeating."""

    ENABLED = "enabled"
    DISABLED = "disabled"

    @classmethod
    def of(cls, value: bool) -> Switch:
        """Return the word for a truth value."""
        return cls.ENABLED if value else cls.DISABLED


class Command(IntEnum):
    """Codes in the `cmd` field of the maintenance datagram (datagrams.md)."""

    ADD_HOST = 0x11110010
    DEL_HOST = 0x11110011
    MOD_HOST = 0x11110012
    QRY_HOST = 0x11110013
    ADD_INST = 0x11110020
    DEL_INST = 0x11110021
    MOD_INST = 0x11110022
    QRY_INST = 0x11110023
    VOTE_INST = 0x11110024
    NOTIFY_INST = 0x11110025
    LOOPBACK = 0x01010101
    MONITOR_READY = 0xF0F0F0F0
    HEARTBEAT_LOSS = 0x0000FEAD
    HEARTBEAT_RUNNING = 0x0110FEAD
    HEARTBEAT_STOPPED = 0x0100FEAD
    HEARTBEAT_ILLHEALTH = 0x0001FEAD
    VOTE_NOTIFY = 0xFEEDFEED


# Who says what to whom.
TO_SERVER = (
    Command.ADD_INST,
    Command.MOD_INST,
    Command.DEL_INST,
    Command.QRY_INST,
    Command.VOTE_INST,
    Command.NOTIFY_INST,
    Command.MOD_HOST,
    Command.LOOPBACK,
)
TO_AGENT = (
    Command.MONITOR_READY,
    Command.HEARTBEAT_RUNNING,
    Command.HEARTBEAT_STOPPED,
    Command.HEARTBEAT_LOSS,
    Command.HEARTBEAT_ILLHEALTH,
    Command.VOTE_NOTIFY,
    Command.QRY_INST,
    Command.LOOPBACK,
)
FROM_MTC_AGENT = (Command.ADD_HOST, Command.MOD_HOST, Command.DEL_HOST)

_ACTIONS = {action.value: action for action in CorrectiveAction}
EVENTS = {event.value: event for event in Event}
NOTIFICATIONS = {notification.value: notification for notification in Notification}
VOTE_RESULTS = {result.value: result for result in VoteResult}
SWITCHES = {Switch.ENABLED.value: True, Switch.DISABLED.value: False}

# Sent after the fact: the instance may only just be coming back (decision 6).
POST_EVENTS = frozenset(
    {
        Event.UNPAUSE,
        Event.RESUME,
        Event.RESIZE_END,
        Event.LIVE_MIGRATE_END,
        Event.COLD_MIGRATE_END,
    }
)
SHUTDOWN_EVENTS = frozenset({Event.STOP, Event.REBOOT})


class Timeouts(NamedTuple):
    """How long a guest may take, in seconds: to restart, and to answer each kind of ask."""

    restart: int = 0
    shutdown: int = 0
    suspend: int = 0
    resume: int = 0
    vote: int = 0

    def of(self, event: Event, notification: Notification) -> int:
        """Return the seconds that the guest has to answer a vote or notify (behaviour.md)."""
        if notification is Notification.REVOCABLE:
            return self.vote
        if event in SHUTDOWN_EVENTS:
            return self.shutdown
        return self.resume if event in POST_EVENTS else self.suspend


# Service of an instance: the only one there is.
HEARTBEAT_SERVICE = "heartbeat"
