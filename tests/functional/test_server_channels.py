"""guestServer as a process: finding channels, and finding them again (protocol.md)."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.functional.server_support import UUID, Place, started, uuid_of
from tests.peers.journal import wait_until

MAX_QUEUED_EVENTS = Path("/proc/sys/fs/inotify/max_queued_events")


@pytest.fixture
def place():
    with started() as made:
        yield made


def test_a_burst_of_60_is_connected_within_a_second(place):
    """The listeners are there first and moved in together: what is timed is guestServer."""
    staging = place.root.path / "staging"
    staging.mkdir()
    guests = [place.guest(uuid_of(number)) for number in range(60)]
    for guest in guests:
        guest.wait_for("connected")
    for guest in guests:
        guest.path.rename(staging / guest.path.name)
    for guest in guests:
        guest.wait_for("closed")
    begun = time.monotonic()
    for guest in guests:
        (staging / guest.path.name).rename(guest.path)
    again = [guest.wait_for("connected", since=guest_closed(guest)).at for guest in guests]
    assert max(again) - begun <= 1.0


def guest_closed(guest):
    """Return the position after the guest's latest hang-up."""
    return max(n for n, seen in enumerate(guest.seen) if seen.event == "closed") + 1


def test_a_storm_of_500_files_ends_in_the_right_state(place):
    """500 sockets are made, renamed, deleted and made again in about a second."""
    place.agent.query()
    idle = place.idle_descriptors()
    choose = random.Random(7)
    guests = {number: place.guest(uuid_of(number)) for number in range(500)}
    for guest in choose.sample(list(guests.values()), 250):
        guest.path = guest.path.rename(
            guest.path.with_name(f"wrs.heartbeat.agent.0.{guest.uuid}.sock")
        )
    for number in choose.sample(range(500), 300):
        guests.pop(number).remove()
    for number in choose.sample(range(500), 100):
        if number not in guests:
            guests[number] = place.guest(uuid_of(number))
    wait_until(lambda: all(guest.connected for guest in guests.values()), 20, "all connected")
    place.wait_descriptors(idle + len(guests))
    assert set(place.agent.ask()) == {guest.uuid for guest in guests.values()}
    for guest in guests.values():
        guest.remove()
    place.wait_descriptors(idle)


def test_a_real_overflow_of_the_inotify_queue(place):
    """While guestServer stands still more happens than the kernel keeps; then a scan mends it."""
    limit = int(MAX_QUEUED_EVENTS.read_text())
    if limit > 100_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: overflowing it takes too long")
    going = place.guest(uuid_of(1))
    going.wait_for("connected")
    place.server.signal(signal.SIGSTOP)
    names = (place.root.channels / "noise-1", place.root.channels / "noise-2")
    descriptor = os.open(names[0], os.O_CREAT | os.O_WRONLY)
    os.close(descriptor)
    for _ in range(limit // 4 + 10):  # two events each way
        os.rename(names[0], names[1])
        os.rename(names[1], names[0])
    going.remove()
    coming = place.guest(uuid_of(2))
    place.server.signal(signal.SIGCONT)
    coming.wait_for("connected")
    place.server.wait_for_log("overflow")
    assert set(place.agent.ask()) == {uuid_of(2)}


def test_the_directory_appears_late_goes_and_comes_back():
    """ "it may not exist yet when the daemon starts: wait for it, do not exit"."""
    place = Place()
    place.root.channels.rmdir()
    try:
        place.start()
        place.server.wait_for_log("is not there")
        for _ in range(2):
            place.root.channels.mkdir(parents=True, exist_ok=True)
            place.agent.add(UUID)
            guest = place.guest()
            guest.wait_for("challenge")
            shutil.rmtree(place.root.channels)
            guest.wait_for("closed")
    finally:
        place.close()


def test_a_path_too_long_for_sun_path(tmp_path):
    """ "The path can exceed `sun_path` (108 bytes) under a test root: handle it"."""
    path = tmp_path / ("a" * 100) / ("b" * 100)
    path.mkdir(parents=True)
    with started(path) as place:
        guest = place.beating()
        assert len(str(guest.path)) > 250
        assert (path / "var/run/guestServer.ctl").is_socket()


def test_sockets_only_and_no_odd_names(place):
    """A regular file, a directory, a symlink, a newline, bytes that are no UTF-8: all ignored."""
    channels = place.root.channels
    target = place.guest(uuid_of(1), file_name="target-{uuid}")
    (channels / f"cgcs.heartbeat.{uuid_of(2)}.sock").touch()
    (channels / f"cgcs.heartbeat.{uuid_of(3)}.sock").mkdir()
    (channels / f"cgcs.heartbeat.{uuid_of(4)}.sock").symlink_to(target.path)
    place.guest(uuid_of(5), file_name="cgcs.heartbeat.{uuid}.sock\n")
    place.guest(uuid_of(6), file_name="cgcs.heartbeat.\udcff\udcfe{uuid}.sock")
    place.guest(uuid_of(7)).wait_for("connected")
    assert set(place.agent.ask()) == {uuid_of(7)}
    assert not any(guest.connected for guest in place.guests[:-1])


def test_qemu_killed_and_restarted_on_the_same_path(place):
    guest = place.beating()
    for _ in range(2):
        since = len(place.agent.told)
        guest.crash()
        place.agent.wait_for("STOPPED", UUID, since=since)
        guest.listen()
        place.agent.wait_for("RUNNING", UUID, since=since)
        assert "LOSS" not in place.agent.names(UUID)


def test_a_hang_up_is_followed_by_a_gap(place):
    """ "wait at least 200 ms: with no gap the guest misses the hang-up"."""
    guest = place.beating()
    for _ in range(3):
        since = len(guest.seen)
        guest.hang_up()
        closed = guest.wait_for("closed", since=since).at
        assert guest.wait_for("connected", since=since).at - closed >= 0.19
        guest.wait_for("challenge", since=since)


def test_a_guest_that_reads_nothing_for_a_while_is_served_again(place):
    """QEMU stops reading while the guest is paused; nothing is torn when it goes on."""
    guest = place.beating(heartbeat_interval_ms=400)
    since = len(place.agent.told)
    guest.stall()
    place.agent.wait_for("LOSS", UUID, since=since)
    guest.stall(False)
    guest.send_init()
    place.agent.wait_for("RUNNING", UUID, since=since)


def test_delete_ignores_the_file_until_it_is_new_or_named(place):
    """Decision 11."""
    guest = place.beating()
    place.agent.delete(UUID)
    guest.wait_for("closed")
    since = len(guest.seen)
    guest.path.chmod(0o600)
    assert place.agent.ask() == {}
    assert not guest.connected
    place.agent.add(UUID)
    guest.wait_for("connected", since=since)
    place.agent.delete(UUID)
    wait_until(lambda: not guest.connected)
    since = len(guest.seen)
    guest.listen()
    guest.wait_for("connected", since=since)
    assert place.agent.ask()[UUID]["reporting"] == "disabled"


def test_channels_that_close_at_once_cost_nothing(place):
    """20 QEMUs that accept and hang up: the backoff grows, the process rests."""

    def hang_up(guest):
        with contextlib.suppress(RuntimeError):
            guest.seen.listener = lambda seen: seen.event == "connected" and guest.close_host()

    guests = []
    for number in range(20):
        guest = place.guest(uuid_of(number), file_name="later-{uuid}")
        guest.auto_init = False
        hang_up(guest)
        guest.path = guest.path.rename(guest.path.with_name(f"cgcs.heartbeat.{guest.uuid}.sock"))
        guests.append(guest)
    for guest in guests:
        guest.wait_for("closed")
    time.sleep(1.5)
    assert max(len(guest.messages("connected")) for guest in guests) <= 4
