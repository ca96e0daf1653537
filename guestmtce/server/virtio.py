"""Finds the guests' socket files: inotify on the channel directory, scans as the safety net.

Replaces guestVirtio and the file half of guestSvrUtil (guest-channel.md, Discovery). It tells
a listener what became of each instance's file; whether to connect is not its business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import selectors
import stat
from typing import NamedTuple, Protocol

from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import canonical_uuid
from guestmtce.runtime import inotify
from guestmtce.runtime.loop import Loop, Timer

log = logging.getLogger(__name__)

SCAN_SECS = 180.0
MISSING_DIRECTORY_SECS = 1.0

# In order of preference: if both exist for one instance, the first wins (decision 11).
_NAME_FORMS = (
    re.compile(rb"cgcs\.heartbeat\.([^.]{36})\.sock", re.DOTALL),
    re.compile(rb"wrs\.heartbeat\.agent\.0\.([^.]{36})\.sock", re.DOTALL),
)
_WATCHED = (
    inotify.IN_CREATE
    | inotify.IN_MOVED_TO
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_ATTRIB
    | inotify.IN_MODIFY
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ONLYDIR
)
_NEW = inotify.IN_CREATE | inotify.IN_MOVED_TO
# Of the directory above: while a socket in our directory is open, the directory's own watch
# does not tell that it was removed.
_WATCHED_ABOVE = _NEW | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_ONLYDIR
_DIRECTORY_GONE = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT


class ChannelName(NamedTuple):
    """What a file name says: whose channel it is, and which form of name (lower is better)."""

    uuid: str
    form: int


class SocketFile(NamedTuple):
    """A channel's file, and which one it is: a new QEMU makes another under the same name."""

    path: str
    device: int
    inode: int


def parse_name(name: bytes) -> ChannelName | None:
    """Return what the name of a channel's file says; None for any other name."""
    for form, pattern in enumerate(_NAME_FORMS):
        match = pattern.fullmatch(name)
        if match:
            uuid = canonical_uuid(match[1].decode("ascii", "replace"))
            return ChannelName(uuid, form) if uuid else None
    return None


class FileListener(Protocol):
    """Who is told of socket files."""

    def file_found(self, uuid: str, *, fresh: bool) -> object:
        """The instance has a socket file. `fresh`: it was created or moved in just now."""

    def file_changed(self, uuid: str) -> object:
        """The instance's socket file was modified, or its attributes were."""

    def file_gone(self, uuid: str) -> object:
        """The instance's last socket file is gone."""


class ChannelDirectory:
    """Watches one directory for channels, also while it does not exist yet.

    Every event is checked against the file system before it is believed, so that a file that
    was created, deleted and created again costs a look each time and never a wrong state.
    """

    def __init__(
        self,
        loop: Loop,
        directory: str,
        listener: FileListener,
        watcher: inotify.Inotify | None = None,
    ) -> None:
        self.directory = directory
        self.overflows = 0
        self._loop = loop
        self._listener = listener
        self._inotify = watcher or inotify.Inotify()
        self._watch: int | None = None
        self._watched_inode: tuple[int, int] | None = None
        self._watch_above: int | None = None
        self._name = os.fsencode(os.path.basename(directory))
        # For each instance the names of its socket files, by preference (at most one a form).
        self._names: dict[str, dict[int, bytes]] = {}
        self._timer: Timer | None = None
        self._told_missing = False

    def start(self) -> None:
        """Watch and scan the directory, from now on."""
        self._loop.watch(self._inotify, selectors.EVENT_READ, self._read_events)
        self.scan()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._inotify)
        self._inotify.close()

    def find(self, uuid: str) -> SocketFile | None:
        """Return the file to connect to for an instance, None if it has none any more.

        A file whose end inotify did not tell is forgotten, so that a later scan finds it new
        when it is back. The listener is not told: the caller is.
        """
        names = self._names.get(uuid, {})
        for form in sorted(names):
            file = self._look(names[form])
            if file is not None:
                return file
            del names[form]
        self._names.pop(uuid, None)
        return None

    def scan(self) -> None:
        """Read the whole directory: tell of what is new and of what is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._ensure_watch():
            self._lose_all()
            self._timer = self._loop.call_later(MISSING_DIRECTORY_SECS, self.scan)
            return
        self._timer = self._loop.call_later(SCAN_SECS, self.scan)
        try:
            present = set(os.listdir(os.fsencode(self.directory)))
        except OSError as error:
            log.warning("cannot read %s: %s", self.directory, error.strerror)
            return
        for name in [name for names in self._names.values() for name in names.values()]:
            if name not in present or not self._look(name):
                self._gone(name)
        for name in sorted(present):
            self._seen(name, fresh=False)

    def _ensure_watch(self) -> bool:
        """Have a watch on the directory that now has our path; False if there is none."""
        self._ensure_watch_above()
        try:
            status = os.stat(self.directory)
            inode = status.st_dev, status.st_ino
            if self._watch is not None and inode == self._watched_inode:
                return True
            self._drop_watch()
            self._watch = self._inotify.add_watch(self.directory, _WATCHED)
        except OSError as error:
            self._drop_watch()
            if not self._told_missing:
                self._told_missing = True
                log.warning("waiting for %s: %s", self.directory, error.strerror)
            return False
        self._watched_inode = inode
        self._told_missing = False
        log.info("watching %s", self.directory)
        return True

    def _ensure_watch_above(self) -> None:
        """Have a watch on the directory above, if it is there; without one, scans must do."""
        before = self._watch_above
        try:
            above = os.path.dirname(self.directory)
            self._watch_above = self._inotify.add_watch(above, _WATCHED_ABOVE)
        except OSError:
            self._watch_above = None
        if before is not None and before != self._watch_above:
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(before)

    def _drop_watch(self) -> None:
        if self._watch is not None:
            with contextlib.suppress(OSError):  # it goes by itself with its directory
                self._inotify.rm_watch(self._watch)
            self._watch = None
            self._watched_inode = None

    def _lose_all(self) -> None:
        for uuid in list(self._names):
            del self._names[uuid]
            self._listener.file_gone(uuid)

    def _read_events(self, _ready: int) -> None:
        """Handle one read's worth of events; what is left wakes the loop again."""
        rescan = False
        for event in self._inotify.read():
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
                self._watched_inode = None
                rescan = True
            elif event.mask & _DIRECTORY_GONE:
                rescan = True
            elif event.mask & inotify.IN_ISDIR:
                continue
            else:
                self._file_event(event.mask, event.name)
        if rescan:
            self.scan()

    def _file_event(self, mask: int, name: bytes) -> None:
        if parse_name(name) is None:
            return
        if not self._look(name):
            self._gone(name)
        elif mask & _NEW:
            self._seen(name, fresh=True)
        elif mask & (inotify.IN_ATTRIB | inotify.IN_MODIFY):
            self._changed(name)

    def _look(self, name: bytes) -> SocketFile | None:
        """Return the socket of that name, None for anything else: no symlink is followed."""
        path = os.path.join(self.directory, os.fsdecode(name))
        try:
            status = os.lstat(path)
        except OSError:
            return None
        if not stat.S_ISSOCK(status.st_mode):
            return None
        return SocketFile(path, status.st_dev, status.st_ino)

    def _is_known(self, name: bytes, channel: ChannelName) -> bool:
        return self._names.get(channel.uuid, {}).get(channel.form) == name

    def _seen(self, name: bytes, *, fresh: bool) -> None:
        channel = parse_name(name)
        if channel is None:
            return
        known = self._is_known(name, channel)
        if (known and not fresh) or not (known or self._look(name)):
            return
        self._names.setdefault(channel.uuid, {})[channel.form] = name
        log.debug("channel %s", printable(name.decode("ascii", "replace")))
        self._listener.file_found(channel.uuid, fresh=fresh)

    def _changed(self, name: bytes) -> None:
        channel = parse_name(name)
        if channel is None:
            return
        if self._is_known(name, channel):
            self._listener.file_changed(channel.uuid)
        else:
            # An overflow took the event of its making, and left that of libvirt's chown.
            self._seen(name, fresh=True)

    def _gone(self, name: bytes) -> None:
        channel = parse_name(name)
        if channel is None or not self._is_known(name, channel):
            return
        names = self._names[channel.uuid]
        del names[channel.form]
        if names:
            # The other form remains: that is a channel to connect to.
            self._listener.file_found(channel.uuid, fresh=False)
        else:
            del self._names[channel.uuid]
            self._listener.file_gone(channel.uuid)
