"""Decision 7: after an irrevocable pause or suspend the guest's silence is no fault of its own."""

from __future__ import annotations

import pytest

from guestmtce.core.server.heartbeat import HeartbeatState
from guestmtce.core.server.machine import TimerName
from tests.unit.core_support import LOSS, STOPPED, VOTE_NOTIFY, Rig, action_response, init, leaving

WAITING_INIT = HeartbeatState.WAITING_INIT


def paused(event: str = "pause") -> Rig:
    """A heartbeating guest that was told of a pause, and answered."""
    rig = Rig().beat()
    rig.notify(event)
    rig.say(action_response(event, "irrevocable", "complete"))
    return rig


def test_pause_is_waiting_init_at_once_and_no_loss():
    """`pause` complete: `waiting_init` at once (a paused guest must not be lost)."""
    rig = paused()
    assert rig.out() == ["action_notify", VOTE_NOTIFY]
    assert rig.instance.heartbeat.state is WAITING_INIT
    assert rig.instance.heartbeat.heartbeating
    rig.advance(59.9)
    assert rig.out() == []
    rig.advance(0.1)
    assert rig.out() == [STOPPED]
    rig.advance(1000)
    assert rig.out() == []


@pytest.mark.parametrize(
    "end", [lambda rig: rig.say(leaving()), lambda rig: rig.instance.delete()], ids=["exit", "gone"]
)
def test_no_grace_runs_for_a_guest_that_has_nothing_to_come_back_from(end):
    rig = paused()
    end(rig)
    assert rig.left(TimerName.GRACE) is None


def test_accepted_pause_too_and_one_that_nobody_answers():
    """A notification may be answered `accept` as well; an irrevocable pause *ended* counts."""
    rig = Rig().beat()
    rig.notify("pause")
    rig.say(action_response("pause", "irrevocable", "accept"))
    assert rig.instance.heartbeat.state is WAITING_INIT
    rig = Rig(threshold=100).beat()
    rig.notify("pause")
    rig.advance(6.5)
    assert rig.instance.heartbeat.state is WAITING_INIT


def test_pause_vote_changes_nothing():
    """Not after a vote: nothing has happened yet."""
    rig = Rig().beat()
    rig.vote("pause")
    rig.say(action_response("pause", "revocable", "accept"))
    assert rig.out() == ["action_notify", VOTE_NOTIFY]
    rig.advance(3)
    assert rig.out() == ["challenge", "challenge", STOPPED, LOSS]


def test_init_before_the_pause_takes_effect_is_never_loss():
    """While silence is expected misses end in `waiting_init` with STOPPED, never LOSS."""
    rig = paused()
    rig.advance(5)
    rig.say(init())
    rig.answer()
    rig.out()
    rig.advance(300)
    assert rig.out() == ["challenge", "challenge", STOPPED]
    assert (rig.stats.losses, rig.stats.misses) == (0, 2)


def test_a_post_event_notification_ends_the_expected_silence():
    """Until the next post-event notification: then a silent guest is lost again."""
    rig = paused()
    rig.advance(5)
    rig.notify("unpause")
    rig.say(action_response("unpause", "irrevocable", "complete"))
    rig.say(init())
    rig.answer()
    rig.out()
    rig.advance(3)
    assert rig.out() == ["challenge", "challenge", STOPPED, LOSS]


def test_misses_of_the_expected_silence_do_not_count_after_it():
    """Loss only after threshold + 1 misses that were nobody's wish."""
    rig = paused()
    rig.say(init())
    rig.answer()
    rig.advance(2)
    assert rig.instance.heartbeat.misses == 1
    rig.notify("unpause")
    rig.out()
    rig.advance(1)
    assert rig.out() == ["challenge"]
    rig.advance(1)
    assert rig.out() == [STOPPED, LOSS]


def test_after_unpause_the_guest_has_ten_seconds():
    """Heartbeating must not stay true in `waiting_init`: STOPPED after max(10 s, ...)."""
    rig = paused()
    rig.advance(5)
    rig.notify("unpause")
    rig.say(action_response("unpause", "irrevocable", "complete"))
    rig.out()
    rig.advance(9.9)
    assert rig.out() == []
    rig.advance(0.1)
    assert rig.out() == [STOPPED]


def test_after_unpause_a_slow_guest_has_three_intervals():
    """... 3 intervals), of a guest whose interval is 8 s."""
    rig = Rig().beat(heartbeat_interval_ms=8000)
    rig.notify("pause")
    rig.say(action_response("pause", "irrevocable", "complete"))
    rig.notify("unpause")
    rig.say(action_response("unpause", "irrevocable", "complete"))
    rig.out()
    rig.advance(23.9)
    assert rig.out() == []
    rig.advance(0.1)
    assert rig.out() == [STOPPED]


def test_repeated_post_events_do_not_stretch_the_grace():
    """Heartbeating must not stay true in `waiting_init`, however often it is notified."""
    rig = paused()
    for _ in range(4):
        rig.notify("unpause")
        rig.say(action_response("unpause", "irrevocable", "complete"))
        rig.advance(4)
    assert STOPPED in rig.out()


def test_init_ends_the_grace():
    """The guest came back: heartbeating stands until the next answer or miss."""
    rig = paused()
    rig.say(init())
    assert rig.left(TimerName.GRACE) is None
    rig.answer()
    rig.out()
    rig.beats(70)
    assert set(rig.out()) == {"challenge"}


def test_sixty_seconds_of_answers_end_the_expected_silence():
    """... or 60 s of answered challenges."""
    rig = paused()
    rig.say(init())
    rig.answer()
    rig.beats(59)
    assert rig.instance.heartbeat.silence.expected
    rig.beats(1)
    assert not rig.instance.heartbeat.silence.expected
    rig.out()
    rig.advance(3)
    assert rig.out()[-1] is LOSS


def test_a_miss_starts_the_sixty_seconds_again():
    """60 s of answered challenges, not 60 s with a miss among them."""
    rig = paused()
    rig.say(init())
    rig.answer()
    rig.beats(40)
    rig.advance(2)
    rig.answer()
    rig.beats(40)
    assert rig.instance.heartbeat.silence.expected
    rig.beats(20)
    assert not rig.instance.heartbeat.silence.expected


@pytest.mark.parametrize("end", ["exit", "disconnect"])
def test_a_pause_in_the_answers_starts_the_sixty_seconds_again(end):
    """What was not asked was not answered: 10 s before a gap and one answer after is not 60."""
    rig = paused()
    rig.say(init())
    rig.answer()
    rig.beats(10)
    if end == "exit":
        rig.say(leaving())
    else:
        rig.instance.disconnected()
    rig.advance(100)
    rig.say(init())
    rig.answer()
    assert rig.instance.heartbeat.silence.expected


def test_reporting_on_again_ends_the_expected_silence():
    """The VIM switches reporting off, acts, and on again; an old agent sends nothing more."""
    rig = paused("suspend")
    rig.instance.provision(False)
    rig.advance(30)
    assert rig.instance.heartbeat.silence.expected
    rig.instance.provision(True)
    assert not rig.instance.heartbeat.silence.expected
    rig.beat()
    rig.advance(10)
    assert LOSS in rig.out()


def test_reporting_that_stays_on_ends_no_expected_silence():
    """ADD_INST and MOD_INST with the present value change nothing."""
    rig = paused()
    rig.instance.provision(True)
    assert rig.instance.heartbeat.silence.expected


def test_pause_of_a_guest_that_is_not_there():
    """Closed at once is ended, too: silence is expected, and nothing is to be stopped."""
    rig = Rig().connect()
    rig.notify("pause")
    assert rig.instance.heartbeat.silence.expected
    assert rig.left(TimerName.GRACE) is None
    assert rig.out() == ["connect", VOTE_NOTIFY]


def test_suspend_is_stopped_and_disconnected():
    """`suspend` complete: additionally disconnect, heartbeating false (STOPPED)."""
    rig = paused("suspend")
    assert sorted(map(str, rig.out()[1:])) == sorted(map(str, ["disconnect", STOPPED, VOTE_NOTIFY]))
    assert [command for command, _ in rig.port.reports[-2:]] == [STOPPED, VOTE_NOTIFY]
    assert rig.instance.heartbeat.state is WAITING_INIT


def test_a_stall_starts_the_sixty_seconds_again():
    """60 s of answered challenges: while this host stood still, none was sent."""
    rig = paused()
    rig.say(init())
    rig.answer()
    rig.stall(600)
    rig.answer()
    assert rig.instance.heartbeat.silence.expected


def test_a_flood_starts_the_sixty_seconds_again():
    """60 s of answered challenges: one that is excused was not answered."""
    rig = paused()
    rig.say(init())
    rig.answer()
    rig.beats(40)
    rig.instance.received(b"x\n" * 2048)
    rig.advance(1)
    rig.beats(40)
    assert rig.stats.misses == 0
    assert rig.instance.heartbeat.silence.expected
    rig.beats(30)
    assert not rig.instance.heartbeat.silence.expected


def test_suspend_expects_silence_too():
    """After an irrevocable `pause` or `suspend`: misses end in STOPPED, never LOSS."""
    rig = paused("suspend")
    rig.advance(10)
    rig.say(init())
    rig.answer()
    rig.out()
    rig.advance(100)
    assert LOSS not in rig.out()


@pytest.mark.parametrize("event", ["stop", "reboot", "resize_begin", "live_migrate_begin"])
def test_other_notifications_expect_nothing(event):
    """Only pause and suspend make silence expected; a guest lost in a migration is lost."""
    rig = paused(event)
    rig.out()
    rig.advance(3)
    assert rig.out()[-2:] == [STOPPED, LOSS]
