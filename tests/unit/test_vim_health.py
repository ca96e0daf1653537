"""Whether the VIM takes requests: the table of decision 12, cell by cell."""

from __future__ import annotations

import pytest

from guestmtce.core.agent.vim_health import (
    HUNG_SECS,
    IGNORED,
    TABLE,
    Input,
    State,
    VimHealth,
    backoff,
)

# The inputs that lead to each state from the first one.
WAY = {
    State.UP: [],
    State.SUSPECT: [Input.FAILED],
    State.PROBING: [Input.FAILED, Input.PROBED],
}


def in_state(state: State) -> VimHealth:
    health = VimHealth()
    for event in WAY[state]:
        health.step(event, 0)
    assert health.state is state
    return health


CELLS = [(state, event) for state in State for event in Input]


def test_each_cell_is_a_row_or_ignored_never_both():
    assert TABLE.keys() | IGNORED == set(CELLS)
    assert not TABLE.keys() & IGNORED


@pytest.mark.parametrize(("state", "event"), CELLS)
def test_the_state_that_each_input_leads_to(state, event):
    health = in_state(state)
    before = health.probe_at()
    health.step(event, 5)
    if (state, event) in IGNORED:
        assert (health.state, health.probe_at()) == (state, before)
    else:
        assert health.state is TABLE[state, event].next_state


def test_retries_after_1_2_4_up_to_30_seconds():
    assert [backoff(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff(10_000) == 30


def test_what_ends_well_forgets_the_failures():
    health = in_state(State.UP)
    for _ in range(5):
        health.step(Input.FAILED, 0)
        health.step(Input.PROBED, 0)
        health.step(Input.PROBE_FAILED, 0)
    assert health.probe_at() == backoff(6)
    health.step(Input.WELL, 0)
    health.step(Input.FAILED, 100)
    assert health.probe_at() == 100 + backoff(1)


def test_much_news_in_a_short_outage_makes_no_long_one_of_it():
    """A probe that news brought forward, and that fails, lengthens no wait."""
    health = VimHealth()
    health.step(Input.FAILED, 0)
    for now in (1, 3, 7):  # in their time: the waits get longer
        assert health.probe_at() == now
        health.step(Input.PROBED, now)
        health.step(Input.PROBE_FAILED, now)
    for now in range(9, 20):
        health.step(Input.NEWS, now)
        assert health.probe_at() == now
        health.step(Input.PROBED, now)
        health.step(Input.PROBE_FAILED, now)
        assert health.probe_at() == now + 8
    health.step(Input.PROBED, 27)
    health.step(Input.PROBE_FAILED, 27)
    assert health.probe_at() == 27 + 16


def test_news_within_a_second_of_the_first_failure_changes_nothing():
    health = VimHealth()
    health.step(Input.FAILED, 0)
    health.step(Input.NEWS, 0.5)
    assert health.probe_at() == 1
    health.step(Input.PROBED, 1)
    health.step(Input.PROBE_FAILED, 1)
    assert health.probe_at() == 3


def test_a_request_is_found_hanging_once():
    """The others that wait with it say nothing new when one ends well."""
    health = VimHealth()
    begun = [0.0, 0.5]
    assert health.look_at(begun) == HUNG_SECS
    health.look(begun, 2.4)
    assert health.state is State.SUSPECT
    assert health.look_at(begun) is None
    health.step(Input.WELL, 2.45)
    assert health.look_at(begun) == 2.5
    health.look(begun, 2.5)
    assert health.state is State.SUSPECT, "the second one hangs on its own"
    health.step(Input.WELL, 2.6)
    health.look(begun, 60)
    assert health.is_up


def test_just_before_2_s_nothing_hangs():
    health = VimHealth()
    health.look([0.0], HUNG_SECS - 0.001)
    assert health.is_up
