"""What the three state machines of an instance stand on: port, table row, step.

The machines are `heartbeat`, `connect` and `vote`; `fsm` puts them together. Inputs are method
calls, outputs are calls of the port. A test is a list of inputs and the calls that came out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from guestmtce.core.server import guest_protocol
from guestmtce.core.server.instance import Instance, Worker
from guestmtce.core.shared.vocabulary import Command, Event, Notification


class TimerName(Enum):
    """The timers of an instance; each runs at most once at a time."""

    TICK = "tick"  # the heartbeat interval
    GRACE = "grace"  # how long heartbeating may stay true in waiting_init
    VOTE = "vote"  # the pending or held vote or notify
    CONNECT = "connect"  # the next attempt to connect
    IDLE = "idle"  # a connection that nothing comes through


class Port(Protocol):
    """What an instance's machines may do to the world; the server implements it."""

    def send(self, data: bytes, *, droppable: bool = False) -> object:
        """Queue a whole message for the guest; a challenge may be dropped for want of room."""

    def connect(self) -> object:
        """Try the instance's socket file; `connected` or `connect_failed` is the answer."""

    def disconnect(self) -> object:
        """Close the channel; no input comes of it."""

    def start_timer(self, name: TimerName, delay: float) -> object:
        """Ring once in `delay` seconds; replaces the running timer of that name."""

    def cancel_timer(self, name: TimerName) -> object:
        """Stop that timer, if it runs."""

    def report(self, command: Command, members: dict[str, Any]) -> object:
        """Tell guestAgent."""

    def forget(self) -> object:
        """Drop the instance: it has no socket file, and guestAgent has not named it."""

    def note(self, text: str, *args: object) -> object:
        """Tell the operator; `args` are for %-formatting and hold no guest text unescaped."""

    def bad_message(self, reason: str, excerpt: bytes) -> object:
        """Tell the operator, throttled, of a message that was refused; escape `excerpt`."""

    def stalled(self, late: float) -> object:
        """Tell the operator, once per episode, that this host was `late` seconds behind."""


class HeartbeatState(Enum):
    """Where the challenge cycle of an instance stands (behaviour.md)."""

    WAITING_INIT = "waiting_init"
    WAITING_RESPONSE = "waiting_response"
    WAITING_CHALLENGE = "waiting_challenge"


class ConnectState(Enum):
    """Where an instance's channel stands."""

    ABSENT = "absent"  # no socket file
    WAITING = "waiting"  # the next attempt is timed
    CONNECTED = "connected"


class VoteState(Enum):
    """Where the vote or notify of an instance stands."""

    NONE = "none"
    PENDING = "pending"  # sent to the guest, its timer runs
    HELD = "held"  # a post-event notification waits for the guest to come back


class Pending(NamedTuple):
    """A vote or notify that has not ended: sent, or held for a guest that is not there yet.

    `expires_at` is when the guest's own time for it is over (seconds of the worker's clock).
    """

    event: Event
    notification: Notification
    expires_at: float


class Machine:
    """The state of one instance's machines, and the outputs that they share."""

    __slots__ = (
        "answered_since",
        "closed_at",
        "connect_failures",
        "connect_state",
        "expecting_silence",
        "heartbeat_state",
        "instance",
        "pending",
        "port",
        "reported_terms",
        "served",
        "vote_state",
        "worker",
    )

    def __init__(self, instance: Instance, worker: Worker, port: Port) -> None:
        self.instance = instance
        self.worker = worker
        self.port = port
        self.heartbeat_state = HeartbeatState.WAITING_INIT
        self.connect_state = ConnectState.ABSENT
        self.vote_state = VoteState.NONE
        self.pending: Pending | None = None
        self.connect_failures = 0
        self.closed_at = float("-inf")
        # A connection proves nothing; a valid message on it does.
        self.served = False
        # Terms as the agent last heard them in RUNNING; None when it is owed a RUNNING.
        self.reported_terms: guest_protocol.Terms | None = None
        # Decision 7: after pause and suspend the guest's silence is no fault.
        self.expecting_silence = False
        self.answered_since: float | None = None

    def next_sequence(self) -> int:
        """Return the number of our next message to this guest, from 1."""
        self.instance.sequence += 1
        return self.instance.sequence

    def report_information(self, command: Command) -> None:
        """Send the instance's information to guestAgent as `command`."""
        self.port.report(command, self.instance.information(self.worker.hostname))

    def report_loss(self) -> None:
        """Tell guestAgent that the instance is lost."""
        members = {"hostname": self.worker.hostname, "uuid": self.instance.uuid}
        self.port.report(Command.HEARTBEAT_LOSS, members)


Handler = Callable[[Machine, Any], object]
S = TypeVar("S", bound=Enum)


class Row(Generic[S]):
    """One row of a state table: the state to go to, and what to do there."""

    __slots__ = ("handler", "next_state")

    def __init__(self, next_state: S, handler: Handler) -> None:
        self.next_state = next_state
        self.handler = handler


def as_markdown(table: Mapping[tuple[S, Enum], Row[S]]) -> str:
    """Return a state table as the documentation shows it."""
    lines = ["| state | input | next state | action |", "| --- | --- | --- | --- |"]
    for (state, event), row in table.items():
        action = row.handler.__name__.lstrip("_").replace("_", " ")
        lines.append(f"| {state.value} | {event.value} | {row.next_state.value} | {action} |")
    return "\n".join(lines)
