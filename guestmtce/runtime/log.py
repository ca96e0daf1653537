"""Logging that never blocks: to syslog, to a file where there is no syslog, or to stderr.

A line is `<hostname> <daemon> <area> <file>(<line>) <function>: <Level>: <text>`
(operations.md, Log lines). Replaces the old daemons' logging macros. Nobody but `setup`
attaches handlers; modules use `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Hashable
from types import TracebackType

from guestmtce.runtime import files, unix

DEV_LOG = "/dev/log"

# A write of at most PIPE_BUF bytes does not block on a pipe that poll(2) calls writable.
MAX_LINE_BYTES = 4096
_CUT = b" ... "
_HEAD_BYTES = 1024

_LEVEL_WORDS = {
    logging.DEBUG: "Debug",
    logging.INFO: "Info",
    logging.WARNING: "Warn",
    logging.ERROR: "Error",
    logging.CRITICAL: "Error",
}
_FACILITY_LOCAL5 = 21 << 3
_SEVERITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_RECONNECT_SECS = 1.0
SITE_LINES = 2000
SITE_PERIOD_SECS = 10.0
_THROTTLE_KEYS = 1024


def setup(
    daemon: str,
    hostname: str,
    *,
    foreground: bool,
    syslog: bool,
    root: str = "",
    debug: int = 0,
) -> None:
    """Send the log of the whole process where it belongs, in place of earlier handlers.

    `foreground` logs to stderr; `syslog`, or not being in the foreground, to syslog or,
    where there is no `/dev/log`, to `/var/log/<daemon>.log`. `debug` above 0 shows all.
    """
    # Nobody asks for these, and each record would pay for them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handlers: list[logging.Handler] = []
    if foreground:
        handlers.append(StderrHandler())
    if syslog or not foreground:
        log_file = LogFile(files.under(root, f"/var/log/{daemon}.log"))
        handlers.append(SyslogHandler(daemon, files.under(root, DEV_LOG), log_file))
    formatter = LineFormatter(daemon, hostname)
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(SiteLimit())
    logging.getLogger().handlers = handlers
    set_debug(debug)
    sys.excepthook = _log_uncaught


def set_debug(debug: int) -> None:
    """Show everything from debug level 1 on, else what is at least information."""
    logging.getLogger().setLevel(logging.DEBUG if debug > 0 else logging.INFO)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger(__name__).critical("uncaught", exc_info=(kind, error, trace))


class LineFormatter(logging.Formatter):
    """One line for each record, whatever is in it: the last line of defence.

    Control characters, line ends, bidirectional marks and surrogates come out as backslash
    escapes; the lines of a traceback are joined by ` | `.
    """

    def __init__(self, daemon: str, hostname: str) -> None:
        super().__init__()
        self._prefix = f"{hostname} {daemon}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a time and without its end."""
        text = _text(record)
        left_out = getattr(record, "left_out", 0)
        if left_out:
            text = f"{text} ({left_out} like this left out before)"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            text = " | ".join([text, *(part.strip() for part in trace.splitlines())])
        level = _LEVEL_WORDS.get(record.levelno, record.levelname)
        return one_line(
            f"{self._prefix} {_area(record.name)} {record.filename}({record.lineno})"
            f" {record.funcName}: {level}: {text}"
        )


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # A mistake in the log call must not lose what it wanted to say.
        return f"{record.msg} {record.args!r}"


def one_line(text: str) -> str:
    """Return `text` with everything that is not printable as a backslash escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _area(logger_name: str) -> str:
    """Return the last part of the package: `server` of `guestmtce.server.app`."""
    return logger_name.rpartition(".")[0].rpartition(".")[2] or logger_name


def _bounded(line: bytes, room: int) -> bytes:
    """Cut a line in its middle: both ends tell more, of a traceback above all."""
    if len(line) <= room:
        return line
    return line[:_HEAD_BYTES] + _CUT + line[_HEAD_BYTES + len(_CUT) - room :]


class SiteLimit(logging.Filter):
    """A bound on what one line of the program may log, whoever makes it speak.

    SITE_LINES in each SITE_PERIOD_SECS: a thousand guests may be lost at once and each has its
    line, a flood of datagrams fills no disk. What was left out is said with the next line from
    there. Debug lines, which somebody has asked for, are not counted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        # Since when, and how many lines since then, for each place in the program.
        self._sites: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is within the bound."""
        record.left_out = 0
        if record.levelno <= logging.DEBUG:
            return True
        site = record.pathname, record.lineno
        now = self._clock()
        since, count = self._sites.get(site, (now, 0))
        if now - since >= SITE_PERIOD_SECS:
            record.left_out = max(0, count - SITE_LINES)
            since, count = now, 0
        self._sites[site] = since, count + 1
        return count < SITE_LINES


class BoundedHandler(logging.Handler):
    """A handler that drops what it cannot write at once, and says how many when it can again.

    `dropped` counts all that was lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0
        self._unreported = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as dropped. Never blocks, never raises."""
        try:
            written = self.write(record, self.format(record))
        except OSError:
            written = False
        if not written:
            self.dropped += 1
            self._unreported += 1
        elif self._unreported:
            lost, self._unreported = self._unreported, 0
            self.handle(_lost_record(lost))

    def write(self, record: logging.LogRecord, line: str) -> bool:
        """Write `line`; return whether it went. May raise OSError."""
        raise NotImplementedError


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
        return os.write(self._fd, data) == len(data)

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
    """To the syslog socket, facility local5; to `log_file` while there is no such socket.

    A syslogd that is stuck or gone costs records, not time: connecting is tried once a
    second, and what does not fit its queue is dropped.
    """

    def __init__(
        self,
        ident: str,
        path: str,
        log_file: LogFile,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._ident = ident
        self._path = path
        self._file = log_file
        self._clock = clock
        self._socket: socket.socket | None = None
        self._terminator = b""
        self._absent = False
        self._next_try = clock()

    def write(self, record: logging.LogRecord, line: str) -> bool:
        """Send the line, or append it to the file, with a time in front."""
        if self._socket is None and not self._connect():
            return self._absent and self._file.append(_timed(record, line))
        if self._send(record, line):
            return True
        # A restarted syslogd has a new socket at the same path.
        return self._socket is None and self._connect() and self._send(record, line)

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
        """Connect, at most once a second; learn whether there is a syslog socket at all."""
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
                self._absent = error.errno == errno.ENOENT
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


class Throttle:
    """Which occurrences of a repeating condition to log: the first, then every Nth.

    Remembers at most `max_keys` conditions; the one that was hit longest ago is forgotten.
    """

    def __init__(self, every: int, max_keys: int = _THROTTLE_KEYS) -> None:
        self._every = every
        self._max_keys = max_keys
        self._counts: dict[Hashable, int] = {}

    def hit(self, key: Hashable) -> int | None:
        """Count an occurrence; return the count if this one is to be logged, else None."""
        # Taken out and put in again: the dict's order is that of the latest hits.
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > self._max_keys:
            del self._counts[next(iter(self._counts))]
        return count if count == 1 or count % self._every == 0 else None

    def forget(self, key: Hashable) -> int:
        """Start anew with `key`, as its condition has ended; return how often it was hit."""
        return self._counts.pop(key, 0)
