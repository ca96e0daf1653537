"""The event loop: descriptors, timers and signals, one thread, one turn at a time.

Knows nothing of guests. The clock and the selector are passed in, so that a test can run
hours in milliseconds: a selector whose `select(timeout)` moves the clock is enough.

One turn: sleep until something is ready or the next timer is due, run what became ready,
then run the timers that are due *now*. Reading goes first so that an answer that has arrived
is seen before its deadline is judged (behaviour.md, "Whose silence?").
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Protocol, Union

log = logging.getLogger(__name__)

Callback = Callable[..., object]


class HasFileno(Protocol):
    """Anything that has a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


Descriptor = Union[int, HasFileno]

# Cancelled timers stay in the heap until they surface; beyond this many, and when they are
# the majority, the heap is rebuilt without them.
_COMPACT_THRESHOLD = 512
_SIGNAL_READ_BYTES = 4096
# epoll_wait(2) takes milliseconds in an int; waking once a day costs nothing.
_MAX_SLEEP_SECS = 86_400.0


class Timer:
    """A callback that will run once, at `when` (seconds of the loop's clock)."""

    __slots__ = ("_args", "_callback", "_loop", "when")

    def __init__(
        self, loop: Loop, when: float, callback: Callback, args: tuple[object, ...]
    ) -> None:
        self.when = when
        self._loop = loop
        self._callback: Callback | None = callback
        self._args = args

    @property
    def active(self) -> bool:
        """True until it has rung or been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never ring. Cancelling twice, or after it rang, does nothing."""
        if self._callback is not None:
            self._callback = None
            self._args = ()
            self._loop._cancelled_one()

    def _take(self) -> tuple[Callback, tuple[object, ...]] | None:
        """Return the callback and forget it: a timer rings once."""
        if self._callback is None:
            return None
        taken = self._callback, self._args
        self._callback = None
        self._args = ()
        return taken


class Loop:
    """A single-threaded selector loop.

    `clock` returns monotonic seconds; `selector` defaults to the platform's best.
    `errors` counts callbacks that raised; `lag` is how late (seconds) the latest due timer ran.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        selector: selectors.BaseSelector | None = None,
    ) -> None:
        self.time = clock
        self.errors = 0
        self.lag = 0.0
        self._selector = selector if selector is not None else selectors.DefaultSelector()
        # (when, sequence, timer): tuples, because a heap compares them without calling Python.
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._cancelled = 0
        self._stopping = False
        self._signal_callbacks: dict[int, Callback] = {}
        # In the order of their arrival; a dict, because a signal counts once a turn.
        self._signals_pending: dict[int, None] = {}
        self._signal_sockets: tuple[socket.socket, socket.socket] | None = None

    def call_later(self, delay: float, callback: Callback, *args: object) -> Timer:
        """Run `callback(*args)` once, `delay` seconds from now (at once if negative)."""
        return self._add(self.time() + max(0.0, delay), callback, args)

    def call_at(self, when: float, callback: Callback, *args: object) -> Timer:
        """Run `callback(*args)` once, at `when` by the loop's clock (at once if that is past)."""
        return self._add(max(when, self.time()), callback, args)

    def _add(self, when: float, callback: Callback, args: tuple[object, ...]) -> Timer:
        timer = Timer(self, when, callback, args)
        heapq.heappush(self._timers, (timer.when, self._sequence, timer))
        self._sequence += 1
        return timer

    def call_soon(self, callback: Callback, *args: object) -> Timer:
        """Run `callback(*args)` in the next turn, after what is ready then."""
        return self.call_later(0.0, callback, *args)

    def watch(self, fd: Descriptor, events: int, callback: Callable[[int], object]) -> None:
        """Call `callback(ready_events)` when `fd` is ready; replaces an earlier watch of it.

        `events` is a mask of selectors.EVENT_READ and EVENT_WRITE; 0 stops watching.
        """
        if events == 0:
            self.unwatch(fd)
            return
        try:
            key = self._selector.get_key(fd)
        except (KeyError, ValueError):
            self._selector.register(fd, events, callback)
            return
        if key.events != events or key.data != callback:
            self._selector.modify(fd, events, callback)

    def unwatch(self, fd: Descriptor) -> None:
        """Stop watching; no error if it was not watched. Call it before closing."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Run `callback()` in the loop, not in signal context, each time `signum` arrives."""
        if self._signal_sockets is None:
            self._open_signal_sockets()
        self._signal_callbacks[signum] = callback
        signal.signal(signum, self._note_signal)
        signal.siginterrupt(signum, False)

    def run(self) -> None:
        """Run turns until `stop` is called."""
        self._stopping = False
        while not self._stopping:
            self.run_once()

    def stop(self) -> None:
        """Make `run` return after this turn."""
        self._stopping = True

    def run_once(self) -> None:
        """One turn. The only place where callbacks are called."""
        for key, ready in self._selector.select(self._sleep_time()):
            # An earlier callback of this turn may have unwatched or replaced this descriptor.
            if self._selector.get_map().get(key.fd) == key:
                self._call(key.data, (ready,))
        self._run_due_timers()

    def close(self) -> None:
        """Release the selector and give the signals back. Watched descriptors stay open."""
        for signum in self._signal_callbacks:
            signal.signal(signum, signal.SIG_DFL)
        if self._signal_sockets is not None:
            signal.set_wakeup_fd(-1)
            for end in self._signal_sockets:
                end.close()
            self._signal_sockets = None
        self._selector.close()

    def _sleep_time(self) -> float | None:
        while self._timers and not self._timers[0][2].active:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        if self._stopping:
            return 0.0
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0][0] - self.time()), _MAX_SLEEP_SECS)

    def _run_due_timers(self) -> None:
        """Run what is due now; a timer set meanwhile waits for the next turn, even at 0 s."""
        now = self.time()
        first_new = self._sequence
        while self._timers:
            when, sequence, timer = self._timers[0]
            # New timers are not before `now`, so among the due ones they sort last.
            if when > now or sequence >= first_new:
                return
            heapq.heappop(self._timers)
            taken = timer._take()
            if taken is None:
                self._cancelled -= 1
                continue
            self.lag = now - when
            self._call(*taken)

    def _call(self, callback: Callback, args: tuple[object, ...]) -> None:
        try:
            callback(*args)
        except Exception:
            # The last resort: one bad event must not end the daemon.
            self.errors += 1
            log.exception("a callback failed (%d so far); going on", self.errors)

    def _cancelled_one(self) -> None:
        self._cancelled += 1
        if self._cancelled > _COMPACT_THRESHOLD and self._cancelled * 2 > len(self._timers):
            # In place: _run_due_timers may be iterating over this very list.
            self._timers[:] = [entry for entry in self._timers if entry[2].active]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _open_signal_sockets(self) -> None:
        read_end, write_end = socket.socketpair()
        read_end.setblocking(False)
        write_end.setblocking(False)
        self._signal_sockets = read_end, write_end
        signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
        self.watch(read_end, selectors.EVENT_READ, self._signals_arrived)

    def _note_signal(self, signum: int, _frame: object) -> None:
        """In signal context: only remember it. The wake-up socket may be too full to tell."""
        self._signals_pending[signum] = None

    def _signals_arrived(self, _ready: int) -> None:
        if self._signal_sockets is None:
            return
        with contextlib.suppress(BlockingIOError):
            self._signal_sockets[0].recv(_SIGNAL_READ_BYTES)
        pending, self._signals_pending = self._signals_pending, {}
        for signum in pending:
            self._call(self._signal_callbacks[signum], ())


class Timers:
    """Timers by name; of each name one runs at most."""

    __slots__ = ("_loop", "_running")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._running: dict[str, Timer] = {}

    def start(self, name: str, delay: float, callback: Callback, *args: object) -> None:
        """Run `callback(*args)` once, `delay` seconds from now, in place of what `name` has."""
        self.cancel(name)
        self._running[name] = self._loop.call_later(delay, callback, *args)

    def start_at(self, name: str, when: float | None, callback: Callback, *args: object) -> None:
        """The same, at `when` by the loop's clock, None for never; moved only if it differs."""
        running = self._running.get(name)
        if running is not None and running.active and running.when == when:
            return
        self.cancel(name)
        if when is not None:
            self._running[name] = self._loop.call_at(when, callback, *args)

    def cancel(self, name: str) -> None:
        """Let `name` not ring; no error if it does not run."""
        running = self._running.pop(name, None)
        if running is not None:
            running.cancel()

    def active(self, name: str) -> bool:
        """Return whether `name` is still to ring."""
        running = self._running.get(name)
        return running is not None and running.active

    def cancel_all(self) -> None:
        """Let none ring."""
        for name in list(self._running):
            self.cancel(name)
