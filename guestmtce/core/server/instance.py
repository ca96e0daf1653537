"""One instance as guestServer sees it: its three state machines put together.

Replaces guestInstClass, guestSvrFsm and guestSvrHdlr. `heartbeat`, `connect` and `vote` hold
the tables, and each owns its part of the state; here is what reaches them: bytes from the
guest, news of the socket file, timers, guestAgent's word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guestmtce.core.server import connect, guest_protocol, heartbeat, vote
from guestmtce.core.server.connect import Connection, ConnectState
from guestmtce.core.server.flow import FLOODING_SECS, MESSAGES_AT_ONCE, Flow
from guestmtce.core.server.guest_protocol import (
    ActionResponse,
    ChallengeResponse,
    Exit,
    Init,
    Writer,
)
from guestmtce.core.server.heartbeat import Heartbeat, HeartbeatState
from guestmtce.core.server.machine import Port, TimerName
from guestmtce.core.server.memory import Memory
from guestmtce.core.server.reports import Reports
from guestmtce.core.server.vote import Vote
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.condition import Condition, Diagnosis
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.history import What
from guestmtce.core.shared.mtc_message import InstanceInformation
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Event, Notification


class Instance:
    """One instance. Every public method is an input or a view; none of them raises."""

    __slots__ = (
        "_flow",
        "_port",
        "_worker",
        "_writer",
        "connection",
        "heartbeat",
        "memory",
        "reports",
        "uuid",
        "vote",
    )

    def __init__(self, uuid: str, worker: Worker, port: Port) -> None:
        self.uuid = uuid
        self._worker = worker
        self._port = port
        self._writer = Writer()
        self.memory = Memory(uuid, worker)
        self.reports = Reports(uuid, worker, port)
        self.heartbeat = Heartbeat(worker, port, self.reports, self._writer, self.memory)
        self.connection = Connection(self.heartbeat)
        self.vote = Vote(self.heartbeat, self.connection)
        self._flow = Flow(worker.pace)

    def file_found(self) -> None:
        """The socket file appeared, or a scan sees one that was not known."""
        if self.connection.state is ConnectState.ABSENT:
            self.memory.add(What.FOUND)
        self.connection.step(connect.Input.FOUND)

    def file_changed(self) -> None:
        """The socket file was modified: if not connected, try at once."""
        self.connection.step(connect.Input.CHANGED)

    def file_replaced(self) -> None:
        """Another file has taken the name of the one that we are connected to."""
        self.connection.step(connect.Input.REPLACED)

    def file_gone(self) -> None:
        """The socket file was deleted or moved away."""
        self.connection.step(connect.Input.GONE)

    def disconnected(self) -> None:
        """End of file or an error on the channel."""
        self.connection.closed()

    @property
    def flooding(self) -> bool:
        """True for a guest that says too much, for 10 s in a row: its silence may be no silence."""
        return self.heartbeat.unread.is_unjudged or self._flow.is_flooding(self._worker.clock())

    def received(self, data: bytes) -> None:
        """Bytes came from the guest, split anywhere; what is too much at once is handled later."""
        connection = self.connection
        if not connection.connected:
            return
        self._flow.begin(self._worker.clock())
        lines = connection.framer.feed(data)
        connection.unhandled.extend(lines)
        # A guest writes a newline before and after each message; more of them count as well.
        self._handle(max(0, data.count(b"\n") // 2 - len(lines)), len(data))

    def _handle(self, empty: int = 0, size: int = 0) -> bool:
        """Handle what was read, as far as this wake-up goes; True if we may go on reading.

        `empty` lines and `size` bytes have just been read.
        """
        unhandled = self.connection.unhandled
        handled = 0
        # A message may end the connection, and with it what came after it.
        while unhandled and handled < MESSAGES_AT_ONCE:
            handled += 1
            line = unhandled.popleft()
            if line is None:
                self._refuse(ProtocolError("too_long"), b"")
            else:
                self._receive_line(line)
        if not self.connection.connected:
            return False
        now = self._worker.clock()
        wait = self._flow.take(now, handled, empty, size)
        if not wait:
            return True
        if self._flow.is_newly_over:
            self._refuse(ProtocolError("rate"), b"")
            if self._flow.seconds_over == 1:
                self.memory.add(What.REFUSED, "more than its share of a second")
            elif self._flow.seconds_over == FLOODING_SECS:
                self._port.note("says too much, for %d s in a row", FLOODING_SECS, why=True)
        self.heartbeat.unread.until = now + wait
        self._port.read(False)
        self._port.start_timer(TimerName.READ, wait)
        return False

    def _read_on(self) -> None:
        """The guest has waited: handle what is left of what was read, then read again."""
        self._flow.begin(self._worker.clock())
        if self._handle():
            self._port.read(True)

    def _receive_line(self, line: bytes) -> None:
        try:
            message = guest_protocol.decode(line)
        except ProtocolError as error:
            self._refuse(error, line)
            return
        self.connection.heard()
        _MESSAGES[type(message)](self, message)

    def _refuse(self, error: ProtocolError, line: bytes) -> None:
        """A bad message costs its sender: count, tell the operator, nack where that is owed."""
        self._worker.stats.bad_messages[error.reason] += 1
        self._port.bad_message(error.reason, line)
        self.memory.message(f"< refused: {error.reason}")
        if error.answer is not None:
            self.memory.message("> nack")
            self._port.send(self._writer.nack(error.answer))

    def timer_rang(self, name: TimerName, late: float = 0.0) -> None:
        """A timer of this instance rang, `late` seconds after its time."""
        _TIMERS[name](self, late)

    def provision(self, reporting: bool) -> None:
        """ADD_INST or MOD_INST: keep the instance, set its reporting."""
        self.connection.provisioned = True
        self.heartbeat.set_reporting(reporting)

    def ask(self, event: Event, notification: Notification) -> None:
        """VOTE_INST (revocable) or NOTIFY_INST (irrevocable)."""
        self.vote.ask(event, notification)

    def delete(self) -> None:
        """The instance is forgotten: nothing of it may run on, nothing more is reported."""
        self.vote.step(vote.Input.DELETED)
        self.heartbeat.step(heartbeat.Input.DELETED)
        self.connection.step(connect.Input.DELETED)

    @property
    def name(self) -> str:
        """What its guest calls itself, or called itself before our start; safe to print."""
        return printable(self.reports.terms.name) or self.memory.name

    def for_agent(self) -> InstanceInformation:
        """Return what guestAgent is told of the instance."""
        return self.reports.information()

    def for_operator(self) -> dict[str, object]:
        """Return the instance as guestctl and the state dump show it; no guest text is raw."""
        beat, terms = self.heartbeat, self.reports.terms
        timeouts = terms.timeouts
        answered = self.memory.last_answer
        return {
            "uuid": self.uuid,
            "host": self._worker.hostname,
            "name": self.name,
            **self.diagnosis().for_operator(),
            "last_answer": None if answered is None else round(answered, 3),
            "state": beat.state.value,
            "channel": self.connection.state.value,
            "connected": self.connection.connected,
            "provisioned": self.connection.provisioned,
            "reporting": self.reports.reporting,
            "heartbeating": beat.heartbeating,
            "interval_ms": terms.interval_ms,
            "corrective_action": str(terms.corrective_action),
            "vote_secs": timeouts.vote,
            "shutdown_notice_secs": timeouts.shutdown,
            "suspend_notice_secs": timeouts.suspend,
            "resume_notice_secs": timeouts.resume,
            "restart_secs": timeouts.restart,
            "flooding": self.flooding,
            "misses": beat.misses,
            "failures": beat.failures,
            "ill": beat.ill,
            "reason": printable(beat.reason),
            "vote": self.vote.state.value,
            "last_vote": self.vote.last_answer,
        }

    def for_why(self) -> dict[str, object]:
        """Return what `for_operator` does, with all that is remembered."""
        memory = self.memory
        remembered = {
            "history": memory.history.for_operator(),
            "exchanges": [exchange.for_operator() for exchange in memory.exchanges],
        }
        return {**self.for_operator(), **remembered}

    def condition(self) -> Condition:
        """Return the instance's condition in an operator's word.

        Most are well, which shows without a look into their histories.
        """
        beat = self.heartbeat
        challenged = beat.state is not HeartbeatState.WAITING_INIT
        troubled = beat.ill or beat.misses or beat.silence.expected or self.flooding
        if beat.heartbeating and challenged and not troubled:
            return Condition.OK
        return self._condition()[0]

    def diagnosis(self) -> Diagnosis:
        """Return the instance's condition in an operator's words, since when, and why."""
        condition, detail = self._condition()
        entry = self.memory.history.last(*_SINCE[condition])
        return Diagnosis(condition, entry.at if entry else None, detail)

    def _condition(self) -> tuple[Condition, str]:
        beat = self.heartbeat
        last = self.memory.history.last(What.LOSS, What.INIT, What.EXIT)
        if last is not None and last.what is What.LOSS:
            return Condition.LOST, ""
        if not self.connection.connected:
            return Condition.NO_CHANNEL, ""
        # Still heartbeating and not challenged: it is paused, or has only just come back from that.
        is_in_grace = beat.heartbeating and beat.state is HeartbeatState.WAITING_INIT
        if beat.silence.expected or is_in_grace:
            return Condition.HELD, ""
        if beat.state is HeartbeatState.WAITING_INIT:
            has_stopped = last is not None
            return (Condition.STOPPED if has_stopped else Condition.BOOTING), ""
        if beat.ill:
            return Condition.ILL, printable(beat.reason)
        if self.flooding:
            return Condition.FLOODING, "read in part only, a hang may go unnoticed"
        if beat.misses:
            return Condition.SILENT, f"{beat.misses} unanswered"
        return (Condition.OK if beat.heartbeating else Condition.BOOTING), ""

    def _on_init(self, message: Init) -> None:
        self.memory.message("< init")
        self.heartbeat.step(heartbeat.Input.INIT, message)

    def _on_challenge_response(self, message: ChallengeResponse) -> None:
        if self.heartbeat.response(message):
            self.vote.step(vote.Input.RELEASE)

    def _on_action_response(self, message: ActionResponse) -> None:
        self.memory.message("< action_response")
        self.vote.response(message)

    def _on_exit(self, message: Exit) -> None:
        self.memory.message("< exit")
        self.heartbeat.step(heartbeat.Input.EXIT, message)


# The entries that began each condition.
_SINCE = {
    Condition.LOST: (What.LOSS,),
    Condition.NO_CHANNEL: (What.CLOSED, What.GONE, What.FOUND),
    Condition.HELD: (What.HELD,),
    Condition.STOPPED: (What.STOPPED, What.EXIT),
    Condition.BOOTING: (What.CONNECTED,),
    Condition.ILL: (What.ILL,),
    Condition.SILENT: (What.MISS,),
    Condition.FLOODING: (What.REFUSED,),
    Condition.OK: (What.WELL, What.HEARTBEATING),
}

_MESSAGES: dict[type, Callable[[Instance, Any], None]] = {
    Init: Instance._on_init,
    ChallengeResponse: Instance._on_challenge_response,
    ActionResponse: Instance._on_action_response,
    Exit: Instance._on_exit,
}

_TIMERS: dict[TimerName, Callable[[Instance, float], None]] = {
    TimerName.TICK: lambda instance, late: instance.heartbeat.tick(late),
    TimerName.GRACE: lambda instance, _late: instance.heartbeat.step(heartbeat.Input.GRACE_OVER),
    TimerName.VOTE: lambda instance, _late: instance.vote.step(vote.Input.TIMEOUT),
    TimerName.CONNECT: lambda instance, _late: instance.connection.step(connect.Input.RETRY),
    TimerName.READ: lambda instance, _late: instance._read_on(),
    TimerName.ALARM: lambda instance, _late: instance.reports.alarms.timer_rang(),
    TimerName.IDLE: lambda instance, _late: instance.connection.idle_timer(),
}
