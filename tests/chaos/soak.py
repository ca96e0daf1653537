"""python3 -m tests.chaos.soak: a day of both daemons on simulated time, and what is left of it.

In the first third of the time daemons are killed as well; what follows is one life of both, in
which timers must not drift and memory must not grow. Three guests, the witnesses, have no
trouble of their own, so that the number of their challenges is known.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import time
from collections import Counter
from typing import NamedTuple

from tests.chaos.oracle import findings, timeline
from tests.chaos.schedule import day, run, unkilled
from tests.chaos.world import World

WITNESSES = 3
# The guests chose these for their heartbeats, in seconds.
INTERVALS = (1.0, 2.0, 5.0)
ACT_SECS = 600.0
# After an act, until what it was about cannot be told any more: an illness is told for 70 s.
AFTER_SECS = 30.0
AUDIT_SECS = 10.0
# After this share of the life that is watched the histories of all instances are full.
WARM_SHARE = 0.5
# What objects may differ by though nothing grows: what is on its way when they are counted.
OBJECTS_TOLERANCE = 0.01
COMMONEST = 30
RESIDENT_TOLERANCE = 4 * 1024 * 1024
# A timer is set anew each time from the clock, so an error would grow with each.
DRIFT_TOLERANCE = 0.001


class Level(NamedTuple):
    """What is in memory: objects of the collector, its commonest types, and resident bytes."""

    total: int
    commonest: Counter[str]
    resident: int


class Rhythm(NamedTuple):
    """How often something that comes each `period` seconds has come, and when it last did."""

    times: int
    at: float
    period: float

    def drift(self, since: Rhythm) -> float:
        """Return how many seconds late the last one was after all those `since`."""
        return self.at - since.at - (self.times - since.times) * self.period


class Soak:
    """A world that lives for `hours`; `act` by act it is judged and its past forgotten."""

    def __init__(self, seed: int, guests: int, hours: float) -> None:
        self.world = World(seed, guests, witnesses=WITNESSES, intervals=INTERVALS)
        self.found: list[str] = []
        self.levels: list[Level] = []
        self.counts: Counter[str] = Counter()
        self._end = hours * 3600.0
        self._begun: dict[str, Rhythm] = {}

    @property
    def watched(self) -> bool:
        """Whether the life that is watched has begun."""
        return self.world.now >= self._end / 3

    def run(self) -> None:
        """Live it all, and say how each hour was."""
        world = self.world
        world.start()
        hour, began = 1, time.monotonic()
        while world.now < self._end:
            watched = self.watched
            self._act()
            if watched:
                self.levels.append(level(world))
                if not self._begun:
                    self._begun = self._rhythms()
            if world.now >= hour * 3600.0:
                self._tell(hour, time.monotonic() - began)
                hour += 1

    def _act(self) -> None:
        world = self.world
        run(world, unkilled if self.watched else day, ACT_SECS)
        world.advance(AFTER_SECS)
        truth = world.truth
        self.counts.update(
            losses=len(truth.silences),
            illnesses=len(truth.illnesses),
            votes=len(truth.questions),
            agents_killed=len(truth.agent_deaths),
            servers_killed=len(truth.server_deaths),
            alarms=len(world.heard("alarm")),
        )
        found = findings(world)
        if found:
            print("\n".join([*map(str, found), timeline(world, found)]), flush=True)
        self.found += map(str, found)
        world.forget()

    def _tell(self, hour: int, real: float) -> None:
        now = level(self.world)
        print(
            f"hour {hour}: {real:.0f} s, {now.total} objects, {now.resident / 1e6:.1f} MB, "
            f"{', '.join(f'{number} {name}' for name, number in self.counts.items())}, "
            f"digest {self.world.network.digest}, {len(self.found)} findings",
            flush=True,
        )

    def _rhythms(self) -> dict[str, Rhythm]:
        guests = (self.world.guests[uuid] for uuid in self.world.uuids[-WITNESSES:])
        network = self.world.network
        return {
            "audits": Rhythm(network.queries, network.last_query, AUDIT_SECS),
            **{
                f"challenges of {guest.uuid[-4:]}": Rhythm(
                    guest.challenges, guest.last_challenge, self.world.intervals[guest.uuid]
                )
                for guest in guests
            },
        }

    def drifts(self) -> dict[str, tuple[int, float]]:
        """Return of each rhythm how often it beat in the life watched, and its drift in seconds."""
        found = {}
        for name, rhythm in self._rhythms().items():
            since = self._begun[name]
            found[name] = rhythm.times - since.times, rhythm.drift(since)
        return found

    def judge(self) -> list[str]:
        """Return what is wrong: what the oracle found, drift, growth; [] if nothing is."""
        found = list(self.found)
        for name, (times, drift) in self.drifts().items():
            if abs(drift) > DRIFT_TOLERANCE:
                found.append(f"{name}: after {times} they are {drift:.3f} s late")
        warm, last = self.levels[int(len(self.levels) * WARM_SHARE)], self.levels[-1]
        if last.total > warm.total * (1 + OBJECTS_TOLERANCE):
            grown = (last.commonest - warm.commonest).most_common(5)
            found.append(f"objects grew from {warm.total} to {last.total}: {grown}")
        if last.resident > warm.resident + RESIDENT_TOLERANCE:
            found.append(f"memory grew from {warm.resident} to {last.resident} bytes")
        return found


def level(world: World) -> Level:
    """Count what is in memory, without what waits to be collected."""
    for process in world.processes.values():
        process.sweep()
    gc.collect()
    objects = Counter(type(each).__name__ for each in gc.get_objects())
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    # A level is kept for each act, so it must itself be small.
    commonest = Counter(dict(objects.most_common(COMMONEST)))
    return Level(sum(objects.values()), commonest, pages * os.sysconf("SC_PAGE_SIZE"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=24, help="simulated, 1 at least")
    parser.add_argument("--guests", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    soak = Soak(chosen.seed, chosen.guests, chosen.hours)
    try:
        soak.run()
        for name, (times, drift) in soak.drifts().items():
            print(f"{name}: {times}, {drift * 1e6:.1f} µs late at the end")
        found = soak.judge()
        print("\n".join(found) or "all true, nothing drifts, nothing grows")
        return bool(found)
    finally:
        soak.world.close()


if __name__ == "__main__":
    raise SystemExit(main())
