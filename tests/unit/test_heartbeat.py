"""behaviour.md, "Heartbeat": init, challenge, response, miss, loss, exit."""

from __future__ import annotations

import pytest

from guestmtce.core.server.heartbeat import HeartbeatState
from guestmtce.core.server.machine import Attempt, TimerName
from guestmtce.core.shared.vocabulary import CorrectiveAction, Timeouts
from tests.unit.core_support import (
    ILLHEALTH,
    LOSS,
    RUNNING,
    STOPPED,
    UUID,
    Rig,
    answer,
    as_line,
    init,
    leaving,
)

WAITING_INIT = HeartbeatState.WAITING_INIT
WAITING_RESPONSE = HeartbeatState.WAITING_RESPONSE
WAITING_CHALLENGE = HeartbeatState.WAITING_CHALLENGE


@pytest.fixture
def guest() -> Rig:
    """A connected guest that has said nothing yet."""
    rig = Rig().connect()
    rig.out()
    return rig


@pytest.fixture
def beating() -> Rig:
    """A heartbeating guest, interval 1 s, that answered a moment ago."""
    return Rig().beat()


# init


def test_defaults_until_an_init():
    """Until an init: interval 1000 ms, timeouts 10 s, restart 120 s, action log."""
    terms = Rig().instance.reports.terms
    assert terms == ("", 1000, Timeouts(120, 10, 10, 10, 10), CorrectiveAction.LOG)


def test_first_cycle_of_a_guest(guest):
    """Answer init_ack, then at once a challenge; healthy: heartbeating, event RUNNING."""
    guest.say(init())
    assert guest.out() == ["init_ack", "challenge"]
    guest.answer()
    assert guest.out() == [RUNNING]
    guest.advance(0.999)
    assert guest.out() == []
    guest.advance(0.001)
    assert guest.out() == ["challenge"]


def test_init_applies_its_terms(guest):
    """init: apply name, interval, the five timeouts, corrective action, invocation id."""
    guest.say(init())
    timeouts = Timeouts(restart=301, shutdown=8, suspend=7, resume=14, vote=9)
    terms = ("vm-1", 1000, timeouts, CorrectiveAction.REBOOT)
    assert guest.instance.reports.terms == terms
    assert guest.instance.heartbeat.writer.invocation_id == 1804289383
    assert guest.port.sent[0]["invocation_id"] == 1804289383


def test_running_says_what_the_guest_asked_for(beating):
    """Instance information: keys in this order, all values strings."""
    assert list(beating.last_report.items()) == [
        ("hostname", "compute-0"),
        ("uuid", UUID),
        ("reporting", "enabled"),
        ("heartbeating", "enabled"),
        ("repair-action", "reboot"),
        ("restart-to", "301"),
        ("shutdown-to", "8"),
        ("suspend-to", "7"),
        ("resume-to", "14"),
        ("vote-to", "9"),
    ]


@pytest.mark.parametrize(
    ("asked", "given"), [(-5, 400), (0, 400), (399, 400), (400, 400), (401, 401)]
)
def test_interval_below_the_pulse_period_becomes_it(guest, asked, given):
    """`heartbeat_interval_ms` below `hbs_pulse_period`, 0 and negative included, becomes it."""
    guest.say(init(heartbeat_interval_ms=asked))
    assert guest.instance.reports.terms.interval_ms == given
    assert guest.left(TimerName.TICK) == given / 1000


def test_a_day_is_the_longest_interval(guest):
    """Over 86,400,000: nack."""
    guest.say(init(heartbeat_interval_ms=86_400_001))
    assert guest.out() == ["nack"]
    assert guest.last_sent["log_msg"] == "failed to parse heartbeat_interval_ms"
    guest.say(init(heartbeat_interval_ms=86_400_000))
    assert guest.left(TimerName.TICK) == 86_400


def test_bad_init_changes_nothing(beating):
    """A missing or wrong-typed body key: the instance's settings are unchanged."""
    before = beating.instance.reports.terms
    beating.say(init(name="other", vote_secs=1, corrective_action=...))
    assert beating.out() == ["nack"]
    assert beating.instance.reports.terms == before
    assert beating.instance.heartbeat.state is WAITING_CHALLENGE


def test_init_while_heartbeating_is_served_at_once(beating):
    """Served at once; heartbeating stays what it was; nothing new, so no second RUNNING."""
    beating.say(init())
    assert beating.out() == ["init_ack", "challenge"]
    assert beating.instance.heartbeat.heartbeating
    beating.answer()
    assert beating.out() == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "vm-2"},
        {"vote_secs": 1},
        {"shutdown_notice_secs": 1},
        {"suspend_notice_secs": 1},
        {"resume_notice_secs": 1},
        {"restart_secs": 1},
        {"corrective_action": "stop"},
    ],
)
def test_changed_terms_are_told_by_running(beating, change):
    """If name, timeouts or action changed, the next healthy answer reports RUNNING again."""
    beating.say(init(**change))
    assert beating.out() == ["init_ack", "challenge"]
    beating.answer()
    assert beating.out() == [RUNNING]
    beating.beats(3)
    assert RUNNING not in beating.out()


def test_changed_interval_is_not_the_agents_business(beating):
    """Only name, timeouts or action make RUNNING come again."""
    beating.say(init(heartbeat_interval_ms=2000))
    beating.answer()
    assert beating.out() == ["init_ack", "challenge"]


def test_terms_changed_and_changed_back_before_an_answer(beating):
    """RUNNING is compared with what the agent was told, not with the init before."""
    beating.say(init(vote_secs=1), init())
    beating.answer()
    assert RUNNING not in beating.out()


def test_an_unhealthy_answer_owes_the_running_still(beating):
    """The next *healthy* answer reports RUNNING again."""
    beating.say(init(vote_secs=1))
    beating.answer("unhealthy")
    beating.advance(1)
    beating.answer()
    assert beating.out() == ["init_ack", "challenge", "challenge", RUNNING]


def test_init_in_each_state_starts_the_cycle(guest):
    """init in any state: challenge; misses = 0; waiting_response."""
    for seconds in (0, 1.5, 5, 100):
        guest.advance(seconds)
        guest.out()
        guest.say(init())
        assert guest.out() == ["init_ack", "challenge"]
        assert guest.instance.heartbeat.state is WAITING_RESPONSE
        assert guest.instance.heartbeat.misses == 0


def test_init_restarts_the_interval(beating):
    """The interval timer runs from each challenge."""
    beating.advance(0.9)
    beating.say(init())
    assert beating.left(TimerName.TICK) == 1.0


def test_sequence_counts_our_messages():
    """`sequence` counts our messages per instance from 1, across connections."""
    rig = Rig().beat()
    rig.instance.disconnected()
    rig.advance(1)
    rig.say(init())
    assert [m["sequence"] for m in rig.port.sent] == [1, 2, 3, 4]


def test_only_a_challenge_may_be_dropped(guest):
    """A full buffer drops the oldest challenge first."""
    guest.say(init(), {"version": 3})
    guest.answer()
    guest.vote("stop")
    kinds = [m["msg_type"] for m in guest.port.sent]
    assert list(zip(kinds, guest.port.droppable)) == [
        ("init_ack", False),
        ("challenge", True),
        ("nack", False),
        ("action_notify", False),
    ]


# challenge_response


def test_healthy_answer_clears_the_misses(beating):
    """Number equal, healthy: misses = 0, waiting_challenge."""
    beating.advance(2)
    assert beating.instance.heartbeat.misses == 1
    beating.answer()
    assert beating.instance.heartbeat.misses == 0
    assert beating.instance.heartbeat.state is WAITING_CHALLENGE
    assert beating.out() == ["challenge", "challenge"]


def test_unhealthy_answer_does_not_make_it_heartbeating(guest):
    """Same state change (the guest is alive; it does not make it heartbeating)."""
    guest.say(init())
    guest.answer("unhealthy")
    assert guest.out() == ["init_ack", "challenge"]
    assert not guest.instance.heartbeat.heartbeating
    assert guest.instance.heartbeat.state is WAITING_CHALLENGE


def test_unhealthy_answer_does_not_end_heartbeating(beating):
    """A guest that is ill is alive: its misses are cleared, and it stays heartbeating."""
    beating.advance(2)
    beating.answer("unhealthy")
    assert beating.instance.heartbeat.misses == 0
    assert beating.instance.heartbeat.heartbeating


@pytest.mark.parametrize("action", ["reboot", "stop", "log"])
def test_illhealth_names_the_action_of_the_response(beating, action):
    """ILLHEALTH's repair-action is the unhealthy response's; it changes nothing stored."""
    beating.advance(1)
    beating.answer("unhealthy", action)
    assert beating.out() == ["challenge", ILLHEALTH]
    assert beating.last_report["repair-action"] == action
    assert beating.instance.reports.terms.corrective_action is CorrectiveAction.REBOOT


@pytest.mark.parametrize("action", ["none", "unknown", "explode", ""])
def test_no_illhealth_without_an_action(beating, action):
    """If the response names an action (not `none`, not `unknown`): event ILLHEALTH."""
    beating.advance(1)
    beating.answer("unhealthy", action)
    assert beating.out() == ["challenge"]


def test_action_of_a_healthy_answer_is_ignored(beating):
    """`corrective_action` is present in healthy responses too: ignore it there."""
    beating.advance(1)
    beating.answer("healthy", "reboot")
    assert beating.out() == ["challenge"]


@pytest.mark.parametrize(("host", "instance"), [(False, True), (True, False), (False, False)])
def test_no_illhealth_unless_both_levels_report(host, instance):
    """ILLHEALTH if host-level and instance-level reporting are on."""
    rig = Rig(host=host, reporting=instance).beat()
    rig.advance(1)
    rig.answer("unhealthy", "reboot")
    assert rig.out() == ["challenge"]


def test_illhealth_at_most_once_in_ten_seconds_for_an_action(beating):
    """At most one in 10 s per instance unless the action differs."""
    told = []
    for second in range(1, 22):
        beating.advance(1)
        beating.answer("unhealthy", "reboot")
        if ILLHEALTH in beating.out():
            told.append(second)
    assert told == [1, 11, 21]


def test_another_action_is_another_illhealth(beating):
    """At most one ILLHEALTH in 10 s and action: going back to the first is no news."""
    for action in ("reboot", "stop", "reboot", "stop", "log"):
        beating.advance(1)
        beating.answer("unhealthy", action)
    told = [m["repair-action"] for command, m in beating.port.reports if command is ILLHEALTH]
    assert told == ["reboot", "stop", "log"]


def test_illhealth_held_back_by_reporting_is_told_once_it_is_on():
    """Only what was reported counts for the 10 s."""
    rig = Rig(host=False).beat()
    rig.advance(1)
    rig.answer("unhealthy", "reboot")
    rig.worker.reporting = True
    rig.advance(1)
    rig.answer("unhealthy", "reboot")
    assert rig.out() == ["challenge", "challenge", ILLHEALTH]


def test_unknown_health_word_counts_as_unhealthy_and_is_logged(beating):
    """An unknown health word counts as unhealthy, logged."""
    beating.advance(1)
    beating.answer("peachy", "reboot")
    assert beating.out() == ["challenge", ILLHEALTH]
    assert len(beating.port.notes) == 1
    assert beating.stats.unhealthy == 1


@pytest.mark.parametrize("back", [1, 2, 5])
def test_answer_to_one_of_the_last_six_challenges_is_late(back):
    """Equal to one of the last 6 challenges but not the newest: late, counted, no answer."""
    rig = Rig(threshold=10).beat()
    rig.advance(8)
    before = rig.instance.heartbeat.misses
    rig.out()
    rig.say(answer(rig.challenge - back))
    assert rig.out() == []
    assert (rig.stats.late_responses, rig.stats.wrong_responses) == (1, 0)
    assert rig.instance.heartbeat.misses == before
    assert rig.instance.heartbeat.state is WAITING_RESPONSE


@pytest.mark.parametrize("off", [-6, -7, 1, 1000])
def test_any_other_number_is_wrong(off):
    """Any other number: wrong, counted, no answer."""
    rig = Rig(threshold=10).beat()
    rig.advance(8)
    rig.out()
    rig.say(answer(rig.challenge + off))
    assert rig.out() == []
    assert (rig.stats.late_responses, rig.stats.wrong_responses) == (0, 1)


def test_late_answers_do_not_save_a_guest(beating):
    """The window is the guest's own promise, and the threshold is its tolerance."""
    first = beating.challenge
    beating.advance(1)
    for _ in range(2):
        first = beating.challenge
        beating.advance(1)
        beating.say(answer(first))
    assert beating.out() == ["challenge", "challenge", STOPPED, LOSS]


def test_backlog_in_one_burst_ends_with_the_newest(beating):
    """After resume the guest answers the whole backlog in one burst."""
    rig = Rig(threshold=100).beat()
    rig.advance(20)
    newest = rig.challenge
    rig.out()
    rig.instance.received(b"".join(as_line(answer(n)) for n in range(newest - 19, newest + 1)))
    assert rig.out() == []
    assert rig.instance.heartbeat.misses == 0
    assert rig.instance.heartbeat.state is WAITING_CHALLENGE


def test_answer_in_any_other_state_is_ignored_and_counted(guest):
    """In any other state: ignored, counted."""
    guest.say(answer(1))
    guest.say(init())
    guest.answer()
    guest.out()
    guest.answer()
    assert guest.out() == []
    assert guest.stats.unexpected_responses == 2
    assert guest.stats.heartbeats == 1


def test_response_time_is_measured():
    """Metrics: guestmtce_response_seconds, from challenge to answer."""
    rig = Rig().connect()
    seconds: list[float] = []
    rig.stats.on_response = seconds.append
    rig.say(init())
    rig.advance(0.25)
    rig.answer()
    assert seconds == [pytest.approx(0.25)]


# Whose silence?


def test_a_late_tick_is_our_silence(beating):
    """Later than half its interval: no miss is counted, a new challenge is sent."""
    beating.advance(1)
    beating.out()
    beating.stall(1.51)
    assert beating.out() == ["stalled", "challenge"]
    assert beating.instance.heartbeat.misses == 0
    assert beating.stats.host_stalls == 1
    beating.advance(1)
    assert beating.instance.heartbeat.misses == 1


def test_half_an_interval_late_is_still_a_miss(beating):
    """Only a tick *later* than half its interval is ours."""
    beating.advance(1)
    beating.out()
    beating.stall(1.5)
    assert beating.out() == ["challenge"]
    assert beating.instance.heartbeat.misses == 1


def test_a_hundred_stalls_are_no_loss(beating):
    """Our process starved: the silence is ours, however often."""
    for _ in range(100):
        beating.stall(1.6)
    assert STOPPED not in beating.out()
    assert beating.stats.host_stalls == 100


def test_a_stall_while_nothing_is_outstanding(beating):
    """A new challenge is sent, from waiting_challenge too."""
    beating.stall(30)
    assert beating.out() == ["stalled", "challenge"]
    assert beating.instance.heartbeat.state is WAITING_RESPONSE


def test_lateness_is_measured(beating):
    """Metrics: guestmtce_challenge_lateness_seconds."""
    late: list[float] = []
    beating.stats.on_lateness = late.append
    beating.stall(1.25)
    assert late == [pytest.approx(0.25)]


# miss and loss


@pytest.mark.parametrize("threshold", [0, 1, 2, 5])
def test_loss_is_beyond_the_threshold(threshold):
    """misses > threshold is loss: STOPPED, then LOSS; a new challenge for each miss before."""
    rig = Rig(threshold=threshold).beat()
    rig.advance(100)
    assert rig.out() == ["challenge"] * (threshold + 1) + [STOPPED, LOSS]
    assert rig.instance.heartbeat.failures == 1
    assert rig.stats.misses == threshold + 1
    assert rig.stats.losses == 1
    assert rig.instance.heartbeat.state is WAITING_INIT


def test_loss_comes_two_intervals_after_the_unanswered_challenge(beating):
    """With threshold 1 and interval T a silent guest is lost 2T after it."""
    beating.advance(1)
    assert beating.out() == ["challenge"]
    beating.advance(1.999)
    assert beating.out() == ["challenge"]
    beating.advance(0.001)
    assert beating.out() == [STOPPED, LOSS]


def test_loss_names_host_and_instance(beating):
    """LOSS `{"hostname":"compute-0","uuid":"U"}`; STOPPED has the whole information."""
    beating.advance(3)
    stopped, loss = beating.port.reports[-2:]
    assert stopped[1]["heartbeating"] == "disabled"
    assert loss == (LOSS, {"hostname": "compute-0", "uuid": UUID})


def test_silent_right_after_init_is_loss_alone(guest):
    """Loss reports STOPPED only if heartbeating was true."""
    guest.say(init())
    guest.advance(10)
    assert guest.out() == ["init_ack", "challenge", "challenge", LOSS]


def test_host_level_reporting_off_is_stopped_without_loss():
    """Event LOSS only if host-level and instance-level reporting are both on."""
    rig = Rig(host=False).beat()
    rig.advance(100)
    assert rig.out() == ["challenge", "challenge", STOPPED]
    assert rig.instance.heartbeat.failures == 1


def test_instance_reporting_off_is_stopped_at_the_first_silence():
    """If instance reporting is off: heartbeating = false (STOPPED), waiting_init."""
    rig = Rig(reporting=False).beat()
    rig.advance(100)
    assert rig.out() == ["challenge", STOPPED]
    assert (rig.instance.heartbeat.failures, rig.instance.heartbeat.misses) == (0, 0)
    assert rig.instance.heartbeat.state is WAITING_INIT


def test_never_heartbeating_and_not_reporting_is_silence():
    """STOPPED if it was true: else nothing."""
    rig = Rig(reporting=False).connect()
    rig.say(init())
    rig.advance(10)
    assert rig.out() == ["connect", "init_ack", "challenge"]


def test_a_lost_guest_gets_no_challenge_and_comes_back_by_init(beating):
    """After loss `waiting_init`; an init starts anew, and RUNNING is news again."""
    beating.advance(60)
    beating.out()
    beating.say(init())
    beating.answer()
    assert beating.out() == ["init_ack", "challenge", RUNNING]


def test_tick_in_waiting_init_is_nothing(guest):
    """The interval timer rings in `waiting_init`: nothing."""
    guest.instance.timer_rang(TimerName.TICK, 0.0)
    guest.instance.timer_rang(TimerName.TICK, 9.0)
    assert guest.out() == []


def test_misses_need_not_be_in_a_row_with_answers_between(beating):
    """An answer sets misses to 0: every second challenge missed is no loss."""
    for _ in range(20):
        beating.advance(2)
        beating.answer()
    assert STOPPED not in beating.out()


def test_threshold_can_change_while_running(beating):
    """SIGHUP applies what can change while running: threshold."""
    beating.set_threshold(3)
    beating.advance(100)
    assert beating.out() == ["challenge"] * 4 + [STOPPED, LOSS]


# exit, reporting, disconnect


def test_exit_is_stopped_and_no_loss(beating):
    """exit: heartbeating = false (STOPPED), `waiting_init`, no loss."""
    beating.say(leaving())
    beating.advance(100)
    assert beating.out() == [STOPPED]
    assert beating.instance.heartbeat.failures == 0


def test_exit_of_a_guest_that_never_was(guest):
    """STOPPED only if it was heartbeating."""
    guest.say(leaving())
    assert guest.out() == []


def test_reporting_off_stops(beating):
    """Reporting off: heartbeating = false (STOPPED if it was true), `waiting_init`."""
    beating.instance.provision(False)
    assert beating.out() == [STOPPED]
    assert beating.last_report["reporting"] == "disabled"
    beating.advance(100)
    assert beating.out() == []


def test_reporting_on_changes_nothing_else():
    """Turned on: nothing else changes."""
    rig = Rig(reporting=False).beat()
    rig.instance.provision(True)
    assert rig.out() == []
    rig.beats(5)
    assert rig.out() == ["challenge"] * 5


def test_reporting_on_counts_for_the_silence_that_runs():
    """With reporting on, misses are counted and loss is reported."""
    rig = Rig(reporting=False).beat()
    rig.instance.provision(True)
    rig.advance(3)
    assert rig.out() == ["challenge", "challenge", STOPPED, LOSS]


@pytest.mark.parametrize("reporting", [True, False])
def test_the_present_value_again_does_nothing(reporting):
    """MOD_INST with the present value does nothing (decision 18)."""
    rig = Rig(reporting=reporting).beat()
    rig.instance.provision(reporting)
    assert rig.out() == []
    assert rig.instance.heartbeat.heartbeating
    assert rig.instance.connection.provisioned


def test_disconnect_is_stopped_at_once_and_never_loss(beating):
    """Disconnect while heartbeating: STOPPED at once; no LOSS."""
    beating.port.connects = Attempt.REFUSED
    beating.instance.disconnected()
    assert beating.out() == ["disconnect", STOPPED]
    beating.advance(100)
    assert set(beating.out()) == {"connect"}
