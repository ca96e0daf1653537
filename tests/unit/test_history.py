"""The memory of an instance: bounded, safe to print, in the order of what happened."""

from __future__ import annotations

import json
import sys
from collections import deque

import pytest

from guestmtce.core.shared.history import (
    ENTRIES,
    EXCHANGES,
    PAST_INSTANCES,
    Entry,
    Exchanges,
    History,
    Past,
    What,
)


class Wall:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_the_last_entries_are_kept_in_their_order():
    wall = Wall()
    history = History(wall)
    for number in range(ENTRIES + 10):
        wall.now += 1
        history.add(What.MISS, str(number))
    assert len(history) == ENTRIES
    assert next(entry.detail for entry in history) == "10"
    assert [entry["at"] for entry in history.for_operator()] == sorted(
        entry.at for entry in history
    )


def test_each_entry_is_passed_on_once():
    heard = []
    history = History(Wall(), heard.append)
    entry = history.add(What.ILL, "fan broken")
    assert heard == [entry]
    assert history.last(What.ILL, What.LOSS) == entry
    assert history.last(What.LOSS) is None


def test_a_guests_text_is_made_safe_and_cut():
    """Whatever a guest says, an entry is one printable line."""
    entry = History(Wall()).add(What.ILL, "a\nb\x1b[2J\u202e" + "x" * 1000)
    assert entry.detail.isprintable()
    assert len(entry.detail) < 300
    json.dumps(entry.for_operator())


def test_an_operator_sees_milliseconds():
    entry = History(lambda: 1_700_000_000.123_456).add(What.LOSS, "no answer")
    shown = {"at": 1_700_000_000.123, "what": "loss", "detail": "no answer"}
    assert entry.for_operator() == shown


def test_exchanges_say_direction_type_and_time():
    exchanges = Exchanges()
    exchanges.keep(1.0)
    exchanges.keep((1.0126, "< challenge_response", 0.0126))
    exchanges.keep((2.0, "< challenge_response, late", None))
    assert [exchange.for_operator() for exchange in exchanges.told(ahead=100.0)] == [
        {"at": 101.0, "what": "> challenge", "ms": None},
        {"at": 101.013, "what": "< challenge_response", "ms": 12.6},
        {"at": 102.0, "what": "< challenge_response, late", "ms": None},
    ]
    for number in range(EXCHANGES * 2):
        exchanges.keep(float(number))
    assert len(exchanges.told(ahead=0.0)) == EXCHANGES


@pytest.mark.parametrize("filling", ["x", "é", "雪", "\N{SLEEPING FACE}"])
@pytest.mark.parametrize("length", [0, 12, 20, 32, 100, 500])
def test_a_full_memory_of_one_instance_is_within_16_kib(length, filling):
    """The bound that the memory of 10,000 instances is planned with, however long the texts."""
    history, exchanges = History(Wall()), Exchanges()
    for number in range(ENTRIES * 2):
        history.add(What.ANSWERED, filling * length + str(number)[:length])
    for number in range(EXCHANGES * 2):
        exchanges.keep((1_700_000_000.0 + number, "< challenge_response", 0.01 + number))
    assert len(history) == ENTRIES or length > 20 or filling != "x"
    entries = sum(map(sys.getsizeof, (part for entry in history for part in (entry, *entry[::2]))))
    messages = len(exchanges.told(0.0)) * (sys.getsizeof((1, 2, 3)) + 2 * sys.getsizeof(1.5))
    rings = 2 * sys.getsizeof(deque([0] * ENTRIES))
    assert entries + messages + rings <= 16 * 1024


# What is remembered of instances that are not there


def event(number: int, uuid: str, **changes):
    entry = {"at": float(number), "what": "miss", "detail": "1 of 2", "uuid": uuid, "name": "vm"}
    return {**entry, **changes}


def test_an_earlier_run_is_remembered():
    past = Past([event(1, "a"), event(2, "b"), event(3, "a", what="loss", detail="x\x1b")])
    history = History(Wall())
    history.restore(past.take("a"))
    assert [(entry.at, entry.what, entry.detail) for entry in history] == [
        (1.0, What.MISS, "1 of 2"),
        (3.0, What.LOSS, "x\\x1b"),
    ]
    assert list(past.take("a")) == [], "it is taken once"
    assert [entry["at"] for entry in past.for_operator("b")] == [2.0]


def test_that_the_daemon_was_started_anew_stands_behind_what_it_remembers_of_before():
    restarted = Entry(5.0, What.RESTARTED, "guestServer")
    past = Past([event(1, "a"), event(2, "b")], restarted)
    assert [entry.what for entry in past.take("a")] == [What.MISS, What.RESTARTED]
    for uuid in ("b", "new"):
        past.put(uuid, [])
        assert list(past.take(uuid)) == [], "this run knew it already"
    assert list(past.take("never")) == []


@pytest.mark.parametrize(
    "wrong",
    [{}, {"uuid": 5}, event(1, "a", what="party"), event(1, "a", at="soon"), {"uuid": "a"}],
)
def test_what_is_no_entry_is_passed_over(wrong):
    """The file may have been written by another version, or by somebody."""
    assert Past([wrong]).for_operator("a") == []


def test_a_bounded_number_of_instances_is_remembered():
    past = Past(())
    for number in range(PAST_INSTANCES + 5):
        past.put(str(number), History(Wall()), f"vm-{number}")
    assert len(past.instances()) == PAST_INSTANCES
    assert past.instances()[0] == {"uuid": "5", "name": "vm-5"}
    assert past.name("4") == ""


def test_all_that_an_earlier_run_left_is_remembered():
    """A controller has more instances than that: the size of the file is the bound then."""
    past = Past(event(1, str(number)) for number in range(PAST_INSTANCES + 5))
    past.put("new", History(Wall()))
    assert len(past.instances()) == PAST_INSTANCES + 5
    assert past.for_operator("0") == []
    assert past.for_operator("1")


def test_of_which_nothing_was_heard_for_the_longest_goes_first():
    past = Past([event(1, "a"), event(2, "b"), event(3, "a")])
    assert [each["uuid"] for each in past.instances()] == ["b", "a"]


def test_a_name_is_remembered_that_the_guest_gave_once():
    """After a restart a lost guest says nothing, and people know it by its name all the same."""
    past = Past([event(1, "a", name=""), event(2, "a", name="web\x1b"), event(3, "a", name="")])
    assert past.name("a") == "web\\x1b"
    past.take("a")
    assert past.name("a") == ""
