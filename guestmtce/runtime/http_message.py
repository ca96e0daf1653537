"""Requests read and answers written by `http.server`, on bytes in memory (decision 36).

`BaseHTTPRequestHandler` is made to read from and write to a blocking socket. Here its files are
memory: what it reads is one whole request, which `core.shared.http_framing` has found; what it
writes is sent by `http_server` as the socket takes it. Its loop, its log and its look-up of the
client's name are not used.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import NoReturn

from guestmtce.core.shared.http_framing import Frame, HttpError
from guestmtce.runtime.local_user import UNKNOWN, LocalUser


@dataclass(frozen=True)
class Request:
    """One complete request. Header names are in lower case; repeated headers are joined.

    `user()` says which local user sends it; it is looked up when it is first asked for.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    keep_alive: bool = True
    user: Callable[[], LocalUser] = field(default=lambda: UNKNOWN, compare=False)


@dataclass(frozen=True)
class Response:
    """Our answer to a client. A body in pieces is made piece by piece, as the client reads it.

    `follows`: the body is only the beginning; whatever the server publishes goes after it, until
    the client hangs up (server-sent events).
    """

    status: int
    body: bytes | Iterator[bytes] = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    follows: bool = False


def encode_event(text: str, number: str) -> bytes:
    """Return `text` as one server-sent event with the id `number`."""
    return "".join(
        [f"id: {number}\n", *(f"data: {line}\n" for line in text.splitlines()), "\n"]
    ).encode("utf-8")


class _MemoryHandler(BaseHTTPRequestHandler):
    """The library's parser and writer for one request, without a socket."""

    protocol_version = "HTTP/1.1"
    request_version = "HTTP/1.1"

    def __init__(self, head: bytes = b"") -> None:
        # Not the base class's: that would serve a whole connection, and block.
        self.rfile = io.BytesIO(head)
        self.wfile: io.BytesIO = io.BytesIO()
        self.raw_requestline = self.rfile.readline()

    def handle_expect_100(self) -> bool:
        """Say nothing: the body is here already."""
        return True

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> NoReturn:
        """Refuse what the framer let pass and the library does not take."""
        raise HttpError(code, message or explain or HTTPStatus(code).phrase)


def read_request(frame: Frame, user: Callable[[], LocalUser] = lambda: UNKNOWN) -> Request:
    """Return the request in a frame that `user()` sent; raises HttpError."""
    handler = _MemoryHandler(frame.head)
    handler.parse_request()
    headers: dict[str, str] = {}
    for name, value in handler.headers.items():
        key, text = name.lower(), value.strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    # The library knows "close" as the whole of a header only, and reads //x as /x in `path`.
    wishes = [word.strip().lower() for word in headers.get("connection", "").split(",")]
    keep_alive = not handler.close_connection and "close" not in wishes
    target = handler.requestline.split(" ")[1]
    return Request(handler.command, target, headers, frame.body, keep_alive, user)


class Answer:
    """A response as blocks of bytes to send, one after the other.

    A body that comes in more than one piece has no known length: the end of the connection ends
    it, and `keep_alive` becomes False with the first block.
    """

    def __init__(self, response: Response, *, keep_alive: bool, head_only: bool = False) -> None:
        self.keep_alive = keep_alive
        self.follows = response.follows and not head_only
        self.in_pieces = not isinstance(response.body, bytes)
        self._blocks = self._encode(response, head_only or response.status == HTTPStatus.NO_CONTENT)

    def next_block(self) -> bytes | None:
        """Return the next bytes to send, None when that was all."""
        return next(self._blocks, None)

    def _encode(self, response: Response, head_only: bool) -> Iterator[bytes]:
        body = response.body
        pieces = iter([body]) if isinstance(body, bytes) else body
        first, second = next(pieces, b""), next(pieces, None)
        is_whole = second is None and not response.follows
        self.keep_alive = self.keep_alive and is_whole
        head = _encode_head(response, len(first) if is_whole else None, self.keep_alive)
        if head_only:
            yield head
            return
        yield head + first + (second or b"")
        yield from pieces


def _encode_head(response: Response, length: int | None, keep_alive: bool) -> bytes:
    handler = _MemoryHandler()
    handler.send_response_only(response.status)
    if response.status != HTTPStatus.NO_CONTENT:
        handler.send_header("Content-Type", response.content_type)
        if length is not None:
            handler.send_header("Content-Length", str(length))
    for name, value in response.headers.items():
        handler.send_header(name, value)
    handler.send_header("Connection", "keep-alive" if keep_alive else "close")
    handler.end_headers()
    return handler.wfile.getvalue()
