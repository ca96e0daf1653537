"""What a log line looks like, how many there may be, and where they go.

A line is `<hostname> <daemon> <area> <file>(<line>) <function>: <Level>: <text>`
(operations.md, Log lines). Replaces the old daemons' logging macros. Nobody but `setup`
attaches handlers; modules use `logging.getLogger(__name__)`. The handlers are `runtime.syslog`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import TracebackType

from guestmtce.core.shared.limits import RateLimit
from guestmtce.runtime import files
from guestmtce.runtime.syslog import BoundedHandler, LogFile, StderrHandler, SyslogHandler

DEV_LOG = "/dev/log"

_LEVEL_WORDS = {
    logging.DEBUG: "Debug",
    logging.INFO: "Info",
    logging.WARNING: "Warn",
    logging.ERROR: "Error",
    logging.CRITICAL: "Error",
}
SITE_LINES = 2000
WHY_LINES = 10
PERIOD_SECS = 10.0
# More subjects than a host or a controller has instances.
_MAX_LIMITS = 16384


def setup(
    daemon: str,
    hostname: str,
    *,
    foreground: bool,
    syslog: bool,
    root: str = "",
    debug: int = 0,
    later: Callable[[float, Callable[[], object]], object] | None = None,
) -> None:
    """Send the log of the whole process where it belongs, in place of earlier handlers.

    `foreground` logs to stderr; `syslog`, or not being in the foreground, to syslog or,
    where there is no `/dev/log`, to `/var/log/<daemon>.log`. `debug` above 0 shows all.
    `later(seconds, callback)` is the loop's, for lines that wait for a slow syslogd.
    """
    # Nobody asks for these, and each record would pay for them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handlers: list[logging.Handler] = []
    if foreground:
        handlers.append(StderrHandler())
    if syslog or not foreground:
        log_file = LogFile(files.under(root, f"/var/log/{daemon}.log"))
        handlers.append(SyslogHandler(daemon, files.under(root, DEV_LOG), log_file, later=later))
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


def problems() -> list[str]:
    """Return why log lines are being lost at present, a sentence for each handler that loses."""
    handlers = logging.getLogger().handlers
    found = (handler.problem for handler in handlers if isinstance(handler, BoundedHandler))
    return [problem for problem in found if problem]


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


def why(subject: str) -> dict[str, str]:
    """Return the `extra` of a line that tells why something happened to `subject`, a VM say.

        log.warning("instance %s: lost", uuid, extra=why(uuid))

    Such lines have a budget of their own for each subject, WHY_LINES in each PERIOD_SECS, which
    neither other lines nor other subjects can use up, and they wait for a slow syslogd
    (decision 42).
    """
    return {"why": subject}


class SiteLimit(logging.Filter):
    """A bound on what one line of the program may log, whoever makes it speak.

    SITE_LINES in each PERIOD_SECS: a thousand guests may be lost at once and each has its line,
    a flood of datagrams fills no disk. Lines that tell why are counted for their subject instead.
    What was left out is said with the next line from there. Debug lines, which somebody has
    asked for, are not counted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._limits: OrderedDict[Hashable, RateLimit] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is within the bound."""
        record.left_out = 0
        if record.levelno <= logging.DEBUG:
            return True
        subject = getattr(record, "why", None)
        if subject is None:
            limit = self._limit((record.pathname, record.lineno), SITE_LINES)
        else:
            limit = self._limit(subject, WHY_LINES)
        left_out = limit.excess
        if not limit.allows(self._clock()):
            return False
        record.left_out = left_out
        return True

    def _limit(self, key: Hashable, lines: int) -> RateLimit:
        """Return the limit of a place or subject; the one used longest ago may be forgotten."""
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = RateLimit(lines, PERIOD_SECS)
            if len(self._limits) > _MAX_LIMITS:
                self._limits.popitem(last=False)
        self._limits.move_to_end(key)
        return limit
