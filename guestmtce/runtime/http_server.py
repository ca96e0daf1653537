"""An HTTP server on the loop: many connections, none of which can hold up another (http-api.md).

Replaces libevent's evhttp. Here it is decided who may connect, and whose piece of a long answer
is made next; `http_connection` moves a client's bytes, `http_message` reads and writes them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
from collections import Counter, OrderedDict

from guestmtce.runtime import address as addresses
from guestmtce.runtime.http_connection import ErrorHandler, Handler, HttpConnection, Limits
from guestmtce.runtime.local_user import LocalUsers
from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)

# What is counted of connections and requests.
COUNTED = ("accepted", "errors", "evicted", "failures", "refused", "requests", "timeouts")

# Fewer than Limits.refused: whoever comes is read once before those after him can push him out.
ACCEPTS_PER_TURN = 8
# More than a burst of clients; one that found no place here would try again after a second.
BACKLOG = 512
# A server-sent comment: a follower, and a proxy before it, sees that the stream is alive.
STILL_HERE = b":\n\n"
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class HttpServer:
    """Listens on `address` (numeric host, port; port 0 takes a free one) until `close`.

    `handler` answers a request, `on_error` what is not one; both return at once. Raises OSError
    if it cannot listen. `counts` (the caller's, if given) has accepted, refused, evicted,
    timeouts, requests, errors, failures. `users` finds the local user of a connection.
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
        users: LocalUsers | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.users = LocalUsers() if users is None else users
        self.loop = loop
        self.handler = handler
        self.on_error = on_error
        self.limits = limits
        # Open ones in the order of their last activity; those beyond the limit apart, as they came.
        self._connections: OrderedDict[HttpConnection, None] = OrderedDict()
        self._extra: dict[HttpConnection, None] = {}
        self._followers: dict[HttpConnection, None] = {}
        # Those whose long answer is being made: the first one's next piece is next.
        self._queue: OrderedDict[HttpConnection, None] = OrderedDict()
        self._timers = Timers(loop)
        self._socket = _listen(address)
        self._watch()

    @property
    def address(self) -> tuple[str, int]:
        """The (host, port) that it listens on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        """Open connections, without those beyond the limit and those that follow the events."""
        return len(self._connections)

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        self._timers.cancel_all()
        self.loop.unwatch(self._socket)
        self._socket.close()
        for connection in [*self._connections, *self._extra, *self._followers]:
            connection.close()

    def active(self, connection: HttpConnection) -> None:
        """Something happened on a connection: it is the last to be evicted now."""
        if connection in self._connections:
            self._connections.move_to_end(connection)

    def closed(self, connection: HttpConnection) -> None:
        """A connection is gone."""
        for table in (self._connections, self._extra, self._followers, self._queue):
            table.pop(connection, None)

    def follow(self, connection: HttpConnection) -> bool:
        """Give a connection every event that is published from now on; False if too many follow.

        It no longer counts among the connections (decision 36).
        """
        if len(self._followers) >= self.limits.followers:
            return False
        self.closed(connection)
        self._followers[connection] = None
        if not self._timers.active("speak"):
            self._speak_later()
        return True

    @property
    def followers(self) -> int:
        """How many follow the events."""
        return len(self._followers)

    def publish(self, event: bytes) -> None:
        """Send an event, as `http_message.encode_event` returns it, to all who follow them."""
        for connection in [*self._followers]:
            connection.publish(event)

    def _speak_later(self) -> None:
        self._timers.start("speak", self.limits.silence, self._speak)

    def _speak(self) -> None:
        """Send a comment to all who follow, again and again as long as anybody does."""
        self.publish(STILL_HERE)
        if self._followers:
            self._speak_later()

    def queue(self, connection: HttpConnection) -> None:
        """Call `connection.send_piece()` when it is its turn.

        Long answers are made one at a time, a piece in each turn of the loop; a client that does
        not read loses its place to the next.
        """
        self._queue[connection] = None
        if not self._timers.active("piece"):
            self._timers.start("piece", 0.0, self._send_piece)

    def _send_piece(self) -> None:
        if not self._queue:
            return
        self._timers.start("piece", 0.0, self._send_piece)
        connection, _ = self._queue.popitem(last=False)
        if connection.send_piece():
            self._queue[connection] = None
            self._queue.move_to_end(connection, last=False)

    def _watch(self) -> None:
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
                    self._timers.start("accept", self.limits.accept_retry, self._watch)
                    return
                continue  # that client has gone already
            self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counts["accepted"] += 1
        if len(self._connections) < self.limits.connections or self._make_room():
            self._connections[HttpConnection(self, sock)] = None
            return
        if len(self._extra) >= self.limits.refused:
            self.counts["refused"] += 1
            next(iter(self._extra)).close()
        self._extra[HttpConnection(self, sock, extra=True)] = None

    def _make_room(self) -> bool:
        """Close the oldest idle connection, else the one that keeps us waiting longest.

        False if none is idle and none has kept us waiting for `patience` (decision 40).
        """
        leaving = next((each for each in self._connections if each.idle), None)
        if leaving is None:
            leaving = max(self._connections, key=HttpConnection.kept_us_waiting)
            if leaving.kept_us_waiting() <= self.limits.patience:
                return False
        self.counts["evicted"] += 1
        leaving.close()
        return True


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
