"""Votes and notifications of an instance: ask the guest, close in time, report once.

Replaces guestSvrFsm's vote handlers (behaviour.md, decisions 6, 7 and 13). At most one is
open at a time. Each ends exactly once: answered, timed out, superseded or deleted; the first
two are reported, for the others the VIM no longer waits.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from guestmtce.core.server import connect, guest_protocol, heartbeat
from guestmtce.core.server.guest_protocol import ActionResponse, Terms
from guestmtce.core.server.machine import Machine, Pending, Row, TimerName, VoteState
from guestmtce.core.shared.vocabulary import (
    POST_EVENTS,
    SHUTDOWN_EVENTS,
    Command,
    Event,
    Notification,
    VoteResult,
)

# The VIM waits exactly the guest's timeout and applies a later answer to its next action, so
# ours ends before: by half a second, or a quarter of a short one.
_EARLY_SECS = 0.5
_SHORT_SECS = 2.0
_SHORT_SHARE = 0.75

NOT_HEARTBEATING = "not heartbeating"


class Input(Enum):
    """What can happen to a vote or notify, guards already decided."""

    ASK = "asked"
    HOLD = "asked, guest not there yet"
    CLOSE = "asked, no guest to ask"
    RESPONSE = "the guest's answer"
    UNEXPECTED = "an answer to something else"
    RELEASE = "challenge answered"
    TIMEOUT = "timer"
    DELETE = "instance deleted"


class Question(NamedTuple):
    """A vote or notify as guestAgent asks it."""

    event: Event
    notification: Notification


def step(m: Machine, event: Input, argument: object = None) -> None:
    """Apply one input; an input without a row in this state is ignored (see IGNORED)."""
    row = TABLE.get((m.vote_state, event))
    if row is not None:
        m.vote_state = row.next_state
        row.handler(m, argument)


def timeout_secs(terms: Terms, event: Event, notification: Notification) -> int:
    """Return how many seconds the guest has for its answer (behaviour.md, vote / notify)."""
    if notification is Notification.REVOCABLE:
        return terms.vote_secs
    if event in SHUTDOWN_EVENTS:
        return terms.shutdown_notice_secs
    return terms.resume_notice_secs if event in POST_EVENTS else terms.suspend_notice_secs


def ask(m: Machine, event: Event, notification: Notification) -> None:
    """GuestAgent wants a vote or notify: ask now, hold it, or close it at once."""
    question = Question(event, notification)
    instance = m.instance
    if notification is Notification.IRREVOCABLE and event in POST_EVENTS:
        heartbeat.step(m, heartbeat.Input.RESUMED)
        there = instance.connected and instance.heartbeating
        step(m, Input.ASK if there else Input.HOLD, question)
        # Last, because it can connect: the guest's answer must find the notification held.
        connect.step(m, connect.Input.WANTED)
    elif instance.connected and instance.initialized:
        step(m, Input.ASK, question)
    else:
        step(m, Input.CLOSE, question)


def response(m: Machine, message: ActionResponse) -> None:
    """The guest answers; only the right id, event, type and a known word count (decision 13)."""
    instance = m.instance
    if message.invocation_id != instance.invocation_id:
        text = (
            f"Invocation id mismatch. Received: {message.invocation_id} "
            f"expect: {instance.invocation_id}"
        )
        m.worker.stats.bad_messages["invocation_id"] += 1
        m.port.bad_message("invocation_id", text.encode())
        nack = guest_protocol.encode_nack(m.next_sequence(), instance.invocation_id, text)
        m.port.send(nack)
        return
    pending = m.pending
    matches = (
        m.vote_state is VoteState.PENDING
        and pending is not None
        and message.event is pending.event
        and message.notification is pending.notification
        and message.vote is not None
    )
    step(m, Input.RESPONSE if matches else Input.UNEXPECTED, message)


def _open(m: Machine, question: Question) -> None:
    """Note the question and start its timer; what was open before is superseded."""
    if m.pending is not None:
        m.worker.stats.votes["superseded"] += 1
        m.port.note(
            "%s %s superseded by %s", m.pending.notification, m.pending.event, question.event
        )
    secs = timeout_secs(m.instance.terms, question.event, question.notification)
    own = secs - _EARLY_SECS if secs >= _SHORT_SECS else secs * _SHORT_SHARE
    m.pending = Pending(question.event, question.notification, m.worker.clock() + secs)
    m.port.start_timer(TimerName.VOTE, own)


def _ask(m: Machine, question: Question) -> None:
    _open(m, question)
    _send(m)


def _send(m: Machine, _argument: object = None) -> None:
    """Put the open question to the guest, with the time that is left."""
    pending = m.pending
    assert pending is not None  # noqa: S101 - for the type checker; the states guarantee it
    left_ms = max(0, round((pending.expires_at - m.worker.clock()) * 1000))
    m.port.send(
        guest_protocol.encode_action_notify(
            m.next_sequence(),
            m.instance.invocation_id,
            pending.event,
            pending.notification,
            left_ms,
        )
    )


def _close_at_once(m: Machine, question: Question) -> None:
    """There is nobody to ask: consent, and say why."""
    _open(m, question)
    _end(m, "closed", _consent(question.notification), NOT_HEARTBEATING)


def _consent(notification: Notification) -> VoteResult:
    if notification is Notification.REVOCABLE:
        return VoteResult.ACCEPT
    return VoteResult.COMPLETE


def _answer(m: Machine, message: ActionResponse) -> None:
    vote = message.vote or VoteResult.UNKNOWN
    _end(m, str(vote), vote, message.log_msg)


def _drop(m: Machine, message: ActionResponse) -> None:
    """Nack-free: the guest has done nothing wrong that it could mend."""
    m.worker.stats.votes["unexpected"] += 1
    m.port.note("an answer to a vote that is not open, dropped (event %s)", message.event)


def _time_out(m: Machine, _argument: object) -> None:
    pending = m.pending
    assert pending is not None  # noqa: S101 - for the type checker; the states guarantee it
    _end(m, "unanswered", _consent(pending.notification), "")


def _end(m: Machine, result: str, vote: VoteResult, reason: str) -> None:
    """Close the open question and report it, after what it does to the heartbeat."""
    pending = m.pending
    assert pending is not None  # noqa: S101 - for the type checker; the states guarantee it
    m.pending = None
    m.port.cancel_timer(TimerName.VOTE)
    m.worker.stats.votes[result] += 1
    if pending.notification is Notification.IRREVOCABLE:
        if pending.event is Event.PAUSE:
            heartbeat.step(m, heartbeat.Input.PAUSED)
        elif pending.event is Event.SUSPEND:
            heartbeat.step(m, heartbeat.Input.SUSPENDED)
            connect.step(m, connect.Input.SUSPENDED)
    m.port.report(
        Command.VOTE_NOTIFY,
        {
            "hostname": m.worker.hostname,
            "uuid": m.instance.uuid,
            "notification_type": str(pending.notification),
            "event-type": str(pending.event),
            "vote": str(vote),
            "reason": reason,
        },
    )


def _delete(m: Machine, _argument: object) -> None:
    m.pending = None
    m.port.cancel_timer(TimerName.VOTE)
    m.worker.stats.votes["deleted"] += 1


_NONE = VoteState.NONE
_PENDING = VoteState.PENDING
_HELD = VoteState.HELD

TABLE: dict[tuple[VoteState, Input], Row[VoteState]] = {
    (_NONE, Input.ASK): Row(_PENDING, _ask),
    (_NONE, Input.HOLD): Row(_HELD, _open),
    (_NONE, Input.CLOSE): Row(_NONE, _close_at_once),
    (_NONE, Input.UNEXPECTED): Row(_NONE, _drop),
    (_PENDING, Input.ASK): Row(_PENDING, _ask),
    (_PENDING, Input.HOLD): Row(_HELD, _open),
    (_PENDING, Input.CLOSE): Row(_NONE, _close_at_once),
    (_PENDING, Input.RESPONSE): Row(_NONE, _answer),
    (_PENDING, Input.UNEXPECTED): Row(_PENDING, _drop),
    (_PENDING, Input.TIMEOUT): Row(_NONE, _time_out),
    (_PENDING, Input.DELETE): Row(_NONE, _delete),
    (_HELD, Input.ASK): Row(_PENDING, _ask),
    (_HELD, Input.HOLD): Row(_HELD, _open),
    (_HELD, Input.CLOSE): Row(_NONE, _close_at_once),
    (_HELD, Input.UNEXPECTED): Row(_HELD, _drop),
    (_HELD, Input.RELEASE): Row(_PENDING, _send),
    (_HELD, Input.TIMEOUT): Row(_NONE, _time_out),
    (_HELD, Input.DELETE): Row(_NONE, _delete),
}

# Nothing is open, or what is open waits for something else.
IGNORED = frozenset(
    (state, event) for state in VoteState for event in Input if (state, event) not in TABLE
)
