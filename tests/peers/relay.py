"""A QEMU-like relay: the channel's socket for the host daemon, another for a guest client.

As QEMU it serves one host at a time (a second connect succeeds and stays silent), does not read
what the host says while no guest is there, and loses what the guest says while no host is. As the
guest's kernel it shows the guest whether a host is connected: without one, the guest's socket
is closed and refuses (`report_hangup` False: it stays, as when the guest misses the hang-up).

As a process: python -m tests.peers.relay --directory DIR --uuid UUID --guest PATH [--split N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.peers import wire
from tests.peers.journal import Journal
from tests.peers.reactor import Reactor, unix_listener

# What fits between host and guest while the guest does not read: protocol.md,
# "How guests and QEMU behave".
PIPE_BYTES = 25_000


class Said(NamedTuple):
    """A good message that passed; `speaker` is host or guest, `at` monotonic seconds."""

    at: float
    speaker: str
    message: dict[str, Any]


class _Side:
    """One of the two ends: its listener, its connection, and what waits to be sent to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener: socket.socket | None = None
        self.connection: socket.socket | None = None
        self.output = b""
        self.tail = b""


class Relay:
    """Carries bytes both ways.

    `events` is a journal of (seconds, what happened); `messages` of what was said, by whom.
    """

    def __init__(
        self,
        directory: Path,
        uuid: str,
        guest_path: Path,
        *,
        split: int = 0,
        report_hangup: bool = True,
        reactor: Reactor | None = None,
    ) -> None:
        self.uuid = uuid
        self.split = split
        self.report_hangup = report_hangup
        self.events: Journal[tuple[float, str]] = Journal()
        self.messages: Journal[Said] = Journal()
        self._stalled = False
        self._host = _Side(directory / f"cgcs.heartbeat.{uuid}.sock")
        self._guest = _Side(guest_path)
        self._own_reactor = reactor is None
        self._reactor = reactor or Reactor()
        self._reactor.call(self._start)

    @property
    def path(self) -> Path:
        """The channel's file."""
        return self._host.path

    @property
    def host_connected(self) -> bool:
        return self._host.connection is not None

    def stall(self, stalled: bool = True) -> None:
        """Stop carrying bytes, as while the VM is paused; False: go on with the backlog."""
        self._stalled = stalled
        self._reactor.call(self._update)

    def crash(self) -> None:
        """End as QEMU killed: connections close, the channel's file stays and refuses."""
        self._reactor.call(self._stop, False)

    def start(self) -> None:
        """Begin (again) after `crash`: a new file replaces the old."""
        self._reactor.call(self._start)

    def close(self) -> None:
        """End as QEMU ends cleanly: the file goes."""
        self._reactor.call(self._stop, True)
        if self._own_reactor:
            self._reactor.stop()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._stop(True)
        self._listen(self._host)
        if not self.report_hangup:
            self._listen(self._guest)

    def _stop(self, unlink: bool) -> None:
        for side in (self._host, self._guest):
            self._disconnect(side, "stopped")
            self._close_listener(side)
            if unlink or side is self._guest:
                with contextlib.suppress(FileNotFoundError):
                    side.path.unlink()

    def _listen(self, side: _Side) -> None:
        if side.listener is None:
            with contextlib.suppress(FileNotFoundError):
                side.path.unlink()
            side.listener = unix_listener(side.path)
        self._reactor.watch(side.listener, selectors.EVENT_READ, lambda _: self._accept(side))

    def _close_listener(self, side: _Side) -> None:
        if side.listener is not None:
            self._reactor.unwatch(side.listener)
            side.listener.close()
            side.listener = None

    def _accept(self, side: _Side) -> None:
        assert side.listener is not None
        try:
            side.connection, _ = side.listener.accept()
        except BlockingIOError:
            return
        side.connection.setblocking(False)
        side.output = b""
        side.tail = b""
        self._reactor.unwatch(side.listener)
        self._note(f"{self._name(side)} connected")
        if side is self._host and self.report_hangup:
            self._listen(self._guest)
        self._update()

    def _disconnect(self, side: _Side, why: str) -> None:
        if side.connection is None:
            return
        self._reactor.unwatch(side.connection)
        side.connection.close()
        side.connection = None
        side.output = b""
        self._note(why)
        if side is self._host and self.report_hangup:
            self._disconnect(self._guest, "guest told")
            self._close_listener(self._guest)
            with contextlib.suppress(FileNotFoundError):
                self._guest.path.unlink()
        if side.listener is not None:
            self._listen(side)
        self._update()

    def _update(self) -> None:
        """Watch each connection for what can be done with it now."""
        for side, other in ((self._host, self._guest), (self._guest, self._host)):
            if side.connection is None:
                continue
            may_read = not self._stalled and len(other.output) < PIPE_BYTES
            if side is self._host:
                may_read = may_read and other.connection is not None
            events = selectors.EVENT_READ if may_read else 0
            if side.output and not self.split:
                events |= selectors.EVENT_WRITE
            self._reactor.watch(side.connection, events, self._callback(side, other))

    def _callback(self, side: _Side, other: _Side) -> Callable[[int], None]:
        def ready(events: int) -> None:
            if events & selectors.EVENT_WRITE:
                self._write(side)
            if events & selectors.EVENT_READ and side.connection is not None:
                self._read(side, other)
            self._update()

        return ready

    def _read(self, side: _Side, other: _Side) -> None:
        assert side.connection is not None
        try:
            data = side.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect(side, f"{self._name(side)} closed")
            return
        self._overhear(side, data)
        if other.connection is None:
            return
        idle = not other.output
        other.output += data
        if not self.split:
            self._write(other)
        elif idle:
            self._dribble(other)

    def _overhear(self, side: _Side, data: bytes) -> None:
        """Note the messages in passing; what is none is carried all the same."""
        *lines, tail = (side.tail + data).split(b"\n")
        side.tail = tail[-wire.MESSAGE_LIMIT :]
        for line in filter(None, lines):
            with contextlib.suppress(ValueError):
                self.messages.append(Said(time.monotonic(), self._name(side), json.loads(line)))

    def _write(self, side: _Side) -> None:
        if side.connection is None or not side.output:
            return
        try:
            sent = side.connection.send(side.output[: self.split or None])
        except BlockingIOError:
            return
        except OSError:
            self._disconnect(side, f"{self._name(side)} closed")
            return
        side.output = side.output[sent:]

    def _dribble(self, side: _Side) -> None:
        """Deliver `split` bytes at a time, far enough apart to be read one by one."""
        self._write(side)
        if side.output:
            self._reactor.later(0.0005, lambda: self._dribble(side))
        self._update()

    def _name(self, side: _Side) -> str:
        return "host" if side is self._host else "guest"

    def _note(self, what: str) -> None:
        self.events.append((time.monotonic(), what))


def main() -> None:
    """Run one relay until SIGTERM or SIGINT, and say what happens."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers.relay")
    parser.add_argument("--directory", type=Path, required=True, help="the channel directory")
    parser.add_argument("--uuid", required=True, help="the instance")
    parser.add_argument("--guest", type=Path, required=True, help="the guest client's socket")
    parser.add_argument("--split", type=int, default=0, help="deliver this many bytes at a time")
    options = parser.parse_args()
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    with Relay(options.directory, options.uuid, options.guest, split=options.split) as relay:
        print(f"relay of {relay.path}", flush=True)
        signal.sigwait(stop_signals)


if __name__ == "__main__":
    main()
