"""python3 -m tests.fuzz: mutated inputs at every door, in series; a finding ends the run.

A series follows from its door and number, so a finding is replayed by those (--door, --series).
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.fuzz.doors import DOORS, Door, corpus_of
from tests.fuzz.mutation import mutants

SERIES = 2000
# A run of a million inputs takes half an hour: so often it says how far it is.
TELL_SECS = 60.0


def knock(door: Door, inputs: list[bytes], seed: int, number: int) -> None:
    """Feed `number` inputs; raises what a door must not raise, with the input in a note."""
    with door.open() as enter:
        for data in itertools.islice(mutants(inputs, seed), number):
            try:
                enter(data)
            except door.errors:
                pass
            except Exception as error:
                raise AssertionError(f"{type(error).__name__} for {data!r}") from error


def play(name: str, seed: int, number: int) -> str:
    """Feed one series to a door; return what is wrong, "" if nothing is."""
    logging.disable(logging.CRITICAL)
    try:
        knock(DOORS[name], corpus_of(name), seed, number)
    except AssertionError as error:
        return f"--door {name} --series {seed}: {error}"
    return ""


def run(
    series: Iterator[tuple[str, int, int]], jobs: int, until: float
) -> tuple[Counter[str], str]:
    """Play series, `jobs` at a time; return how many inputs each door had, and a finding or ""."""
    counts: Counter[str] = Counter()
    running: dict[Future[str], tuple[str, int]] = {}
    finding, tell_at = "", time.monotonic() + TELL_SECS
    with ProcessPoolExecutor(jobs) as pool:
        while not finding:
            while len(running) < 2 * jobs and time.monotonic() < until:
                name, seed, number = next(series, ("", 0, 0))
                if not name:
                    break
                running[pool.submit(play, name, seed, number)] = name, number
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name, number = running.pop(done)
                counts[name] += number
                finding = finding or done.result()
            if time.monotonic() >= tell_at:
                tell_at += TELL_SECS
                print(f"{sum(counts.values())} inputs so far", flush=True)
    return counts, finding


def plan(names: list[str], seed: int, count: int | None) -> Iterator[tuple[str, int, int]]:
    """Yield series of each door in turn, without end or until each has had `count` inputs."""
    for number in itertools.count():
        size = SERIES if count is None else min(SERIES, count - number * SERIES)
        if size <= 0:
            return
        for name in names:
            yield name, seed + number, size


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=None, help="of real time, 60 if no count")
    parser.add_argument("--count", type=int, default=None, help="inputs of each door")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--jobs", type=int, default=2, help="series at a time")
    parser.add_argument("--door", choices=sorted(DOORS), default=None)
    parser.add_argument("--series", type=int, default=None, help="replay this one of a door")
    chosen = parser.parse_args()
    if chosen.series is not None:
        knock(DOORS[chosen.door], corpus_of(chosen.door), chosen.series, SERIES)
        return 0
    seconds = chosen.seconds or (60.0 if chosen.count is None else float("inf"))
    began = time.monotonic()
    print(f"seed {chosen.seed}", flush=True)
    series = plan([chosen.door] if chosen.door else list(DOORS), chosen.seed, chosen.count)
    counts, finding = run(series, chosen.jobs, began + seconds)
    for name, count in counts.items():
        print(f"{name}: {count} inputs")
    print(f"{sum(counts.values())} inputs in {time.monotonic() - began:.0f} s")
    print(finding or "no finding")
    return bool(finding)


if __name__ == "__main__":
    raise SystemExit(main())
