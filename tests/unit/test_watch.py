"""The watch is not the directory (decision 29): what blinds us is told, and loses nobody."""

from __future__ import annotations

import errno
import os
import socket
import stat

import pytest

from guestmtce.runtime import inotify
from guestmtce.runtime.vitals import sentences
from guestmtce.server import watch
from guestmtce.server.virtio import PORTION
from tests.unit.virtio_support import OTHER, UUID, Place, Watcher, cgcs


class FailingWatcher(Watcher):
    """`failing` has what adding a watch for a path fails with."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, int] = {}

    def add_watch(self, path: str | bytes, mask: int) -> int:
        number = self.failing.get(os.fsdecode(path))
        if number is not None:
            raise OSError(number, os.strerror(number), path)
        return super().add_watch(path, mask)


class Mounts:
    """A mount table that changes when a test says so."""

    def __init__(self) -> None:
        self.mine, self.theirs = socket.socketpair()
        self.mine.setblocking(False)

    def fileno(self) -> int:
        return self.mine.fileno()

    def change(self) -> None:
        self.theirs.send(b"x")

    def acknowledge(self) -> None:
        self.mine.recv(4096)

    def close(self) -> None:
        self.mine.close()
        self.theirs.close()


class BlindPlace(Place):
    """One whose watcher can fail, and whose mount table can change."""

    def __init__(self, above) -> None:
        self.above = above
        self.mounts = Mounts()
        self.made: list[FailingWatcher] = []
        self.failing: dict[str, int] = {}
        self.no_inotify: int | None = None
        super().__init__(above, self.make_inotify, lambda: self.mounts)

    def make_inotify(self) -> FailingWatcher:
        if self.no_inotify is not None:
            raise OSError(self.no_inotify, os.strerror(self.no_inotify), "inotify_init1")
        watcher = FailingWatcher()
        watcher.failing = self.failing
        self.made.append(watcher)
        return watcher


@pytest.fixture
def place(tmp_path):
    made = BlindPlace(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EMFILE])
def test_watches_used_up_at_start_are_bridged_by_scans(place, number):
    """Named with its remedy, bridged by a scan each 2 s until it works again, at start too."""
    place.failing[str(place.path)] = number
    place.socket(cgcs())
    place.directory.start()
    assert place.told() == [("found", UUID)]
    (problem,) = sentences(place.directory.problems)
    assert str(place.path) in problem
    assert "every 2 s" in problem
    assert ";" in problem, "a remedy"
    place.socket(cgcs(OTHER))
    place.loop.advance(2)
    assert place.told() == [("found", OTHER)]
    place.failing.clear()
    place.loop.advance(2)
    assert sentences(place.directory.problems) == []
    (place.path / cgcs()).unlink()
    assert place.told() == [("gone", UUID)], "at once, by inotify"


def test_the_remedy_of_used_up_watches(place):
    """`fs.inotify.max_user_watches`."""
    place.failing[str(place.path)] = errno.ENOSPC
    place.directory.start()
    assert "fs.inotify.max_user_watches" in sentences(place.directory.problems)[0]


def test_watches_used_up_later_close_no_channel(place):
    """A directory that was replaced cannot be watched: what is in it counts all the same."""
    place.socket(cgcs())
    place.directory.start()
    place.told()
    place.failing[str(place.path)] = errno.ENOSPC
    place.made[0].instead = [[inotify.FileEvent(-1, inotify.IN_Q_OVERFLOW, 0, b"")]]
    place.path.rename(place.above / "old")
    place.path.mkdir()
    place.socket(cgcs())
    place.loop.advance(1)
    assert place.told() == []
    assert place.directory.knows(UUID)
    assert len(sentences(place.directory.problems)) == 1


def test_no_watch_of_the_directory_above_is_no_small_thing(place):
    """Without it the end of our directory may not be noticed."""
    place.failing[str(place.above)] = errno.ENOSPC
    place.directory.start()
    assert len(sentences(place.directory.problems)) == 1
    place.socket(cgcs())
    assert place.told() == [("new", UUID)], "our own watch stands"


def test_no_inotify_at_all(place):
    """`max_user_instances` used up, or no descriptor left, at start: tried again."""
    place.no_inotify = errno.EMFILE
    place.socket(cgcs())
    place.directory.start()
    assert place.told() == [("found", UUID)]
    assert "max_user_instances" in sentences(place.directory.problems)[0]
    place.no_inotify = None
    place.loop.advance(2)
    assert sentences(place.directory.problems) == []
    place.socket(cgcs(OTHER))
    assert place.told() == [("new", OTHER)]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_directory_that_cannot_be_read_is_not_gone(place, monkeypatch, number):
    """Only ENOENT and ENOTDIR say that it is gone; every channel is left alone."""
    place.socket(cgcs())
    place.directory.start()
    place.told()

    def fail(path):
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patched:
        patched.setattr(watch.os, "listdir", fail)
        place.loop.advance(watch.SCAN_SECS + 1)
        assert place.told() == []
        (problem,) = sentences(place.directory.problems)
        assert "cannot be read" in problem
    place.loop.advance(watch.BLIND_SCAN_SECS)
    assert sentences(place.directory.problems) == []
    assert place.told() == []


def test_a_file_that_cannot_be_looked_at_is_not_gone(place, monkeypatch):
    """EACCES of a file leaves its channel alone."""
    place.socket(cgcs())
    place.directory.start()
    place.told()
    lstat = os.lstat

    def fail(path):
        if "heartbeat" in os.fsdecode(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return lstat(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", fail)
        place.loop.advance(watch.SCAN_SECS + 1)
        with pytest.raises(PermissionError):
            place.directory.find(UUID)
    assert place.told() == []
    assert place.directory.knows(UUID)


def test_an_absent_directory_is_a_problem(place):
    """Blind is not healthy (decision 31): an absent channel directory, with its remedy."""
    place.path.rmdir()
    place.directory.start()
    (problem,) = sentences(place.directory.problems)
    assert "is not there" in problem
    place.path.mkdir()
    place.loop.advance(1)
    assert sentences(place.directory.problems) == []


def test_a_mount_over_the_directory_is_noticed(place):
    """Within 5 s, though inotify says nothing of it."""
    place.socket(cgcs())
    place.directory.start()
    place.told()
    # To inotify's eyes nothing happens.
    place.made[0].instead = [[]] * 9
    place.path.rename(place.above / "under")
    place.path.mkdir()
    place.socket(cgcs(OTHER))
    place.loop.advance(1)
    assert place.told() == []
    place.mounts.change()
    place.loop.advance(5)
    assert place.told() == [("gone", UUID), ("found", OTHER)]
    place.made[0].instead = []
    place.socket(cgcs())
    assert place.told() == [("new", UUID)], "the new one is watched"


def test_mounts_elsewhere_cost_a_look_a_second(place):
    """Containers mount all the time: nothing of ours is listed for it."""
    place.directory.start()
    place.told()
    turns = place.loop.turns
    for _ in range(100):
        place.mounts.change()
        place.loop.advance(0.01)
    place.loop.advance(5)
    assert place.told() == []
    assert place.loop.turns - turns < 100 * 3 + 20


def test_no_idle_wake_ups(place):
    """A scan each three minutes, and nothing else."""
    place.directory.start()
    place.told()
    turns = place.loop.turns
    place.loop.advance(3600)
    assert place.loop.turns - turns <= 20 + 3


def test_many_files_are_looked_at_in_portions(place):
    """20,000 dead sockets: nobody waits for the directory."""
    uuids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(3 * PORTION)]
    for uuid in uuids:
        place.socket(cgcs(uuid))
    place.directory.start()
    assert len(place.listener.take()) == PORTION
    place.loop.call_soon(lambda: None)
    place.loop.run_once()
    assert len(place.listener.take()) <= PORTION
    place.loop.settle()
    assert place.listener.present == set(uuids)


def test_a_storm_of_chmod_is_coalesced(place):
    """Several events of one file that come together cost one look, and one attempt."""
    place.socket(cgcs())
    place.socket(cgcs(OTHER))
    place.directory.start()
    place.told()
    for mode in range(1000):
        for uuid in (UUID, OTHER):
            (place.path / cgcs(uuid)).chmod(0o600 | mode % 2)
    assert place.told() == [("changed", UUID), ("changed", OTHER)]
    place.loop.advance(2)
    assert len(place.told()) <= 2 * 10


def test_what_is_written_to_a_file_wakes_nobody(place):
    """A socket is never modified; a file that is written at full speed is no channel."""
    (place.path / "log").write_text("")
    place.directory.start()
    place.told()
    turns = place.loop.turns
    with open(place.path / "log", "w") as file:
        for _ in range(100):
            file.write("x" * 100)
            file.flush()
    place.loop.call_soon(lambda: None)
    place.loop.run_once()
    assert place.loop.turns - turns == 1
    assert place.loop.simulated.select(0) == []


def test_a_hard_link_is_no_channel(place):
    """Connected to as root it would be a way to speak to somebody else's socket."""
    os.mknod(place.above / "private", stat.S_IFSOCK | 0o600)
    os.link(place.above / "private", place.path / cgcs())
    place.directory.start()
    assert place.told() == []
    assert place.directory.find(UUID) is None
    (problem,) = sentences(place.directory.problems)
    assert "hard link" in problem
    assert cgcs() in problem
    (place.above / "private").unlink()
    place.loop.advance(watch.SCAN_SECS + 1)
    assert place.told() == [("found", UUID)]
    assert sentences(place.directory.problems) == []


def test_a_hard_link_to_a_channel_ends_no_connection(place):
    """Whoever can make one must not be able to cut a guest off by it."""
    place.socket(cgcs())
    place.directory.start()
    place.told()
    os.link(place.path / cgcs(), place.above / "link")
    assert place.told() == []
    assert place.directory.knows(UUID)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
@pytest.mark.parametrize(("mode", "counts"), [(0o1777, False), (0o770, True), (0o755, True)])
def test_a_stranger_s_socket_counts_where_not_anybody_can_make_one(place, mode, counts):
    """The owner is looked at in a directory that anybody may write to."""
    place.path.chmod(mode)
    place.socket(cgcs())
    os.chown(place.path / cgcs(), 12345, 12345)
    place.directory.start()
    assert (place.told() == [("found", UUID)]) is counts
    assert (sentences(place.directory.problems) == []) is counts
