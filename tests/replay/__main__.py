"""`python3 -m tests.replay`: plays every recording of the old guestServer, prints the table."""

from __future__ import annotations

import logging
import sys

from tests.replay.intended import INTENDED, unexplained
from tests.replay.recording import scenarios
from tests.replay.subjects import replay_simulated


def main() -> int:
    """Print a line for each recording, then what differs on purpose; 1 if anything else does."""
    logging.disable(logging.CRITICAL)
    differences = {scenario: replay_simulated(scenario) for scenario in scenarios()}
    passed = 0
    for scenario, found in differences.items():
        wrong = unexplained(scenario, found)
        passed += not wrong
        print(f"{'FAIL' if wrong else 'pass'}  {scenario:42} {len(found):3} intended differences")
        for difference in wrong:
            print(f"      {difference.side}: {difference.text}")
    print(f"\n{len(differences)} recordings, {passed} pass. Intended differences, and why:\n")
    for row in INTENDED:
        print(f"{row.times:4} {row.side:8} {row.recording}: {row.text}\n       {row.reason}")
    return 0 if passed == len(differences) else 1


if __name__ == "__main__":
    sys.exit(main())
