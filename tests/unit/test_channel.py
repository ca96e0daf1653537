"""Channels on simulated time, with real sockets: connect, reconnect, bounds (protocol.md)."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import time
from dataclasses import replace

import pytest

from guestmtce.runtime.vitals import sentences
from guestmtce.server import channel
from tests.peers import wire
from tests.peers.reactor import unix_connection
from tests.unit.server_support import OTHER, UUID, Server, uuid_of


@pytest.fixture
def server():
    made = Server().start()
    yield made
    made.close()


def gaps(times):
    return [round(after - before, 3) for before, after in zip(times, times[1:])]


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_connects_as_soon_as_the_file_appears(server):
    guest = server.guest()
    server.loop.settle()
    assert server.connected()
    assert guest.types() == ["init_ack", "challenge"]


def test_an_init_in_the_same_packet_as_the_connect_is_served(server):
    """The old daemon forgot it (behaviour.md, "What the old daemons got wrong")."""
    server.agent.provision()
    server.beating()
    server.loop.advance(60)
    assert server.heartbeating()
    assert server.app.worker.stats.misses == 0


def test_a_guest_whose_bytes_come_one_at_a_time(server):
    guest = server.guest()
    guest.inits = guest.answers = False
    server.agent.provision()

    def dribble(data):
        for index in range(len(data)):
            guest.say_raw(data[index : index + 1])
            server.loop.settle()

    dribble(wire.message("init", 1, **guest.init))
    for sequence in range(2, 6):
        dribble(
            wire.message(
                "challenge_response",
                sequence,
                heartbeat_response=guest.heard[-1]["heartbeat_challenge"],
                heartbeat_health="healthy",
                corrective_action="none",
                log_msg="",
            )
        )
        assert server.heartbeating()
        server.loop.advance(1)
    assert server.app.worker.stats.heartbeats == 4
    assert server.app.worker.stats.bad_messages == {}


def test_end_of_file_is_stopped_at_once_and_no_loss(server):
    """ "End of file …: close, heartbeating becomes false (STOPPED event if it was true)"."""
    guest = server.beating()
    guest.hang_up()
    server.loop.settle()
    assert server.agent.names() == ["STOPPED"]
    server.loop.advance(2)
    assert server.agent.names() == ["RUNNING"]


def test_the_gap_after_a_hang_up(server):
    """ "After a connection that had worked is closed by either side, wait at least 200 ms"."""
    guest = server.beating()
    before = server.loop.clock.now
    guest.hang_up()
    server.loop.advance(1)
    assert guest.accepted[-1] - before == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("unlink", [False, True])
def test_qemu_killed_and_started_again_on_the_same_path(server, unlink):
    """SIGKILL leaves the file behind (ECONNREFUSED); a clean end removes it."""
    guest = server.beating()
    guest.stop(unlink=unlink)
    server.loop.advance(30)
    assert server.agent.names() == ["STOPPED"]
    assert not server.connected()
    guest.listen()
    server.loop.advance(0.5)
    assert server.heartbeating()
    assert server.agent.names() == ["RUNNING"]


def test_a_new_file_in_place_of_the_connected_one(server):
    """The old QEMU lingers with our connection; the new one owns the path."""
    old = server.beating()
    new = server.guest()
    server.loop.advance(1)
    assert old.closed
    assert new.accepted
    assert server.heartbeating()
    assert server.agent.names() == ["STOPPED", "RUNNING"]
    old.listener = None  # its path is the new one's


def test_refused_is_tried_again_later_and_later(server):
    """ "On failure retry after 1 s, doubling to at most 60 s"."""
    guest = server.guest()
    guest.stop(unlink=False)
    attempts = record_attempts(server)
    server.loop.advance(300)
    assert gaps(attempts)[-3:] == [60, 60, 60]
    assert [gap for gap in gaps(attempts) if gap >= 1][:6] == [2, 4, 8, 16, 32, 60]
    assert 7 <= len(attempts) <= 12
    # "a fresh inotify event for that file resets the backoff"
    del attempts[:]
    guest.path.chmod(0o600)
    server.loop.advance(1.5)
    assert len(attempts) >= 2


def record_attempts(server):
    """Note when each connect is tried, from the next on."""
    server.loop.settle()
    channel = server.app.channels[UUID]
    attempts = []
    connect = type(channel).connect

    class Noting(type(channel)):
        __slots__ = ()

        def connect(self):
            attempts.append(server.loop.clock.now)
            return connect(self)

    channel.__class__ = Noting
    return attempts


def test_a_full_listen_queue_is_a_failure_like_any_other(server):
    """ "EAGAIN on connect (listen queue full …) … back off", and it comes right by itself."""
    made = server.guest()
    made.stop(unlink=True)
    server.loop.settle()
    made.listen(backlog=0)
    server.loop.unwatch(made.listener)
    clients = [unix_connection(made.path)]
    server.agent.provision()
    server.loop.advance(2)
    turns = server.loop.turns
    server.loop.advance(120)
    assert server.loop.turns - turns < 60
    assert not server.connected()
    for client in clients:
        client.close()
    made.listener.accept()[0].close()
    made.listen(backlog=1)
    server.loop.advance(1)
    assert server.heartbeating()


def test_accepting_and_closing_at_once_is_no_tight_loop(server):
    """Only messages count as having worked: the backoff goes on."""
    guest = server.guest()
    guest.hangs_up = True
    server.loop.advance(300)
    assert len(guest.accepted) <= 12
    assert gaps(guest.accepted)[-1] == 60
    guest.hangs_up = False
    server.loop.advance(61)
    assert server.connected()


def test_accepting_and_closing_backs_off_after_the_guest_had_spoken_too(server):
    """What an earlier connection served says nothing of this one."""
    guest = server.beating()
    guest.hangs_up = True
    guest.hang_up()
    server.loop.advance(60)
    assert len(guest.accepted) <= 9


def test_init_then_close_over_and_over_is_bounded_too(server):
    """A guest that works for a moment each time: 200 ms between, no more."""
    guest = server.guest()
    server.agent.provision()
    for _ in range(20):
        server.loop.advance(0.1)
        guest.hang_up()
    server.loop.advance(0.1)
    assert min(gaps(guest.accepted)) >= 0.2


def test_120_s_without_a_message_reconnects_and_again_each_120_s(server):
    """ "If a channel has been connected for 120 s with no heartbeating, close and reconnect it"."""
    guest = server.guest()
    guest.inits = False
    server.loop.advance(400)
    assert gaps(guest.accepted) == [pytest.approx(120.2, abs=0.1)] * 3


def test_half_a_message_then_end_of_file(server):
    """The next connection starts with a clean slate."""
    guest = server.beating()
    guest.inits = False
    guest.say_raw(b'\n{"version":3,"revi')
    server.loop.settle()
    guest.hang_up()
    server.loop.advance(0.5)
    guest.say_raw(wire.message("init", 1, **guest.init)[1:])
    server.loop.settle()
    assert server.heartbeating()
    assert server.app.worker.stats.bad_messages == {}


def test_a_peer_that_never_reads_costs_64_kib_and_loses_whole_challenges(server):
    """ "bounded outgoing buffer per instance (64 KiB); when it is full drop whole messages,
    oldest challenge first, never half a message."."""
    guest = server.beating()
    server.loop.unwatch(guest.connection)
    guest.heard = []
    channel = server.app.channels[UUID]
    # The guest answers what it has not read: it goes on being challenged, as in a slow death.
    for number in range(6000):
        server.loop.advance(1)
        guest.answer(channel.instance.heartbeat.challenges[-1])
        if number == 3000:
            server.agent.send("VOTE_INST", uuid=UUID, event="stop")
    assert server.heartbeating()
    assert channel.dropped_messages > 1000
    assert channel.for_operator()["queued_bytes"] <= 64 * 1024
    guest.answers = False
    for _ in range(1000):
        before = len(guest.heard)
        guest.read()  # the strict reader refuses half a message
        server.loop.settle()
        if len(guest.heard) == before:
            break
    sequences = [message["sequence"] for message in guest.heard]
    assert sequences == sorted(sequences)
    assert sequences[-1] == channel.instance.heartbeat.writer.sequence, "the newest is there"
    assert "action_notify" in guest.types(), "a vote outlives the challenges"
    missing = set(range(sequences[0], sequences[-1])) - set(sequences)
    assert len(missing) == channel.dropped_messages
    assert max(missing) < sequences[-100], "the oldest ones went"


def test_a_tail_that_never_ends_grows_nothing(server):
    """ "at most one message's worth is kept"; then the guest is served again."""
    guest = server.beating()
    guest.answers = False
    for _ in range(300):
        with contextlib.suppress(BlockingIOError):
            guest.connection.send(b"x" * 4096)
        server.loop.advance(0.01)
    assert len(server.app.channels[UUID].instance.connection.framer.tail) <= 1056
    assert server.app.worker.stats.bad_messages["too_long"] == 1
    assert guest.types().count("nack") == 0
    server.loop.advance(5)
    guest.answers = True
    guest.say_raw(b"\n")
    guest.say_init()
    server.loop.advance(5)
    assert server.heartbeating()


def test_a_flood_slows_nobody_else(server):
    """Of a flood 500 messages a second are read; another guest never waits for it."""
    server.agent.provision(OTHER)
    other = server.guest(OTHER)
    flooder = server.beating()
    line = wire.message("exit", 1, log_msg="")[1:]
    for _ in range(500):
        with contextlib.suppress(BlockingIOError):
            flooder.connection.send(line * 40)
        server.loop.advance(0.01)
    assert server.app.worker.stats.bad_messages["rate"] >= 4
    server.loop.advance(4)
    assert server.heartbeating(OTHER)
    assert other.types().count("challenge") >= 8
    assert server.app.worker.stats.misses == 0


def test_a_guest_that_floods_costs_few_wake_ups_and_is_a_problem(server, caplog):
    """Nothing that a guest sends may slow the daemon; ten seconds of it are in the status."""
    caplog.set_level("INFO")
    flooder = server.beating()
    flooder.answers = False
    before = server.loop.turns
    for _ in range(1200):
        with contextlib.suppress(BlockingIOError):
            flooder.connection.send(b"x\n" * 32768)
        server.loop.advance(0.01)
    assert server.loop.turns - before < 2 * 1200 + 12 * 50
    assert server.app.worker.stats.bad_messages["not_json"] < 12 * 600
    (problem,) = sentences(server.app.problems())
    assert UUID in problem
    assert "flood" in problem
    assert "heartbeat port" in problem, "what to do"
    assert levels(caplog, "too much") == ["INFO", "INFO"], "so much of it, and no answer found"
    server.loop.advance(600)
    assert sentences(server.app.problems()) == []


def test_settings_read_again_serve_the_next_init(server):
    """SIGHUP: threshold and pulse period at once, for all instances."""
    guest = server.beating()
    changed = replace(server.settings, hbs_pulse_period_ms=2000, hbs_failure_threshold=3)
    server.app.reload(changed)
    guest.say_init(heartbeat_interval_ms=500)
    server.loop.settle()
    heartbeat = server.app.channels[UUID].instance.heartbeat
    assert heartbeat.interval == 2
    guest.answers = False
    server.agent.take()
    server.loop.advance(7.9)
    assert server.agent.take() == []
    server.loop.advance(2.2)
    assert server.agent.names() == ["STOPPED", "LOSS"]


def levels(caplog, word):
    return [record.levelname for record in caplog.records if word in record.getMessage()]


def test_faults_are_warnings_in_the_log(server, caplog):
    """LOSS and ILLHEALTH are what an operator looks for."""
    caplog.set_level("INFO")
    guest = server.beating()
    guest.answers = False
    server.loop.advance(1)
    guest.answer(guest.heard[-1]["heartbeat_challenge"], "unhealthy", "reboot")
    server.loop.advance(5)
    assert levels(caplog, "HEARTBEAT_RUNNING") == ["INFO"]
    assert levels(caplog, "HEARTBEAT_ILLHEALTH") == ["WARNING"]
    assert levels(caplog, "HEARTBEAT_LOSS") == ["WARNING"]


def test_a_failure_to_connect_is_in_the_log_once(server, caplog):
    """The first attempt, and the one right after it; not each of the many that follow."""
    caplog.set_level("INFO")
    server.guest().stop(unlink=False)
    server.loop.advance(0.05)
    assert levels(caplog, "cannot connect") == ["INFO"]
    server.loop.advance(3600)
    assert levels(caplog, "cannot connect") == ["INFO"] * 2


def test_a_file_that_cannot_be_looked_at_ends_no_connection(server, monkeypatch):
    """Decision 29: whether it was replaced, we cannot say."""
    guest = server.beating()

    def fail(_path):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", fail)
        server.app.file_found(UUID, fresh=True)
        server.loop.advance(5)
    assert server.heartbeating()
    assert len(guest.accepted) == 1


def test_no_log_line_holds_text_of_a_guest_as_it_is(server, caplog):
    """Not even what no terminal shows: a name with it would not be found by who looks for it."""
    guest = server.beating()
    guest.answers = False
    server.loop.advance(1)
    number = guest.heard[-1]["heartbeat_challenge"]
    guest.say(
        "challenge_response",
        heartbeat_response=number,
        heartbeat_health="unhealthy",
        corrective_action="reboot",
        log_msg="fan\u200b broken",
    )
    server.loop.advance(5)
    assert levels(caplog, "fan\\u200b broken") == ["WARNING", "WARNING"], "illness and loss"
    assert levels(caplog, "\u200b") == []


def test_a_guest_that_beats_and_leaves_all_the_time_has_its_share_of_the_log(server, caplog):
    caplog.set_level("INFO")
    guest = server.beating()
    for _ in range(200):
        guest.say_init()
        server.loop.advance(0.01)
        guest.say("exit", log_msg="")
        server.loop.advance(0.01)
    assert len(caplog.records) < 2 * channel.LOG_LINES


def test_a_guest_has_its_share_of_the_log(server, caplog):
    """A guest that comes and goes with each message fills no log; what is left out is counted."""
    caplog.set_level("INFO")
    guest = server.beating()
    for _ in range(200):
        guest.say_init()
        guest.say("exit", log_msg="")
        server.loop.advance(0.01)
    assert len(caplog.records) < 2 * channel.LOG_LINES
    caplog.clear()
    server.loop.advance(channel.LOG_PERIOD_SECS)
    guest.say("exit", log_msg="")
    server.loop.advance(0.01)
    assert [record for record in caplog.records if "lines left out" in record.message]


def test_a_shut_down_of_the_guests_sending_side_ends_the_connection(server):
    guest = server.beating()
    guest.connection.shutdown(socket.SHUT_WR)
    server.loop.advance(0.1)
    assert server.agent.names() == ["STOPPED"]


def test_the_old_name_form_works_alike_and_cgcs_wins(server):
    """Decision 11. The older form is heartbeated; when a cgcs. file comes, that one is."""
    server.agent.provision()
    old = server.guest(form="wrs.heartbeat.agent.0.{}.sock")
    server.loop.advance(0.1)
    assert server.heartbeating()
    new = server.guest()
    server.loop.advance(1)
    assert old.closed
    assert new.connection is not None
    new.stop(unlink=True)
    server.loop.advance(1)
    assert old.connection is not None
    assert server.heartbeating()


def test_a_provisioned_instance_outlives_its_file(server):
    """Decision 11: kept with its reporting, unconnected; another is forgotten."""
    guest = server.beating()
    other = server.guest(OTHER)
    server.loop.advance(1)
    guest.stop(unlink=True)
    other.stop(unlink=True)
    server.loop.advance(1)
    assert list(server.app.channels) == [UUID]
    server.agent.take()
    server.agent.send("QRY_INST")
    (answer,) = server.agent.take()
    assert answer.body["reporting"] == "enabled"
    assert answer.body["heartbeating"] == "disabled"


def test_a_burst_of_60_is_connected_within_a_second(server):
    uuids = [uuid_of(number) for number in range(60)]
    before = server.loop.clock.now
    guests = [server.guest(uuid) for uuid in uuids]
    server.loop.settle()
    assert all(server.connected(uuid) for uuid in uuids)
    assert max(guest.accepted[0] for guest in guests) - before < 1


def test_storm_of_connected_channels_leaks_nothing(server):
    """500 sockets created, renamed, deleted, created again: the final state is right."""
    choose = random.Random(3)
    uuids = [uuid_of(number) for number in range(500)]
    before = descriptors()
    guests = [server.guest(uuid) for uuid in uuids]
    server.loop.settle()
    assert descriptors() == before + 3 * 500
    for guest in choose.sample(guests, 200):
        moved = guest.path.with_name(f"wrs.heartbeat.agent.0.{guest.uuid}.sock")
        guest.path = guest.path.rename(moved)
    for guest in choose.sample(guests, 300):
        guest.stop(unlink=True)
        server.loop.run_once()
    for guest in guests:
        if guest.listener is None and choose.random() < 0.5:
            guest.listen()
    server.loop.advance(5)
    alive = {guest.uuid for guest in guests if guest.listener is not None}
    assert set(server.app.channels) == alive
    assert all(server.connected(uuid) for uuid in alive)
    for guest in guests:
        guest.stop(unlink=True)
    server.loop.advance(1)
    assert server.app.channels == {}
    assert descriptors() == before
    assert server.loop.errors == 0


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE], ids=["process", "host"])
def test_a_want_of_descriptors_is_no_secret_and_passes(server, monkeypatch, error):
    """`status` says that the daemon is degraded; the channel is tried again."""

    def starve(_path):
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(channel.unix, "connect", starve)
        server.guest()
        server.loop.advance(0.05)
        assert any("descriptors" in problem for problem in sentences(server.app.problems()))
        server.loop.advance(600)
        assert any("descriptors" in problem for problem in sentences(server.app.problems()))
    server.loop.advance(2)
    assert server.connected(), "tried every 2 s, however long it lasted (decision 43)"
    server.loop.advance(5)
    assert sentences(server.app.problems()) == []


def test_a_jump_of_the_wall_clock_changes_nothing(server, monkeypatch):
    """ "Times are from a monotonic clock."."""
    server.beating()
    sent = server.app.worker.stats.heartbeats
    for offset in (86_400, -86_400, 10 * 365 * 86_400):
        now = time.time
        monkeypatch.setattr(time, "time", lambda now=now, offset=offset: now() + offset)
        server.loop.advance(100)
    assert server.agent.take() == []
    assert server.app.worker.stats.misses == 0
    assert server.app.worker.stats.host_stalls == 0
    assert 299 <= server.app.worker.stats.heartbeats - sent <= 301


def test_a_stopped_process_blames_no_guest(server):
    """ "the silence is ours: no miss is counted, a new challenge is sent, host_stalls"."""
    guests = [server.beating(uuid_of(number)) for number in range(5)]
    for guest in guests:
        guest.answers = False
        guest.heard = []
    server.loop.advance(0.9)
    server.loop.clock.now += 3
    server.loop.settle()
    stats = server.app.worker.stats
    assert stats.misses == stats.losses == 0
    assert stats.host_stalls == 5
    assert server.agent.take() == []
    for guest in guests:
        guest.answers = True
        guest.answer(guest.heard[-1]["heartbeat_challenge"])
    server.loop.advance(60)
    assert server.agent.take() == []


def test_an_idle_server_wakes_for_its_own_timers_only(server):
    """ "zero wake-ups in an idle minute beyond the timers' own"."""
    server.agent.send("QRY_INST")
    server.loop.advance(10)
    turns = server.loop.turns
    server.loop.advance(3600)
    # Hosts once a minute, a scan each three minutes, and what the test itself does.
    assert server.loop.turns - turns <= 60 + 20 + 10


def test_stop_says_nothing_to_the_agent(server):
    """Decision 19: SIGTERM sends no STOPPED."""
    guest = server.beating()
    finished = []
    server.app.stop(lambda: finished.append(True))
    server.loop.settle()
    assert finished
    assert server.agent.take() == []
    assert guest.closed


def test_a_file_that_is_renamed_and_back_is_the_same_socket(server):
    """Device and inode say which one it is: no hang-up, no STOPPED."""
    guest = server.beating()
    guest.path.rename(server.channels / f"wrs.heartbeat.agent.0.{UUID}.sock")
    (server.channels / f"wrs.heartbeat.agent.0.{UUID}.sock").rename(guest.path)
    server.loop.advance(5)
    assert server.agent.take() == []
    assert len(guest.accepted) == 1
