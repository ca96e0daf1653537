"""One HTTP request per connection, on the loop, with a deadline (vim.md, "Events").

Replaces guestHttpUtil's blocking calls. The request goes out in one write right after the
connect: the VIM has one thread, and a client that connects and stays silent blocks all of it.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
from collections.abc import Callable
from typing import NamedTuple

from guestmtce.core.shared.http1 import HttpError, ResponseParser
from guestmtce.runtime import address as addresses
from guestmtce.runtime.loop import Loop

log = logging.getLogger(__name__)

DEADLINE_SECS = 20.0
READ_BYTES = 64 * 1024
_RECEIVES_PER_TURN = 16

_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.EMFILE: "no descriptors",
    errno.ENFILE: "no descriptors",
}

TIMEOUT = "timeout"
CLOSED = "closed"
RESET = "reset"


class Outcome(NamedTuple):
    """How a request ended.

    `written`: the whole request had gone out. `status`: None if no head came back. `error`: ""
    if the answer is complete, else one word (refused, reset, timeout, closed, garbage, …).
    """

    written: bool
    status: int | None
    body: bytes
    error: str
    seconds: float


class Exchange:
    """A request to (numeric host, port) on its way; `on_done(outcome)` is called once, later."""

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        request: bytes,
        on_done: Callable[[Outcome], object],
        deadline: float = DEADLINE_SECS,
    ) -> None:
        self._loop = loop
        self._rest = memoryview(request)
        self._on_done = on_done
        self._parser = ResponseParser()
        self._started = loop.time()
        self._finished = False
        self._socket: socket.socket | None = None
        self._deadline = loop.call_later(deadline, self._finish, TIMEOUT)
        self._connect(address)

    def cancel(self) -> None:
        """Give up without calling back."""
        self._release()

    def _connect(self, address: tuple[str, int]) -> None:
        family = addresses.family_of(address[0])
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            error = self._socket.connect_ex(addresses.socket_address(family, *address))
        except OSError as failure:
            error = failure.errno or errno.EINVAL
        if error in (0, errno.EINPROGRESS) and self._socket is not None:
            self._loop.watch(self._socket, selectors.EVENT_WRITE, self._connected)
        else:
            # Not from here: the caller does not have this object yet.
            self._loop.call_soon(self._finish, _word(error))

    def _connected(self, _events: int) -> None:
        """The connect has ended, well or not; write at once."""
        if self._socket is None:
            return
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._finish(_word(error))
        else:
            self._write(selectors.EVENT_WRITE)

    def _write(self, _events: int) -> None:
        if self._socket is None:
            return
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._finish(_word(error.errno))
            return
        if self._rest:
            # Its answer before the end of our request is of no use; errors come with writing.
            self._loop.watch(self._socket, selectors.EVENT_WRITE, self._write)
        else:
            self._loop.watch(self._socket, selectors.EVENT_READ, self._read)

    def _read(self, _events: int) -> None:
        """Read what there is, up to the end, before an error counts.

        The VIM ends its answers with FIN and at once RST: then the reset is the end.
        """
        for _ in range(_RECEIVES_PER_TURN):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(READ_BYTES)
                if data:
                    self._parser.receive(data)
            except BlockingIOError:
                return
            except OSError as error:
                self._ended(_word(error.errno))
                return
            except HttpError:
                self._finish("garbage")
                return
            if not data:
                self._ended(CLOSED)
            elif self._parser.complete:
                self._finish("")

    def _ended(self, word: str) -> None:
        self._parser.end()
        self._finish("" if self._parser.complete else word)

    def _finish(self, error: str) -> None:
        if self._finished:
            return
        self._release()
        seconds = self._loop.time() - self._started
        body = self._parser.body if not error else b""
        outcome = Outcome(not self._rest, self._parser.status, body, error, seconds)
        self._on_done(outcome)

    def _release(self) -> None:
        self._finished = True
        self._deadline.cancel()
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None


def _word(error: int | None) -> str:
    return _WORDS.get(error or 0, "unreachable")
