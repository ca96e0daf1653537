"""guest-channel.md, "Bad input from a guest", through the state machines: each row."""

from __future__ import annotations

import pytest

from guestmtce.core.server.heartbeat import HeartbeatState
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
    assert rig.instance.heartbeat.terms.timeouts.vote == 9
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
    """More than 500 messages in a second: the excess is dropped and counted."""
    guest.instance.received(as_line({"version": 2}) * 600)
    assert len(guest.out()) == 500
    assert guest.stats.bad_messages["rate"] == 100
    guest.advance(0.5)
    guest.out()
    guest.say(init())
    assert guest.out() == []
    guest.advance(0.5)
    guest.out()
    guest.say(init())
    assert guest.out() == ["init_ack", "challenge"]


def test_flood_of_overlong_messages_is_a_flood(guest):
    """The limit counts messages of any kind."""
    guest.instance.received((b"x" * 2000 + b"\n") * 600)
    assert counted(guest) == 600
    assert guest.stats.bad_messages["rate"] == 100


def test_empty_lines_are_no_messages(guest):
    """Drops empty lines: they count for nothing."""
    guest.instance.received(b"\n" * 10_000)
    assert counted(guest) == 0
    assert_unharmed(guest)


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
