"""One thread in which many peers live: descriptors, timers, and calls from other threads."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any


class Timer:
    """A pending call; cancel() makes it not happen."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Reactor:
    """A selectors loop in a daemon thread. Everything but `call` is for that thread only."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._lock = threading.Lock()
        self._waker, self._wakened = socket.socketpair()
        self._wakened.setblocking(False)
        self._selector.register(self._wakened, selectors.EVENT_READ, self._run_calls)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in the reactor's thread; return or raise what it does."""
        if threading.current_thread() is self._thread:
            return function(*args)
        if not self._thread.is_alive():
            raise RuntimeError("the reactor has been stopped")
        future: Future[Any] = Future()
        with self._lock:
            self._calls.append((future, lambda: function(*args)))
        self._waker.send(b"!")
        return future.result(timeout=10)

    def stop(self) -> None:
        """End the thread. Descriptors of the peers stay theirs to close."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self.call(self._stop_running)
            self._thread.join(timeout=10)
        self._selector.close()
        self._waker.close()
        self._wakened.close()

    def _stop_running(self) -> None:
        self._running = False

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], object]) -> None:
        """Call `callback(events)` when `sock` is ready; replaces its earlier watch; 0 ends it."""
        self.unwatch(sock)
        if events:
            self._selector.register(sock, events, callback)

    def unwatch(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` once after `delay` seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._order), timer))
        return timer

    def _run(self) -> None:
        while self._running:
            pause = None
            if self._timers:
                pause = max(0.0, self._timers[0][0] - time.monotonic())
            for key, events in self._selector.select(pause):
                if self._selector.get_map().get(key.fd) == key:
                    self._guarded(key.data, events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                callback = heapq.heappop(self._timers)[2].callback
                if callback is not None:
                    self._guarded(callback)

    def _guarded(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            callback(*args)
        except Exception:
            traceback.print_exc()

    def _run_calls(self, _events: int) -> None:
        self._wakened.recv(4096)
        with self._lock:
            calls, self._calls = self._calls, []
        for future, function in calls:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)


def unix_listener(path: Path, backlog: int = 1) -> socket.socket:
    """Return a non-blocking listening UNIX socket at `path`, which may be longer than sun_path."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


def unix_connection(path: Path, timeout: float = 10.0) -> socket.socket:
    """Return a connected, blocking UNIX socket; `path` may be longer than sun_path."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection
