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
    return diagnosis.condition.value, diagnosis.detail


def test_a_life_without_trouble():
    rig = Rig().beat()
    rig.beats(10)
    assert remembered(rig) == [
        ("reporting", "on"),
        ("found", ""),
        ("connected", ""),
        ("init", "vm-1, each 1000 ms, reboot"),
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
    assert remembered(rig)[-3:] == [
        ("miss", "1 of 2"),
        ("stopped", ""),
        ("loss", f"silent for 3.0 s, 2 misses; {told}"),
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


@pytest.mark.parametrize(
    ("vote", "told"),
    [("accept", "revocable pause: accept, fine"), ("reject", "revocable pause: reject, fine")],
)
def test_a_vote_with_its_answer_and_reason(vote, told):
    rig = Rig().beat()
    rig.vote("pause")
    rig.say(action_response("pause", "revocable", vote, "fine"))
    assert remembered(rig)[-2:] == [("asked", "revocable pause, 9 s"), ("answered", told)]


def test_every_other_end_of_a_vote():
    rig = Rig().beat()
    rig.vote("pause")
    rig.beats(10)
    assert remembered(rig)[-1] == ("answered", "revocable pause: unanswered")
    rig.say(leaving())
    rig.vote("stop")
    assert remembered(rig)[-1] == ("answered", "revocable stop: closed, not heartbeating")


def test_a_pause_is_held_and_comes_back():
    rig = Rig().beat()
    rig.notify("pause")
    rig.say(action_response("pause", "irrevocable", "complete"))
    assert condition(rig) == ("held", "")
    rig.notify("unpause")
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
    assert messages[:3] == [("< init", None), ("> challenge", None), ("< challenge_response", 0.0)]
    assert messages[3:] == [
        ("> challenge", None),
        ("< challenge_response", 0.25),
        ("< challenge_response, unexpected", None),
    ]


def test_all_is_passed_on_once():
    rig = Rig().beat()
    rig.advance(5)
    assert rig.entries == list(rig.instance.memory.history)
