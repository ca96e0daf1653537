"""What happens when: each schedule is a function that lets one more thing happen."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.network import Weather
from tests.chaos.world import World

Step = Callable[[World], None]
# After the last misfortune: longer than what a loss may take to be told, and three audits.
CALM_SECS = 45.0


def run(world: World, step: Step, seconds: float) -> None:
    """Let things happen for `seconds`, then have good weather until all is told."""
    world.network.weather = Weather(0.3, 0.1, 0.04)
    end = world.now + seconds
    while world.now < end:
        world.advance(world.random.expovariate(1.0))
        step(world)
    world.network.weather = Weather()
    world.advance(CALM_SECS)


def _idle(world: World) -> list[str]:
    """Return the guests to which nothing happens at present."""
    busy = {question.uuid for question in world.truth.questions if question.until > world.now}
    return [
        uuid
        for uuid, guest in world.guests.items()
        if not guest.hung and not guest.ill and uuid not in busy and world.settled(uuid)
    ]


def lossy(world: World) -> None:
    """A guest hangs, falls ill, or is asked."""
    uuids = _idle(world)
    if not uuids:
        return
    uuid, chance = world.random.choice(uuids), world.random.random()
    if chance < 0.35:
        world.hang(uuid, world.random.uniform(8.0, 20.0))
    elif chance < 0.6:
        world.fall_ill(uuid, world.random.uniform(3.0, 10.0))
    else:
        world.ask(uuid)


def storm(world: World) -> None:
    """The same, and now and then the network, the VIM or a daemon fails."""
    chance = world.random.random()
    if chance < 0.03:
        world.kill_agent()
    elif chance < 0.05:
        world.kill_server()
    elif chance < 0.08:
        world.cut(world.random.uniform(1.0, 15.0))
    elif chance < 0.11 and not world.vim_is_down:
        world.vim_goes_down(world.random.uniform(1.0, 20.0))
    else:
        lossy(world)


STEPS = {"lossy": lossy, "storm": storm}
