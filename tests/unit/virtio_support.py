"""A channel directory to test with: names, who is told, a watcher, a place in the file system."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from guestmtce.runtime import inotify
from guestmtce.server.virtio import ChannelDirectory
from tests.simulation import SimulatedLoop

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
OTHER = "8d80875b-fa73-4ccb-bce3-1cd4df104402"


def cgcs(uuid: str = UUID) -> str:
    return f"cgcs.heartbeat.{uuid}.sock"


def wrs(uuid: str = UUID) -> str:
    return f"wrs.heartbeat.agent.0.{uuid}.sock"


class Listener:
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.present: set[str] = set()

    def file_found(self, uuid: str, *, fresh: bool) -> None:
        self.told.append(("new" if fresh else "found", uuid))
        self.present.add(uuid)

    def file_changed(self, uuid: str) -> None:
        self.told.append(("changed", uuid))

    def file_gone(self, uuid: str) -> None:
        self.told.append(("gone", uuid))
        self.present.discard(uuid)

    def take(self) -> list[tuple[str, str]]:
        told, self.told = self.told, []
        return told


class Watcher(inotify.Inotify):
    """The kernel's own, but `instead` has what the next reads return for what they would have."""

    def __init__(self) -> None:
        super().__init__()
        self.instead: list[list[inotify.FileEvent]] = []
        self.watches: dict[str, int] = {}

    def add_watch(self, path: str | bytes, mask: int) -> int:
        self.watches[os.fsdecode(path)] = wd = super().add_watch(path, mask)
        return wd

    def read(self) -> list[inotify.FileEvent]:
        events = super().read()
        if not self.instead:
            return events
        while super().read():
            pass
        return self.instead.pop(0)


class Place:
    """A channel directory in the file system, and a loop with a clock of its own."""

    def __init__(
        self, above: Path, make_inotify: Callable[[], inotify.Inotify], *make_mounts
    ) -> None:
        self.path = above / "qemu"
        self.path.mkdir()
        self.loop = SimulatedLoop()
        self.listener = Listener()
        self.directory = ChannelDirectory(
            self.loop, str(self.path), self.listener, make_inotify, *make_mounts
        )

    def socket(self, name: str | bytes) -> None:
        """Make a socket file, as bind(2) does; nobody listens."""
        os.mknod(os.path.join(os.fsencode(self.path), os.fsencode(name)), stat.S_IFSOCK | 0o600)

    def told(self) -> list[tuple[str, str]]:
        self.loop.settle()
        return self.listener.take()

    def close(self) -> None:
        self.directory.stop()
        self.loop.close()
