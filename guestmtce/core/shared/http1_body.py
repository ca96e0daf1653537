"""How a body is found in a stream of bytes: by length, in chunks, or up to the end.

The lower half of `http1`, which alone imports it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Union

from guestmtce.core.shared.errors import PeerError

HEAD_LIMIT = 16 * 1024
CHUNK_LINE_LIMIT = 256

_CHUNK_SIZE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n\0]*)?")


class HttpError(PeerError):
    """The peer's bytes are not HTTP as we accept it; `status` is the answer that they deserve."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"http_{status}", text)
        self.status = status


class Buffer:
    """Received bytes, taken from the front by lines or by counts."""

    __slots__ = ("_data", "_scanned")

    def __init__(self) -> None:
        self._data = bytearray()
        self._scanned = 0

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        """Add what was received."""
        self._data += data

    def take(self, count: int) -> bytearray:
        """Remove and return up to `count` bytes."""
        taken = self._data[:count]
        del self._data[:count]
        self._scanned = 0
        return taken

    def take_line(self, limit: int, status: int) -> bytes | None:
        """Return the next line without its CR LF, None until it is whole.

        Raises HttpError(status) once it is known to be longer than `limit`.
        """
        end = self._data.find(b"\n", self._scanned)
        if max(end, len(self._data) if end < 0 else 0) > limit:
            raise HttpError(status, "too long")
        if end < 0:
            self._scanned = len(self._data)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        self._scanned = 0
        if not line.endswith(b"\r"):
            raise HttpError(400, "a line that does not end with CR LF")
        return line[:-1]


class FixedBody:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self.data = bytearray()
        self._missing = length

    def read(self, buffer: Buffer) -> bool:
        """Take what is there; True when the body is complete."""
        taken = buffer.take(self._missing)
        self._missing -= len(taken)
        self.data += taken
        return self._missing == 0


class EndlessBody:
    """A response's body that ends with the connection: never complete by itself."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    def read(self, buffer: Buffer) -> bool:
        """Take what is there, within the limit; never True."""
        self.data += buffer.take(len(buffer))
        if len(self.data) > self._limit:
            raise HttpError(413, "body too large")
        return False


class ChunkedBody:
    """A body in chunks: sizes, data and trailers, within the limits of body and head."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit
        self._trailer_room = HEAD_LIMIT
        self._missing = 0
        self._step: Callable[[Buffer], bool] = self._read_size
        self._complete = False

    def read(self, buffer: Buffer) -> bool:
        """Take what is there; True when the last trailer has been seen."""
        while not self._complete and self._step(buffer):
            pass
        return self._complete

    def _read_size(self, buffer: Buffer) -> bool:
        line = buffer.take_line(CHUNK_LINE_LIMIT, 400)
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise HttpError(400, "a bad chunk size")
        self._missing = int(match["size"], 16)
        if len(self.data) + self._missing > self._limit:
            raise HttpError(413, "body too large")
        self._step = self._read_data if self._missing else self._read_trailer
        return True

    def _read_data(self, buffer: Buffer) -> bool:
        taken = buffer.take(self._missing)
        self._missing -= len(taken)
        self.data += taken
        if self._missing:
            return False
        self._step = self._read_chunk_end
        return True

    def _read_chunk_end(self, buffer: Buffer) -> bool:
        line = buffer.take_line(1, 400)
        if line is None:
            return False
        if line:
            raise HttpError(400, "a chunk longer than its size")
        self._step = self._read_size
        return True

    def _read_trailer(self, buffer: Buffer) -> bool:
        line = buffer.take_line(self._trailer_room, 431)
        if line is None:
            return False
        self._trailer_room -= len(line) + 2
        self._complete = not line
        return True


Body = Union[FixedBody, EndlessBody, ChunkedBody]
