"""inotify(7) through ctypes: the thinnest wrapper, kernel names kept, parser apart.

Replaces the old daemon's inotify code in guestVirtio, which handled one event per read.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from guestmtce.runtime.libc import LIBC, last_error

IN_MODIFY = 0x00000002
IN_ATTRIB = 0x00000004
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_UNMOUNT = 0x00002000
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000
IN_ISDIR = 0x40000000

# inotify_init1(2): the flags are those of open(2).
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC

# struct inotify_event { int wd; uint32_t mask, cookie, len; char name[len]; }
_RECORD = struct.Struct("=iIII")

# One read takes at least 240 events of the longest name; the rest stays for the next turn.
READ_BYTES = 64 * 1024

LIBC.inotify_init1.argtypes = [ctypes.c_int]
LIBC.inotify_init1.restype = ctypes.c_int
LIBC.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
LIBC.inotify_add_watch.restype = ctypes.c_int
LIBC.inotify_rm_watch.argtypes = [ctypes.c_int, ctypes.c_int]
LIBC.inotify_rm_watch.restype = ctypes.c_int


class FileEvent(NamedTuple):
    """One record of the kernel. `name` is empty when the event is the watched path's own."""

    wd: int
    mask: int
    cookie: int
    name: bytes


def parse_events(data: bytes) -> list[FileEvent]:
    """Return the events in what one read returned; raises ValueError on half a record.

    The kernel hands out whole records only, padded with NUL.
    """
    events = []
    position = 0
    while position < len(data):
        if position + _RECORD.size > len(data):
            raise ValueError("half an inotify record")
        wd, mask, cookie, length = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        if position + length > len(data):
            raise ValueError("half an inotify name")
        name = data[position : position + length].rstrip(b"\0")
        position += length
        events.append(FileEvent(wd, mask, cookie, name))
    return events


class Inotify:
    """An inotify instance, non-blocking and close-on-exec. Can be given to `Loop.watch`."""

    def __init__(self) -> None:
        self._fd: int = LIBC.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._fd < 0:
            raise last_error("inotify_init1")

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._fd

    def add_watch(self, path: str | bytes, mask: int) -> int:
        """Watch `path` and return the watch descriptor, the same one if it was watched.

        Raises OSError with the path in it: ENOENT, ENOTDIR (with IN_ONLYDIR), ENOSPC, …
        """
        wd: int = LIBC.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if wd < 0:
            raise last_error(os.fsdecode(path))
        return wd

    def rm_watch(self, wd: int) -> None:
        """Stop watching; IN_IGNORED follows. Raises OSError EINVAL if it is gone already."""
        if LIBC.inotify_rm_watch(self._fd, wd) < 0:
            raise last_error(f"watch {wd}")

    def read(self) -> list[FileEvent]:
        """Return what has happened, [] if nothing; at most READ_BYTES of records a call."""
        try:
            return parse_events(os.read(self._fd, READ_BYTES))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Give the descriptor and all watches back; closing twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
