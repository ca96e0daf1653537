"""How an instance is, in an operator's words."""

from __future__ import annotations

import pytest

from guestmtce.core.shared.condition import Condition, Diagnosis, duration, in_words

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("diagnosis", "words"),
    [
        (Diagnosis(Condition.OK, NOW - 9000), "ok"),
        (Diagnosis(Condition.BOOTING, NOW - 40), "booting 40 s"),
        (Diagnosis(Condition.ILL, NOW - 5, "fan broken"), "ill: fan broken"),
        (Diagnosis(Condition.ILL), "ill"),
        (Diagnosis(Condition.LOST, NOW - 200), "lost 3 min ago"),
        (Diagnosis(Condition.LOST), "lost"),
        (Diagnosis(Condition.HELD, NOW - 3, "paused"), "held: paused"),
        (Diagnosis(Condition.NO_CHANNEL, NOW - 7300), "no channel 2 h"),
        (Diagnosis(Condition.UNKNOWN, NOW - 90_000), "unknown for 1 d"),
        (Diagnosis(Condition.UNKNOWN, None, "never heard"), "unknown: never heard"),
        (Diagnosis(Condition.STOPPED, NOW + 5), "stopped 0 s"),
    ],
)
def test_words(diagnosis, words):
    assert in_words(diagnosis, NOW) == words


def test_since_when_nothing_is_known():
    """By the clock: that is what is looked for in other logs."""
    diagnosis = Diagnosis(Condition.UNKNOWN, NOW - 60, "its worker is silent")
    assert in_words(diagnosis, NOW, lambda at, now: f"<{now - at:.0f}>") == "unknown since <60>"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
     (86_399, "23 h"), (86_400 * 3, "3 d")],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_the_worst_sorts_first():
    ranks = [Diagnosis(condition).rank for condition in Condition]
    assert ranks == sorted(ranks)
    assert Diagnosis(Condition.LOST).rank < Diagnosis(Condition.OK).rank
    assert max(ranks) == Diagnosis(Condition.OK).rank
