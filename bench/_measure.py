"""What the benches share: timing a call, and looking at a process from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_ROUNDS = 5
_NAP_SECS = 0.01


def microseconds(
    function: Callable[[], object], calls: int = 20_000, rounds: int = _ROUNDS
) -> float:
    """Return the time of one call: the best of some rounds, as the rest is the machine's."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, time.perf_counter() - begun)
    return best / calls * 1e6


def show(what: str, value: float, unit: str = "") -> None:
    """Print one line of a table; a count has no decimals."""
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
    print(f"  {what:58} {number:>9} {unit}".rstrip(), flush=True)


class Sample(NamedTuple):
    """A process at one moment; `sleeps` is how often it waited of its own accord."""

    at: float
    cpu_secs: float
    rss_mib: float
    sleeps: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        process = Path("/proc") / str(pid)
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return cls(
            at=time.monotonic(),
            cpu_secs=(int(fields[11]) + int(fields[12])) / _TICKS,
            rss_mib=int(status["VmRSS"].split()[0]) / 1024,
            sleeps=int(status["voluntary_ctxt_switches"]),
            descriptors=len(list((process / "fd").iterdir())),
        )

    def cpu_percent_since(self, before: Sample) -> float:
        return (self.cpu_secs - before.cpu_secs) / (self.at - before.at) * 100


def seconds() -> float:
    """Return how long a run with live guests shall take."""
    return float(os.environ.get("SECONDS") or os.environ.get("BENCH_SECS", "20"))


class Lateness(NamedTuple):
    """How late a process woke that only slept: what the machine adds to each figure, in seconds."""

    p99: float
    most: float


def rest(secs: float) -> Lateness:
    """Sleep for so long, in naps, and return how late they ended."""
    late = []
    begun = now = time.monotonic()
    while now < begun + secs:
        time.sleep(_NAP_SECS)
        woke = time.monotonic()
        late.append(woke - now - _NAP_SECS)
        now = woke
    late.sort()
    return Lateness(late[len(late) * 99 // 100], late[-1])
