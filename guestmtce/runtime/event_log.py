"""What happened on this host: the last events in memory, numbered, and in a file of JSON lines.

The memory serves `guestctl events` and whoever follows the stream; the file outlives a restart
of the daemon and a crash of the host. Two files at most, each FILE_BYTES: when the first is full
it takes the place of the second.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from guestmtce.runtime import files

log = logging.getLogger(__name__)

KEPT = 1000
FILE_BYTES = 2 * 1024 * 1024
MODE = 0o600
RETRY_SECS = 15.0

Event = dict[str, Any]
Follower = Callable[[Event], object]
Later = Callable[[float, Callable[[], object]], object]

_encode = json.JSONEncoder(separators=(",", ":")).encode


class EventLog:
    """Numbers events from 1, keeps the last KEPT of them, and appends each to the file at `path`.

    `path` None: no file. A file that cannot be written is named in `problem` until it can be.
    Writing is tried again with each event, and each RETRY_SECS where `later(seconds, callback)`
    is given; the last KEPT events wait for it.
    """

    def __init__(self, path: str | None, later: Later | None = None) -> None:
        self.problem = ""
        self._path = path
        self._later = later
        self._will_retry = False
        self._unwritten: deque[bytes] = deque(maxlen=KEPT)
        self._file: int | None = None
        self._size = 0
        self._number = 0
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._followers: list[Follower] = []

    def open(self) -> None:
        """Open the file now, so that one that cannot be written shows at once."""
        if self._path is not None:
            self._write(self._path)

    def add(self, event: Mapping[str, object]) -> None:
        """Take one event: a JSON object without the member `number`, which it gets here."""
        self._number += 1
        numbered = {"number": self._number, **event}
        self._kept.append(numbered)
        if self._path is not None:
            self._unwritten.append(_encode(event).encode("ascii") + b"\n")
            self._write(self._path)
        for follower in self._followers:
            follower(numbered)

    def answer(self) -> dict[str, object]:
        """Return what the control socket says to `events`: those kept, and the last number."""
        return {"events": list(self._kept), "next": self._number}

    def since(self, number: int) -> list[Event]:
        """Return the events kept that came after that number."""
        return [event for event in self._kept if event["number"] > number]

    def follow(self, follower: Follower) -> None:
        """Call `follower(event)` for each event from now on."""
        self._followers.append(follower)

    def remembered(self) -> Iterator[Event]:
        """Yield the events that the files hold, oldest first; other lines are passed over."""
        if self._path is None:
            return
        for path in (_older(self._path), self._path):
            try:
                text = files.read_text(path, 2 * FILE_BYTES)
            except OSError:
                continue
            for line in text.splitlines():
                with contextlib.suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, path: str) -> None:
        """Append what is not in the file yet; if that fails, say so and try again later."""
        try:
            self._ready(path, 0)
            while self._unwritten:
                self._append(path, self._unwritten[0])
                self._unwritten.popleft()
        except OSError as error:
            self.close()
            problem = f"events are not written to {path}: {files.why(error)}"
            if problem != self.problem:
                log.warning("%s", problem)
            self.problem = problem
            if self._later is not None and not self._will_retry:
                self._will_retry = True
                self._later(RETRY_SECS, self._retry)
        else:
            self.problem = ""

    def _retry(self) -> None:
        self._will_retry = False
        if self.problem and self._path is not None:
            self._write(self._path)

    def _append(self, path: str, line: bytes) -> None:
        """Append one line, or nothing of it. Raises OSError."""
        file = self._ready(path, len(line))
        written = os.write(file, line)
        if written < len(line):  # a disk that got full takes a part
            os.ftruncate(file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self._size += written

    def _ready(self, path: str, wanted: int) -> int:
        """Return a descriptor of the file that has room for `wanted` bytes more."""
        if self._file is None:
            files.make_parent(path)
            self._file, self._size = _open(path)
        if self._size and self._size + wanted > FILE_BYTES:
            os.replace(path, _older(path))
            self.close()
            self._file, self._size = _open(path)
        return self._file


def _open(path: str) -> tuple[int, int]:
    """Open the file to append to; return its descriptor and its size."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags, MODE)
    return file, os.fstat(file).st_size


def _older(path: str) -> str:
    return path + ".1"
