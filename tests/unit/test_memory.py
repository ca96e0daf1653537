"""What guestServer remembers of an instance: every kind of trouble is told, with its reason."""

from __future__ import annotations

import pytest

from guestmtce.core.server.machine import Attempt
from guestmtce.core.shared.history import What
from tests.unit.core_support import Rig, action_response, answer, leaving


def remembered(rig) -> list[tuple[str, str]]:
    return [(entry.what.value, entry.detail) for entry in rig.instance.memory.history]


def whats(rig) -> list[What]:
    return [entry.what for entry in rig.instance.memory.history]


def condition(rig) -> tuple[str, str]:
    diagnosis = rig.instance.diagnosis()
    assert rig.instance.condition() is diagnosis.condition, "metrics count what a table shows"
    return diagnosis.condition.value, diagnosis.detail


def test_a_life_without_trouble():
    rig = Rig().beat()
    rig.beats(10)
    assert remembered(rig) == [
        ("reporting", "on"),
        ("found", ""),
        ("connected", ""),
        ("init", "vm-1, each 1000 ms, action reboot"),
        ("heartbeating", ""),
    ]
    assert condition(rig) == ("ok", "")
    assert rig.instance.memory.last_answer == rig.wall.now


@pytest.mark.parametrize(
    ("rig", "told"),
    [
        (Rig, "reported, action reboot"),
        (lambda: Rig(host=False), "not reported: reporting of the host is off"),
    ],
)
def test_a_loss_says_how_long_it_was_silent_and_whether_it_is_told(rig, told):
    rig = rig().beat()
    rig.advance(5)
    assert remembered(rig)[-2:] == [
        ("miss", "1 of 2; last good answer 2.0 s ago (0 ms)"),
        ("loss", f"no answer for 3.0 s, 2 misses; {told}"),
    ]
    lost_at = rig.instance.memory.history.last(What.LOSS).at
    rig.advance(60)
    assert condition(rig) == ("lost", "")
    assert rig.instance.diagnosis().since == lost_at


def test_a_lost_guest_that_comes_back_is_no_longer_lost():
    rig = Rig().beat()
    rig.advance(5)
    rig.beat()
    assert condition(rig) == ("ok", "")
    assert whats(rig)[-3:] == [What.LOSS, What.INIT, What.HEARTBEATING]


def test_a_miss_that_is_made_good():
    rig = Rig().beat()
    rig.advance(2)
    assert condition(rig) == ("silent", "1 unanswered")
    rig.answer()
    assert condition(rig) == ("ok", "")


def test_an_illness_is_told_once_with_the_guest_s_own_text():
    """A guest says why it is ill at each answer: one entry when it begins, one when it ends."""
    rig = Rig().beat()
    for number in range(3):
        rig.advance(1)
        rig.answer("unhealthy", "reboot", log_msg=f"fan\tbroken {number}")
    assert remembered(rig)[-1] == ("ill", "fanbroken 0, action reboot")
    assert condition(rig) == ("ill", "fanbroken 2")
    rig.advance(1)
    rig.answer()
    assert remembered(rig)[-1] == ("well", "")
    assert condition(rig) == ("ok", "")


# How a vote or notify can end, each with what is remembered of it last.
ENDS = {
    "accepted": (
        lambda rig: rig.say(action_response("pause", "revocable", "accept", "fine")),
        ("answered", "revocable pause: accept, fine"),
    ),
    "rejected": (
        lambda rig: rig.say(action_response("pause", "revocable", "reject", "busy\x1b[2J")),
        ("answered", "revocable pause: reject, busy[2J"),
    ),
    "rejected without a reason": (
        lambda rig: rig.say(action_response("pause", "revocable", "reject")),
        ("answered", "revocable pause: reject"),
    ),
    "in error": (
        lambda rig: rig.say(action_response("pause", "revocable", "error", "no script")),
        ("answered", "revocable pause: error, no script"),
    ),
    "expired": (
        lambda rig: rig.beats(10),
        ("ended", "revocable pause: no answer in time, taken as accept"),
    ),
    "superseded": (
        lambda rig: rig.notify("stop"),
        ("ended", "revocable pause: superseded by irrevocable stop"),
    ),
    "client gone": (
        lambda rig: (rig.say(leaving()), rig.advance(10)),
        ("ended", "revocable pause: no answer in time, its client is gone, taken as accept"),
    ),
    "channel gone": (
        lambda rig: (setattr(rig.port, "connects", Attempt.REFUSED), rig.instance.disconnected(),
                     rig.advance(10)),
        ("ended", "revocable pause: no answer in time, its channel is closed, taken as accept"),
    ),
    "deleted": (
        lambda rig: rig.instance.delete(),
        ("ended", "revocable pause: its instance is deleted"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_each_end_of_a_vote(end):
    rig = Rig().beat()
    rig.vote("pause")
    assert remembered(rig)[-1] == ("asked", "revocable pause, 9 s")
    bring_about, told = ENDS[end]
    bring_about(rig)
    assert [each for each in remembered(rig) if each[0] in ("answered", "ended")] == [told]


def test_a_vote_that_nobody_can_be_asked():
    rig = Rig().beat()
    rig.say(leaving())
    rig.vote("stop")
    assert remembered(rig)[-2:] == [
        ("asked", "revocable stop, 9 s"),
        ("ended", "revocable stop: no client to ask, taken as accept"),
    ]


def test_a_notify_that_waits_for_a_guest_that_does_not_come_back():
    rig = Rig().beat()
    rig.say(leaving())
    rig.notify("resume")
    rig.advance(20)
    assert ("ended", "irrevocable resume: no answer in time, its client is gone, "
            "taken as complete") in remembered(rig)  # fmt: skip


# How an instance can be lost: what the guest does instead of answering.
LOSSES = {
    "no answer for 3.0 s": lambda _rig: None,
    "wrong answers only for 3.0 s": lambda rig: rig.say(answer(5)),
    "late answers only for 3.0 s": lambda rig: rig.say(answer(rig.challenge - 1)),
    "it does not read its channel for 3.0 s": lambda rig: setattr(rig.port, "full", True),
}


@pytest.mark.parametrize("why", LOSSES)
def test_each_kind_of_loss(why):
    rig = Rig().beat()
    for _ in range(3):
        rig.advance(1)
        LOSSES[why](rig)
    assert remembered(rig)[-1] == ("loss", f"{why}, 2 misses; reported, action reboot")
    assert rig.port.whys[-1] == f"{why}, 2 misses"


def test_a_channel_that_closes_is_no_loss_and_says_so():
    rig = Rig().beat()
    rig.instance.disconnected()
    rig.port.connects = Attempt.REFUSED
    assert remembered(rig)[-2:] == [("closed", ""), ("stopped", "its channel closed")]


# How a heartbeat can end without a loss, each with the reason that is remembered.
STOPS = {
    "silent, and not reported: reporting of the instance is off": lambda rig: (
        rig.instance.provision(False), rig.beat(), rig.advance(5)),
    "reporting of the instance is switched off": lambda rig: rig.instance.provision(False),
    "its client exits": lambda rig: rig.say(leaving()),
    "its channel closed": lambda rig: rig.instance.disconnected(),
    "suspended": lambda rig: (
        rig.notify("suspend"), rig.say(action_response("suspend", "irrevocable", "complete"))),
    "it has not come back": lambda rig: (
        rig.notify("pause"), rig.say(action_response("pause", "irrevocable", "complete")),
        rig.advance(70)),
}  # fmt: skip


@pytest.mark.parametrize("why", STOPS)
def test_each_end_of_a_heartbeat_says_why(why):
    rig = Rig().beat()
    STOPS[why](rig)
    assert ("stopped", why) in remembered(rig)


def test_what_a_guest_did_before_its_last_good_answer_is_no_reason():
    """A wrong answer that was made good is not why it is lost later."""
    rig = Rig().beat()
    rig.advance(1)
    rig.say(answer(5))
    rig.answer()
    rig.advance(4)
    assert remembered(rig)[-1][1].startswith("no answer for 3.0 s")


def test_a_loss_puts_its_last_messages_into_the_log():
    rig = Rig().beat()
    rig.beats(20)
    rig.instance.received(b"\n\x1b[2Jrubbish\n")
    rig.advance(3)
    (line,) = [note for note in rig.port.notes if note.startswith("lost; the last messages: ")]
    messages = line.partition(": ")[2].split("; ")
    assert len(messages) == 8
    assert messages[-3:] == [
        "3.0 s ago < refused: not_json",
        "2.0 s ago > challenge",
        "1.0 s ago > challenge",
    ]
    assert "3.0 s ago < challenge_response (0.0 ms)" in messages
    assert line.isprintable()


def test_a_pause_is_held_and_comes_back():
    rig = Rig().beat()
    rig.notify("pause")
    rig.say(action_response("pause", "irrevocable", "complete"))
    assert condition(rig) == ("held", "")
    rig.notify("unpause")
    assert condition(rig) == ("held", ""), "it has yet to say init"
    rig.beat()
    assert condition(rig) == ("ok", "")


def test_an_exit_says_why():
    rig = Rig().beat()
    rig.say(leaving())
    assert remembered(rig)[-2:] == [("exit", "bye"), ("stopped", "its client exits")]
    assert condition(rig) == ("stopped", "")


def test_a_channel_that_closes_and_a_file_that_goes():
    rig = Rig().beat()
    rig.port.connects = Attempt.REFUSED
    rig.instance.disconnected()
    assert condition(rig) == ("no channel", "")
    rig.instance.file_gone()
    assert whats(rig)[-3:] == [What.CLOSED, What.STOPPED, What.GONE]


def test_a_guest_that_boots():
    rig = Rig().connect()
    assert condition(rig) == ("booting", "")
    assert rig.instance.diagnosis().since == rig.wall.now


def test_the_last_messages_are_kept_with_their_times():
    rig = Rig().beat()
    rig.advance(1.0)
    rig.clock.now += 0.25
    rig.answer()
    rig.say(answer(rig.challenge))
    messages = [(exchange.what, exchange.secs) for exchange in rig.instance.memory.exchanges]
    assert messages[:2] == [("< init", None), ("> init_ack", None)]
    assert messages[2:4] == [("> challenge", None), ("< challenge_response", 0.0)]
    assert messages[4:] == [
        ("> challenge", None),
        ("< challenge_response", 0.25),
        ("< challenge_response, unexpected", None),
    ]


def test_all_is_passed_on_once():
    rig = Rig().beat()
    rig.advance(5)
    assert rig.entries == list(rig.instance.memory.history)
