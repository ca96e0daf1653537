"""`/v1/events`: what a follower gets first, and what one who comes back has missed."""

from __future__ import annotations

import json

import pytest

from guestmtce.agent.stream import BEGIN, MISSED_BYTES, EventStream
from guestmtce.runtime.event_log import EventLog


@pytest.fixture
def events():
    events = EventLog(None)
    for number in range(1, 6):
        events.add({"what": "ill", "detail": f"fan {number}"})
    return events


def numbers(begun: bytes) -> list[int]:
    """Return the numbers of the events in the beginning of a stream, which is checked."""
    assert begun.startswith(BEGIN)
    found = []
    for block in begun[len(BEGIN) :].decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data[len("data: ") :])
        assert name == f"id: 1f-{event['number']}"
        found.append(event["number"])
    return found


@pytest.mark.parametrize(
    ("last", "missed"),
    [
        ("", []),
        ("1f-3", [4, 5]),
        ("1f-5", []),
        ("1f-9", []),
        ("1e-4", [1, 2, 3, 4, 5]),
        ("rubbish", [1, 2, 3, 4, 5]),
        ("1f-" + "9" * 5000, [1, 2, 3, 4, 5]),
        ("1f-٣", [1, 2, 3, 4, 5]),
    ],
)
def test_what_was_missed(events, last, missed):
    """All that is kept for who knows an earlier run of the daemon only, or says rubbish."""
    assert numbers(EventStream(events, "1f").begin(last)) == missed


def test_so_much_is_sent_at_once_and_it_is_the_latest(events):
    for _ in range(500):
        events.add({"what": "ill", "detail": "x" * 200})
    begun = EventStream(events, "1f").begin("1f-2")
    assert len(begun) <= MISSED_BYTES + len(BEGIN)
    sent = numbers(begun)
    assert sent == list(range(sent[0], 506))
    assert len(sent) > 100
