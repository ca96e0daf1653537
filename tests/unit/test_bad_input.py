"""protocol.md, "Bad input", through the state machines: each row."""

from __future__ import annotations

import pytest

from guestmtce.core.server.flow import Flow, Pace
from guestmtce.core.server.heartbeat import HeartbeatState
from guestmtce.core.server.machine import TimerName
from guestmtce.core.shared.condition import Condition
from guestmtce.core.shared.history import What
from tests.unit.core_support import Rig, action_response, answer, as_line, init, leaving, message


@pytest.fixture
def guest() -> Rig:
    """A heartbeating guest with a challenge outstanding."""
    rig = Rig().beat()
    rig.advance(1)
    rig.out()
    return rig


def counted(rig: Rig) -> int:
    return sum(rig.stats.bad_messages.values())


def assert_unharmed(rig: Rig) -> None:
    """Nothing that a guest sends may change how it is served after that."""
    assert rig.instance.heartbeat.state is HeartbeatState.WAITING_RESPONSE
    assert rig.instance.reports.terms.timeouts.vote == 9
    rig.answer()
    assert rig.instance.heartbeat.state is HeartbeatState.WAITING_CHALLENGE


@pytest.mark.parametrize(
    "data",
    [
        b"not JSON",
        b"[1]",
        b'{"a":' + b"[" * 8 + b"]" * 8 + b"}",
        b'{"log_msg":"' + b"x" * 1056 + b'"}',
        b"\xff\xff",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 5000])
def test_row_dropped(guest, data, size):
    """Not JSON, not an object, too deep, too long, not UTF-8: dropped, counted."""
    stream = b"\n" + data + b"\n"
    for at in range(0, len(stream), size):
        guest.instance.received(stream[at : at + size])
    assert guest.out() == []
    assert counted(guest) == 1
    assert len(guest.port.bad) == 1
    assert_unharmed(guest)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "failed to parse version"),
        (message("exit", version=...), "failed to parse version"),
        (message("exit", version="3"), "failed to parse version"),
        (message("exit", version=2), "Bad version: 2, expect version: 3"),
        (message("exit", revision=...), "failed to parse revision"),
        ({"version": 3, "revision": 1, "sequence": 1}, "failed to parse msg_type"),
        (message("exit", sequence=...), "failed to parse sequence"),
        (message("party"), "unsupported message type: party"),
        (init(vote_secs=...), "failed to parse vote_secs"),
        (init(vote_secs=1, corrective_action=5), "failed to parse corrective_action"),
        (init(vote_secs=-1), "failed to parse vote_secs"),
        (init(heartbeat_interval_ms=86_400_001), "failed to parse heartbeat_interval_ms"),
        (answer(101, log_msg=...), "failed to parse log_msg"),
        (answer(101.0), "failed to parse heartbeat_response"),
        (
            action_response("stop", "revocable", "accept", invocation_id=5),
            "Invocation id mismatch. Received: 5 expect: 1804289383",
        ),
    ],
)
def test_row_nacked(guest, members, text):
    """Counted, logged, and answered with a `nack` that carries the last invocation id."""
    guest.say(members)
    assert guest.out() == ["nack"]
    assert guest.last_sent["log_msg"] == text
    assert guest.last_sent["invocation_id"] == 1804289383
    assert counted(guest) == 1
    assert len(guest.port.bad) == 1
    assert_unharmed(guest)


def test_row_flood(guest):
    """More than 500 messages in a second: not read until that second is over, counted."""
    guest.instance.received(as_line({"version": 2}) * 600)
    assert not guest.port.reads
    guest.advance(0.99)
    assert 500 <= guest.out().count("nack") < 532
    assert not guest.port.reads
    assert guest.stats.bad_messages["rate"] == 1
    guest.advance(1)
    assert guest.stats.bad_messages["bad_version"] == 600, "nothing of what was read is lost"
    assert guest.port.reads


def test_a_wake_up_handles_32_messages(guest):
    """500 messages, 128 KiB and 32 messages a wake-up."""
    guest.instance.received(as_line({"version": 2}) * 40)
    assert guest.out() == ["nack"] * 32
    assert not guest.port.reads
    guest.advance(0.05)
    assert guest.out() == ["nack"] * 8
    guest.advance(0.05)
    assert guest.port.reads


def test_an_honest_guest_waits_for_nothing(guest):
    """An init and an answer in one read are no flood."""
    guest.say(init())
    number = guest.challenge
    guest.instance.received(as_line(answer(number)) + as_line(init()))
    assert guest.port.reads
    assert TimerName.READ not in guest.port.timers


@pytest.mark.parametrize(
    "data",
    [b"\n" * 20, b"\n" * 4096, b"x" * 4096, (b"x" * 2000 + b"\n") * 2, b"x\n" * 2048],
    ids=["empty lines", "more of them", "a line without end", "lines too long", "short lines"],
)
def test_whatever_it_is_made_of_a_flood_is_a_flood(guest, data):
    """Empty lines and endless ones count."""
    for _ in range(98):
        if guest.port.reads:
            guest.instance.received(data)
        guest.advance(0.01)
    assert not guest.port.reads
    assert guest.stats.bad_messages["rate"] == 1
    left = guest.left(TimerName.READ)
    assert left is not None
    assert left <= 0.021


def test_a_few_empty_lines_are_no_messages(guest):
    """Drops empty lines; each message is written between two."""
    guest.instance.received(b"\n" * 100)
    assert counted(guest) == 0
    assert guest.port.reads
    assert_unharmed(guest)


def flood(guest: Rig, seconds: int) -> None:
    for _ in range(seconds):
        while guest.port.reads:
            guest.instance.received(b"x\n" * 2048)
        guest.advance(1)


def test_no_miss_is_counted_for_time_in_which_we_did_not_read(guest):
    """Its answer may be in what we left unread: a guest that floods is not lost."""
    guest.say(init())
    guest.answer()
    flood(guest, 30)
    assert guest.stats.misses == 0
    assert guest.instance.heartbeat.heartbeating
    guest.advance(10)
    assert guest.stats.losses == 1, "silent, it is lost like any other"


def test_ten_seconds_of_flood_in_a_row_are_a_problem(guest):
    """Ten such seconds in a row are a problem of that name in the status."""
    flood(guest, 9)
    assert not guest.instance.flooding
    flood(guest, 2)
    assert guest.instance.flooding
    assert guest.instance.for_operator()["flooding"] is True
    guest.advance(2)
    assert not guest.instance.flooding
    flood(guest, 9)
    assert not guest.instance.flooding, "not in a row"


def bursts(guest: Rig, seconds: float, gap: float) -> None:
    """Something in the guest writes a few lines at once, and again, but within its share."""
    for _ in range(round(seconds / gap)):
        guest.instance.received(b"x\n" * 20)
        guest.advance(gap)


def test_what_was_read_long_ago_excuses_no_silence(guest):
    """A client that hangs beside a program that writes now and then is lost like any other."""
    guest.say(init())
    guest.answer()
    guest.advance(0.4)
    bursts(guest, 3, gap=1.0)
    assert guest.stats.losses == 1
    assert not guest.instance.flooding


def test_a_silence_that_cannot_be_judged_for_ten_seconds_is_a_problem(guest):
    """However little it says: while its answer may be unread, nobody would notice that it hangs."""
    guest.say(init())
    guest.answer()
    guest.port.notes.clear()
    bursts(guest, 11, gap=0.1)
    assert guest.stats.misses == 0
    assert not guest.instance.flooding
    bursts(guest, 60, gap=0.1)
    assert guest.stats.misses == 0
    assert guest.instance.flooding
    assert guest.instance.condition() is Condition.FLOODING
    assert "unnoticed" in guest.instance.diagnosis().detail
    assert "not lost" in list(guest.instance.memory.history)[-1].detail
    (line,) = [line for line in guest.port.notes if "not lost" in line]
    assert "10 s" in line


@pytest.mark.parametrize(
    "end",
    [
        lambda guest: guest.answer(),
        lambda guest: guest.say(init()),
        lambda guest: guest.advance(2.5),
        lambda guest: guest.instance.disconnected(),
    ],
    ids=["answer", "init", "misses", "disconnected"],
)
def test_it_is_one_no_longer_when_the_silence_is_judged(guest, end):
    guest.say(init())
    guest.answer()
    bursts(guest, 30, gap=0.1)
    assert guest.instance.flooding
    end(guest)
    assert not guest.instance.flooding


def test_those_that_flood_queue_up():
    """However many they are and whatever they cost, they take a quarter of the time."""
    pace, now = Pace(), 100.0
    waits = [pace.take(now, now + 0.003) for _ in range(100)]
    assert waits == pytest.approx([0.012 * (number + 1) for number in range(100)])
    assert pace.take(now + 10, now + 10.001) == pytest.approx(0.004), "nobody is left"


@pytest.mark.parametrize("handled", [4, 5])
def test_one_that_does_not_flood_is_not_in_their_queue(handled):
    pace = Pace()
    pace.take(0.0, 1.0)
    flow = Flow(pace)
    flow.begin(1.0)
    assert (flow.take(1.001, handled, 0, 400) > 0) == (handled > 4)


def test_ten_seconds_in_the_queue_are_a_flood_too():
    """With a hundred of them, none gets far enough to be over its own share."""
    pace = Pace()
    flow, now = Flow(pace), 0.0
    for _ in range(10):
        assert not flow.is_flooding(now)
        pace.take(now, now + 0.25)
        flow.begin(now)
        now += flow.take(now + 0.001, 32, 0, 4096)
    assert flow.is_flooding(now)


def test_a_flood_is_one_entry_of_the_history(guest):
    """What it says must not push out what answers why."""
    flood(guest, 9)
    kinds = [entry.what for entry in guest.instance.memory.history]
    assert kinds.count(What.REFUSED) == 1


def test_a_flood_that_ends_its_channel_leaves_nothing_behind(guest):
    """The guest's answer to `suspend` closes it: no time of waiting runs on."""
    guest.notify("suspend")
    answered = as_line(action_response("suspend", "irrevocable", "complete"))
    guest.instance.received(b"x\n" * 10 + answered)
    assert not guest.instance.connection.connected
    guest.check()


def test_what_was_read_of_a_flood_ends_with_its_channel(guest):
    """Nothing of an earlier connection is handled on the next one."""
    guest.instance.received(as_line({"version": 2}) * 40)
    guest.instance.disconnected()
    guest.out()
    guest.advance(60)
    assert "nack" not in guest.out()


def test_log_msg_that_is_not_escaped(guest):
    """The old client does not JSON-escape `log_msg`: understood all the same (decision 21)."""
    line = as_line(leaving())
    for text in (b'say "no"', b"tab\there", b"\x01", b"cut \xc3"):
        guest.instance.received(line.replace(b"bye", text))
    assert "nack" not in guest.out()
    assert counted(guest) == 0
    assert guest.instance.heartbeat.reason == "cut \ufffd"


def test_line_break_in_log_msg_is_two_bad_messages(guest):
    """A newline inside an unescaped text splits the message."""
    line = as_line(leaving()).replace(b"bye", b"by\ne")
    guest.instance.received(line)
    assert guest.out() == []
    assert counted(guest) == 2


def test_a_version_of_a_thousand_digits(guest):
    """Bounded encoding: the port checks that the nack is a message of at most 1056 bytes."""
    guest.instance.received(b'\n{"version":-' + b"9" * 1000 + b"}\n")
    assert guest.out() == ["nack"]
    assert_unharmed(guest)


def test_a_message_byte_by_byte(guest):
    """A guest whose bytes arrive one at a time heartbeats like any other."""
    for byte in as_line(answer(guest.challenge)):
        guest.instance.received(bytes([byte]))
    assert guest.instance.heartbeat.state is HeartbeatState.WAITING_CHALLENGE


def test_good_messages_between_bad_ones(guest):
    """A codec resynchronises after rubbish."""
    good = as_line(answer(guest.challenge))
    guest.instance.received(b"}{" * 900 + b"\n\xff\n" + good + b"null\n")
    assert guest.instance.heartbeat.state is HeartbeatState.WAITING_CHALLENGE
    assert counted(guest) == 3


def test_what_is_shown_of_a_bad_message_is_bytes(guest):
    """The port gets the line as it came; escaping it is the log's."""
    guest.instance.received(b"\n\x1b[2J\n")
    assert guest.port.bad == [("not_json", b"\x1b[2J")]


def test_reason_is_clean_and_bounded_on_its_way_to_the_agent(guest):
    """`reason` is guest text: control characters removed, at most 224 bytes."""
    guest.vote("stop")
    guest.say(action_response("stop", "revocable", "reject", "no\x00\n\x1b" + "é" * 120))
    assert guest.last_report["reason"] == "no" + "é" * 111
