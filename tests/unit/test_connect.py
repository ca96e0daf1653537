"""protocol.md, "Connecting", and decisions 7 and 11: the channel of one instance."""

from __future__ import annotations

import pytest

from guestmtce.core.server.machine import Attempt, TimerName
from tests.unit.core_support import STOPPED, VOTE_NOTIFY, Rig, action_response, init, leaving


@pytest.fixture
def rig() -> Rig:
    """An instance that guestAgent has not named, without a file."""
    return Rig(reporting=False)


def since(rig: Rig, start: float) -> list[float]:
    """Return when connects were tried, in seconds after `start`."""
    return [round(when - start, 3) for when in rig.port.attempts]


def test_first_attempt_is_immediate(rig):
    """First attempt immediately when a file appears."""
    rig.instance.file_found()
    assert rig.out() == ["connect"]
    assert rig.instance.connection.connected


def test_retries_are_a_second_later_and_double_to_a_minute(rig):
    """On failure retry after 1 s, doubling to at most 60 s.

    One more attempt, at 0.1 s, is for a socket that is bound and does not listen yet.
    """
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    start = rig.clock.now
    rig.advance(300)
    assert since(rig, start) == [0, 0.1, 1, 3, 7, 15, 31, 63, 123, 183, 243]


@pytest.mark.parametrize("news", ["file_found", "file_changed", "file_replaced"])
def test_fresh_news_of_the_file_resets_the_backoff(rig, news):
    """A fresh inotify event for that file resets the backoff; not connected: retry at once."""
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    rig.advance(100)
    rig.port.attempts.clear()
    start = rig.clock.now
    getattr(rig.instance, news)()
    rig.advance(2.9)
    assert since(rig, start) == [0, 0.1, 1]


def test_a_success_ends_the_retries(rig):
    """Connected: nothing is tried any more."""
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    rig.port.connects = Attempt.OPENED
    rig.advance(100)
    assert rig.out() == ["connect", "connect"]
    assert rig.left(TimerName.CONNECT) is None


def test_only_messages_prove_a_connection(rig):
    """A successful connect proves little: accepted and closed at once backs off like refused."""
    start = rig.clock.now
    rig.instance.file_found()
    for _ in range(6):
        rig.instance.disconnected()
        rig.advance(60 - (rig.clock.now - start) % 60)
    attempts = since(rig, start)
    assert attempts[1] >= 0.2
    assert rig.instance.connection.failures == 6
    rig.instance.disconnected()
    assert rig.left(TimerName.CONNECT) == 32
    rig.out()


def test_what_served_once_proves_nothing_of_the_next_connection():
    """A guest has spoken, then QEMU accepts and hangs up at once: that backs off."""
    rig = Rig().beat()
    start = rig.clock.now
    rig.instance.disconnected()
    for _ in range(6):
        left = rig.left(TimerName.CONNECT)
        assert left is not None
        rig.advance(left)
        rig.instance.disconnected()
    assert since(rig, start)[-6:] == [0, 0.2, 0.4, 1.3, 3.3, 7.3]


def test_rubbish_is_no_proof(rig):
    """Only messages count, and rubbish is none."""
    rig.connect()
    rig.instance.received(b"\nrubbish\n")
    rig.instance.disconnected()
    rig.advance(1)
    rig.instance.received(b"\nrubbish\n")
    rig.instance.disconnected()
    assert rig.instance.connection.failures == 2


def test_a_connection_that_worked_is_tried_again_after_the_gap():
    """After a connection that had worked is closed, wait at least 200 ms."""
    rig = Rig().beat()
    rig.instance.disconnected()
    assert rig.out() == ["disconnect", STOPPED]
    rig.advance(0.199)
    assert rig.out() == []
    rig.advance(0.001)
    assert rig.out() == ["connect"]


@pytest.mark.parametrize("news", ["file_found", "file_changed", "file_replaced"])
def test_no_news_shortens_the_gap(news):
    """At least 200 ms: with no gap the guest misses the hang-up."""
    rig = Rig().beat()
    rig.instance.disconnected()
    rig.out()
    getattr(rig.instance, news)()
    rig.notify("resume")
    assert rig.out() == []
    rig.advance(0.2)
    assert rig.out() == ["connect"]


def test_replaced_file_is_connected_anew():
    """QEMU killed and restarted on the same path: the old channel is closed, the new opened."""
    rig = Rig().beat()
    rig.instance.file_replaced()
    assert rig.out() == ["disconnect", STOPPED]
    rig.advance(0.2)
    assert rig.out() == ["connect"]


@pytest.mark.parametrize("news", ["file_found", "file_changed"])
def test_a_connected_channel_heeds_no_news(news):
    """Modified/attribute change → if not connected, retry at once: else nothing."""
    rig = Rig().beat()
    getattr(rig.instance, news)()
    rig.instance.timer_rang(TimerName.CONNECT)
    assert rig.out() == []


def test_a_new_connection_starts_with_an_empty_tail():
    """Keeps an incomplete tail for the next read, per connection."""
    rig = Rig().beat()
    rig.instance.received(b'\n{"version":')
    rig.instance.disconnected()
    rig.advance(1)
    rig.out()
    rig.say(init())
    assert rig.out() == ["init_ack", "challenge"]
    assert not rig.port.bad


def test_file_gone_forgets_what_nobody_named(rig):
    """Deleted or moved out → close and forget."""
    rig.connect()
    rig.say(init())
    rig.answer()
    rig.out()
    rig.instance.file_gone()
    assert rig.out() == ["disconnect", STOPPED, "forget"]
    assert rig.port.timers == {}


def test_enoent_is_gone(rig):
    """`ENOENT` means that the channel is gone: forget it."""
    rig.port.connects = Attempt.GONE
    rig.instance.file_found()
    assert rig.out() == ["connect", "forget"]
    assert rig.port.timers == {}


def test_enoent_at_a_retry_is_gone(rig):
    """Also when it was there before."""
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    rig.port.connects = Attempt.GONE
    rig.advance(100)
    assert rig.out() == ["connect", "connect", "forget"]


@pytest.mark.parametrize("reporting", [True, False])
def test_provisioned_instance_outlives_its_file(reporting):
    """Unless guestAgent has provisioned it: kept with its reporting, unconnected."""
    rig = Rig(reporting=reporting)
    rig.instance.provision(reporting)
    rig.beat()
    rig.instance.file_gone()
    rig.advance(1000)
    assert rig.out() == ["disconnect", STOPPED]
    assert rig.instance.reports.reporting is reporting
    assert not rig.instance.connection.connected
    rig.instance.file_found()
    assert rig.out() == ["connect"]


def test_named_after_its_file_went(rig):
    """ADD_INST first, file later: wait for the file."""
    rig.instance.provision(True)
    rig.instance.file_gone()
    rig.advance(1000)
    assert rig.out() == []


# The 120 s reconnect


def test_silent_channel_is_reconnected_each_two_minutes(rig):
    """Connected for 120 s with no heartbeating: close and reconnect (and again each 120 s)."""
    start = rig.clock.now
    rig.instance.file_found()
    rig.advance(361)
    assert since(rig, start) == [0, 120.2, 240.4, 360.6]


def test_two_minutes_count_from_the_last_valid_message(rig):
    """The 120 s reconnect counts from the last valid message (decision 7)."""
    rig.connect()
    rig.advance(100)
    rig.say(leaving())
    rig.out()
    rig.advance(119.9)
    assert rig.out() == []
    rig.advance(0.3)
    assert rig.out() == ["disconnect", "connect"]


def test_bad_messages_do_not_count(rig):
    """... the last *valid* message."""
    rig.connect()
    rig.out()
    rig.advance(100)
    rig.instance.received(b"\n{}\n")
    assert rig.out() == ["nack"]
    rig.advance(20)
    assert rig.out() == ["disconnect"]


def test_a_heartbeating_guest_is_never_reconnected():
    """With no heartbeating: a heartbeating one stays connected."""
    rig = Rig().beat()
    rig.beats(500)
    assert set(rig.out()) == {"challenge"}


def test_two_minutes_after_a_heartbeat_ended():
    """Counted from the last valid message, wherever the clock of the connection stood."""
    rig = Rig().beat(heartbeat_interval_ms=1000)
    rig.beats(115)
    end = rig.clock.now
    rig.say(leaving())
    rig.out()
    rig.port.attempts.clear()
    rig.advance(200)
    assert since(rig, end) == [120.2]


def test_two_minutes_after_a_slow_guest_was_lost():
    """Counted from the last valid message: the answer before the loss, interval 50 s."""
    rig = Rig(threshold=0).beat(heartbeat_interval_ms=50_000)
    answered = rig.clock.now
    rig.port.attempts.clear()
    rig.advance(130)
    assert since(rig, answered) == [120.2]


def test_two_minutes_after_a_slow_guest_was_lost_later():
    """Counted from the last valid message, not from when the timer last looked."""
    rig = Rig(threshold=0).beat(heartbeat_interval_ms=50_000)
    rig.advance(50)
    rig.answer()
    answered = rig.clock.now
    rig.port.attempts.clear()
    rig.advance(130)
    assert since(rig, answered) == [120.2]


def test_not_while_silence_is_expected():
    """And not while silence is expected."""
    rig = Rig().beat()
    rig.notify("pause")
    rig.say(action_response("pause", "irrevocable", "complete"))
    rig.out()
    rig.advance(1000)
    assert rig.out() == [STOPPED]


def test_again_once_silence_is_no_longer_expected():
    """The channel of a guest that does not come back is reconnected again."""
    rig = Rig().beat()
    rig.notify("pause")
    rig.say(action_response("pause", "irrevocable", "complete"))
    rig.advance(1000)
    rig.notify("unpause")
    rig.out()
    rig.advance(121)
    assert "disconnect" in rig.out()


# Suspend


def suspended() -> Rig:
    rig = Rig().beat()
    rig.notify("suspend")
    rig.say(action_response("suspend", "irrevocable", "complete"))
    assert set(rig.out()) == {"action_notify", "disconnect", STOPPED, VOTE_NOTIFY}
    return rig


def test_after_suspend_reconnect_after_ten_seconds():
    """After `suspend`, reconnect after 10 s."""
    rig = suspended()
    rig.advance(9.9)
    assert rig.out() == []
    rig.advance(0.1)
    assert rig.out() == ["connect"]


def test_after_suspend_reconnect_at_a_post_event_notification():
    """... or at a post-event notification."""
    rig = suspended()
    rig.advance(3)
    rig.notify("resume")
    assert rig.out() == ["connect"]


def test_what_follows_a_suspend_in_the_same_read_is_dropped():
    """Nothing is sent to a closed channel, nothing is read from it."""
    rig = Rig().beat()
    rig.notify("suspend")
    rig.say(action_response("suspend", "irrevocable", "complete"), init())
    assert "init_ack" not in rig.out()


def test_suspend_vote_disconnects_nobody():
    """Not after a vote: nothing has happened yet."""
    rig = Rig().beat()
    rig.vote("suspend")
    rig.say(action_response("suspend", "revocable", "accept"))
    assert rig.out() == ["action_notify", VOTE_NOTIFY]
    assert rig.instance.connection.connected


def test_suspend_of_a_channel_that_is_being_retried(rig):
    """The instance is suspended all the same: rest 10 s."""
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    rig.out()
    rig.notify("suspend")
    assert rig.out() == [VOTE_NOTIFY]
    assert rig.left(TimerName.CONNECT) == 10


def test_suspend_of_an_instance_without_file(rig):
    """There is nothing to retry."""
    rig.instance.provision(True)
    rig.notify("suspend")
    rig.advance(100)
    assert rig.out() == [VOTE_NOTIFY]


# Delete


@pytest.mark.parametrize("state", ["absent", "waiting", "connected", "heartbeating"])
def test_delete_leaves_nothing_behind(state):
    """DEL forgets the instance and closes the channel; every timer is cancelled."""
    rig = Rig()
    if state == "waiting":
        rig.port.connects = Attempt.REFUSED
        rig.instance.file_found()
    elif state == "connected":
        rig.connect()
    elif state == "heartbeating":
        rig.beat()
    connected = rig.instance.connection.connected
    rig.out()
    rig.instance.delete()
    assert rig.out() == (["disconnect"] if connected else [])
    assert rig.port.timers == {}


@pytest.mark.parametrize("how", ["idle", "replaced", "suspend"])
def test_a_deliberate_hang_up_is_no_failure(how):
    """Closed by us: the backoff starts from its beginning, also where nothing ever came."""
    rig = Rig(reporting=False)
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    rig.advance(40)
    rig.port.connects = Attempt.OPENED
    rig.advance(60)
    assert rig.instance.connection.connected
    rig.port.connects = Attempt.REFUSED
    rig.port.attempts.clear()
    if how == "idle":
        rig.advance(85)
    elif how == "replaced":
        rig.instance.file_replaced()
    else:
        rig.notify("suspend")
    assert not rig.instance.connection.connected
    rig.advance(11 if how == "suspend" else 1.2)
    first = rig.port.attempts[0]
    assert since(rig, first)[:3] == [0, 0.1, 1.0]
