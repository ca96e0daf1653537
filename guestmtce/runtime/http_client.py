"""One HTTP request per connection, on the loop, with a deadline (http-api.md, "Events").

Replaces guestHttpUtil's blocking calls. `urllib.request.Request` says what is asked, and
`http.client.HTTPResponse` reads the answer, on bytes in memory (decision 36); the socket between
them is ours and never blocks. The request goes out in one write right after the connect: the VIM
has one thread, and a client that connects and stays silent blocks all of it.
"""

from __future__ import annotations

import errno
import io
import selectors
import socket
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import NamedTuple
from urllib.request import Request

from guestmtce.runtime import address as addresses
from guestmtce.runtime.loop import Loop

DEADLINE_SECS = 20.0
READ_BYTES = 64 * 1024
ANSWER_LIMIT = 4 * 1024 * 1024
_RECEIVES_PER_TURN = 16

_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.EMFILE: "no descriptors",
    errno.ENFILE: "no descriptors",
}

_UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
CLOSED = "closed"
RESET = "reset"
GARBAGE = "garbage"
# Every word that says why a request has no answer.
FAILURES = (*sorted({*_WORDS.values()}), _UNREACHABLE, TIMEOUT, CLOSED, GARBAGE)


def host_header(address: str, port: int) -> str:
    """Return `address:port` as it stands in a URL: an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def encode_request(request: Request) -> bytes:
    """Return the bytes of a request; it asks the server to hang up after its answer."""
    lines = [f"{request.get_method()} {request.selector} HTTP/1.1", f"Host: {request.host}"]
    # urllib keeps a name as `User-agent`, and sends it as `User-Agent`.
    lines += [f"{name.title()}: {value}" for name, value in request.header_items()]
    lines.append("Connection: close")
    body = request.data
    if not isinstance(body, bytes):
        return "\r\n".join([*lines, "", ""]).encode("ascii")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("ascii") + body


class _Memory:
    """An answer's bytes in the place of the socket that `HTTPResponse` reads from."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def makefile(self, _mode: str) -> io.BytesIO:
        """Return the file to read from."""
        return self.file

    def add(self, data: bytes) -> None:
        """Put `data` behind what is there; reading goes on where it was."""
        place = self.file.tell()
        self.file.seek(0, io.SEEK_END)
        self.file.write(data)
        self.file.seek(place)


def read_answer(data: bytes, *, at_end: bool) -> tuple[int | None, bytes | None]:
    """Return the status in what has come of an answer, and its body; None for what is not whole.

    `at_end`: nothing more will come. Raises HTTPException if it is not an answer, or too long.
    """
    if len(data) > ANSWER_LIMIT:
        raise HTTPException("too long")
    lines, newline, rest = data.rpartition(b"\n")
    memory = _Memory(lines + newline)
    response = HTTPResponse(memory)  # type: ignore[arg-type]  # it calls nothing but makefile
    try:
        response.begin()
    except RemoteDisconnected:
        return None, None  # not one whole line, or none after a `100 Continue`
    start = memory.file.tell()
    if not data.endswith((b"\r\n\r\n", b"\n\n"), 0, start):
        return None, None
    memory.add(rest)
    if response.length is not None and response.length > ANSWER_LIMIT:
        raise HTTPException("too long")
    if not at_end and (response.length is None or len(data) < start + response.length):
        return response.status, None
    try:
        return response.status, response.read()
    except IncompleteRead:
        return response.status, None


class Outcome(NamedTuple):
    """How a request ended.

    `written`: the whole request had gone out. `status`: None if no head came back. `error`: ""
    if the answer is complete, else one word (refused, reset, timeout, closed, garbage, …).
    """

    written: bool
    status: int | None
    body: bytes
    error: str


class HttpExchange:
    """A request to (numeric host, port) on its way; `on_done(outcome)` is called once, later.

    `on_written()` is called when the whole request has gone out, before that.
    """

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        request: bytes,
        on_done: Callable[[Outcome], object],
        deadline: float = DEADLINE_SECS,
        *,
        on_written: Callable[[], object] = lambda: None,
    ) -> None:
        self._loop = loop
        self._rest = memoryview(request)
        self._on_done = on_done
        self._on_written = on_written
        self._received = b""
        self._status: int | None = None
        self._body: bytes | None = None
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
            self._on_written()

    def _read(self, _events: int) -> None:
        """Read what there is, up to the end, before an error counts.

        The VIM ends its answers with FIN and at once RST: then the reset is the end.
        """
        for _ in range(_RECEIVES_PER_TURN):
            if self._socket is None:
                return
            word = ""
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                data, word = b"", _word(error.errno)
            self._received += data
            try:
                self._status, self._body = read_answer(self._received, at_end=not data)
            except HTTPException:
                self._finish(GARBAGE)
                return
            if self._body is not None:
                self._finish("")
            elif not data:
                self._finish(word or CLOSED)

    def _finish(self, error: str) -> None:
        if self._finished:
            return
        self._release()
        body = b"" if error else self._body or b""
        self._on_done(Outcome(not self._rest, self._status, body, error))

    def _release(self) -> None:
        self._finished = True
        self._deadline.cancel()
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None


def _word(error: int | None) -> str:
    return _WORDS.get(error or 0, _UNREACHABLE)
