"""HTTP/1.x framing, sans-I/O: bytes in, requests or a response out, and back (vim.md).

Replaces what libevent did. Both parsers keep their own bounded buffer and give the same result
however the bytes are split. Deliberately strict, because leniency is how requests get smuggled:
a line ends with CR LF only, no obsolete line folding, no space before a header's colon, one
Content-Length or one `Transfer-Encoding: chunked`, never both. Chunk extensions and trailers
are read and dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from guestmtce.core.shared.http1_body import (
    HEAD_LIMIT,
    Body,
    Buffer,
    ChunkedBody,
    EndlessBody,
    FixedBody,
    HttpError,
)

__all__ = [
    "BODY_LIMIT",
    "CONTINUE",
    "HEAD_LIMIT",
    "HttpError",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "encode_request",
    "encode_response",
    "host_header",
]

BODY_LIMIT = 64 * 1024
RESPONSE_BODY_LIMIT = 4 * 1024 * 1024
HEADER_COUNT_LIMIT = 100

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a grammar's word, not a password
_REQUEST_LINE = re.compile(
    rf"(?P<method>{_TOKEN}) (?P<target>[\x21-\x7e]+) HTTP/(?P<major>[0-9])\.(?P<minor>[0-9])"
)
_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] (?P<status>[1-9][0-9]{2})(?: [^\r\n\0]*)?")
_HEADER = re.compile(rf"(?P<name>{_TOKEN}):(?P<value>[^\r\n\0]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")

# Headers that decide framing or routing: a second one makes the message ambiguous.
_SINGLE = frozenset({"content-length", "host", "transfer-encoding"})

REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_FIRST_FINAL_STATUS = 200


@dataclass(frozen=True)
class Request:
    """One complete request. Header names are in lower case; repeated headers are joined."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    keep_alive: bool = True
    http_1_0: bool = False


@dataclass(frozen=True)
class Response:
    """Our answer to a client."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class _Head:
    """A start line of the given form and headers, read line by line within HEAD_LIMIT."""

    def __init__(self, form: re.Pattern[str]) -> None:
        self.start: re.Match[str] | None = None
        self.headers: dict[str, str] = {}
        self._form = form
        self._count = 0
        self._room = HEAD_LIMIT

    def read(self, buffer: Buffer) -> re.Match[str] | None:
        """Take the lines that are there; return the start line when the head is complete."""
        while True:
            line = buffer.take_line(self._room, 431)
            if line is None:
                return None
            self._room -= len(line) + 2
            text = line.decode("latin-1")
            if self.start is not None:
                if not text:
                    return self.start
                self._add(text)
            elif text:  # empty lines before a request are what some clients leave after a body
                self.start = self._form.fullmatch(text)
                if self.start is None:
                    raise HttpError(400, "a bad start line")

    def _add(self, text: str) -> None:
        match = _HEADER.fullmatch(text)
        if match is None:
            raise HttpError(400, "a bad header line")
        self._count += 1
        if self._count > HEADER_COUNT_LIMIT:
            raise HttpError(431, "too many headers")
        name, value = match["name"].lower(), match["value"].strip(" \t")
        if name not in self.headers:
            self.headers[name] = value
        elif name in _SINGLE:
            raise HttpError(400, f"{name} given twice")
        else:
            self.headers[name] += f", {value}"

    def tokens(self, name: str) -> frozenset[str]:
        """Return the comma-separated words of a header, in lower case."""
        return frozenset(word.strip().lower() for word in self.headers.get(name, "").split(","))

    def body_length(self) -> int | None:
        """Return Content-Length; None if there is none."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not _LENGTH.fullmatch(text):
            raise HttpError(400, "a bad Content-Length")
        return int(text)

    def chunked(self) -> bool:
        """True if the body is chunked; raises HttpError for any other transfer coding."""
        coding = self.headers.get("transfer-encoding")
        if coding is None:
            return False
        if coding.lower() != "chunked":
            raise HttpError(501, "an unknown transfer coding")
        if "content-length" in self.headers:
            raise HttpError(400, "both Content-Length and Transfer-Encoding")
        return True


class _Incoming(NamedTuple):
    """A request whose head is complete."""

    line: re.Match[str]
    body: Body
    http_1_0: bool


class RequestParser:
    """Requests from the bytes of one connection, pipelined or not.

    `receive` bytes, then take requests with `next_request` until it returns None. The caller
    bounds the buffer: it receives no more while requests are waiting in it.
    """

    def __init__(self) -> None:
        self._buffer = Buffer()
        self._head = _Head(_REQUEST_LINE)
        self._incoming: _Incoming | None = None
        self._error: HttpError | None = None

    @property
    def idle(self) -> bool:
        """True if nothing of a next request has arrived."""
        return not self._buffer and self._head.start is None

    @property
    def wants_continue(self) -> bool:
        """True if the client waits for `100 Continue` before it sends the body."""
        return (
            self._incoming is not None
            and not self._incoming.http_1_0
            and not self._incoming.body.data
            and "expect" in self._head.headers
        )

    def receive(self, data: bytes) -> None:
        """Add what was read from the connection."""
        self._buffer.append(data)

    def next_request(self) -> Request | None:
        """Return the next complete request, None if there is none yet.

        Raises HttpError, and the same again from then on: the connection has to be closed.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._advance()
        except HttpError as error:
            self._error = error
            raise

    def _advance(self) -> Request | None:
        if self._incoming is None:
            line = self._head.read(self._buffer)
            if line is None:
                return None
            self._incoming = self._check(line)
        if not self._incoming.body.read(self._buffer):
            return None
        return self._finish(self._incoming)

    def _check(self, line: re.Match[str]) -> _Incoming:
        """Judge a complete head and say how its body is framed."""
        head = self._head
        if line["major"] != "1":
            raise HttpError(505, "an unsupported version")
        http_1_0 = line["minor"] == "0"
        if not http_1_0 and "host" not in head.headers:
            raise HttpError(400, "no Host")
        length = head.body_length() or 0
        if length > BODY_LIMIT:
            raise HttpError(413, "body too large")
        chunked = head.chunked()
        if chunked and http_1_0:
            raise HttpError(400, "chunks in HTTP/1.0")
        if head.headers.get("expect", "100-continue").lower() != "100-continue":
            raise HttpError(417, "an unknown expectation")
        body = ChunkedBody(BODY_LIMIT) if chunked else FixedBody(length)
        return _Incoming(line, body, http_1_0)

    def _finish(self, incoming: _Incoming) -> Request:
        head, line, http_1_0 = self._head, incoming.line, incoming.http_1_0
        words = head.tokens("connection")
        keep_alive = "close" not in words and (not http_1_0 or "keep-alive" in words)
        self._head, self._incoming = _Head(_REQUEST_LINE), None
        body = bytes(incoming.body.data)
        return Request(line["method"], line["target"], head.headers, body, keep_alive, http_1_0)


class ResponseParser:
    """One response from the bytes of a connection, by length, in chunks, or up to its end."""

    def __init__(self, body_limit: int = RESPONSE_BODY_LIMIT) -> None:
        self._buffer = Buffer()
        self._head = _Head(_STATUS_LINE)
        self._body: Body | None = None
        self._body_limit = body_limit
        self.status: int | None = None
        self.complete = False

    @property
    def body(self) -> bytes:
        """What has arrived of the body; all of it when `complete`."""
        return bytes(self._body.data) if self._body is not None else b""

    def receive(self, data: bytes) -> None:
        """Add what was read; raises HttpError if it is not a response, or too large."""
        if self.complete:
            return
        self._buffer.append(data)
        while self._body is None:
            line = self._head.read(self._buffer)
            if line is None:
                return
            status = int(line["status"])
            if status < _FIRST_FINAL_STATUS:
                self._head = _Head(_STATUS_LINE)
                continue
            self.status = status
            self._body = self._open_body(status)
        self.complete = self._body.read(self._buffer)

    def end(self) -> None:
        """The connection has ended; `complete` says whether the response is whole."""
        if isinstance(self._body, EndlessBody):
            self.complete = True

    def _open_body(self, status: int) -> Body:
        if status in (_NO_CONTENT, _NOT_MODIFIED):
            return FixedBody(0)
        length = self._head.body_length()
        if self._head.chunked():
            return ChunkedBody(self._body_limit)
        if length is None:
            return EndlessBody(self._body_limit)
        if length > self._body_limit:
            raise HttpError(413, "body too large")
        return FixedBody(length)


def encode_response(response: Response, *, keep_alive: bool, head_only: bool = False) -> bytes:
    """Return the bytes of an answer; `head_only` for HEAD. A 204 has neither body nor length."""
    lines = [f"HTTP/1.1 {response.status} {REASONS[response.status]}"]
    if response.status != _NO_CONTENT:
        lines.append(f"Content-Type: {response.content_type}")
        lines.append(f"Content-Length: {len(response.body)}")
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines.append("Connection: keep-alive" if keep_alive else "Connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only or response.status == _NO_CONTENT else head + response.body


def encode_request(
    method: str, target: str, host: str, user_agent: str, body: bytes | None = None
) -> bytes:
    """Return a JSON request that closes its connection; Content-Length only with a body."""
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"User-Agent: {user_agent}",
        "Connection: close",
    ]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (body or b"")


def host_header(address: str, port: int) -> str:
    """Return `address:port` as it stands in a URL: an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
