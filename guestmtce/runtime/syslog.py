"""Log handlers that never block: syslog, a file where there is no syslog, stderr.

Why not the standard library's: `logging.handlers.SysLogHandler` blocks on a syslogd that is
stuck, and loses uncounted what it cannot send; `FileHandler` blocks as well. Importing
`logging.handlers` also brings in queue, threading, pickle and copy, which nothing else needs.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable

from guestmtce.runtime import files, unix

# A write of at most PIPE_BUF bytes does not block on a pipe that poll(2) calls writable.
MAX_LINE_BYTES = 4096
_CUT = b" ... "
_HEAD_BYTES = 1024

_FACILITY_LOCAL5 = 21 << 3
_SEVERITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_RECONNECT_SECS = 1.0
_RETRY_SECS = 0.05
_FAILED_SECS = 15.0
MAX_WAITING = 4096


class BoundedHandler(logging.Handler):
    """A handler that drops what it cannot write at once, and says how many when it can again.

    `dropped` counts all that was lost; `problem` says why nothing can be written at present.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0
        self.problem = ""
        self._unreported = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as dropped. Never blocks, never raises."""
        if self._try(record):
            self.tell_lost()
        else:
            self.dropped += 1
            self._unreported += 1

    def tell_lost(self) -> None:
        """Write how many records were lost, if any were and that can be written now."""
        lost = self._unreported
        if lost and not self.is_slow() and self._try(_lost_record(lost)):
            self._unreported -= lost

    def _try(self, record: logging.LogRecord) -> bool:
        try:
            written = self.write(record, self.format(record))
        except OSError as error:
            self.problem = f"the log is lost: {error.filename or 'stderr'}: {files.why(error)}"
            self.failed()
            return False
        self.problem = ""
        return written

    def failed(self) -> None:
        """Nothing can be written at present: what is done about it."""

    def write(self, record: logging.LogRecord, line: str) -> bool:
        """Write `line`, or keep it; return False if it is lost. May raise OSError."""
        raise NotImplementedError

    def is_slow(self) -> bool:
        """Return whether lines wait, so that one that says how many were lost had no room."""
        return False


def _lost_record(count: int) -> logging.LogRecord:
    text = "%d log records were lost before this one"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None, "emit")


class StderrHandler(BoundedHandler):
    """To descriptor 2; dropped while nobody reads a full pipe or the terminal is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = select.poll()
        self._poll.register(2, select.POLLOUT)

    def write(self, record: logging.LogRecord, line: str) -> bool:
        """Write the line with a time in front, if the descriptor takes it at once."""
        if not any(ready & select.POLLOUT for _fd, ready in self._poll.poll(0)):
            return False
        return os.write(2, _timed(record, line)) > 0


class LogFile:
    """A log file that is opened again when it was rotated away."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def append(self, data: bytes) -> bool:
        """Write `data` at the end; return whether all of it went. Raises OSError."""
        if self._fd < 0 or self._is_replaced():
            self._open()
        try:
            return os.write(self._fd, data) == len(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error

    def close(self) -> None:
        """Close the file; the next `append` opens it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_replaced(self) -> bool:
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return True
        opened = os.fstat(self._fd)
        return (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino)

    def _open(self) -> None:
        self.close()
        files.make_parent(self._path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)


class SyslogHandler(BoundedHandler):
    """To the syslog socket, facility local5; to `log_file` while nobody answers there.

    A syslogd that is stuck costs records, not time: what does not fit its queue is dropped. Only
    lines that tell why (those with a `why`, see `runtime.log`) wait for it, up to MAX_WAITING;
    `later(seconds, callback)` has the handler called again for them. One that is gone, its
    socket left behind or not, is looked for once a second.
    """

    def __init__(
        self,
        ident: str,
        path: str,
        log_file: LogFile,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], object]], object] | None = None,
    ) -> None:
        super().__init__()
        self._ident = ident
        self._path = path
        self._file = log_file
        self._clock = clock
        self._later = later
        self._waiting: deque[tuple[logging.LogRecord, str]] = deque()
        self._will_retry = False
        self._will_look = False
        self._socket: socket.socket | None = None
        self._terminator = b""
        self._absent = False
        self._next_try = clock()

    def write(self, record: logging.LogRecord, line: str) -> bool:
        """Send the line or append it to the file, with a time in front; or let it wait."""
        self._write_waiting()
        if not self._waiting and self._write(record, line):
            return True
        if getattr(record, "why", None) is None or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append((record, line))
        self._retry_later()
        return True

    def is_slow(self) -> bool:
        """Return whether lines wait for syslogd."""
        return bool(self._waiting)

    def failed(self) -> None:
        """Look again by itself: the next line may be hours away."""
        if self._later is not None and not self._will_look:
            self._will_look = True
            self._later(_FAILED_SECS, self._look)

    def _look(self) -> None:
        self._will_look = False
        self.tell_lost()

    def _write_waiting(self) -> None:
        while self._waiting and self._write(*self._waiting[0]):
            self._waiting.popleft()

    def _retry_later(self) -> None:
        if self._later is not None and not self._will_retry:
            self._will_retry = True
            self._later(_RETRY_SECS, self._retry)

    def _retry(self) -> None:
        self._will_retry = False
        with contextlib.suppress(OSError):
            self._write_waiting()
        if self._waiting:
            self._retry_later()

    def _write(self, record: logging.LogRecord, line: str) -> bool:
        """Send the line, or append it to the file; return whether it went. Raises OSError."""
        if self._socket is not None and self._send(record, line):
            return True
        if self._socket is not None:
            return False  # its queue is full
        # A restarted syslogd has a new socket at the same path.
        if self._connect():
            return self._send(record, line)
        return self._absent and self._file.append(_timed(record, line))

    def close(self) -> None:
        """Close the socket and the file."""
        self._disconnect()
        self._file.close()
        super().close()

    def _send(self, record: logging.LogRecord, line: str) -> bool:
        if self._socket is None:
            return False
        data = self._packet(record, line)
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            self._disconnect()
            self._next_try = self._clock()
            return False
        if sent < len(data):
            # Only a stream socket takes a part; the rest of this record is lost with it.
            self._disconnect()
        return sent == len(data)

    def _packet(self, record: logging.LogRecord, line: str) -> bytes:
        """As syslog(3) of the C library sends it."""
        priority = _FACILITY_LOCAL5 | _SEVERITIES.get(record.levelno, _SEVERITIES[logging.INFO])
        when = time.strftime("%b %e %H:%M:%S", time.localtime(record.created))
        head = f"<{priority}>{when} {self._ident}[{os.getpid()}]: ".encode()
        room = MAX_LINE_BYTES - len(head)
        return head + _bounded(line.encode("utf-8", "replace"), room) + self._terminator

    def _connect(self) -> bool:
        """Connect, at most once a second; learn whether anybody is there at all."""
        now = self._clock()
        if now < self._next_try:
            return False
        self._next_try = now + _RECONNECT_SECS
        self._absent = False
        # On a stream, a NUL ends the record.
        for kind, terminator in ((socket.SOCK_DGRAM, b""), (socket.SOCK_STREAM, b"\0")):
            try:
                # /dev/log is commonly a symbolic link.
                self._socket = unix.connect(self._path, kind, follow=True)
            except OSError as error:
                self._absent = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
                if error.errno != errno.EPROTOTYPE:
                    return False
            else:
                self._terminator = terminator
                return True
        return False

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _timed(record: logging.LogRecord, line: str) -> bytes:
    """Return the line as StarlingX's syslog writes it to a file: local time, then the text."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
    head = f"{when}.{int(record.msecs):03} ".encode()
    return head + _bounded(line.encode("utf-8", "replace"), MAX_LINE_BYTES - len(head) - 1) + b"\n"


def _bounded(line: bytes, room: int) -> bytes:
    """Cut a line in its middle: both ends tell more, of a traceback above all."""
    if len(line) <= room:
        return line
    return line[:_HEAD_BYTES] + _CUT + line[_HEAD_BYTES + len(_CUT) - room :]
