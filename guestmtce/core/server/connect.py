"""The channel of an instance: when to connect, when to try again, when to give up.

Replaces guestSvrFsm's connect handlers (protocol.md, Connecting). What the table below
rests on:

A channel is a socket file that QEMU makes, and one connection to it. That the file is there
says that we may try; that the connect succeeded says little, as QEMU serves one client and
lets others wait in its queue, and accepts before the guest has anybody who reads. Only a valid
message proves that a connection *serves*. So a connection that ends after it had served is
made again after a short gap, while one that ends unused is a failure like a refused one: the
next attempt waits, each time twice as long, up to a minute. News of the file (made, changed,
replaced), and guestAgent's wish to reach the guest, end that waiting. A file that is gone ends
the channel; the instance is forgotten with it unless guestAgent has named it.

What depends on what a connection did becomes an input of its own before the look-up in `TABLE`.
"""

from __future__ import annotations

from collections import deque

from guestmtce.core.server import heartbeat
from guestmtce.core.server.guest_protocol import Framer
from guestmtce.core.server.heartbeat import Heartbeat
from guestmtce.core.server.machine import Attempt, Machine, Row, Symbol, TimerName, belong
from guestmtce.core.shared.history import What

# Attempts are 1 s, then 2, 4, ... 60 s apart. One more comes early in the first second: QEMU
# binds before it listens, and inotify tells of the file in between.
BACKOFF_SECS = (0.1, 0.9, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
# With no gap the guest misses the hang-up in two of three cases and stays silent for 5 s.
HANGUP_GAP_SECS = 0.2
IDLE_SECS = 120.0
SUSPENDED_SECS = 10.0
STARVED_SECS = 2.0


class ConnectState(Symbol):
    """Where an instance's channel stands."""

    ABSENT = "absent"  # no socket file
    WAITING = "waiting"  # the next attempt is timed
    CONNECTED = "connected"


class Input(Symbol):
    """What can happen to a channel, guards already decided."""

    FOUND = "file found"
    CHANGED = "file changed"
    REPLACED = "file replaced by another"
    GONE = "file gone"
    WANTED = "wanted at once"
    OPENED = "connect succeeded"
    REFUSED = "connect failed"
    STARVED = "no descriptor to connect with"
    CLOSED = "closed by the peer, after it had served"
    CLOSED_UNUSED = "closed by the peer, before any message"
    RETRY = "retry timer"
    IDLE = "idle for 120 s"
    SUSPENDED = "suspend ended"
    DELETED = "instance deleted"


_CAME_OF = {
    Attempt.OPENED: Input.OPENED,
    Attempt.REFUSED: Input.REFUSED,
    Attempt.STARVED: Input.STARVED,
    Attempt.GONE: Input.GONE,
}


class Connection(Machine[ConnectState]):
    """The connection to an instance's guest, or the way to the next one.

    `provisioned` says that ADD_INST or MOD_INST named the instance, so that it outlives its
    socket file; `failures` counts the attempts in a row that came to nothing; `framer` has
    what came of a message so far, `unhandled` what was read and waits for its turn.
    """

    __slots__ = (
        "_closed_at",
        "_heard_at",
        "_heartbeat",
        "_serves",
        "failures",
        "framer",
        "provisioned",
        "unhandled",
    )

    def __init__(self, heartbeat: Heartbeat) -> None:
        super().__init__(ConnectState.ABSENT, TABLE, heartbeat.worker, heartbeat.port)
        self.provisioned = False
        self.failures = 0
        self.framer = Framer()
        self.unhandled: deque[bytes | None] = deque()
        self._heartbeat = heartbeat
        self._closed_at = float("-inf")
        # When a valid message came last.
        self._heard_at = float("-inf")
        self._serves = False

    @property
    def connected(self) -> bool:
        """True while the channel is open."""
        return self.state is ConnectState.CONNECTED

    def heard(self) -> None:
        """A valid message came: this connection serves."""
        self._heard_at = self.worker.clock()
        self._serves = True

    def closed(self) -> None:
        """The peer closed the channel, or it broke."""
        self.step(Input.CLOSED if self._serves else Input.CLOSED_UNUSED)

    def idle_timer(self) -> None:
        """Look whether anything came through; silence that is expected does not count."""
        quiet = self.worker.clock() - self._heard_at
        if quiet < IDLE_SECS:
            self.port.start_timer(TimerName.IDLE, IDLE_SECS - quiet)
        elif self._heartbeat.heartbeating or self._heartbeat.silence.expected:
            self.port.start_timer(TimerName.IDLE, IDLE_SECS)
        else:
            self.step(Input.IDLE)

    def _attempt(self, _argument: object = None) -> None:
        """Connect now, or as soon as the gap after a hang-up is over."""
        gap = self._closed_at + HANGUP_GAP_SECS - self.worker.clock()
        if gap > 0:
            self.port.start_timer(TimerName.CONNECT, gap)
        else:
            self.step(_CAME_OF[self.port.connect()])

    def _attempt_afresh(self, _argument: object) -> None:
        """Fresh news of the file: the backoff starts again."""
        self.failures = 0
        self._attempt()

    def _back_off(self, _argument: object = None) -> None:
        delay = BACKOFF_SECS[min(self.failures, len(BACKOFF_SECS) - 1)]
        self.failures += 1
        self.port.start_timer(TimerName.CONNECT, delay)

    def _wait_for_descriptor(self, _argument: object) -> None:
        """Our own want is no fault of the channel's: no backoff (decision 43)."""
        self.port.start_timer(TimerName.CONNECT, STARVED_SECS)

    def _open(self, _argument: object) -> None:
        self.framer = Framer()
        self._serves = False
        self._heartbeat.memory.add(What.CONNECTED)
        self.port.start_timer(TimerName.IDLE, IDLE_SECS)

    def _hang_up(self) -> None:
        """The channel is closed, by whomever: the heartbeat ends with it."""
        self._closed_at = self.worker.clock()
        self._heartbeat.memory.add(What.CLOSED)
        self.unhandled.clear()
        self.port.disconnect()
        self._heartbeat.step(heartbeat.Input.DISCONNECTED)

    def _come_back(self, _argument: object) -> None:
        """A connection that had worked ended: try again right after the gap."""
        self._hang_up()
        self.failures = 0
        self._attempt()

    def _come_back_later(self, _argument: object) -> None:
        """A connection that was accepted and closed unused is a failure like a refused one."""
        self._hang_up()
        self._back_off()

    def _lose_file(self, _argument: object) -> None:
        """No file, no channel. What guestAgent has named is kept and waits for the file."""
        self._heartbeat.memory.add(What.GONE)
        if not self.provisioned:
            self.port.forget()

    def _lose_channel(self, _argument: object) -> None:
        self._hang_up()
        self._lose_file(None)

    def _rest(self, _argument: object) -> None:
        """Suspended: leave the guest alone for a while (decision 7)."""
        self.failures = 0
        self.port.start_timer(TimerName.CONNECT, SUSPENDED_SECS)

    def _hang_up_and_rest(self, _argument: object) -> None:
        self._hang_up()
        self._rest(None)

    def _end(self, _argument: object) -> None:
        """Deleted while connected: nothing of the heartbeat is told any more."""
        self.port.disconnect()

    def _end_waiting(self, _argument: object) -> None:
        """Deleted while waiting: leaving the state has stopped its timer, and that is all."""


_ABSENT = ConnectState.ABSENT
_WAITING = ConnectState.WAITING
_CONNECTED = ConnectState.CONNECTED

TIMERS: dict[ConnectState, tuple[TimerName, ...]] = {
    _ABSENT: (),
    _WAITING: (TimerName.CONNECT,),
    _CONNECTED: (TimerName.IDLE, TimerName.READ),
}

TABLE = belong(
    {
        (_ABSENT, Input.FOUND): Row(_WAITING, Connection._attempt_afresh),
        (_ABSENT, Input.CHANGED): Row(_WAITING, Connection._attempt_afresh),
        (_ABSENT, Input.REPLACED): Row(_WAITING, Connection._attempt_afresh),
        (_ABSENT, Input.WANTED): Row(_WAITING, Connection._attempt_afresh),
        (_ABSENT, Input.GONE): Row(_ABSENT, Connection._lose_file),
        (_WAITING, Input.FOUND): Row(_WAITING, Connection._attempt_afresh),
        (_WAITING, Input.CHANGED): Row(_WAITING, Connection._attempt_afresh),
        (_WAITING, Input.REPLACED): Row(_WAITING, Connection._attempt_afresh),
        (_WAITING, Input.WANTED): Row(_WAITING, Connection._attempt_afresh),
        (_WAITING, Input.RETRY): Row(_WAITING, Connection._attempt),
        (_WAITING, Input.OPENED): Row(_CONNECTED, Connection._open),
        (_WAITING, Input.REFUSED): Row(_WAITING, Connection._back_off),
        (_WAITING, Input.STARVED): Row(_WAITING, Connection._wait_for_descriptor),
        (_WAITING, Input.GONE): Row(_ABSENT, Connection._lose_file),
        (_WAITING, Input.SUSPENDED): Row(_WAITING, Connection._rest),
        (_WAITING, Input.DELETED): Row(_ABSENT, Connection._end_waiting),
        (_CONNECTED, Input.REPLACED): Row(_WAITING, Connection._come_back),
        (_CONNECTED, Input.CLOSED): Row(_WAITING, Connection._come_back),
        (_CONNECTED, Input.CLOSED_UNUSED): Row(_WAITING, Connection._come_back_later),
        (_CONNECTED, Input.IDLE): Row(_WAITING, Connection._come_back),
        (_CONNECTED, Input.GONE): Row(_ABSENT, Connection._lose_channel),
        (_CONNECTED, Input.SUSPENDED): Row(_WAITING, Connection._hang_up_and_rest),
        (_CONNECTED, Input.DELETED): Row(_ABSENT, Connection._end),
    },
    TIMERS,
)

# Only an attempt is opened or refused, only a connection is closed or idle; without a file
# there is nothing to end or to retry, and while connected no news of the file matters.
IGNORED = frozenset(
    {
        (_ABSENT, Input.OPENED),
        (_ABSENT, Input.REFUSED),
        (_ABSENT, Input.STARVED),
        (_ABSENT, Input.CLOSED),
        (_ABSENT, Input.CLOSED_UNUSED),
        (_ABSENT, Input.RETRY),
        (_ABSENT, Input.IDLE),
        (_ABSENT, Input.SUSPENDED),
        (_ABSENT, Input.DELETED),
        (_WAITING, Input.CLOSED),
        (_WAITING, Input.CLOSED_UNUSED),
        (_WAITING, Input.IDLE),
        (_CONNECTED, Input.FOUND),
        (_CONNECTED, Input.CHANGED),
        (_CONNECTED, Input.WANTED),
        (_CONNECTED, Input.OPENED),
        (_CONNECTED, Input.REFUSED),
        (_CONNECTED, Input.STARVED),
        (_CONNECTED, Input.RETRY),
    }
)
