"""What makes a process a daemon: detaching, its name, its descriptors.

Replaces daemon_init and its kin.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from guestmtce.runtime.libc import LIBC

log = logging.getLogger(__name__)

_PR_SET_NAME = 15
_MAX_COMM = 15
# Fields 48 and 49 of /proc/self/stat, counted from the state, which is field 3.
_ARG_START, _ARG_END = 45, 46

# What a daemon answers to (operations.md, Files and signals).
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_OLD_LOOKS = 1000

_READY = b"ready"
_MAX_REPORT = 4096
_FIRST_INHERITED = 3


class Startup:
    """Where the outcome of starting is to be told: to the parent, or on stderr without one."""

    def __init__(self, name: str, pipe: int | None = None) -> None:
        self._name = name
        self._pipe = pipe

    def ready(self) -> None:
        """Say that the daemon runs: the parent exits 0."""
        self._tell(_READY)

    def failed(self, reason: str) -> None:
        """Say why it does not: the parent exits 1 with `reason` on stderr."""
        if self._pipe is None:
            _complain(self._name, reason)
        else:
            self._tell(reason.encode("utf-8", "replace")[:_MAX_REPORT])

    def _tell(self, report: bytes) -> None:
        if self._pipe is None:
            return
        with contextlib.suppress(BrokenPipeError):
            # The parent may have been killed; that is no reason to go as well.
            os.write(self._pipe, report)
        os.close(self._pipe)
        self._pipe = None


def daemonise(name: str) -> Startup:
    """Go on in a child of a session of its own, with `/dev/null` on 0 to 2.

    Call `open_standard` first. Returns in the child. The parent waits for what the child says
    by way of the Startup, and exits: 0 when it is ready; 1 when it is not, with the reason on
    stderr.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(write_end)
        _wait_for(child, read_end, name)
    os.close(read_end)
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDWR)  # not 0 to 2, which are open
    for standard in range(_FIRST_INHERITED):
        os.dup2(null, standard)
    os.close(null)
    close_inherited()
    return Startup(name, write_end)


def _wait_for(child: int, read_end: int, name: str) -> NoReturn:
    with os.fdopen(read_end, "rb") as pipe:
        report = pipe.read(_MAX_REPORT)
    if report == _READY:
        sys.exit(0)
    if not report:
        _pid, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        ended = f"signal {-code}" if code < 0 else f"exit status {code}"
        report = f"ended before it was ready ({ended})".encode()
    _complain(name, report.decode("utf-8", "replace"))
    sys.exit(1)


def _complain(name: str, reason: str) -> None:
    sys.stderr.write(f"{name}: {reason}\n")


def open_standard() -> None:
    """Put `/dev/null` where the caller closed 0, 1 or 2, lest another file takes the number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < _FIRST_INHERITED:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def close_inherited() -> None:
    """Close what the caller left open, such as the lock of a script: we would hold it for ever.

    Python opens everything close-on-exec; what is not so came from outside.
    """
    for entry in os.listdir("/proc/self/fd"):
        fd = int(entry)
        if fd < _FIRST_INHERITED:
            continue
        with contextlib.suppress(OSError):
            if not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(fd)


def hold_signals() -> None:
    """Let those signals wait that the daemon will handle, and every other in.

    Until `unblock_signals`: a SIGUSR1 that comes before its handler stands would end us.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, HANDLED)


def unblock_signals() -> None:
    """Let every signal in; what has waited arrives now."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def raise_descriptor_limit() -> None:
    """Raise RLIMIT_NOFILE to its hard limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def calm_collector() -> None:
    """Let the garbage collector look at all that lives a hundred times less often than usual.

    With 10,000 instances such a look takes some 150 ms, in which no challenge goes out; timers,
    of which there are thousands a second, would bring one on every few seconds. The looks at
    what is young go on as usual.
    """
    young, middle, _old = gc.get_threshold()
    gc.set_threshold(young, middle, _OLD_LOOKS)


def set_name(name: str, arguments: Sequence[str] = ()) -> None:
    """Make the process show as `name`, not as python3, in `/proc/PID/comm`, ps and pidof.

    pidof(8) goes by the first word of the command line, so that is written over as well:
    with `name` and `arguments`, as a compiled daemon's would be.
    """
    text = ctypes.create_string_buffer(os.fsencode(name)[:_MAX_COMM])
    LIBC.prctl(_PR_SET_NAME, ctypes.addressof(text), 0, 0, 0)
    try:
        _set_command_line([name, *arguments])
    except (OSError, ValueError, IndexError) as error:
        log.debug("the command line keeps its name: %s", error)


def _set_command_line(words: Sequence[str]) -> None:
    """Write `words` over the argument strings that the kernel gave us; never beyond them."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    if start == 0 or len(text) > end - start:
        raise ValueError("it does not fit")
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
