"""The channel of an instance: when to connect, when to try again, when to give up.

Replaces guestSvrFsm's connect handlers (guest-channel.md, Connecting). `TABLE` is the state
machine; a connection's fate is decided before the look-up where it depends on what it did.
"""

from __future__ import annotations

from enum import Enum

from guestmtce.core.server import heartbeat
from guestmtce.core.server.machine import ConnectState, Machine, Row, TimerName

# Attempts are 1 s, then 2, 4, ... 60 s apart. One more comes early in the first second: QEMU
# binds before it listens, and inotify tells of the file in between.
BACKOFF_SECS = (0.1, 0.9, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
# With no gap the guest misses the hang-up in two of three cases and stays silent for 5 s.
HANGUP_GAP_SECS = 0.2
IDLE_SECS = 120.0
SUSPENDED_SECS = 10.0


class Input(Enum):
    """What can happen to a channel, guards already decided."""

    FOUND = "file found"
    CHANGED = "file changed"
    REPLACED = "file replaced by another"
    GONE = "file gone"
    WANTED = "wanted at once"
    OPENED = "connect succeeded"
    REFUSED = "connect failed"
    CLOSED = "closed by the peer, after it had served"
    CLOSED_UNUSED = "closed by the peer, before any message"
    RETRY = "retry timer"
    IDLE = "idle for 120 s"
    SUSPENDED = "suspend ended"


def step(m: Machine, event: Input) -> None:
    """Apply one input; an input without a row in this state is ignored (see IGNORED)."""
    row = TABLE.get((m.connect_state, event))
    if row is not None:
        m.connect_state = row.next_state
        row.handler(m, None)


def closed(m: Machine) -> None:
    """The peer closed the channel, or it broke. Only messages count as having worked."""
    step(m, Input.CLOSED if m.served else Input.CLOSED_UNUSED)


def idle_timer(m: Machine) -> None:
    """Look whether anything came through; silence that is expected does not count."""
    quiet = m.worker.clock() - m.instance.last_message_at
    if quiet < IDLE_SECS:
        m.port.start_timer(TimerName.IDLE, IDLE_SECS - quiet)
    elif m.instance.heartbeating or m.expecting_silence:
        m.port.start_timer(TimerName.IDLE, IDLE_SECS)
    else:
        step(m, Input.IDLE)


def _attempt(m: Machine, _argument: object = None) -> None:
    """Connect now, or as soon as the gap after a hang-up is over."""
    gap = m.closed_at + HANGUP_GAP_SECS - m.worker.clock()
    if gap > 0:
        m.port.start_timer(TimerName.CONNECT, gap)
        return
    m.port.cancel_timer(TimerName.CONNECT)
    m.port.connect()


def _attempt_afresh(m: Machine, _argument: object) -> None:
    """Fresh news of the file: the backoff starts again."""
    m.connect_failures = 0
    _attempt(m)


def _back_off(m: Machine, _argument: object) -> None:
    delay = BACKOFF_SECS[min(m.connect_failures, len(BACKOFF_SECS) - 1)]
    m.connect_failures += 1
    m.port.start_timer(TimerName.CONNECT, delay)


def _open(m: Machine, _argument: object) -> None:
    m.instance.connected = True
    m.instance.last_message_at = m.worker.clock()
    m.served = False
    m.port.cancel_timer(TimerName.CONNECT)
    m.port.start_timer(TimerName.IDLE, IDLE_SECS)


def _hang_up(m: Machine) -> None:
    """The channel is closed, by whomever: the heartbeat ends with it."""
    m.instance.connected = False
    m.closed_at = m.worker.clock()
    m.port.cancel_timer(TimerName.IDLE)
    m.port.disconnect()
    heartbeat.step(m, heartbeat.Input.DISCONNECTED)


def _come_back(m: Machine, _argument: object) -> None:
    """A connection that had worked ended: try again right after the gap."""
    _hang_up(m)
    m.connect_failures = 0
    _attempt(m)


def _come_back_later(m: Machine, _argument: object) -> None:
    """A connection that was accepted and closed unused is a failure like a refused one."""
    _hang_up(m)
    _back_off(m, None)


def _lose_file(m: Machine, _argument: object) -> None:
    """No file, no channel. What guestAgent has named is kept and waits for the file."""
    if m.instance.connected:
        _hang_up(m)
    m.port.cancel_timer(TimerName.CONNECT)
    m.connect_failures = 0
    if not m.instance.provisioned:
        m.port.forget()


def _rest(m: Machine, _argument: object) -> None:
    """Suspended: hang up, and leave the guest alone for a while (decision 7)."""
    if m.instance.connected:
        _hang_up(m)
    m.connect_failures = 0
    m.port.start_timer(TimerName.CONNECT, SUSPENDED_SECS)


_ABSENT = ConnectState.ABSENT
_WAITING = ConnectState.WAITING
_CONNECTED = ConnectState.CONNECTED

TABLE: dict[tuple[ConnectState, Input], Row[ConnectState]] = {
    (_ABSENT, Input.FOUND): Row(_WAITING, _attempt_afresh),
    (_ABSENT, Input.CHANGED): Row(_WAITING, _attempt_afresh),
    (_ABSENT, Input.REPLACED): Row(_WAITING, _attempt_afresh),
    (_ABSENT, Input.WANTED): Row(_WAITING, _attempt_afresh),
    (_ABSENT, Input.GONE): Row(_ABSENT, _lose_file),
    (_WAITING, Input.FOUND): Row(_WAITING, _attempt_afresh),
    (_WAITING, Input.CHANGED): Row(_WAITING, _attempt_afresh),
    (_WAITING, Input.REPLACED): Row(_WAITING, _attempt_afresh),
    (_WAITING, Input.WANTED): Row(_WAITING, _attempt_afresh),
    (_WAITING, Input.RETRY): Row(_WAITING, _attempt),
    (_WAITING, Input.OPENED): Row(_CONNECTED, _open),
    (_WAITING, Input.REFUSED): Row(_WAITING, _back_off),
    (_WAITING, Input.GONE): Row(_ABSENT, _lose_file),
    (_WAITING, Input.SUSPENDED): Row(_WAITING, _rest),
    (_CONNECTED, Input.REPLACED): Row(_WAITING, _come_back),
    (_CONNECTED, Input.CLOSED): Row(_WAITING, _come_back),
    (_CONNECTED, Input.CLOSED_UNUSED): Row(_WAITING, _come_back_later),
    (_CONNECTED, Input.IDLE): Row(_WAITING, _come_back),
    (_CONNECTED, Input.GONE): Row(_ABSENT, _lose_file),
    (_CONNECTED, Input.SUSPENDED): Row(_WAITING, _rest),
}

# A connected channel needs no file news; without one there is nothing to close or to retry.
IGNORED = frozenset(
    (state, event) for state in ConnectState for event in Input if (state, event) not in TABLE
)
