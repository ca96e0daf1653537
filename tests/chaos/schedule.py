"""What happens when: each schedule is a function that lets one more thing happen."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.network import Weather
from tests.chaos.world import World

Step = Callable[[World], None]
# After the last misfortune: longer than what a loss may take to be told, and three audits.
CALM_SECS = 60.0


def run(world: World, step: Step, seconds: float) -> None:
    """Let things happen for `seconds`, then have good weather until all is told."""
    world.network.weather = Weather(0.3, 0.1, 0.04, stray=0.03)
    end = world.now + seconds
    while world.now < end:
        world.advance(world.random.expovariate(1.0))
        step(world)
    world.network.weather = Weather()
    world.advance(CALM_SECS)


def lossy(world: World) -> None:
    """A guest hangs, falls ill, or is asked."""
    uuids = world.idle()
    if not uuids:
        return
    uuid, chance = world.random.choice(uuids), world.random.random()
    if chance < 0.35:
        longest = 90.0 if chance < 0.08 else 20.0
        world.hang(uuid, world.random.uniform(8.0, longest))
    elif chance < 0.6:
        world.fall_ill(uuid, world.random.uniform(3.0, 10.0))
    else:
        world.ask(uuid)


def misfortunes(world: World) -> None:
    """They do not come alone: nobody can take in a loss, and those die who owe it or hold it."""
    uuids = world.idle()
    if not uuids or world.vim_is_down:
        return
    outage = world.random.uniform(6.0, 30.0)
    if world.random.random() < 0.5:
        world.vim_goes_down(outage)
    else:
        world.cut(outage)
    world.hang(world.random.choice(uuids), world.random.uniform(80.0, 140.0))
    for kill in world.random.choice(
        [(world.kill_agent,), (world.kill_server,), (world.kill_agent, world.kill_server)]
    ):
        world.advance(world.random.uniform(4.0, 8.0))
        kill()


def storm(world: World) -> None:
    """The same, and now and then the network, the VIM or a daemon fails."""
    chance = world.random.random()
    if chance < 0.01:
        misfortunes(world)
    elif chance < 0.03:
        world.kill_agent()
    elif chance < 0.05:
        world.kill_server()
    else:
        unkilled(world)


def unkilled(world: World) -> None:
    """The same, but that no daemon is killed."""
    chance = world.random.random()
    if chance < 0.03:
        world.cut(world.random.uniform(1.0, 15.0))
    elif chance < 0.06 and not world.vim_is_down:
        world.vim_goes_down(world.random.uniform(1.0, 20.0))
    else:
        lossy(world)


def day(world: World) -> None:
    """The same as `storm`, but that a daemon is killed each few minutes only."""
    chance = world.random.random()
    if chance < 0.003:
        world.kill_agent()
    elif chance < 0.005:
        world.kill_server()
    else:
        unkilled(world)


STEPS = {"lossy": lossy, "storm": storm}
