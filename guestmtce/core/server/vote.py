"""Votes and notifications of an instance: ask the guest, close in time, report once.

Replaces guestSvrFsm's vote handlers (behaviour.md, decisions 6, 7 and 13). What the table
below rests on:

An *ask* is a vote or a notify. A vote (revocable) asks whether the platform may do something
to the VM, and silence is consent; a notify (irrevocable) tells that it will, or has, and the
guest says when it is ready. The VIM waits for the answer for a time that the guest named at
its init, then goes on. At most one ask of an instance is open. It is *pending* when the guest
has it, or *held* while the guest is only just coming back: a post-event notification waits for
the first answered challenge after the next init, as a guest that has not heard a challenge yet
would answer `complete` at once without asking anybody.

Each ask ends exactly once. Answered or timed out: reported. Superseded by a newer one, or its
instance deleted: not reported, as the VIM no longer waits. Where there is no guest to ask, it
is closed at once with consent, which is reported too.
"""

from __future__ import annotations

from typing import NamedTuple

from guestmtce.core.server import connect, heartbeat
from guestmtce.core.server.connect import Connection
from guestmtce.core.server.guest_protocol import ActionResponse
from guestmtce.core.server.heartbeat import Heartbeat
from guestmtce.core.server.machine import Machine, Row, Symbol, TimerName, belong
from guestmtce.core.shared.history import What
from guestmtce.core.shared.mtc_message import VoteAnswer
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import (
    POST_EVENTS,
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

_CONSENT = {
    Notification.REVOCABLE: VoteResult.ACCEPT,
    Notification.IRREVOCABLE: VoteResult.COMPLETE,
}


class VoteState(Symbol):
    """Where the ask of an instance stands."""

    NONE = "none"
    PENDING = "pending"  # sent to the guest, its timer runs
    HELD = "held"  # a post-event notification waits for the guest to come back


class Input(Symbol):
    """What can happen to an ask, guards already decided."""

    ASK = "asked"
    HOLD = "asked, guest not there yet"
    CLOSE = "asked, no guest to ask"
    RESPONSE = "the guest's answer"
    UNEXPECTED = "an answer to something else"
    RELEASE = "challenge answered"
    TIMEOUT = "timer"
    DELETED = "instance deleted"


class OpenAsk(NamedTuple):
    """A vote or notify that the VIM waits for.

    `secs` is the guest's own time for it, which is over at `expires_at` (seconds of the
    worker's clock).
    """

    event: Event
    notification: Notification
    secs: int
    expires_at: float


class Vote(Machine[VoteState]):
    """The ask of an instance: the open one, unless the state is NONE.

    `last_answer` says what came of the last one that was reported, for an operator.
    """

    __slots__ = ("_ask", "_connection", "_heartbeat", "last_answer")

    # The open ask; what it was while none is. Unset before the first.
    _ask: OpenAsk

    def __init__(self, heartbeat: Heartbeat, connection: Connection) -> None:
        super().__init__(VoteState.NONE, TABLE, heartbeat.worker, heartbeat.port)
        self._heartbeat = heartbeat
        self._connection = connection
        self.last_answer = ""

    @property
    def open_ask(self) -> OpenAsk | None:
        """The ask that has not ended, None if there is none."""
        return None if self.state is VoteState.NONE else self._ask

    @property
    def expires_at(self) -> float:
        """When the VIM no longer waits for the answer to the last ask."""
        return self._ask.expires_at

    def ask(self, event: Event, notification: Notification) -> None:
        """GuestAgent wants a vote or notify: ask now, hold it, or close it at once."""
        secs = self._heartbeat.reports.terms.timeouts.of(event, notification)
        ask = OpenAsk(event, notification, secs, self.worker.clock() + secs)
        connected = self._connection.connected
        if notification is Notification.IRREVOCABLE and event in POST_EVENTS:
            self._heartbeat.step(heartbeat.Input.RESUMED)
            there = connected and self._heartbeat.heartbeating
            self._step_open(Input.ASK if there else Input.HOLD, ask)
            self._connection.step(connect.Input.WANTED)
        elif connected and self._heartbeat.initialized:
            self._step_open(Input.ASK, ask)
        else:
            self._step_open(Input.CLOSE, ask)

    def _step_open(self, event: Input, ask: OpenAsk) -> None:
        """Open `ask`; one that is open already is superseded."""
        before = self.open_ask
        if before is not None:
            self.worker.stats.votes["superseded"] += 1
            self._remember_end(before, f"superseded by {ask.notification} {ask.event}")
            self.port.note("%s %s superseded by %s", before.notification, before.event, ask.event)
        self._ask = ask
        self._heartbeat.memory.add(What.ASKED, f"{ask.notification} {ask.event}, {ask.secs} s")
        self.step(event)

    def response(self, message: ActionResponse) -> None:
        """The guest answers; only the right id, event, type and a known word count (decision 13).

        An answer that fits no open ask gets no nack: it would not tell the guest anything that
        it could correct. One with another invocation id does.
        """
        writer = self._heartbeat.writer
        if message.invocation_id != writer.invocation_id:
            text = (
                f"Invocation id mismatch. Received: {message.invocation_id} "
                f"expect: {writer.invocation_id}"
            )
            self.worker.stats.bad_messages["invocation_id"] += 1
            self.port.bad_message("invocation_id", text.encode())
            self.port.send(writer.nack(text))
            return
        matches = (
            self.state is VoteState.PENDING
            and message.event is self._ask.event
            and message.notification is self._ask.notification
            and message.vote is not None
        )
        self.step(Input.RESPONSE if matches else Input.UNEXPECTED, message)

    def _hold(self, _argument: object) -> None:
        """Start our timer for the ask, which ends before the VIM's."""
        secs = self._ask.secs
        own = secs - _EARLY_SECS if secs >= _SHORT_SECS else secs * _SHORT_SHARE
        self.port.start_timer(TimerName.VOTE, own)

    def _put(self, _argument: object) -> None:
        self._hold(None)
        self._send(None)

    def _send(self, _argument: object) -> None:
        """Put the ask to the guest, with the time that is left."""
        ask = self._ask
        self._heartbeat.memory.message("> action_notify")
        left_ms = max(0, round((ask.expires_at - self.worker.clock()) * 1000))
        writer = self._heartbeat.writer
        self.port.send(writer.action_notify(ask.event, ask.notification, left_ms))

    def _close_at_once(self, _argument: object) -> None:
        """There is nobody to ask: consent, and say why."""
        self._consent("closed", "no client to ask", NOT_HEARTBEATING)

    def _answer(self, message: ActionResponse) -> None:
        ask, vote = self._ask, message.vote or VoteResult.UNKNOWN
        reason = f", {message.log_msg}" if message.log_msg else ""
        self._heartbeat.memory.add(What.ANSWERED, f"{ask.notification} {ask.event}: {vote}{reason}")
        self._end(str(vote), vote, message.log_msg)

    def _drop(self, message: ActionResponse) -> None:
        self.worker.stats.votes["unexpected"] += 1
        self.port.note("an answer to a vote that is not open, dropped (event %s)", message.event)

    def _time_out(self, _argument: object) -> None:
        self._consent("unanswered", f"no answer in time{self._absence()}", "")

    def _absence(self) -> str:
        """Return why a guest could not answer, for people; "" if it could."""
        if not self._connection.connected:
            return ", its channel is closed"
        return "" if self._heartbeat.initialized else ", its client is gone"

    def _consent(self, result: str, end: str, reason: str) -> None:
        """End the ask as if the guest agreed."""
        vote = _CONSENT[self._ask.notification]
        self._remember_end(self._ask, f"{end}, taken as {vote}")
        self._end(result, vote, reason)

    def _remember_end(self, ask: OpenAsk, end: str) -> None:
        """Remember that an ask ended without an answer."""
        self._heartbeat.memory.add(What.ENDED, f"{ask.notification} {ask.event}: {end}")

    def _end(self, result: str, vote: VoteResult, reason: str) -> None:
        """Report what came of the ask, after what it does to the heartbeat."""
        ask = self._ask
        self.worker.stats.votes[result] += 1
        if ask.notification is Notification.IRREVOCABLE:
            if ask.event is Event.PAUSE:
                self._heartbeat.step(heartbeat.Input.PAUSED)
            elif ask.event is Event.SUSPEND:
                self._heartbeat.step(heartbeat.Input.SUSPENDED)
                self._connection.step(connect.Input.SUSPENDED)
        answer = VoteAnswer(
            self.worker.hostname,
            self._heartbeat.reports.uuid,
            ask.notification,
            ask.event,
            vote,
            reason,
        )
        self.last_answer = f"{ask.notification} {ask.event}: {vote} {printable(reason)}".rstrip()
        self.port.report(Command.VOTE_NOTIFY, answer)

    def _delete(self, _argument: object) -> None:
        self.worker.stats.votes["deleted"] += 1
        self._remember_end(self._ask, "its instance is deleted")


# How an ask may end, and what answers come besides: all that is counted.
ENDINGS = (*map(str, VoteResult), "closed", "deleted", "superseded", "unanswered", "unexpected")

_NONE = VoteState.NONE
_PENDING = VoteState.PENDING
_HELD = VoteState.HELD

TIMERS = {_NONE: (), _PENDING: (TimerName.VOTE,), _HELD: (TimerName.VOTE,)}

TABLE = belong(
    {
        (_NONE, Input.ASK): Row(_PENDING, Vote._put),
        (_NONE, Input.HOLD): Row(_HELD, Vote._hold),
        (_NONE, Input.CLOSE): Row(_NONE, Vote._close_at_once),
        (_NONE, Input.UNEXPECTED): Row(_NONE, Vote._drop),
        (_PENDING, Input.ASK): Row(_PENDING, Vote._put),
        (_PENDING, Input.HOLD): Row(_HELD, Vote._hold),
        (_PENDING, Input.CLOSE): Row(_NONE, Vote._close_at_once),
        (_PENDING, Input.RESPONSE): Row(_NONE, Vote._answer),
        (_PENDING, Input.UNEXPECTED): Row(_PENDING, Vote._drop),
        (_PENDING, Input.TIMEOUT): Row(_NONE, Vote._time_out),
        (_PENDING, Input.DELETED): Row(_NONE, Vote._delete),
        (_HELD, Input.ASK): Row(_PENDING, Vote._put),
        (_HELD, Input.HOLD): Row(_HELD, Vote._hold),
        (_HELD, Input.CLOSE): Row(_NONE, Vote._close_at_once),
        (_HELD, Input.UNEXPECTED): Row(_HELD, Vote._drop),
        (_HELD, Input.RELEASE): Row(_PENDING, Vote._send),
        (_HELD, Input.TIMEOUT): Row(_NONE, Vote._time_out),
        (_HELD, Input.DELETED): Row(_NONE, Vote._delete),
    },
    TIMERS,
)

# Nothing is open, or what is open waits for something else.
IGNORED = frozenset(
    {
        (_NONE, Input.RESPONSE),
        (_NONE, Input.RELEASE),
        (_NONE, Input.TIMEOUT),
        (_NONE, Input.DELETED),
        (_PENDING, Input.RELEASE),
        (_HELD, Input.RESPONSE),
    }
)
