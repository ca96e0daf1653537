"""New and old daemons together: upgrades in either order, and a swact between the two.

`acknowledge = no` makes a daemon say and hear what an old one does: that it does is shown by
the recordings of the old ones, which are replayed in tests/replay and tests/functional.
"""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.network import Weather
from tests.chaos.oracle import findings, timeline
from tests.chaos.world import World

PAIRS = list(itertools.product([True, False], repeat=2))


@pytest.fixture
def make():
    worlds = []

    def made(**daemons: bool) -> World:
        world = World(1, 3, **daemons)
        worlds.append(world)
        world.start()
        return world

    yield made
    for world in worlds:
        world.close()


def failed(world: World) -> list[str]:
    return [
        uuid for _at, uuid, data in world.heard("alarm") if data["services"][0]["state"] == "failed"
    ]


def check(world: World) -> None:
    found = findings(world)
    assert found == [], "\n".join([*map(str, found), timeline(world, found)])


@pytest.mark.parametrize(("new_agent", "new_server"), PAIRS)
def test_every_pair_works_together(make, new_agent, new_server):
    """A loss, an illness and a vote: told once, by and to whomever."""
    world = make(new_agent=new_agent, new_server=new_server)
    lost, ill, asked = world.uuids
    world.hang(lost, 30.0)
    world.fall_ill(ill, 5.0)
    world.ask(asked)
    world.advance(60.0)
    assert failed(world) == [lost]
    check(world)


@pytest.mark.parametrize(("new_agent", "new_server"), [(True, False), (False, True)])
def test_an_old_peer_gets_nothing_twice(make, new_agent, new_server):
    """Nobody acknowledges: what is said is said once, however long it is owed."""
    world = make(new_agent=new_agent, new_server=new_server)
    world.network.weather = Weather(loss=0.5)
    lost = world.uuids[0]
    world.hang(lost, 100.0)
    for _ in range(5):
        world.ask(world.uuids[1])
        world.advance(10.0)
    passages = world.network.evidence.passages
    assert len(passages["LOSS", lost]) == 1
    assert len(passages["VOTE_INST", world.uuids[1]]) <= 5


@pytest.mark.parametrize("agent_first", [True, False])
def test_upgrades_in_either_order(make, agent_first):
    """From two old daemons to two new ones, a loss at each step, told once at each."""
    world = make(new_agent=False, new_server=False)
    upgrades = [("new_agent", world.kill_agent), ("new_server", world.kill_server)]
    for number, (name, replace) in enumerate(upgrades if agent_first else upgrades[::-1]):
        world.hang(world.uuids[number], 20.0)
        world.advance(40.0)
        setattr(world, name, True)
        replace()
        world.advance(40.0)
    world.hang(world.uuids[2], 20.0)
    world.advance(60.0)
    assert failed(world) == world.uuids
    check(world)
    host = world.agent.core.inventory.host_named("compute-0")
    assert host.role.peer_epoch == world.server.link.role.epoch


def test_an_illness_that_is_over_is_not_told_to_the_agent_that_comes_next(make):
    """The old agent acknowledged nothing, so the illness was owed until the guest was well."""
    world = make(new_agent=False)
    ill = world.uuids[0]
    world.fall_ill(ill, 5.0)
    world.advance(15.0)
    world.new_agent = True
    world.kill_agent()
    world.advance(60.0)
    assert [uuid for _at, uuid, _data in world.heard("alarm")] == [ill]
    check(world)


@pytest.mark.parametrize("new_server", [True, False])
@pytest.mark.parametrize("to_new", [True, False])
def test_swact_between_an_old_and_a_new_agent(make, to_new, new_server):
    """States are right afterwards, and what is told from then on is told once.

    An old agent acknowledges nothing: a loss that goes on over a swact to a new one is told by
    both, which docs/deploy.md says.
    """
    world = make(new_agent=not to_new, new_server=new_server)
    first, second, third = world.uuids
    world.hang(first, 25.0)
    world.advance(10.0)
    world.new_agent = to_new
    world.kill_agent()
    world.hang(second, 30.0)
    world.advance(60.0)
    world.new_agent = not to_new
    world.kill_agent()
    world.advance(30.0)
    world.hang(third, 30.0)
    world.advance(60.0)
    told = failed(world)
    assert set(told) == set(world.uuids)
    assert (told.count(second), told.count(third)) == (1, 1)
    assert told.count(first) == (2 if to_new and new_server else 1)
    check(world)
