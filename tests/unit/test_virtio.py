"""The channel directory: scans, inotify, and the names that count (protocol.md, Discovery)."""

from __future__ import annotations

import os
import random
import stat

import pytest

from guestmtce.runtime import inotify
from guestmtce.runtime.vitals import sentences
from guestmtce.server import virtio
from guestmtce.server.virtio import ChannelDirectory, parse_name
from guestmtce.server.watch import SCAN_SECS
from tests.unit.virtio_support import OTHER, UUID, Place, Watcher, cgcs, wrs

OVERFLOW = inotify.FileEvent(-1, inotify.IN_Q_OVERFLOW, 0, b"")


class WatchedPlace(Place):
    """One with the kernel's own watcher."""

    def __init__(self, above) -> None:
        self.watcher = Watcher()
        super().__init__(above, lambda: self.watcher)

    def start(self) -> WatchedPlace:
        self.directory.start()
        self.loop.settle()
        return self

    def remove(self, name: str) -> None:
        (self.path / name).unlink()

    def file_of(self, uuid: str) -> str:
        file = self.directory.find(uuid)
        assert file is not None
        assert file.path == str(self.path / os.path.basename(file.path))
        return os.path.basename(file.path)


@pytest.fixture
def place(tmp_path):
    made = WatchedPlace(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "form"), [(cgcs(), 0), (wrs(), 1), (cgcs(UUID.upper()), 0), (wrs(UUID.upper()), 1)]
)
def test_both_name_forms_are_recognised(name, form):
    assert parse_name(name.encode()) == (UUID, form)


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"cgcs.heartbeat.sock",
        b"cgcs.heartbeat." + UUID.encode(),
        b".cgcs.heartbeat." + UUID.encode() + b".sock",
        cgcs().encode() + b"\n",
        b"\n" + cgcs().encode(),
        cgcs().encode() + b".swp",
        cgcs(UUID[:-1]).encode(),
        cgcs(UUID + "0").encode(),
        cgcs("g" * 8 + UUID[8:]).encode(),
        cgcs(UUID.replace("-", "0")).encode(),
        cgcs(UUID[:35] + "\n").encode(),
        b"cgcs.heartbeat." + b"\xff" * 36 + b".sock",
        b"cgcs.heartbeat." + "\N{ARABIC-INDIC DIGIT ONE}".encode() * 18 + b".sock",
        b"cgcs.heartbeat." + UUID[:35].encode() + b"\x80.sock",
        b"cgcsxheartbeat." + UUID.encode() + b".sock",
        b"wrs.heartbeat.agent.1." + UUID.encode() + b".sock",
        b"org.qemu.guest_agent.0." + UUID.encode() + b".sock",
    ],
)
def test_every_other_name_is_ignored(name):
    """ "anything else in the directory … is ignored. Accept only a canonical UUID"."""
    assert parse_name(name) is None


def test_the_start_scan_finds_what_is_there(place):
    place.socket(cgcs())
    place.socket(wrs(OTHER))
    place.start()
    assert place.told() == [("found", UUID), ("found", OTHER)]
    assert place.file_of(UUID) == cgcs()
    assert place.file_of(OTHER) == wrs(OTHER)


def test_only_a_socket_counts_and_no_symlink_is_followed(place):
    (place.path / cgcs()).touch()
    (place.path / cgcs(OTHER)).mkdir()
    place.socket("target")
    (place.path / wrs()).symlink_to(place.path / "target")
    os.mkfifo(place.path / wrs(OTHER))
    place.start()
    assert place.told() == []
    # The same by events.
    for name in (cgcs(), wrs(), wrs(OTHER)):
        place.remove(name)
    (place.path / cgcs(OTHER)).rmdir()
    (place.path / cgcs()).touch()
    (place.path / wrs()).symlink_to(place.path / "target")
    (place.path / cgcs(OTHER)).mkdir()
    assert place.told() == []


def test_names_with_newlines_and_invalid_utf8_are_passed_over(place):
    place.start()
    place.socket(cgcs() + "\n")
    place.socket(b"cgcs.heartbeat." + b"\xff" * 36 + b".sock")
    place.socket(b"\n\xfe\xff")
    place.socket(cgcs(OTHER))
    assert place.told() == [("new", OTHER)]
    place.loop.advance(SCAN_SECS + 1)
    assert place.told() == []


def test_created_moved_deleted(place):
    place.start()
    place.socket(cgcs())
    assert place.told() == [("new", UUID)]
    (place.path / cgcs()).rename(place.path / "elsewhere")
    assert place.told() == [("gone", UUID)]
    (place.path / "elsewhere").rename(place.path / cgcs(OTHER))
    assert place.told() == [("new", OTHER)]
    place.remove(cgcs(OTHER))
    assert place.told() == [("gone", OTHER)]
    assert place.directory.find(OTHER) is None


def test_a_file_put_in_place_of_a_socket_ends_it(place):
    place.socket(cgcs())
    place.start().told()
    (place.path / "plain").touch()
    (place.path / "plain").rename(place.path / cgcs())
    assert place.told() == [("gone", UUID)]
    place.socket("other")
    (place.path / "other").rename(place.path / cgcs())
    assert place.told() == [("new", UUID)]


def test_a_changed_attribute_is_told(place):
    """ "modified/attribute change → if not connected, retry at once"."""
    place.socket(cgcs())
    place.start().told()
    (place.path / cgcs()).chmod(0o600)
    assert place.told() == [("changed", UUID)]


def test_the_cgcs_form_wins_and_the_other_is_the_fallback(place):
    """Decision 11: If both file name forms exist, `cgcs.` wins."""
    place.start()
    place.socket(wrs())
    assert place.told() == [("new", UUID)]
    place.socket(cgcs())
    assert place.told() == [("new", UUID)]
    assert place.file_of(UUID) == cgcs()
    place.remove(cgcs())
    assert [uuid for _kind, uuid in place.told()] == [UUID]
    assert UUID in place.listener.present
    assert place.file_of(UUID) == wrs()
    place.remove(wrs())
    assert place.told() == [("gone", UUID)]


def test_the_going_of_one_form_is_not_a_new_file(place):
    """Decision 11: only "a new create/move event" revives what guestAgent deleted."""
    place.socket(cgcs())
    place.socket(wrs())
    place.start().told()
    place.remove(cgcs())
    assert place.told() == [("found", UUID)]


def test_a_scan_each_180_s_mends_what_was_missed(place):
    place.start()
    place.watcher.instead = [[]]
    place.socket(cgcs())
    assert place.told() == []
    place.loop.advance(SCAN_SECS + 1)
    assert place.told() == [("found", UUID)]


def test_overflow_scans(place):
    """ "a full scan … on inotify queue overflow": the final state is right."""
    place.socket(cgcs())
    place.start().told()
    place.watcher.instead = [[OVERFLOW]]
    place.remove(cgcs())
    place.socket(cgcs(OTHER))
    assert sorted(place.told()) == [("found", OTHER), ("gone", UUID)]
    assert place.directory.overflows == 1


def test_overflow_that_swallowed_the_create_but_not_the_chmod(place):
    """libvirt changes owner and mode of a new socket: that may be all that we hear of it."""
    place.start()
    wd = place.watcher.watches[str(place.path)]
    chmod = inotify.FileEvent(wd, inotify.IN_ATTRIB, 0, cgcs().encode())
    place.watcher.instead = [[OVERFLOW, chmod]]
    place.socket(cgcs())
    assert place.told() == [("new", UUID)]
    assert place.file_of(UUID) == cgcs()


def test_more_instances_than_a_host_can_have_cost_no_memory(place, monkeypatch):
    """At most 12,000; what is passed over is said."""
    monkeypatch.setattr(virtio, "MAX_INSTANCES", 2)
    for number in range(4):
        place.socket(cgcs(f"8d80875b-fa73-4ccb-bce3-{number:012d}"))
    place.start().told()
    assert len(place.listener.present) == 2
    (problem,) = sentences(place.directory.problems)
    assert "more than 2 instances" in problem


def test_a_channel_that_is_not_to_be_trusted_any_more_ends_no_connection(place):
    """Whoever can link our socket could end every guest's heartbeat by that."""
    place.socket(cgcs())
    place.start().told()
    os.link(place.path / cgcs(), place.path / "second")
    (place.path / cgcs()).chmod(0o600)
    assert "gone" not in {kind for kind, _uuid in place.told()}
    place.loop.advance(SCAN_SECS + 1)
    assert place.told() == []


def test_a_file_that_vanished_unnoticed_is_lost_and_found_again_by_a_scan(place):
    """A connect finds ENOENT while the events of delete and create are lost to an overflow."""
    place.socket(cgcs())
    place.start().told()
    place.watcher.instead = [[OVERFLOW]]
    place.remove(cgcs())
    assert place.directory.find(UUID) is None
    place.socket(cgcs())
    assert place.told() == [("found", UUID)]


def test_a_file_that_is_back_already_is_not_lost(place):
    place.socket(cgcs())
    place.start().told()
    place.watcher.instead = [[]]
    place.remove(cgcs())
    place.socket(cgcs())
    assert place.file_of(UUID) == cgcs()
    assert place.told() == []


def test_waits_for_a_directory_that_appears_late(place):
    """ "it may not exist yet when the daemon starts: wait for it, do not exit"."""
    place.path.rmdir()
    place.start()
    place.loop.advance(300)
    assert place.told() == []
    place.path.mkdir()
    place.socket(cgcs())
    assert place.told() == [("found", UUID)], "at once"
    place.socket(cgcs(OTHER))
    assert place.told() == [("new", OTHER)]


def test_waits_for_a_whole_path_that_appears_late(tmp_path):
    place = WatchedPlace(tmp_path)
    place.path.rmdir()
    place.directory = ChannelDirectory(
        place.loop, str(tmp_path / "libvirt" / "qemu"), place.listener
    )
    place.path = tmp_path / "libvirt" / "qemu"
    place.start()
    place.loop.advance(10)
    place.path.mkdir(parents=True)
    place.socket(cgcs())
    place.loop.advance(2)
    assert place.told() == [("found", UUID)]
    place.directory.stop()
    place.loop.close()


def test_a_removed_and_remade_directory(place):
    place.socket(cgcs())
    place.start().told()
    place.remove(cgcs())
    place.path.rmdir()
    assert place.told() == [("gone", UUID)]
    place.path.mkdir()
    place.socket(cgcs(OTHER))
    place.loop.advance(2)
    assert place.told() == [("found", OTHER)]
    place.remove(cgcs(OTHER))
    assert place.told() == [("gone", OTHER)]


def test_a_directory_that_is_still_held_open_when_it_is_replaced(place):
    """The sockets of a running QEMU hold it, and inotify tells of its end when they are closed."""
    place.socket(cgcs())
    place.start().told()
    held = os.open(place.path, os.O_RDONLY)
    try:
        place.remove(cgcs())
        place.path.rmdir()
        place.path.mkdir()
        place.socket(cgcs(OTHER))
        assert place.told() == [("gone", UUID), ("found", OTHER)]
        place.socket(cgcs())
        assert place.told() == [("new", UUID)]
    finally:
        os.close(held)
    assert place.told() == []


def test_a_directory_remade_before_we_look(place):
    """It may have the same inode number; the watch that died with the old one must not stay."""
    place.socket(cgcs())
    place.start().told()
    for _ in range(5):
        for name in os.listdir(place.path):
            place.remove(name)
        place.path.rmdir()
        place.path.mkdir()
    place.socket(cgcs(OTHER))
    assert place.told()[-1] == ("found", OTHER)
    assert place.listener.present == {OTHER}
    place.socket(cgcs())
    assert place.told() == [("new", UUID)]


def test_a_directory_moved_away_and_replaced(place):
    place.socket(cgcs())
    place.start().told()
    place.path.rename(place.path.with_name("old"))
    assert place.told() == [("gone", UUID)]
    place.path.mkdir()
    place.loop.advance(2)
    os.mknod(place.path.with_name("old") / cgcs(OTHER), stat.S_IFSOCK | 0o600)
    assert place.told() == [], "an event of the old directory"
    place.socket(cgcs(OTHER))
    assert place.told() == [("new", OTHER)]


def test_a_directory_that_is_a_file_is_waited_for(place):
    place.path.rmdir()
    place.path.touch()
    place.start()
    place.loop.advance(5)
    assert place.told() == []
    place.path.unlink()
    place.path.mkdir()
    place.socket(cgcs())
    place.loop.advance(2)
    assert place.told() == [("found", UUID)]


@pytest.mark.parametrize("overflow", [False, True])
def test_storm_of_500_files(place, overflow):
    """Created, renamed, deleted, created again, interleaved with reads: the final state is right.

    In numbers: 500 names; nothing is leaked (`/proc/self/fd` before and after).
    """
    descriptors = len(os.listdir("/proc/self/fd"))
    place.start()
    choose = random.Random(11)
    uuids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(500)]
    for number, uuid in enumerate(uuids):
        place.socket(cgcs(uuid))
        if overflow and number % 100 == 50:
            place.watcher.instead = [[OVERFLOW]]
        if number % 7 == 0:
            place.loop.run_once()
    for uuid in choose.sample(uuids, 250):
        (place.path / cgcs(uuid)).rename(place.path / wrs(uuid))
        if choose.random() < 0.1:
            place.loop.run_once()
    for uuid in choose.sample(uuids, 300):
        for name in (cgcs(uuid), wrs(uuid)):
            if (place.path / name).exists():
                place.remove(name)
    if overflow:
        place.watcher.instead = [[OVERFLOW]]
    for uuid in uuids[:100]:
        if not (place.path / wrs(uuid)).exists() and not (place.path / cgcs(uuid)).exists():
            place.socket(cgcs(uuid))
    place.loop.advance(1)
    there = {parse_name(name) for name in os.listdir(os.fsencode(place.path))}
    assert place.listener.present == {channel.uuid for channel in there}
    for uuid, form in there:
        name = (cgcs, wrs)[form](uuid)
        assert place.file_of(uuid) == name
    assert place.directory.overflows == (6 if overflow else 0)
    # The mount table's two; those of inotify were there before.
    assert len(os.listdir("/proc/self/fd")) == descriptors + 2


def test_stop_gives_the_descriptor_back(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    place = WatchedPlace(tmp_path)
    place.start()
    place.directory.stop()
    place.loop.close()
    assert len(os.listdir("/proc/self/fd")) == before
