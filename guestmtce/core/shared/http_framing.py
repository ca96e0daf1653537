"""Where a request ends in the bytes of a connection, and which bytes are no clear request.

Sans-I/O; used by `runtime.http_*`. What a request says is read by the standard library
(decision 36), which takes much that proxies and other servers read differently. So this looks
first, and refuses: a line that does not end with CR LF, a folded header line, one without a colon
or with a space before it, a second Host or Content-Length, and any Transfer-Encoding.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from guestmtce.core.shared.errors import PeerError

HEAD_LIMIT = 16 * 1024
BODY_LIMIT = 64 * 1024
# One less than `http.client` takes: it counts the empty line too.
HEADER_COUNT_LIMIT = 99
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/(?P<major>[0-9])\.(?P<minor>[0-9])")
_HEADER = re.compile(rb"(?P<name>" + _TOKEN + rb"):[ \t]*(?P<value>[^\r\n\0]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# The empty line that ends a head, or a line end that is none.
_HEAD_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")


class HttpError(PeerError):
    """What is answered with the error `status`, after which the connection ends."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"http_{status}", detail)
        self.status = status
        self.detail = detail


class Frame(NamedTuple):
    """The bytes of one request: its head with the empty line that ends it, and its body."""

    head: bytes
    body: bytes


class RequestFramer:
    """Cuts the bytes of one connection into requests, the same however they are split.

    `receive` bytes, then take requests with `next_request` until it returns None. The caller
    bounds the buffer: it receives no more while requests are waiting in it.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._error: HttpError | None = None
        self._begin()

    def _begin(self) -> None:
        # Places in `_data`: where the head begins, up to where its end has been looked for, and
        # where it ends.
        self._start = self._searched = 0
        self._head_end: int | None = None
        self._http_1_0: bool | None = None  # None until the first line is there
        self._length = 0
        self._continues = False

    @property
    def idle(self) -> bool:
        """True if nothing of a next request has arrived."""
        return len(self._data) == self._start

    def receive(self, data: bytes) -> None:
        """Add what was read from the connection."""
        self._data += data

    def take_continue(self) -> bytes:
        """Return `100 Continue`, once, if the client waits for it before it sends the body."""
        waits = self._continues and len(self._data) == self._head_end
        self._continues = False
        return CONTINUE if waits else b""

    def next_request(self) -> Frame | None:
        """Return the next complete request, None if there is none yet.

        Raises HttpError, and the same again from then on: the connection has to be closed.
        """
        if self._error is not None:
            raise self._error
        try:
            end = self._head_end or self._find_head()
        except HttpError as error:
            self._error = error
            raise
        if end is None or len(self._data) < end + self._length:
            return None
        head, body = self._data[self._start : end], self._data[end : end + self._length]
        del self._data[: end + self._length]
        self._begin()
        return Frame(bytes(head), bytes(body))

    def _find_head(self) -> int | None:
        """Return where the head ends, None until it is whole; raises HttpError."""
        while self._data.startswith(b"\r\n", self._start):
            self._start += 2  # some clients leave an empty line behind a body
        if self._http_1_0 is None:
            self._read_request_line()
        match = _HEAD_END.search(self._data, max(self._start, self._searched - 3))
        self._searched = len(self._data)
        if (match.end() if match else self._searched) > HEAD_LIMIT:
            raise HttpError(431, "the head is too long")
        if match is None:
            return None
        if match.group() == b"\n":
            raise HttpError(400, "a line that does not end with CR LF")
        self._read_headers(bytes(self._data[self._start : match.start()]).split(b"\r\n")[1:])
        self._head_end = match.end()
        return self._head_end

    def _read_request_line(self) -> None:
        end = self._data.find(b"\r\n", self._start, HEAD_LIMIT)
        if end < 0:
            return
        match = _REQUEST_LINE.fullmatch(self._data, self._start, end)
        if match is None:
            raise HttpError(400, "not a request line")
        if match["major"] != b"1":
            raise HttpError(505, "neither HTTP/1.1 nor HTTP/1.0")
        self._http_1_0 = match["minor"] == b"0"

    def _read_headers(self, lines: list[bytes]) -> None:
        """Take the length of the body from the header lines, and judge what is about framing."""
        if len(lines) > HEADER_COUNT_LIMIT:
            raise HttpError(431, "too many headers")
        values: dict[bytes, list[bytes]] = {}
        for line in lines:
            match = _HEADER.fullmatch(line)
            if match is None:
                raise HttpError(400, "not a header line")
            values.setdefault(match["name"].lower(), []).append(match["value"])
        if b"transfer-encoding" in values:
            raise HttpError(411, "Transfer-Encoding is not taken, Content-Length is")
        hosts, lengths = values.get(b"host", []), values.get(b"content-length", [])
        if len(hosts) > 1 or not (hosts or self._http_1_0):
            raise HttpError(400, "one Host is needed")
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise HttpError(400, "Content-Length is not one number")
        self._length = int(lengths[0]) if lengths else 0
        if self._length > BODY_LIMIT:
            raise HttpError(413, "the body is too long")
        if {value.lower() for value in values.get(b"expect", [])} - {b"100-continue"}:
            raise HttpError(417, "Expect is not 100-continue")
        self._continues = b"expect" in values and not self._http_1_0
