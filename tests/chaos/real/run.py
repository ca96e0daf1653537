"""One real run: what the plan says, then calm until all is told, then the verdict."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.chaos.real.oracle import Oracle, Verdict, timeline
from tests.chaos.real.plan import plan
from tests.chaos.real.site import Site
from tests.peers.root import REPOSITORY

# After the last trouble, at least: what is told too late shows then. At most: three audits, and
# the VIM's longest wait.
QUIET_SECS = 6.0
CALM_SECS = 45.0
LOOK_SECS = 0.25
KEPT = REPOSITORY / "build" / "chaos"


class Outcome(NamedTuple):
    """What a run gave; `story`, and the logs under KEPT, are for who has to find out why."""

    verdict: Verdict
    story: str


def run(seed: int, seconds: float) -> Outcome:
    """Run that seed: `seconds`, until the last trouble is over, and 6 to 45 s of calm."""
    with contextlib.closing(Site(seed)) as site:
        site.start()
        site.ledger.began = time.monotonic()
        site.bad_weather()
        _play(site, seed, seconds)
        site.calm()
        time.sleep(QUIET_SECS)
        wrong = site.settle(CALM_SECS)
        verdict = Oracle(site, site.measure(), wrong).verdict()
        if verdict.findings:
            site.keep_logs(KEPT / str(seed))
            (KEPT / str(seed) / "timeline").write_text(timeline(site))
        return Outcome(verdict, timeline(site, verdict.findings))


def _play(site: Site, seed: int, seconds: float) -> None:
    """Do each thing at its time, and end it at its time."""
    order = itertools.count()
    agenda: list[tuple[float, int, Callable[[], object]]] = []

    def begin(index: int) -> None:
        happening = happenings[index]
        over = site.begin(happening)
        heapq.heappush(agenda, (happening.at + happening.seconds, next(order), over))

    happenings = plan(seed, seconds)
    for index, happening in enumerate(happenings):
        heapq.heappush(agenda, (happening.at, next(order), lambda index=index: begin(index)))
    while agenda:
        pause = agenda[0][0] - (time.monotonic() - site.ledger.began)
        if pause > 0:
            time.sleep(min(pause, LOOK_SECS))
            site.look_after()
            continue
        heapq.heappop(agenda)[2]()
