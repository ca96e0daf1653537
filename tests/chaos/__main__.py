"""python3 -m tests.chaos: chaos on simulated time, seed after seed, and what the oracle says.

The schedule of a run follows from its seed, so a finding is replayed by its seed alone.
"""

from __future__ import annotations

import argparse
import logging
import random
import time

from tests.chaos.oracle import Finding, findings, timeline
from tests.chaos.schedule import STEPS, run
from tests.chaos.world import World

ROUND_SECS = 60.0


def play(name: str, seed: int, guests: int, seconds: float) -> list[Finding]:
    """Run one seed; print what came of it, and the timeline if anything is wrong."""
    world = World(seed, guests)
    try:
        world.start()
        run(world, STEPS[name], seconds)
        found = findings(world)
        truth, told = world.truth, len(world.heard("alarm"))
        print(
            f"seed {seed}: {len(truth.silences)} losses, {len(truth.illnesses)} illnesses, "
            f"{len(truth.questions)} votes, killed: guestAgent {len(truth.agent_deaths)}, "
            f"guestServer {len(truth.server_deaths)}, {told} alarms, "
            f"{world.network.lost} of {world.network.carried} datagrams lost, "
            f"digest {world.network.digest}: "
            f"{'; '.join(map(str, found)) or 'all true'}",
            flush=True,
        )
        if found:
            print(timeline(world, found))
        return found
    finally:
        world.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="real time to go on for")
    parser.add_argument("--seed", type=int, default=None, help="replay this one only")
    parser.add_argument("--schedule", choices=sorted(STEPS), default="storm")
    parser.add_argument("--guests", type=int, default=30)
    parser.add_argument("--simulated", type=float, default=ROUND_SECS, help="seconds of one seed")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if chosen.seed is not None:
        return bool(play(chosen.schedule, chosen.seed, chosen.guests, chosen.simulated))
    end, wrong = time.monotonic() + chosen.seconds, []
    while time.monotonic() < end:
        seed = random.SystemRandom().randrange(1_000_000)
        if play(chosen.schedule, seed, chosen.guests, chosen.simulated):
            wrong.append(seed)
    print(f"seeds with findings: {wrong or 'none'}")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
