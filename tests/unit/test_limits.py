"""The one room of limits: a window, a gap, every nth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared.limits import EveryNth, Gap, RateLimit

# RateLimit


def test_a_rate_begins_anew_with_each_period():
    limit = RateLimit(2, period=10.0)
    assert [limit.allows(now) for now in (0.0, 1.0, 2.0, 9.9, 10.0)] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_the_excess_of_a_rate_is_that_of_the_present_period():
    limit = RateLimit(1)
    for _ in range(4):
        limit.allows(0.0)
    assert limit.excess == 3
    limit.allows(1.0)
    assert limit.excess == 0


# Gap


def test_not_within_the_gap_of_the_last_time():
    gap = Gap(10.0)
    assert [gap.allows(now) for now in (0.0, 9.9, 10.0, 15.0, 20.0)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_what_came_too_early_does_not_make_the_gap_longer_unless_noted():
    gap = Gap(10.0)
    gap.allows(0.0)
    assert not gap.is_over(9.0)
    gap.note(9.0)
    assert gap.over_at() == 19.0


def test_each_key_has_its_own_gap_and_may_be_forgotten():
    gap = Gap(10.0)
    assert gap.allows(0.0, "a")
    assert gap.allows(1.0, "b")
    assert not gap.allows(2.0, "a")
    gap.forget("a")
    gap.forget("never")
    assert gap.allows(2.0, "a")


# EveryNth


def test_the_first_and_every_nth_are_told_with_their_count():
    """Repeating conditions are throttled: first, then every Nth with the count."""
    told = EveryNth(10)
    assert [n for n in (told.hit("x") for _ in range(25)) if n] == [1, 10, 20]


def test_conditions_are_counted_apart():
    told = EveryNth(10)
    assert (told.hit("a"), told.hit("b"), told.hit("a")) == (1, 1, None)


@given(st.lists(st.integers(0, 50), max_size=300))
def test_the_number_of_conditions_is_bounded_and_the_busiest_stay(keys):
    told = EveryNth(1, max_keys=8)
    for number, key in enumerate(keys, 1):
        told.hit(key)
        assert told.hit("busy") == number
    assert len(told) <= 8


@pytest.mark.parametrize("max_keys", [1, 2])
def test_the_condition_that_was_hit_longest_ago_is_forgotten(max_keys):
    told = EveryNth(100, max_keys=max_keys)
    for key in range(max_keys + 1):
        told.hit(key)
    assert told.hit(0) == 1
