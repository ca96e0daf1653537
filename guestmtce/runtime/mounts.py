"""Tells of changes in the mount table, without looking at it: proc(5), /proc/self/mountinfo.

The kernel marks that file with POLLPRI when something was mounted or unmounted. A selector
knows reading and writing only, so an epoll of its own waits for that and is itself read.
"""

from __future__ import annotations

import os
import select

_MOUNTINFO = "/proc/self/mountinfo"


class MountTable:
    """Readable when a file system was mounted or unmounted. Can be given to `Loop.watch`.

    Raises OSError where there is no such file.
    """

    def __init__(self) -> None:
        self._file = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._epoll = select.epoll()
            self._epoll.register(self._file, select.EPOLLPRI)
        except OSError:
            os.close(self._file)
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._epoll.fileno()

    def acknowledge(self) -> None:
        """Note what has happened, so that the next change is told again."""
        self._epoll.poll(0)

    def close(self) -> None:
        """Give the descriptors back; closing twice does nothing."""
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._file)
