"""Chaos on simulated time: what the VIM hears is the truth, whatever happens on the way.

Each schedule follows from its seed. `make chaos SECONDS=… SEED=…` runs other ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.chaos.oracle import findings, timeline
from tests.chaos.schedule import lossy, run, storm
from tests.chaos.world import World

SEEDS = (1, 2, 3)


@contextlib.contextmanager
def world(seed: int, guests: int) -> Iterator[World]:
    made = World(seed, guests)
    try:
        made.start()
        yield made
    finally:
        made.close()


def check(made: World) -> None:
    found = findings(made)
    assert found == [], "\n".join([*map(str, found), timeline(made, found)])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lossy_network_loses_nothing(seed):
    """30 % lost, 10 % twice, reordered by 40 ms: every loss told once, every vote answered."""
    with world(seed, 20) as made:
        run(made, lossy, 60.0)
        check(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos(seed):
    """Cuts, a VIM that goes away, kill -9 of both daemons, on top of a bad network."""
    with world(seed, 12) as made:
        run(made, storm, 60.0)
        check(made)


def test_what_is_still_true_after_a_cut_is_told():
    """15 s without a network: one guest hangs on, one comes back meanwhile."""
    with world(1, 3) as made:
        lost, back, _well = made.uuids
        made.cut(15.0)
        made.hang(lost, 60.0)
        made.hang(back, 8.0)
        made.advance(30.0)
        failed = [uuid for _at, uuid, _data in made.heard("alarm")]
        assert failed == [lost]
        made.advance(60.0)
        check(made)


def test_an_illness_outlives_the_agent_that_did_not_hear_of_it():
    """The new agent asks how the guest is, which must not count as its being well."""
    with world(1, 2) as made:
        ill, _well = made.uuids
        made.cut(4.0)
        made.fall_ill(ill, 9.0)
        made.advance(2.5)
        made.kill_agent()
        made.advance(30.0)
        assert [uuid for _at, uuid, _data in made.heard("alarm")] == [ill]
        check(made)


@pytest.mark.parametrize("server_too", [False, True])
def test_alarms_outlive_the_agent_while_the_vim_is_down(server_too):
    """VIM down, three losses, kill -9 of guestAgent, a fresh one, VIM up: three alarms, once."""
    with world(1, 4) as made:
        made.vim_goes_down(40.0)
        for uuid in made.uuids[:3]:
            made.hang(uuid, 150.0)
        made.advance(10.0)
        assert made.heard("alarm") == []
        made.kill_agent()
        if server_too:
            made.advance(2.0)
            made.kill_server()
        made.advance(80.0)
        told = sorted(uuid for _at, uuid, _data in made.heard("alarm"))
        assert told == made.uuids[:3]
