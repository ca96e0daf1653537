"""What the three state machines of an instance stand on: port, table row, step.

The machines are `heartbeat`, `connect` and `vote`; `instance` puts them together. Inputs are
method calls, outputs are calls of the port. A test is a list of inputs and the calls that came
out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.mtc_message import Record
from guestmtce.core.shared.vocabulary import Command


class Symbol(Enum):
    """A word of a state table, which is looked up at each heartbeat: a fast hash."""

    __hash__ = object.__hash__


class TimerName(Symbol):
    """The timers of an instance; each runs at most once at a time."""

    TICK = "tick"  # the heartbeat interval
    GRACE = "grace"  # how long heartbeating may stay true in waiting_init
    VOTE = "vote"  # the open vote or notify
    CONNECT = "connect"  # the next attempt to connect
    IDLE = "idle"  # a connection that nothing comes through
    READ = "read"  # a guest that says too much waits so long
    ALARM = "alarm"  # a loss or illness that came too early to be told


class Attempt(Symbol):
    """What came of trying the socket file; connecting to a UNIX socket ends at once."""

    OPENED = "opened"
    REFUSED = "refused"
    STARVED = "no descriptor"
    GONE = "gone"  # there is no such file


class Port(Protocol):
    """What an instance's machines may do to the world; the server implements it."""

    def send(self, data: bytes, *, droppable: bool = False) -> object:
        """Queue a whole message for the guest; a challenge may be dropped for want of room."""

    def read(self, wanted: bool) -> object:
        """Read from the channel, or let the guest wait."""

    def connect(self) -> Attempt:
        """Try the instance's socket file."""

    def disconnect(self) -> object:
        """Close the channel; no input comes of it."""

    def start_timer(self, name: TimerName, delay: float) -> object:
        """Ring once in `delay` seconds; replaces the running timer of that name."""

    def cancel_timer(self, name: TimerName) -> object:
        """Stop that timer, if it runs."""

    def stuck(self) -> bool:
        """Whether what was sent still waits, because the guest does not read."""

    def report(self, command: Command, record: Record, why: str = "") -> object:
        """Tell guestAgent; `why` is for the operator, and may hold guest text: escape it."""

    def forget(self) -> object:
        """Drop the instance: it has no socket file, and guestAgent has not named it."""

    def note(self, text: str, *args: object, why: bool = False) -> object:
        """Tell the operator; `args` are for %-formatting and hold no guest text unescaped.

        `why` says that it answers "why": no flood of other lines takes its place (decision 42).
        """

    def bad_message(self, reason: str, excerpt: bytes) -> object:
        """Tell the operator, throttled, of a message that was refused; escape `excerpt`."""

    def stalled(self, late: float) -> object:
        """Tell the operator, once per episode, that this host was `late` seconds behind."""


S = TypeVar("S", bound=Symbol)
E = TypeVar("E", bound=Symbol)
# A method of the machine, which takes the argument of the input.
Handler = Callable[[Any, Any], object]


class Row(Generic[S]):
    """One row of a state table: the state to go to, and what to do there.

    `stops` are the timers that may not run in that state; `belong` fills it in.
    """

    __slots__ = ("handler", "next_state", "stops")

    def __init__(self, next_state: S, handler: Handler) -> None:
        self.next_state = next_state
        self.handler = handler
        self.stops: tuple[TimerName, ...] = ()


def belong(
    table: Mapping[tuple[S, E], Row[S]], timers: Mapping[S, Collection[TimerName]]
) -> Mapping[tuple[S, E], Row[S]]:
    """Return `table`, each row with the timers to stop: those of the state that it leaves.

    `timers` names the timers that may run in each state, so that no handler has to think of
    those that may not.
    """
    for (state, _event), row in table.items():
        row.stops = tuple(name for name in timers[state] if name not in timers[row.next_state])
    return table


class Machine(Generic[S]):
    """A state, and the table that changes it."""

    __slots__ = ("_table", "port", "state", "worker")

    def __init__(
        self, state: S, table: Mapping[tuple[S, Any], Row[S]], worker: Worker, port: Port
    ) -> None:
        self.state = state
        self.worker = worker
        self.port = port
        self._table = table

    def step(self, event: Symbol, argument: object = None) -> None:
        """Apply one input; one without a row in this state is ignored (its module's IGNORED)."""
        row = self._table.get((self.state, event))
        if row is None:
            return
        self.state = row.next_state
        for timer in row.stops:
            self.port.cancel_timer(timer)
        row.handler(self, argument)
