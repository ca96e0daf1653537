"""python3 -m tests.chaos.real: chaos with the real programs, seed after seed, and the verdicts."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.chaos.real.run import KEPT, run

ROUND_SECS = 60.0


def play(seed: int, seconds: float) -> list[str]:
    """Run one seed; print what came of it, and the timeline if anything is wrong."""
    findings, unjudged, counts = (outcome := run(seed, seconds)).verdict
    if findings:
        print(outcome.story)
        print(f"everybody's timeline and the daemons' logs are in {KEPT / str(seed)}")
        print(f"again: python3 -m tests.chaos.real --seed {seed} --round {seconds:g}")
    happened = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    verdict = "; ".join(findings) or "all true"
    print(f"seed {seed}: {happened}; {unjudged} not judged: {verdict}", flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos.real", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="go on for so long")
    parser.add_argument("--seed", type=int, default=None, help="this one only")
    parser.add_argument("--round", type=float, default=ROUND_SECS, help="seconds of one seed")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return bool(play(chosen.seed, chosen.round))
    end, seeds, wrong = time.monotonic() + chosen.seconds, [], []
    while time.monotonic() < end:
        seeds.append(random.SystemRandom().randrange(1_000_000))
        if play(seeds[-1], chosen.round):
            wrong.append(seeds[-1])
    print(f"{len(seeds)} seeds, with findings: {wrong or 'none'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
