"""The pid file: which process is the daemon, and that there is only one."""

from __future__ import annotations

import contextlib
import fcntl
import os

from guestmtce.core.shared.errors import StartError
from guestmtce.runtime import files

_MAX_PID_TEXT = 32


class PidFile:
    """A locked pid file. The lock, not the text, says whether the daemon runs.

    So a stale file, left by a daemon that was killed, is simply taken over.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> None:
        """Write our pid and hold the lock from now on.

        Raises StartError if another process holds it, OSError if it cannot be written.
        """
        files.make_parent(self._path)
        while self._fd < 0:
            self._fd = self._open_locked()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Remove the file and give the lock back, if we hold it."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            # Removed before it is unlocked: a daemon that starts now makes a new one.
            os.unlink(self._path)
        os.close(self._fd)
        self._fd = -1

    def _open_locked(self) -> int:
        """Return a locked descriptor, or -1 if the file was replaced under our hands."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == os.stat(self._path).st_ino:
                return fd
        except BlockingIOError:
            pid = os.pread(fd, _MAX_PID_TEXT, 0).decode("ascii", "replace").strip()
            os.close(fd)
            shown = pid if pid.isdigit() else "unknown"
            raise StartError(f"already running (pid {shown})") from None
        except FileNotFoundError:
            pass
        os.close(fd)
        return -1
