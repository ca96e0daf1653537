"""The state tables: a walk of state and input finds a row or a listed "ignored", never both."""

from __future__ import annotations

import itertools
from enum import Enum
from types import ModuleType

import pytest

from guestmtce.core.server import connect, heartbeat, machine, vote
from guestmtce.core.server.machine import ConnectState, HeartbeatState, TimerName, VoteState
from guestmtce.core.shared.vocabulary import Event, Notification
from tests.unit.core_support import Rig, init

MACHINES: list[tuple[ModuleType, type[Enum], str]] = [
    (heartbeat, HeartbeatState, "heartbeat_state"),
    (connect, ConnectState, "connect_state"),
    (vote, VoteState, "vote_state"),
]
CELLS = [
    (module, state_name, state, event)
    for module, states, state_name in MACHINES
    for state, event in itertools.product(states, module.Input)
]


@pytest.mark.parametrize(
    ("module", "state_name", "state", "event"),
    CELLS,
    ids=lambda value: value.name if isinstance(value, Enum) else "",
)
def test_each_cell_is_a_row_or_ignored_never_both(module, state_name, state, event):
    """Finds a row or a listed IGNORED, never both."""
    assert ((state, event) in module.TABLE) != ((state, event) in module.IGNORED)


@pytest.mark.parametrize(("module", "states", "_name"), MACHINES)
def test_nothing_else_is_in_a_table(module, states, _name):
    """Every key and every next state is of that machine."""
    cells = set(itertools.product(states, module.Input))
    assert set(module.TABLE) <= cells
    assert set(module.IGNORED) <= cells
    assert {row.next_state for row in module.TABLE.values()} == set(states)
    assert {event for _state, event in module.TABLE} == set(module.Input), "an input without use"


IGNORED_CELLS = [cell for cell in CELLS if (cell[2], cell[3]) in cell[0].IGNORED]


@pytest.mark.parametrize(
    ("module", "state_name", "state", "event"),
    IGNORED_CELLS,
    ids=lambda value: value.name if isinstance(value, Enum) else "",
)
def test_an_ignored_input_does_nothing(module, state_name, state, event):
    """Ignored: no output, no timer, no other state."""
    rig = Rig().beat()
    setattr(rig.fsm, state_name, state)
    before = dict(rig.port.timers)
    module.step(rig.fsm, event)
    assert rig.out() == []
    assert rig.port.timers == before
    assert getattr(rig.fsm, state_name) is state


# The tables of the specification, told again: where each input leads.

HEARTBEAT = """
waiting_init     INIT                waiting_response
waiting_response INIT                waiting_response
waiting_challenge INIT               waiting_response
waiting_response HEALTHY             waiting_challenge
waiting_response UNHEALTHY           waiting_challenge
waiting_response LATE                waiting_response
waiting_response WRONG               waiting_response
waiting_challenge INTERVAL_OVER      waiting_response
waiting_response MISS                waiting_response
waiting_response LOSS                waiting_init
waiting_response UNREPORTED_SILENCE  waiting_init
waiting_response EXPECTED_SILENCE    waiting_init
waiting_response STALLED             waiting_response
waiting_challenge STALLED            waiting_response
waiting_response EXIT                waiting_init
waiting_challenge EXIT               waiting_init
waiting_response DISCONNECTED        waiting_init
waiting_challenge DISCONNECTED       waiting_init
waiting_response REPORTING_OFF       waiting_init
waiting_challenge REPORTING_OFF      waiting_init
waiting_response PAUSED              waiting_init
waiting_challenge PAUSED             waiting_init
waiting_response SUSPENDED           waiting_init
waiting_challenge SUSPENDED          waiting_init
"""


@pytest.mark.parametrize("line", HEARTBEAT.split("\n")[1:-1])
def test_heartbeat_goes_where_the_specification_says(line):
    """behaviour.md: waiting_init → (init) → waiting_response → … and back."""
    state, event, expected = line.split()
    row = heartbeat.TABLE[HeartbeatState(state), heartbeat.Input[event]]
    assert row.next_state.value == expected


@pytest.mark.parametrize("event", heartbeat.Input)
def test_waiting_init_is_left_by_init_alone(event):
    """Nothing but an init starts the cycle; the interval timer rings in it: nothing."""
    row = heartbeat.TABLE.get((HeartbeatState.WAITING_INIT, event))
    if event is not heartbeat.Input.INIT and row is not None:
        assert row.next_state is HeartbeatState.WAITING_INIT


def test_a_channel_is_connected_by_connecting_alone():
    """A successful connect leads to CONNECTED, and only that."""
    into = {
        event for (_, event), row in connect.TABLE.items() if row.next_state.value == "connected"
    }
    assert into == {connect.Input.OPENED}


@pytest.mark.parametrize("state", VoteState)
def test_an_open_question_can_always_end(state):
    """Answered, timed out, superseded or deleted: from PENDING and HELD each way leads out."""
    if state is VoteState.NONE:
        return
    for event in (vote.Input.TIMEOUT, vote.Input.DELETE, vote.Input.CLOSE):
        assert vote.TABLE[state, event].next_state is VoteState.NONE


@pytest.mark.parametrize(("module", "_states", "_name"), MACHINES)
def test_the_documentation_is_printed_from_the_table(module, _states, _name):
    """The documentation's table is printed from it: a line for each row, with its states."""
    lines = machine.as_markdown(module.TABLE).split("\n")
    assert lines[0] == "| state | input | next state | action |"
    assert len(lines) == 2 + len(module.TABLE)
    for line, ((state, event), row) in zip(lines[2:], module.TABLE.items()):
        assert line.startswith(f"| {state.value} | {event.value} | {row.next_state.value} | ")
        assert "_" not in line.split("|")[4]


def test_every_timer_has_its_input():
    """Each timer of an instance may ring in any state, and none raises."""
    for name in TimerName:
        for rig in (Rig(), Rig().connect(), Rig().beat()):
            rig.fsm.timer_rang(name, 0.0)
            rig.fsm.timer_rang(name, 100.0)


def test_every_question_may_come_at_any_time():
    """Votes and notifications of every event, in every state of the channel."""
    for event, notification in itertools.product(Event, Notification):
        for rig in (Rig(), Rig().connect(), Rig().beat()):
            rig.fsm.ask(event, notification)
            rig.say(init())
            rig.fsm.disconnected()
