"""One instance's state machines put together: inputs are methods, outputs are the port's.

Replaces guestSvrFsm and guestSvrHdlr. `heartbeat`, `connect` and `vote` hold the tables; here
is what reaches them: bytes from the guest, news of the socket file, timers, guestAgent's word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guestmtce.core.server import connect, guest_protocol, heartbeat, vote
from guestmtce.core.server.guest_protocol import (
    ActionResponse,
    ChallengeResponse,
    Exit,
    Framer,
    GuestMessage,
    Init,
)
from guestmtce.core.server.instance import Instance, Worker
from guestmtce.core.server.machine import Machine, Port, TimerName
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.vocabulary import Event, Notification


class InstanceFsm(Machine):
    """The machines of one instance. Every public method is an input; none of them raises."""

    __slots__ = ("_framer",)

    def __init__(self, instance: Instance, worker: Worker, port: Port) -> None:
        super().__init__(instance, worker, port)
        self._framer = Framer()

    def file_found(self) -> None:
        """The socket file appeared, or a scan sees one that was not known."""
        connect.step(self, connect.Input.FOUND)

    def file_changed(self) -> None:
        """The socket file was modified: if not connected, try at once."""
        connect.step(self, connect.Input.CHANGED)

    def file_replaced(self) -> None:
        """Another file has taken the name of the one that we are connected to."""
        connect.step(self, connect.Input.REPLACED)

    def file_gone(self) -> None:
        """The socket file was deleted or moved away, or a connect says that it is not there."""
        connect.step(self, connect.Input.GONE)

    def connected(self) -> None:
        """The port's `connect` succeeded; which proves little."""
        self._framer = Framer()
        connect.step(self, connect.Input.OPENED)

    def connect_failed(self) -> None:
        """The port's `connect` failed, though the file is there."""
        connect.step(self, connect.Input.REFUSED)

    def disconnected(self) -> None:
        """End of file or an error on the channel."""
        connect.closed(self)

    @property
    def flooding(self) -> bool:
        """True if the guest says more than is listened to: let it wait (Bad input)."""
        return self.instance.rate.excess > 0

    def received(self, data: bytes) -> None:
        """Bytes came from the guest, split anywhere."""
        clock = self.worker.clock
        for line in self._framer.feed(data):
            if not self.instance.connected:
                return  # an earlier message ended the connection
            if not self.instance.rate.allows(clock()):
                self._refuse(ProtocolError("rate"), line or b"")
            elif line is None:
                self._refuse(ProtocolError("too_long"), b"")
            else:
                self._receive_line(line)

    def _receive_line(self, line: bytes) -> None:
        try:
            message = guest_protocol.decode(line)
        except ProtocolError as error:
            self._refuse(error, line)
        else:
            self.message(message)

    def message(self, message: GuestMessage) -> None:
        """A valid message came from the guest."""
        self.instance.last_message_at = self.worker.clock()
        self.served = True
        self.connect_failures = 0
        _MESSAGES[type(message)](self, message)

    def _refuse(self, error: ProtocolError, line: bytes) -> None:
        """A bad message costs its sender: count, tell the operator, nack where that is owed."""
        self.worker.stats.bad_messages[error.reason] += 1
        self.port.bad_message(error.reason, line)
        if error.answer is not None:
            nack = guest_protocol.encode_nack(
                self.next_sequence(), self.instance.invocation_id, error.answer
            )
            self.port.send(nack)

    def timer_rang(self, name: TimerName, late: float = 0.0) -> None:
        """A timer of this instance rang, `late` seconds after its time."""
        _TIMERS[name](self, late)

    def provision(self, reporting: bool) -> None:
        """ADD_INST or MOD_INST: keep the instance, set its reporting (the same value: nothing)."""
        instance = self.instance
        instance.provisioned = True
        if instance.reporting == reporting:
            return
        instance.reporting = reporting
        if not reporting:
            heartbeat.step(self, heartbeat.Input.REPORTING_OFF)

    def ask(self, event: Event, notification: Notification) -> None:
        """VOTE_INST (revocable) or NOTIFY_INST (irrevocable)."""
        vote.ask(self, event, notification)

    def delete(self) -> None:
        """The instance is forgotten: nothing of it may run on, nothing more is reported."""
        vote.step(self, vote.Input.DELETE)
        for name in TimerName:
            self.port.cancel_timer(name)
        if self.instance.connected:
            self.instance.connected = False
            self.port.disconnect()

    def _on_init(self, message: Init) -> None:
        heartbeat.step(self, heartbeat.Input.INIT, message)

    def _on_challenge_response(self, message: ChallengeResponse) -> None:
        if heartbeat.response(self, message):
            vote.step(self, vote.Input.RELEASE)

    def _on_action_response(self, message: ActionResponse) -> None:
        vote.response(self, message)

    def _on_exit(self, message: Exit) -> None:
        heartbeat.step(self, heartbeat.Input.EXIT, message)


_MESSAGES: dict[type, Callable[[InstanceFsm, Any], None]] = {
    Init: InstanceFsm._on_init,
    ChallengeResponse: InstanceFsm._on_challenge_response,
    ActionResponse: InstanceFsm._on_action_response,
    Exit: InstanceFsm._on_exit,
}

_TIMERS: dict[TimerName, Callable[[InstanceFsm, float], None]] = {
    TimerName.TICK: heartbeat.tick,
    TimerName.GRACE: lambda fsm, _late: heartbeat.step(fsm, heartbeat.Input.GRACE_OVER),
    TimerName.VOTE: lambda fsm, _late: vote.step(fsm, vote.Input.TIMEOUT),
    TimerName.CONNECT: lambda fsm, _late: connect.step(fsm, connect.Input.RETRY),
    TimerName.IDLE: lambda fsm, _late: connect.idle_timer(fsm),
}
