"""The guests' socket files: which there are, and what becomes of each.

Replaces guestVirtio and the file half of guestSvrUtil (protocol.md, Discovery). It tells
a listener what became of each instance's file; whether to connect is not its business, and how
a change is noticed is `watch`'s.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple, Protocol

from guestmtce.core.shared.limits import EveryNth
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import canonical_uuid
from guestmtce.runtime import inotify
from guestmtce.runtime.inotify import Inotify
from guestmtce.runtime.loop import Loop, Timers
from guestmtce.runtime.mounts import MountTable
from guestmtce.server.watch import CHANNELS, NEW, DirectoryWatch

log = logging.getLogger(__name__)

# More instances than a host can have; whoever leaves more sockets behind costs us no memory.
MAX_INSTANCES = 12_000
# So many names are looked at in a turn of the loop: with 20,000 files nobody waits for it.
PORTION = 50
_LOG_EVERY = 1000

# In order of preference: if both exist for one instance, the first wins (decision 11).
_NAME_FORMS = (
    re.compile(rb"cgcs\.heartbeat\.([^.]{36})\.sock", re.DOTALL),
    re.compile(rb"wrs\.heartbeat\.agent\.0\.([^.]{36})\.sock", re.DOTALL),
)


class ChannelName(NamedTuple):
    """What a file name says: whose channel it is, and which form of name (lower is better)."""

    uuid: str
    form: int


class SocketFile(NamedTuple):
    """A channel's file, and which one it is: a new QEMU makes another under the same name.

    `made_ns` is when it was made: inodes are used again, so it tells a file from one of long ago.
    """

    path: str
    device: int
    inode: int
    made_ns: int

    def is_same(self, other: SocketFile | None) -> bool:
        """Return whether it is that very socket, under whichever name."""
        return other is not None and (self.device, self.inode) == (other.device, other.inode)

    @property
    def mark(self) -> str:
        """What no other socket file of this host has, as a text to keep."""
        return f"{self.device}.{self.inode}.{self.made_ns}"


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
        """The attributes of the instance's socket file were changed."""

    def file_gone(self, uuid: str) -> object:
        """The instance's last socket file is gone."""


class ChannelDirectory:
    """Knows the channels of one directory, also while it does not exist yet.

    Every event is checked against the file system before it is believed, so that a file that
    was created, deleted and created again costs a look each time and never a wrong state.
    Several events of one name that come together cost one look.
    """

    def __init__(
        self,
        loop: Loop,
        directory: str,
        listener: FileListener,
        make_inotify: Callable[[], Inotify] = Inotify,
        make_mounts: Callable[[], MountTable] = MountTable,
    ) -> None:
        self.directory = directory
        self._listener = listener
        self._watch = DirectoryWatch(loop, directory, self, make_inotify, make_mounts)
        self._timers = Timers(loop)
        # For each instance the names of its socket files, by preference (at most one a form).
        self._names: dict[str, dict[int, bytes]] = {}
        # Names to look at, with what inotify said of them (0: they were listed, or are to be).
        self._unsettled: dict[bytes, int] = {}
        # Names of channels that are not used, and why.
        self._refused: dict[bytes, str] = {}
        self._throttle = EveryNth(_LOG_EVERY)

    @property
    def overflows(self) -> int:
        """How often inotify's queue overflowed."""
        return self._watch.overflows

    @property
    def watched(self) -> bool:
        """Whether inotify tells us of changes."""
        return self._watch.watched

    @property
    def problems(self) -> dict[str, list[str]]:
        """What keeps us from seeing the directory or using what is in it; or from watching it."""
        found = list(self._watch.problems[CHANNELS])
        if len(self._names) >= MAX_INSTANCES:
            found.append(
                f"{self.directory} has channels of more than {MAX_INSTANCES} instances: the others "
                "are not heartbeated; move VMs to another worker"
            )
        if self._refused:
            name, why = next(iter(self._refused.items()))
            shown = printable(name.decode("ascii", "replace"))
            found.append(
                f"{len(self._refused)} files are not used as channels: {shown} {why}; "
                "see who made them, and remove what QEMU did not make"
            )
        return {**self._watch.problems, CHANNELS: found}

    def start(self) -> None:
        """Watch and scan the directory, from now on."""
        self._watch.start()

    def stop(self) -> None:
        """Watch no more."""
        self._timers.cancel_all()
        self._watch.stop()

    def knows(self, uuid: str) -> bool:
        """Return whether the instance had a socket file when we looked last."""
        return uuid in self._names

    def find(self, uuid: str) -> SocketFile | None:
        """Return the file to connect to for an instance, None if it has none any more.

        A file whose end inotify did not tell is forgotten, so that a later scan finds it new
        when it is back. The listener is not told: the caller is. Raises OSError if we cannot
        say.
        """
        names = self._names.get(uuid, {})
        for form in sorted(names):
            file = self._look(names[form])
            if file is not None:
                return file
            del names[form]
        self._names.pop(uuid, None)
        return None

    def listed(self, names: Iterable[bytes]) -> None:
        """The directory was read: what is new is to be looked at, and what is not there."""
        for known in self._names.values():
            for name in known.values():
                self._unsettled.setdefault(name, 0)
        for name in self._refused:
            self._unsettled.setdefault(name, 0)
        for name in sorted(names):
            if parse_name(name) is not None:
                self._unsettled.setdefault(name, 0)
        self._settle()

    def changed(self, name: bytes, mask: int) -> None:
        """Something happened to a file."""
        if parse_name(name) is not None:
            self._unsettled[name] = self._unsettled.get(name, 0) | mask
            if not self._timers.active("settle"):
                self._timers.start("settle", 0.0, self._settle)

    def directory_gone(self) -> None:
        """No directory, no files."""
        self._unsettled.clear()
        self._refused.clear()
        for uuid in list(self._names):
            del self._names[uuid]
            self._listener.file_gone(uuid)

    def _settle(self) -> None:
        """Look at some of the names that need it; the others have their turn after the rest."""
        for name in list(islice(self._unsettled, PORTION)):
            self._settle_one(name, self._unsettled.pop(name))
        if self._unsettled:
            self._timers.start("settle", 0.0, self._settle)

    def _settle_one(self, name: bytes, mask: int) -> None:
        try:
            file = self._look(name)
        except OSError as error:
            # It is there or not, we cannot say: leave all as it is.
            if self._throttle.hit("look") is not None:
                log.warning("cannot look at a channel's file: %s", error)
            return
        if file is None:
            # One that we do not trust any more ends no connection that we trusted.
            if name not in self._refused:
                self._gone(name)
        elif mask & NEW:
            self._seen(name, fresh=True)
        elif mask & inotify.IN_ATTRIB:
            self._changed(name)
        else:
            self._seen(name, fresh=False)

    def _look(self, name: bytes) -> SocketFile | None:
        """Return the socket of that name, None for anything else: no symlink is followed.

        Raises OSError if we cannot say what it is.
        """
        path = os.path.join(self.directory, os.fsdecode(name))
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._refused.pop(name, None)
            return None
        if not stat.S_ISSOCK(status.st_mode):
            return None
        why = self._distrust(status)
        if why:
            if name not in self._refused:
                log.warning("%s is not used: it %s", printable(path), why)
            self._refused[name] = why
            return None
        self._refused.pop(name, None)
        return SocketFile(path, status.st_dev, status.st_ino, status.st_mtime_ns)

    def _distrust(self, status: os.stat_result) -> str:
        """Return why a socket is not to be trusted, "" if it is.

        We connect as root: a second name for somebody else's socket would be a way to speak to
        that. Where anybody may make files, one of a stranger is no channel of QEMU's.
        """
        if status.st_nlink != 1:
            return "is a hard link"
        directory = os.stat(self.directory)
        owners = {0, os.geteuid(), directory.st_uid}
        if directory.st_mode & stat.S_IWOTH and status.st_uid not in owners:
            return f"belongs to user {status.st_uid} in a directory that anybody may write to"
        return ""

    def _is_known(self, name: bytes, channel: ChannelName) -> bool:
        return self._names.get(channel.uuid, {}).get(channel.form) == name

    def _seen(self, name: bytes, *, fresh: bool) -> None:
        channel = parse_name(name)
        if channel is None or (self._is_known(name, channel) and not fresh):
            return
        if channel.uuid not in self._names and len(self._names) >= MAX_INSTANCES:
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
