"""What the three state machines of an instance stand on: port, table row, step.

The machines are `heartbeat`, `connect` and `vote`; `instance` puts them together. Inputs are
method calls, outputs are calls of the port. A test is a list of inputs and the calls that came
out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.mtc_message import Record
from guestmtce.core.shared.vocabulary import Command


class TimerName(Enum):
    """The timers of an instance; each runs at most once at a time."""

    TICK = "tick"  # the heartbeat interval
    GRACE = "grace"  # how long heartbeating may stay true in waiting_init
    VOTE = "vote"  # the open vote or notify
    CONNECT = "connect"  # the next attempt to connect
    IDLE = "idle"  # a connection that nothing comes through
    ALARM = "alarm"  # a loss or illness that came too early to be told


class Attempt(Enum):
    """What came of trying the socket file; connecting to a UNIX socket ends at once."""

    OPENED = "opened"
    REFUSED = "refused"
    GONE = "gone"  # there is no such file


class Port(Protocol):
    """What an instance's machines may do to the world; the server implements it."""

    def send(self, data: bytes, *, droppable: bool = False) -> object:
        """Queue a whole message for the guest; a challenge may be dropped for want of room."""

    def connect(self) -> Attempt:
        """Try the instance's socket file."""

    def disconnect(self) -> object:
        """Close the channel; no input comes of it."""

    def start_timer(self, name: TimerName, delay: float) -> object:
        """Ring once in `delay` seconds; replaces the running timer of that name."""

    def cancel_timer(self, name: TimerName) -> object:
        """Stop that timer, if it runs."""

    def report(self, command: Command, record: Record, why: str = "") -> object:
        """Tell guestAgent; `why` is for the operator, and may hold guest text: escape it."""

    def forget(self) -> object:
        """Drop the instance: it has no socket file, and guestAgent has not named it."""

    def note(self, text: str, *args: object) -> object:
        """Tell the operator; `args` are for %-formatting and hold no guest text unescaped."""

    def bad_message(self, reason: str, excerpt: bytes) -> object:
        """Tell the operator, throttled, of a message that was refused; escape `excerpt`."""

    def stalled(self, late: float) -> object:
        """Tell the operator, once per episode, that this host was `late` seconds behind."""


S = TypeVar("S", bound=Enum)
# A method of the machine, which takes the argument of the input.
Handler = Callable[[Any, Any], object]


class Row(Generic[S]):
    """One row of a state table: the state to go to, and what to do there."""

    __slots__ = ("handler", "next_state")

    def __init__(self, next_state: S, handler: Handler) -> None:
        self.next_state = next_state
        self.handler = handler


class Machine(Generic[S]):
    """A state, the table that changes it, and the timer of each state.

    `timers` names the timer that may run in a state. It is cancelled when a state is entered
    in which it may not run, so no handler has to think of it.
    """

    __slots__ = ("_table", "_timers", "port", "state", "worker")

    def __init__(
        self,
        state: S,
        table: Mapping[tuple[S, Any], Row[S]],
        timers: Mapping[S, TimerName],
        worker: Worker,
        port: Port,
    ) -> None:
        self.state = state
        self.worker = worker
        self.port = port
        self._table = table
        self._timers = timers

    def step(self, event: Enum, argument: object = None) -> None:
        """Apply one input; one without a row in this state is ignored (its module's IGNORED)."""
        state = self.state
        row = self._table.get((state, event))
        if row is None:
            return
        if row.next_state is not state:
            self.state = row.next_state
            timer = self._timers.get(state)
            if timer is not None and timer is not self._timers.get(row.next_state):
                self.port.cancel_timer(timer)
        row.handler(self, argument)
