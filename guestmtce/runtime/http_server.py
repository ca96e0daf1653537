"""An HTTP server on the loop: many connections, none of which can hold up another (vim.md).

Replaces libevent's evhttp. Only moves bytes: `core.shared.http1` finds the requests, `handler`
answers them, and answers at once. Each connection is bounded in time (a deadline for a request,
for an answer to be read, for idleness) and in space (one request at a time, read no further while
its answer waits to be sent).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from guestmtce.core.shared.http1 import (
    CONTINUE,
    HttpError,
    Request,
    RequestParser,
    Response,
    encode_response,
)
from guestmtce.runtime import address as addresses
from guestmtce.runtime.loop import Loop, Timer

log = logging.getLogger(__name__)

Handler = Callable[[Request], Response]
ErrorHandler = Callable[[HttpError], Response]

READ_BYTES = 64 * 1024
ACCEPTS_PER_TURN = 32
REQUESTS_PER_TURN = 16
ANSWER_BYTES_PER_TURN = 64 * 1024
BACKLOG = 128
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Limits(NamedTuple):
    """Bounds of the server; times in seconds.

    `refused` connections beyond `connections` are told 503, the rest are hung up on. After
    our last answer a client has `linger` to read it and close.
    """

    connections: int = 64
    refused: int = 16
    request: float = 10.0
    response: float = 10.0
    idle: float = 75.0
    linger: float = 2.0
    accept_retry: float = 0.5


class HttpServer:
    """Listens on `address` (numeric host, port; port 0 takes a free one) until `close`.

    `handler` answers a request, `on_error` what is not one; both return at once. Raises OSError
    if it cannot listen. `counts` (the caller's, if given) has accepted, refused, evicted,
    timeouts, requests, errors.
    """

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        handler: Handler,
        on_error: ErrorHandler,
        *,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        counts: Counter[str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.loop = loop
        self.handler = handler
        self.on_error = on_error
        self.limits = limits
        # Open ones in the order of their last activity; refused ones apart.
        self._connections: OrderedDict[_Connection, None] = OrderedDict()
        self._refused: set[_Connection] = set()
        self._retry: Timer | None = None
        self._socket = _listen(address)
        self._watch()

    @property
    def address(self) -> tuple[str, int]:
        """The (host, port) that it listens on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        """Open connections, without the refused ones."""
        return len(self._connections)

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.loop.unwatch(self._socket)
        self._socket.close()
        for connection in [*self._connections, *self._refused]:
            connection.close()

    def closed(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)
        self._refused.discard(connection)

    def active(self, connection: _Connection) -> None:
        """Something happened on a connection: it is the last to be evicted now."""
        if connection in self._connections:
            self._connections.move_to_end(connection)

    def _watch(self) -> None:
        self._retry = None
        self.loop.watch(self._socket, selectors.EVENT_READ, self._accept)

    def _accept(self, _events: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _peer = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    # It would be reported ready again at once; wait until something is closed.
                    log.warning("cannot accept a connection: %s", error.strerror)
                    self.loop.unwatch(self._socket)
                    self._retry = self.loop.call_later(self.limits.accept_retry, self._watch)
                    return
                continue  # that client has gone already
            self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counts["accepted"] += 1
        if len(self._connections) >= self.limits.connections:
            idle = next((conn for conn in self._connections if conn.idle), None)
            if idle is None:
                self._refuse(sock)
                return
            self.counts["evicted"] += 1
            idle.close()
        self._connections[_Connection(self, sock)] = None

    def _refuse(self, sock: socket.socket) -> None:
        self.counts["refused"] += 1
        if len(self._refused) >= self.limits.refused:
            sock.close()
            return
        connection = _Connection(self, sock)
        self._refused.add(connection)
        connection.refuse()


def _listen(address: tuple[str, int]) -> socket.socket:
    family = addresses.family_of(address[0])
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(addresses.socket_address(family, *address))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class _Phase(Enum):
    """What a connection's deadline is for."""

    IDLE = "idle"
    REQUEST = "request"
    RESPONSE = "response"
    LINGER = "linger"


class _Connection:
    """One client: its parser, what waits to be sent, and one deadline."""

    def __init__(self, server: HttpServer, sock: socket.socket) -> None:
        self._server = server
        self._socket = sock
        self._parser = RequestParser()
        self._output = memoryview(b"")
        self._served = False
        self._continued = False
        self._last_answer = False
        self._at_end = False
        self._closed = False
        self._more: Timer | None = None
        # A client that connects and says nothing has not the patience of a kept connection.
        self._phase = _Phase.REQUEST
        self._deadline = server.loop.call_later(server.limits.request, self._too_late)
        self._update_interest()

    @property
    def idle(self) -> bool:
        """True if closing it now loses no request and no answer."""
        return not self._output and not self._last_answer and self._parser.idle

    def close(self) -> None:
        """Hang up. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._deadline.cancel()
        if self._more is not None:
            self._more.cancel()
        self._server.loop.unwatch(self._socket)
        self._socket.close()
        self._server.closed(self)

    def refuse(self) -> None:
        """Say that there are too many connections, and go."""
        self._answer_error(HttpError(503, "too many connections"))
        self._advance()

    def _enter(self, phase: _Phase) -> None:
        """Begin a phase and its deadline; a phase that goes on keeps its deadline."""
        if phase is not self._phase or not self._deadline.active:
            self._phase = phase
            self._deadline.cancel()
            seconds = getattr(self._server.limits, phase.value)
            self._deadline = self._server.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        if self._phase is not _Phase.REQUEST:
            self.close()
            return
        self._server.counts["timeouts"] += 1
        self._answer_error(HttpError(408, "too slow"))
        self._advance()

    def _ready(self, events: int) -> None:
        self._server.active(self)
        if events & selectors.EVENT_READ:
            self._read()
        if not self._closed:
            self._advance()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            # Half closed: what was asked for is still answered.
            self._at_end = True
        elif not self._last_answer:
            self._parser.receive(data)

    def _advance(self) -> None:
        """Answer what has arrived, until the client has to read first, or to say more."""
        self._more = None
        sent = 0
        for _ in range(REQUESTS_PER_TURN):
            sent += len(self._output)
            if not self._flush():
                break
            if sent > ANSWER_BYTES_PER_TURN and not self._last_answer:
                self._more = self._server.loop.call_soon(self._advance)
                break
            if self._last_answer:
                self._linger()
                break
            if not self._serve_one():
                self._wait()
                break
        else:
            # Others have their turn first.
            self._more = self._server.loop.call_soon(self._advance)
        self._update_interest()

    def _serve_one(self) -> bool:
        """Put the answer to the next request in the output; False if there is none yet."""
        try:
            request = self._parser.next_request()
        except HttpError as error:
            self._server.counts["errors"] += 1
            self._answer_error(error)
            return True
        if request is not None:
            self._server.counts["requests"] += 1
            self._answer(request)
            return True
        if self._parser.wants_continue and not self._continued:
            self._continued = True
            self._output = memoryview(CONTINUE)
            return True
        return False

    def _answer(self, request: Request) -> None:
        self._served, self._continued = True, False
        self._deadline.cancel()
        response: Response | None = None
        try:
            response = self._server.handler(request)
        finally:
            if response is None:
                # It raised: the loop logs that, this client is told, and others are served.
                self._answer_error(HttpError(500, "internal error"))
                self._more = self._server.loop.call_soon(self._advance)
        self._last_answer = not request.keep_alive
        head_only = request.method == "HEAD"
        data = encode_response(response, keep_alive=request.keep_alive, head_only=head_only)
        self._output = memoryview(data)

    def _answer_error(self, error: HttpError) -> None:
        self._last_answer = True
        self._deadline.cancel()
        data = encode_response(self._server.on_error(error), keep_alive=False)
        self._output = memoryview(self._output.tobytes() + data)

    def _flush(self) -> bool:
        """Send; True if nothing is left to send."""
        if self._closed:
            return False
        if not self._output:
            return True
        try:
            sent = self._socket.send(self._output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return False
        self._output = self._output[sent:]
        if self._output:
            self._enter(_Phase.RESPONSE)
            return False
        return True

    def _wait(self) -> None:
        """Everything that was asked is answered."""
        if self._at_end:
            self.close()
        elif self._served and self._parser.idle:
            self._enter(_Phase.IDLE)
        else:
            self._enter(_Phase.REQUEST)

    def _linger(self) -> None:
        """Say that this was all, and let the client read it.

        Closing with unread input would reset the connection, and the answer would be lost.
        """
        if self._phase is not _Phase.LINGER:
            self._enter(_Phase.LINGER)
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.close()
        if self._at_end:
            self.close()

    def _update_interest(self) -> None:
        if self._closed:
            return
        events = selectors.EVENT_WRITE if self._output else 0
        if not (self._output or self._at_end or self._more):
            events |= selectors.EVENT_READ
        self._server.loop.watch(self._socket, events, self._ready)
