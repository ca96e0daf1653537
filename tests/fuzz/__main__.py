"""python3 -m tests.fuzz: mutated inputs at every door, for a while; a finding ends it."""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import time

from tests.fuzz.doors import DOORS, Door
from tests.fuzz.mutation import mutants

_AT_ONCE = 200


def knock(door: Door, seed: int, number: int) -> None:
    """Feed `number` inputs; raises what a door must not raise, with the input in a note."""
    for data in itertools.islice(mutants(door.corpus, seed), number):
        try:
            door.enter(data)
        except door.errors:
            pass
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} for {data!r}") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--door", choices=sorted(DOORS), default=None)
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = [chosen.door] if chosen.door else list(DOORS)
    print(f"seed {chosen.seed}", flush=True)
    for name in names:
        end, count = time.monotonic() + chosen.seconds / len(names), 0
        while time.monotonic() < end:
            knock(DOORS[name], chosen.seed + count, _AT_ONCE)
            count += _AT_ONCE
        print(f"{name}: {count} inputs", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
