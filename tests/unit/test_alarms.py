"""What a guest can make the VIM do (decisions 26 and 38), and that its reasons are kept (34)."""

from __future__ import annotations

import pytest

from guestmtce.core.server.machine import TimerName
from tests.unit.core_support import (
    ILLHEALTH,
    LOSS,
    RUNNING,
    STOPPED,
    UUID,
    Rig,
    action_response,
    init,
    leaving,
    message,
)

ALARMS = (LOSS, ILLHEALTH)


def alarms(rig: Rig) -> list[tuple[float, object, object]]:
    """Return what the agent was told of losses and illnesses: seconds, command, action."""
    return [
        (round(at - 5000, 3), command, members.get("repair-action"))
        for at, (command, members) in zip(rig.port.report_times, rig.port.reports)
        if command in ALARMS
    ]


def said(rig: Rig, *answers: tuple[str, str]) -> None:
    """The guest answers the challenge of each following second with health and action."""
    for health, action in answers:
        rig.advance(1)
        rig.answer(health, action)


WELL = ("healthy", "none")
REBOOT = ("unhealthy", "reboot")
STOP = ("unhealthy", "stop")
ILL = ("unhealthy", "none")


# Illness


def test_a_second_illness_is_told_when_the_ten_seconds_are_over():
    """Ill at 3 s, well at 6 s, ill at 9 s: the second is told at 13 s."""
    rig = Rig().beat()
    said(rig, WELL, WELL, REBOOT, REBOOT, REBOOT, WELL, WELL, WELL, REBOOT)
    assert alarms(rig) == [(3, ILLHEALTH, "reboot")]
    said(rig, ILL, ILL, ILL, ILL)
    assert alarms(rig) == [(3, ILLHEALTH, "reboot"), (13, ILLHEALTH, "reboot")]
    said(rig, *[ILL] * 30)
    assert len(alarms(rig)) == 2


def test_a_guest_that_is_well_again_by_then_is_not_ill():
    """Sent when the 10 s are over if the guest is still ill then."""
    rig = Rig().beat()
    said(rig, REBOOT, WELL, REBOOT, WELL, *[WELL] * 20)
    assert alarms(rig) == [(1, ILLHEALTH, "reboot")]
    assert rig.left(TimerName.ALARM) is None


def test_one_that_is_held_is_not_told_when_its_host_does_not_report_by_then():
    """Reporting may go off while an alarm waits: what is told counts at both levels."""
    rig = Rig().beat()
    said(rig, REBOOT, WELL, REBOOT)
    rig.worker.reporting = False
    said(rig, *[ILL] * 20)
    assert alarms(rig) == [(1, ILLHEALTH, "reboot")]


def test_a_loss_that_was_not_told_uses_up_no_share():
    """At most one in 10 s is told: one of which nobody heard is none."""
    rig = Rig(host=False).beat()
    rig.advance(3)
    assert rig.stats.losses == 1
    rig.worker.reporting = True
    rig.say(init())
    rig.advance(2)
    assert alarms(rig) == [(5, LOSS, None)]


def test_a_timer_that_rings_too_early_loses_no_alarm():
    """Sums of floats may fall short of the 10 s by a hair."""
    rig = Rig().beat()
    said(rig, REBOOT, WELL, REBOOT)
    rig.instance.timer_rang(TimerName.ALARM)
    said(rig, *[ILL] * 20)
    assert alarms(rig) == [(1, ILLHEALTH, "reboot"), (11, ILLHEALTH, "reboot")]


def test_a_guest_that_is_well_says_so_while_its_illness_is_owed():
    """RUNNING withdraws at guestAgent what it holds for the VIM, though no term has changed."""
    rig = Rig().beat()
    said(rig, REBOOT)
    rig.out()
    rig.worker.illness_over = lambda uuid: uuid == UUID
    said(rig, WELL)
    assert RUNNING in rig.out()
    rig.worker.illness_over = lambda _uuid: False
    said(rig, WELL)
    assert RUNNING not in rig.out()


def test_the_latest_order_is_the_one_that_is_kept():
    """Another action is told at once, and the older one that was held is no longer wanted."""
    rig = Rig().beat()
    said(rig, REBOOT, REBOOT, STOP, *[ILL] * 20)
    assert alarms(rig) == [(1, ILLHEALTH, "reboot"), (3, ILLHEALTH, "stop")]


def test_of_two_that_are_held_the_latest_is_told():
    """The server keeps the order (the latest)."""
    rig = Rig().beat()
    said(rig, REBOOT, STOP, STOP, REBOOT, *[ILL] * 20)
    assert alarms(rig)[2:] == [(11, ILLHEALTH, "reboot")]


@pytest.mark.parametrize("level", ["host", "instance"])
def test_what_is_held_is_not_told_with_reporting_off(level):
    """ILLHEALTH only while both levels report."""
    rig = Rig().beat()
    said(rig, REBOOT, WELL, REBOOT)
    if level == "host":
        rig.worker.reporting = False
    else:
        rig.instance.provision(False)
    rig.advance(60)
    assert len(alarms(rig)) == 1


@pytest.mark.parametrize("end", ["exit", "init", "disconnect", "delete", "pause"])
def test_an_illness_ends_with_what_ends_the_guest(end):
    """Ill means that its last answer was unhealthy; after these it has not answered."""
    rig = Rig(threshold=100).beat()
    said(rig, REBOOT, WELL, REBOOT)
    {
        "exit": lambda: rig.say(leaving()),
        "init": lambda: rig.say(init()),
        "disconnect": rig.instance.disconnected,
        "delete": rig.instance.delete,
        "pause": lambda: (
            rig.notify("pause"),
            rig.say(action_response("pause", "irrevocable", "complete")),
        ),
    }[end]()
    assert not rig.instance.heartbeat.ill
    assert rig.left(TimerName.ALARM) is None


# Loss


def lost(rig: Rig) -> None:
    """The guest says init, answers once, and is silent until it is lost."""
    rig.say(init())
    rig.answer()
    rig.advance(3)


def test_a_second_loss_is_told_when_the_ten_seconds_are_over():
    """At most one `failed` alarm in 10 s; STOPPED is no alarm and is told at once."""
    rig = Rig().connect()
    lost(rig)
    lost(rig)
    assert alarms(rig) == [(3, LOSS, None)]
    assert rig.out()[-1] == STOPPED
    rig.advance(60)
    assert alarms(rig) == [(3, LOSS, None), (13, LOSS, None)]


@pytest.mark.parametrize("end", ["init", "exit", "disconnect", "reporting", "delete"])
def test_a_loss_that_is_no_longer_true_is_not_told(end):
    """The guest is there again, said that it goes, or is no business of ours any more."""
    rig = Rig().connect()
    lost(rig)
    lost(rig)
    {
        "init": lambda: (rig.say(init()), rig.answer(), rig.beats(20)),
        "exit": lambda: rig.say(leaving()),
        "disconnect": rig.instance.disconnected,
        "reporting": lambda: rig.instance.provision(False),
        "delete": rig.instance.delete,
    }[end]()
    assert rig.left(TimerName.ALARM) is None
    assert len(alarms(rig)) == 1


def test_a_guest_that_gets_lost_on_purpose_is_bounded():
    """20 guests made 201 alarms in 14 s: now each has two."""
    rig = Rig(threshold=0).connect()
    start = rig.clock.now
    while rig.clock.now < start + 14:
        rig.say(init(heartbeat_interval_ms=400))
        rig.answer()
        rig.advance(0.81)
    assert len(alarms(rig)) == 2
    assert rig.stats.losses > 10


def test_loss_and_illness_have_a_limit_each():
    """One `failed` alarm, and one `unhealthy` alarm per action."""
    rig = Rig().beat()
    said(rig, REBOOT)
    rig.advance(3)
    assert [command for _at, command, _action in alarms(rig)] == [ILLHEALTH, LOSS]


def test_the_limit_is_each_instance_s_own():
    """Per instance."""
    for _ in range(2):
        rig = Rig().connect()
        lost(rig)
        assert len(alarms(rig)) == 1


# Reasons (decision 34)


def test_the_reason_of_an_illness_is_kept_and_told():
    """It goes into the log line and to guestctl, escaped; the wire has no room for it."""
    rig = Rig().beat()
    rig.advance(1)
    rig.answer("unhealthy", "reboot", log_msg="fan\u202e broken")
    assert rig.last_report["repair-action"] == "reboot"
    assert rig.port.whys[-1] == "fan broken"
    shown = rig.instance.for_operator()
    assert (shown["ill"], shown["reason"]) == (True, "fan broken")
    said(rig, WELL)
    shown = rig.instance.for_operator()
    assert (shown["ill"], shown["reason"]) == (False, "")


def test_a_repeat_without_text_does_not_wipe_the_reason():
    """The old client names reason and action once, then repeats `none`."""
    rig = Rig().beat()
    rig.advance(1)
    rig.answer("unhealthy", "reboot", log_msg="fan broken")
    said(rig, ILL)
    assert rig.instance.for_operator()["reason"] == "fan broken"


def test_a_loss_says_how_long_the_guest_was_silent_and_what_it_had_said():
    """The line that answers "why"."""
    rig = Rig().beat()
    rig.advance(1)
    rig.answer("unhealthy", "reboot", log_msg="fan broken")
    rig.advance(3)
    assert rig.port.whys[-1] == "no answer for 3.0 s, 2 misses; it had said: fan broken"
    rig.say(init())
    rig.advance(2)
    rig.advance(60)
    assert rig.port.whys[-1].startswith("no answer for 2.0 s, 2 misses")


def test_the_reason_of_an_exit_is_kept():
    """An exit's text, escaped."""
    rig = Rig().beat()
    rig.say(message("exit", log_msg="shutting down\u0007"))
    assert rig.instance.for_operator()["reason"] == "shutting down"
    assert rig.port.notes == ["the guest's client exits: shutting down"]
    assert rig.port.whys[-1] == "its client exits"


def test_the_reason_of_a_vote_is_kept():
    """What came of the last ask, for guestctl."""
    rig = Rig().beat()
    rig.vote("stop")
    rig.say(action_response("stop", "revocable", "reject", "busy \\ now"))
    assert rig.instance.for_operator()["last_vote"] == "revocable stop: reject busy \\\\ now"


def test_raw_text_of_an_old_client_loses_nobody():
    """A health script prints a tab, an escape or half a character: nothing happens."""
    rig = Rig().beat()
    for text in (b"a\tb", b"a\rb", b"\x1b[2J", b"caf\xe9", b"cut \xc3", b'say "no"', b"\x00"):
        rig.advance(1)
        line = (
            b'\n{"version":3,"revision":1,"msg_type":"challenge_response","sequence":2,'
            b'"heartbeat_response":%d,"heartbeat_health":"healthy","corrective_action":"none",'
            b'"log_msg":"%s"}\n' % (rig.challenge, text)
        )
        rig.instance.received(line)
    assert rig.stats.bad_messages == {}
    assert rig.stats.misses == 0
    assert {RUNNING} >= {command for command, _ in rig.port.reports}


def test_a_rejection_in_raw_text_is_a_rejection():
    """Its event script says no with a bare quote: `reject` with the cleaned reason."""
    rig = Rig().beat()
    rig.vote("stop")
    line = (
        b'\n{"version":3,"revision":1,"msg_type":"action_response","sequence":2,'
        b'"invocation_id":1804289383,"event_type":"stop","notification_type":"revocable",'
        b'"vote_result":"reject","log_msg":"no, "db"\tbusy"}\n'
    )
    rig.instance.received(line)
    assert rig.last_report["vote"] == "reject"
    assert rig.last_report["reason"] == 'no, "db"busy'


def test_a_nack_is_never_answered_by_a_nack():
    """Two that refuse each other would never end."""
    rig = Rig().connect()
    rig.out()
    for changes in ({}, {"version": 2}, {"revision": None}, {"sequence": "x"}):
        rig.say({**message("nack", invocation_id=1, log_msg="x"), **changes})
    assert rig.out() == []
    assert rig.stats.bad_messages == {"nack": 4}
