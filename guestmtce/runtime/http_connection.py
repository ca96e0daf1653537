"""One client of the HTTP server: its bytes, its answers, and one deadline (http-api.md, "Errors").

Only `http_server` imports this. A client is bounded in time (each phase has a deadline) and in
space (one request at a time, read no further while its answer waits to be sent).
"""

from __future__ import annotations

import selectors
import socket
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from guestmtce.core.shared.http_framing import HttpError, RequestFramer
from guestmtce.runtime.http_message import Answer, Request, Response, read_request
from guestmtce.runtime.local_user import LocalUser, LocalUsers
from guestmtce.runtime.loop import Loop, Timer

Handler = Callable[[Request], Response]
ErrorHandler = Callable[[HttpError], Response]

READ_BYTES = 64 * 1024
REQUESTS_PER_TURN = 16
ANSWER_BYTES_PER_TURN = 64 * 1024
# So much may wait for a client that follows the events; one that reads slower is hung up on.
UNREAD_EVENTS_LIMIT = 64 * 1024


class Limits(NamedTuple):
    """Bounds of the server; times in seconds.

    With all `connections` taken, one that has kept us waiting for longer than `patience` makes
    room. Where there is none, up to `refused` more have `grace` to bring a whole request: it is
    answered, and whoever brings none is told 503. An answer, or a piece of one, has `response`
    to be read; after our last answer a client has `linger` to read it and close. `followers` of
    the events are not counted among the connections; they hear something every `silence`.
    """

    connections: int = 64
    refused: int = 16
    followers: int = 8
    silence: float = 15.0
    request: float = 10.0
    response: float = 10.0
    idle: float = 75.0
    linger: float = 2.0
    patience: float = 2.0
    grace: float = 0.5
    accept_retry: float = 0.5


class HttpOwner(Protocol):
    """What a connection needs of its server."""

    loop: Loop
    limits: Limits
    handler: Handler
    on_error: ErrorHandler
    counts: Counter[str]
    users: LocalUsers

    def active(self, connection: HttpConnection) -> object:
        """Something happened on a connection."""

    def closed(self, connection: HttpConnection) -> object:
        """A connection is gone."""

    def follow(self, connection: HttpConnection) -> bool:
        """Call `connection.publish()` with each event from now on; False if too many follow."""

    def queue(self, connection: HttpConnection) -> object:
        """Call `connection.send_piece()` when it is its turn."""


class _Phase(Enum):
    """What a connection's deadline is for."""

    IDLE = auto()
    REQUEST = auto()
    RESPONSE = auto()
    LINGER = auto()


class HttpConnection:
    """One client. An `extra` one is there although all places are taken: it has one request."""

    def __init__(self, owner: HttpOwner, sock: socket.socket, *, extra: bool = False) -> None:
        self._owner = owner
        self._socket = sock
        self._extra = extra
        self._known_user: LocalUser | None = None
        self._framer = RequestFramer()
        self._output = memoryview(b"")
        self._answer: Answer | None = None  # the rest of an answer that comes in pieces
        # What comes once the output is sent; it returns True if there is output again.
        self._step: Callable[[HttpConnection], bool] = HttpConnection._serve_next
        self._closed = False
        self._more: Timer | None = None
        # A client that connects and says nothing has not the patience of a kept connection.
        self._phase = _Phase.REQUEST
        self._since = owner.loop.time()
        seconds = owner.limits.grace if extra else owner.limits.request
        self._deadline = owner.loop.call_later(seconds, self._too_late)
        self._update_interest()

    @property
    def idle(self) -> bool:
        """True if it has had its answers and asks nothing more: closing it loses nothing.

        Whoever has just come is not idle: his request may be here and not be read yet.
        """
        return self._phase is _Phase.IDLE and self._deadline.active

    def kept_us_waiting(self) -> float:
        """Return for how many seconds a request is incomplete or an answer is not read."""
        if self._deadline.active and self._phase in (_Phase.REQUEST, _Phase.RESPONSE):
            return self._owner.loop.time() - self._since
        return 0.0

    def close(self) -> None:
        """Hang up. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._deadline.cancel()
        if self._more is not None:
            self._more.cancel()
        self._owner.loop.unwatch(self._socket)
        self._socket.close()
        self._owner.closed(self)

    def publish(self, event: bytes) -> None:
        """Send an event to a client that follows them."""
        if len(self._output) + len(event) > UNREAD_EVENTS_LIMIT:
            self.close()
            return
        self._output = memoryview(self._output.tobytes() + event)
        self._advance()

    def send_piece(self) -> bool:
        """Send the next piece of the answer; True if the client took it and there is more."""
        if self._closed or self._answer is None:
            return False
        block: bytes | None = None
        try:
            block = self._answer.next_block()
        except Exception:
            # A bug of ours; the loop logs it. What was sent cannot be taken back.
            self.close()
            raise
        if block is None:
            self._step = _after(self._answer)
            self._answer = None
        else:
            self._output = memoryview(block)
        if block and self._flush():
            return True
        self._advance()
        return False

    def _enter(self, phase: _Phase, seconds: float) -> None:
        """Begin a phase and its deadline; a phase that goes on keeps its deadline."""
        if phase is not self._phase or not self._deadline.active:
            self._phase = phase
            self._since = self._owner.loop.time()
            self._deadline.cancel()
            self._deadline = self._owner.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        if self._phase is not _Phase.REQUEST:
            self.close()
            return
        if self._extra:
            self._refuse("refused", HttpError(503, "too many connections"))
        else:
            self._refuse("timeouts", HttpError(408, "the request is not complete"))
        self._advance()

    def ready(self, events: int) -> None:
        """The socket can be read or written."""
        self._owner.active(self)
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
            # It may read on: but while an answer waits to be read, we do not read ourselves.
            self.close()
        elif self._step is HttpConnection._serve_next:
            self._framer.receive(data)

    def _advance(self) -> None:
        """Answer what has arrived, until the client has to read first, or to say more."""
        self._more = None
        sent = 0
        for _ in range(REQUESTS_PER_TURN):
            sent += len(self._output)
            if not self._flush():
                break
            if sent > ANSWER_BYTES_PER_TURN:
                self._go_on_later()
                break
            if not self._step(self):
                break
        else:
            self._go_on_later()
        self._update_interest()

    def _go_on_later(self) -> None:
        """Let others have their turn first."""
        self._more = self._owner.loop.call_soon(self._advance)

    def _serve_next(self) -> bool:
        """Answer the next request; wait if there is none yet."""
        try:
            frame = self._framer.next_request()
            request = None if frame is None else read_request(frame, self._user)
        except HttpError as error:
            self._refuse("errors", error)
            return True
        if request is not None:
            self._owner.counts["requests"] += 1
            self._serve(request)
            return True
        self._output = memoryview(self._framer.take_continue())
        if not self._output:
            self._wait()
        return bool(self._output)

    def _serve(self, request: Request) -> None:
        self._phase = _Phase.IDLE
        self._deadline.cancel()
        response: Response | None = None
        try:
            response = self._owner.handler(request)
        finally:
            if response is None:
                # It raised: the loop logs that, this client is told, and others are served.
                self._refuse("failures", HttpError(500, "internal error"))
                self._go_on_later()
        keep_alive = request.keep_alive and not self._extra
        answer = Answer(response, keep_alive=keep_alive, head_only=request.method == "HEAD")
        if answer.in_pieces:
            self._answer, self._step = answer, HttpConnection._await_turn
        elif answer.follows and not self._owner.follow(self):
            self._refuse("refused", HttpError(503, "too many follow the events"))
        else:
            self._output = memoryview(answer.next_block() or b"")
            self._step = HttpConnection._follow if answer.follows else _after(answer)

    def _user(self) -> LocalUser:
        """Return who sends requests on this connection, looked up once."""
        if self._known_user is None:
            self._known_user = self._owner.users.at_other_end(self._socket)
        return self._known_user

    def _await_turn(self) -> bool:
        """The client has read the last piece of its answer: queue for the next one."""
        self._owner.queue(self)
        return False

    def _follow(self) -> bool:
        """The client has read every event; `publish` has the next one."""
        return False

    def _refuse(self, counted_as: str, error: HttpError) -> None:
        """Answer with an error: the last that this client hears."""
        self._owner.counts[counted_as] += 1
        self._step = HttpConnection._linger
        self._deadline.cancel()
        answer = Answer(self._owner.on_error(error), keep_alive=False)
        self._output = memoryview(self._output.tobytes() + (answer.next_block() or b""))

    def _flush(self) -> bool:
        """Send; True if nothing is left to send."""
        if self._closed:
            return False
        if self._output:
            try:
                self._output = self._output[self._socket.send(self._output) :]
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return False
        if self._output:
            self._enter(_Phase.RESPONSE, self._owner.limits.response)
        elif self._phase is _Phase.RESPONSE:
            self._deadline.cancel()
        return not self._output

    def _wait(self) -> None:
        """Everything that was asked is answered."""
        limits = self._owner.limits
        if self._framer.idle and self._phase is not _Phase.REQUEST:
            self._enter(_Phase.IDLE, limits.idle)
        else:
            self._enter(_Phase.REQUEST, limits.request)

    def _linger(self) -> bool:
        """Say that this was all, and let the client read it.

        Closing with unread input would reset the connection, and the answer would be lost.
        """
        if self._phase is not _Phase.LINGER:
            self._enter(_Phase.LINGER, self._owner.limits.linger)
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.close()
        return False

    def _update_interest(self) -> None:
        if self._closed:
            return
        events = selectors.EVENT_WRITE if self._output else 0
        if not (self._output or self._answer or self._more):
            events |= selectors.EVENT_READ
        self._owner.loop.watch(self._socket, events, self.ready)


def _after(answer: Answer) -> Callable[[HttpConnection], bool]:
    """Return what comes when the whole of an answer is sent."""
    return HttpConnection._serve_next if answer.keep_alive else HttpConnection._linger
