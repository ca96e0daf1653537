"""The state tables: a walk of state and input finds a row or a listed "ignored", never both."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import Enum
from types import ModuleType
from typing import Any

import pytest

from guestmtce.core.server import connect, heartbeat, vote
from guestmtce.core.server.connect import ConnectState
from guestmtce.core.server.heartbeat import HeartbeatState
from guestmtce.core.server.machine import Attempt, Machine, Row, Symbol, TimerName, belong
from guestmtce.core.server.vote import VoteState
from guestmtce.core.shared.vocabulary import Event, Notification
from tests.documents import as_markdown
from tests.unit.core_support import Rig, init, leaving

MACHINES: list[tuple[ModuleType, type[Enum]]] = [
    (heartbeat, HeartbeatState),
    (connect, ConnectState),
    (vote, VoteState),
]
CELLS = [
    (module, state, event)
    for module, states in MACHINES
    for state, event in itertools.product(states, module.Input)
]


def name_of(value: object) -> str:
    return value.name if isinstance(value, Enum) else ""


def refused() -> Rig:
    rig = Rig()
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    return rig


def after_init() -> Rig:
    rig = Rig().connect()
    rig.say(init())
    return rig


def asked() -> Rig:
    rig = Rig().beat()
    rig.vote("pause")
    return rig


def held() -> Rig:
    rig = Rig().beat()
    rig.say(leaving())
    rig.notify("resume")
    return rig


# A way into each state, by inputs.
WAYS: dict[Enum, Callable[[], Rig]] = {
    HeartbeatState.WAITING_INIT: lambda: Rig().connect(),
    HeartbeatState.WAITING_RESPONSE: after_init,
    HeartbeatState.WAITING_CHALLENGE: lambda: Rig().beat(),
    ConnectState.ABSENT: Rig,
    ConnectState.WAITING: refused,
    ConnectState.CONNECTED: lambda: Rig().beat(),
    VoteState.NONE: lambda: Rig().beat(),
    VoteState.PENDING: asked,
    VoteState.HELD: held,
}


def in_state(module: ModuleType, state: Enum) -> tuple[Rig, Machine[Any]]:
    """Return a rig whose machine of that module is in that state, and the machine."""
    rig = WAYS[state]()
    instance = rig.instance
    machine: Machine[Any] = {
        heartbeat: instance.heartbeat,
        connect: instance.connection,
        vote: instance.vote,
    }[module]
    assert machine.state is state
    rig.out()
    return rig, machine


@pytest.mark.parametrize(("module", "state", "event"), CELLS, ids=name_of)
def test_each_cell_is_a_row_or_ignored_never_both(module, state, event):
    """Finds a row or a listed IGNORED, never both."""
    assert ((state, event) in module.TABLE) != ((state, event) in module.IGNORED)


@pytest.mark.parametrize(("module", "states"), MACHINES)
def test_nothing_else_is_in_a_table(module, states):
    """Every key and every next state is of that machine."""
    cells = set(itertools.product(states, module.Input))
    assert set(module.TABLE) <= cells
    assert set(module.IGNORED) <= cells
    assert {row.next_state for row in module.TABLE.values()} == set(states)
    assert {event for _state, event in module.TABLE} == set(module.Input), "an input without use"


IGNORED_CELLS = [cell for cell in CELLS if (cell[1], cell[2]) in cell[0].IGNORED]


@pytest.mark.parametrize(("module", "state", "event"), IGNORED_CELLS, ids=name_of)
def test_an_ignored_input_does_nothing(module, state, event):
    """Ignored: no output, no timer, no other state."""
    rig, machine = in_state(module, state)
    before = dict(rig.port.timers)
    machine.step(event)
    assert rig.out() == []
    assert rig.port.timers == before
    assert machine.state is state


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
def test_an_open_ask_can_always_end(state):
    """Answered, timed out, superseded or deleted: from PENDING and HELD each way leads out."""
    if state is VoteState.NONE:
        return
    for event in (vote.Input.TIMEOUT, vote.Input.DELETED, vote.Input.CLOSE):
        assert vote.TABLE[state, event].next_state is VoteState.NONE


@pytest.mark.parametrize(("module", "_states"), MACHINES)
def test_the_documentation_is_printed_from_the_table(module, _states):
    """The documentation's table is printed from it: a line for each row, with its states."""
    lines = as_markdown(module.TABLE).split("\n")
    assert lines[0] == "| state | input | next state | action |"
    assert len(lines) == 2 + len(module.TABLE)
    for line, ((state, event), row) in zip(lines[2:], module.TABLE.items()):
        assert line.startswith(f"| {state.value} | {event.value} | {row.next_state.value} | ")
        assert "_" not in line.split("|")[4]


@pytest.mark.parametrize("state", WAYS, ids=name_of)
def test_each_timer_that_runs_may_ring(state):
    """On time or far too late, none raises, and the timers of the new states run."""
    for late in (0.0, 100.0):
        for name in list(WAYS[state]().port.timers):
            rig = WAYS[state]()
            del rig.port.timers[name]
            rig.instance.timer_rang(name, late)
            rig.check()


def test_an_ask_may_come_at_any_time():
    """Votes and notifications of every event, in every state of the channel."""
    for event, notification in itertools.product(Event, Notification):
        for rig in (Rig(), Rig().connect(), Rig().beat()):
            rig.instance.ask(event, notification)
            rig.check()
            rig.say(init())
            rig.check()
            rig.instance.disconnected()
            rig.check()


class Light(Symbol):
    """States of a machine that is only a test's."""

    RED = "red"
    AMBER = "amber"
    GREEN = "green"


class Turn(Symbol):
    NEXT = "next"
    AGAIN = "again"


def test_leaving_a_state_cancels_its_timer():
    """A timer belongs to its state: no handler has to cancel it; one that goes on, goes on."""
    rig = Rig()

    def nothing(_machine: object, argument: object) -> None:
        told.append(argument)

    told: list[object] = []
    table = {
        (Light.RED, Turn.NEXT): Row(Light.AMBER, nothing),
        (Light.RED, Turn.AGAIN): Row(Light.RED, nothing),
        (Light.AMBER, Turn.NEXT): Row(Light.GREEN, nothing),
    }
    timers = {
        Light.RED: (TimerName.VOTE, TimerName.TICK),
        Light.AMBER: (TimerName.VOTE,),
        Light.GREEN: (TimerName.IDLE,),
    }
    light = Machine(Light.RED, belong(table, timers), rig.worker, rig.port)
    rig.port.start_timer(TimerName.VOTE, 1)
    rig.port.start_timer(TimerName.TICK, 1)
    light.step(Turn.AGAIN, 1)
    light.step(Turn.NEXT, 2)
    assert light.state is Light.AMBER
    assert rig.port.timers.keys() == {TimerName.VOTE}
    light.step(Turn.AGAIN, 3)
    light.step(Turn.NEXT, 4)
    assert rig.left(TimerName.VOTE) is None
    assert told == [1, 2, 4]
