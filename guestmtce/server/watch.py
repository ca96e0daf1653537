"""Watches one directory, also while it is not there: inotify, and scans as the safety net.

The watch is not the directory (decision 29): only ENOENT and ENOTDIR say that the directory is
gone. Any other failure, of inotify or of reading it, says that we are half blind: it is named
in `problems` with its remedy, nothing is taken to be gone, and the directory is read every 2 s
until all works again. Knows nothing of channels.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
from collections.abc import Callable, Iterable
from typing import Protocol

from guestmtce.runtime import inotify
from guestmtce.runtime.inotify import Inotify
from guestmtce.runtime.loop import Loop, Timers
from guestmtce.runtime.mounts import MountTable
from guestmtce.runtime.vitals import sentences

log = logging.getLogger(__name__)

SCAN_SECS = 180.0
BLIND_SCAN_SECS = 2.0
MISSING_DIRECTORY_SECS = 1.0
# Mounts come in bursts (containers); one look after each burst is enough.
MOUNT_SECS = 1.0
# After a read that brought so many events the next one waits: a storm costs no more than that.
STORM_EVENTS = 64
STORM_PAUSE_SECS = 0.05

NEW = inotify.IN_CREATE | inotify.IN_MOVED_TO
# Not IN_MODIFY: a socket never raises it, and a file that is written all the time would.
_WATCHED = (
    NEW
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_ATTRIB
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ONLYDIR
)
# Of the directory above: while a socket in our directory is open, the directory's own watch
# does not tell that it was removed.
_WATCHED_ABOVE = NEW | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_ONLYDIR
_DIRECTORY_GONE = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT
# Kinds of problems: the directory cannot be used; it can, but nobody tells us of changes.
CHANNELS = "channels"
WATCH = "watch"
_GONE = (FileNotFoundError, NotADirectoryError)

_REMEDIES = {
    errno.ENOSPC: "raise fs.inotify.max_user_watches (sysctl)",
    errno.EMFILE: "raise fs.inotify.max_user_instances (sysctl) or the limit of open files",
    errno.ENFILE: "raise fs.file-max (sysctl)",
    errno.EACCES: "let root read it",
    errno.EPERM: "let root read it",
    errno.ENOMEM: "free memory",
    errno.EIO: "check its disk",
}


def _no_problems() -> dict[str, list[str]]:
    return {CHANNELS: [], WATCH: []}


class Watched(Protocol):
    """Who is told what is in the directory."""

    def listed(self, names: Iterable[bytes]) -> object:
        """These names are in the directory, and no others."""

    def changed(self, name: bytes, mask: int) -> object:
        """Something happened to that name: inotify's `mask`, without order or promise."""

    def directory_gone(self) -> object:
        """There is no directory."""


class DirectoryWatch:
    """Tells `watched` of what is in `directory`. `overflows` counts lost inotify queues."""

    def __init__(
        self,
        loop: Loop,
        directory: str,
        watched: Watched,
        make_inotify: Callable[[], Inotify] = Inotify,
        make_mounts: Callable[[], MountTable] = MountTable,
    ) -> None:
        self.overflows = 0
        self.problems = _no_problems()
        self._loop = loop
        self._directory = directory
        self._watched = watched
        self._make_inotify = make_inotify
        self._make_mounts = make_mounts
        self._inotify: Inotify | None = None
        self._mounts: MountTable | None = None
        self._timers = Timers(loop)
        self._name = os.fsencode(os.path.basename(directory))
        self._watch: int | None = None
        self._watch_above: int | None = None
        # Device and inode of the directory that was listed last.
        self._identity: tuple[int, int] | None = None

    @property
    def watched(self) -> bool:
        """Whether inotify tells us of changes; without it the directory is read every 2 s."""
        return self._watch is not None

    def start(self) -> None:
        """Watch and list the directory, from now on."""
        try:
            self._mounts = self._make_mounts()
        except OSError as error:
            log.warning("mounts are not watched: %s", error)
        else:
            self._loop.watch(self._mounts, selectors.EVENT_READ, self._mounts_changed)
        self.scan()

    def stop(self) -> None:
        """Watch no more."""
        self._timers.cancel_all()
        for watched in (self._inotify, self._mounts):
            if watched is not None:
                self._loop.unwatch(watched)
                watched.close()

    def scan(self) -> None:
        """List the directory, and see that it is watched."""
        before, self.problems = self.problems, _no_problems()
        try:
            # First the watch: what changes while we list is told, then.
            identity = self._ensure_watch()
            names = os.listdir(os.fsencode(self._directory))
        except _GONE as error:
            self._forget()
            self._problem(CHANNELS, "is not there, so no instance can be found", error)
            self._watched.directory_gone()
            delay = MISSING_DIRECTORY_SECS
        except OSError as error:
            self._problem(CHANNELS, "cannot be read", error)
            delay = BLIND_SCAN_SECS
        else:
            self._identity = identity
            self._watched.listed(names)
            delay = BLIND_SCAN_SECS if sentences(self.problems) else SCAN_SECS
        if self.problems != before:
            for problem in sentences(self.problems):
                log.warning("%s", problem)
            if not sentences(self.problems):
                log.info("watching %s again", self._directory)
        self._timers.start("scan", delay, self.scan)

    def _problem(self, kind: str, what: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        remedy = "start libvirt" if isinstance(error, _GONE) else _REMEDIES.get(error.errno or 0)
        sentence = f"{self._directory} {what}: {reason}"
        self.problems[kind].append(f"{sentence}; {remedy}" if remedy else sentence)

    def _ensure_watch(self) -> tuple[int, int]:
        """Have a watch on the directory that now has our path; return its device and inode.

        Raises OSError if it cannot be looked at. Without a watch scans must do.
        """
        status = os.stat(self._directory)
        identity = status.st_dev, status.st_ino
        if identity != self._identity:
            self._drop_watch()
        try:
            watcher = self._ensure_inotify()
            if self._watch is None:
                self._watch = watcher.add_watch(self._directory, _WATCHED)
                log.info("watching %s", self._directory)
            self._watch_directory_above(watcher)
        except _GONE:
            raise
        except OSError as error:
            self._problem(WATCH, "is not watched, only read every 2 s", error)
        return identity

    def _ensure_inotify(self) -> Inotify:
        if self._inotify is None:
            self._inotify = self._make_inotify()
            self._loop.watch(self._inotify, selectors.EVENT_READ, self._read_events)
        return self._inotify

    def _watch_directory_above(self, watcher: Inotify) -> None:
        before = self._watch_above
        self._watch_above = watcher.add_watch(os.path.dirname(self._directory), _WATCHED_ABOVE)
        if before is not None and before != self._watch_above:
            with contextlib.suppress(OSError):
                watcher.rm_watch(before)

    def _forget(self) -> None:
        """The directory is gone: wait for another; the one above may be there and tell of it."""
        self._drop_watch()
        with contextlib.suppress(OSError):
            self._watch_directory_above(self._ensure_inotify())

    def _drop_watch(self) -> None:
        if self._watch is not None and self._inotify is not None:
            with contextlib.suppress(OSError):  # it goes by itself with its directory
                self._inotify.rm_watch(self._watch)
        self._watch = None
        self._identity = None

    def _read_events(self, _ready: int) -> None:
        """Handle one read's worth of events; what is left wakes the loop again."""
        if self._inotify is None:
            return
        events = self._inotify.read()
        if len(events) > STORM_EVENTS:
            self._loop.unwatch(self._inotify)
            self._timers.start("storm", STORM_PAUSE_SECS, self._read_again)
        rescan = False
        for event in events:
            if event.mask & inotify.IN_Q_OVERFLOW:
                self.overflows += 1
                log.warning("inotify queue overflow (%d so far), scanning", self.overflows)
                rescan = True
            elif event.wd == self._watch_above:
                rescan = rescan or event.name == self._name
            elif event.wd != self._watch:
                continue  # left over from a directory that was replaced
            elif event.mask & inotify.IN_IGNORED:
                self._watch = None
                rescan = True
            elif event.mask & _DIRECTORY_GONE:
                rescan = True
            elif not event.mask & inotify.IN_ISDIR:
                self._watched.changed(event.name, event.mask)
        if rescan:
            self.scan()

    def _read_again(self) -> None:
        if self._inotify is not None:
            self._loop.watch(self._inotify, selectors.EVENT_READ, self._read_events)

    def _mounts_changed(self, _ready: int) -> None:
        if self._mounts is not None:
            self._mounts.acknowledge()
        if not self._timers.active("mounts"):
            self._timers.start("mounts", MOUNT_SECS, self._look_for_mount)

    def _look_for_mount(self) -> None:
        """Is our path another directory than before? If so, that is the one to watch."""
        try:
            status = os.stat(self._directory)
        except OSError:
            self.scan()
            return
        if (status.st_dev, status.st_ino) != self._identity:
            self.scan()
