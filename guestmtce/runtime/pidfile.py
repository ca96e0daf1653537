"""Which process is the daemon, and that there is only one.

Two files: `<daemon>.pid`, which everybody may read and nobody has to trust, and
`<daemon>.lock`, which only its owner can open. The lock on the second is what says that the
daemon runs: a lock on a file that others can read, others could take, and keep us from starting.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from guestmtce.core.shared.errors import StartError
from guestmtce.runtime import files

_MAX_PID_TEXT = 32
# struct flock: l_type, l_whence, l_start, l_len (0: to the end), l_pid (0 for these locks).
_FLOCK = struct.Struct("hhqqi4x")
_WHOLE_FILE = (os.SEEK_SET, 0, 0, 0)
# What /proc shows of a file that was removed while open.
_REMOVED = " (deleted)"


class PidFile:
    """The pidfile at `path` and the lock at `lock_path`, ours from `acquire` to `release`.

    What a killed daemon left is simply taken over.
    """

    def __init__(self, path: str, lock_path: str) -> None:
        self._path = path
        self._lock_path = lock_path
        self._fd = -1
        self._written: os.stat_result | None = None

    def acquire(self) -> None:
        """Take the lock and write our pid.

        Raises StartError if another daemon runs, also one whose files were removed, and
        OSError if the files cannot be written.
        """
        files.make_parent(self._path)
        fd = self._lock()
        other = _holder_of_removed(self._lock_path)
        if other is not None:
            os.close(fd)
            raise StartError(f"already running (pid {other})")
        self._fd = fd
        self._write_pid()

    def keep(self) -> None:
        """Put back what somebody has removed. Raises StartError or OSError if that fails."""
        if self._fd < 0:
            return
        files.make_parent(self._path)
        if not _is_at(self._fd, self._lock_path):
            fd = self._lock()
            os.close(self._fd)
            self._fd = fd
        self._write_pid()

    def release(self) -> None:
        """Give the lock back, if we hold it, and remove what is still our own of the two files.

        A file that another process has put in place meanwhile stays.
        """
        if self._fd < 0:
            return
        # Removed before it is unlocked: a daemon that starts now makes a new one.
        for path, ours in ((self._path, self._written), (self._lock_path, os.fstat(self._fd))):
            with contextlib.suppress(OSError):
                if ours and os.path.samestat(os.stat(path, follow_symlinks=False), ours):
                    os.unlink(path)
        os.close(self._fd)
        self._fd = -1

    def _write_pid(self) -> None:
        text = f"{os.getpid()}\n"
        try:
            same = files.read_text(self._path) == text
        except OSError:
            same = False  # absent, or no regular file: it is replaced
        if not same:
            files.write_atomic(self._path, text)
        self._written = os.stat(self._path, follow_symlinks=False)

    def _lock(self) -> int:
        """Return a descriptor of the locked file, our pid in it. Raises StartError, OSError."""
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self._lock_path, flags, 0o600)
            try:
                os.fchmod(fd, 0o600)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE_FILE))
                if _is_at(fd, self._lock_path):
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                    return fd
            except OSError as error:
                pid = _pid_in(fd)
                os.close(fd)
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    raise StartError(f"already running (pid {pid or 'unknown'})") from None
                raise OSError(error.errno, error.strerror, self._lock_path) from error
            # Replaced between opening and locking.
            os.close(fd)


def running_pid(lock_path: str) -> int | None:
    """Return the pid of the daemon that holds the lock at `lock_path`, None if none runs.

    Takes no lock itself. Raises PermissionError for a user who may not know.
    """
    try:
        fd = os.open(lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return _holder_of_removed(lock_path)
    try:
        if _is_locked(fd):
            return _pid_in(fd)
    finally:
        os.close(fd)
    return _holder_of_removed(lock_path)


def _is_locked(fd: int) -> bool:
    """Return whether somebody else holds a lock on the file; takes none."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE_FILE)
    found = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    return bool(found[0] != fcntl.F_UNLCK)


def _is_at(fd: int, path: str) -> bool:
    """Return whether the open file `fd` is still the one at `path`."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, _MAX_PID_TEXT, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def _holder_of_removed(lock_path: str) -> int | None:
    """Return which other process holds a lock on a file that was at `lock_path` and was removed.

    That is a daemon whose files a cleaner has taken away. Only processes of our own user are
    looked at, as others can take no file of that name, and only those that see the same root:
    a container may have a daemon of its own.
    """
    root = os.stat("/")
    removed = os.path.realpath(lock_path) + _REMOVED
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            process = f"/proc/{entry}"
            if os.stat(process).st_uid != os.geteuid():
                continue
            if not os.path.samestat(os.stat(f"{process}/root"), root):
                continue
            for name in os.listdir(f"{process}/fd"):
                path = f"{process}/fd/{name}"
                if os.readlink(path) == removed and _is_locked_at(path):
                    return int(entry)
    return None


def _is_locked_at(path: str) -> bool:
    """Return whether the file is locked: one that starts has it open only for a moment."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)
