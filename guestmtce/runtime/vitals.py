"""What every daemon shows of itself as metrics: its build, its start, and how it does.

One module for both, so that these metrics mean the same in both (monitoring.md).

What makes a daemon degraded is a sentence for people, and a kind for programs that watch many
hosts: a short word that is a label. A daemon always gives every kind that it can have, the quiet
ones without a sentence, so that a series of each is there from the start.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence

from guestmtce import __commit__, __version__
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.metrics import LabelValues, Registry

# Kind to sentences. These three kinds every daemon has.
Problems = Mapping[str, Sequence[str]]
FILES = "files"
INTERNAL = "internal"
LOG = "log"

_OPEN_DESCRIPTORS = "/proc/self/fd"


def sentences(problems: Problems) -> list[str]:
    """Return all sentences, kind by kind."""
    return [sentence for kind in problems.values() for sentence in kind]


def own_problems(loop: Loop, *noted: str) -> dict[str, list[str]]:
    """Return a daemon's own failures: of its callbacks, and what its files say ("" for nothing)."""
    text = f"{loop.errors} internal errors, a defect of ours: the log has them, report them"
    return {INTERNAL: [text] if loop.errors else [], FILES: [each for each in noted if each]}


def register(
    registry: Registry, loop: Loop, started_at: float, problems: Callable[[], Problems]
) -> None:
    """Show the build, the start (wall clock), the problems, the descriptors and the loop."""
    counts: dict[LabelValues, int] = {}

    def by_kind() -> dict[LabelValues, int]:
        counts.update({(kind,): len(found) for kind, found in problems().items()})
        return counts

    def healthy() -> int:
        # Metrics are rendered in the order of their making: the problems have just been counted.
        return int(not any(counts.values()))

    build = (__version__, __commit__ or "unknown", ".".join(map(str, sys.version_info[:3])))
    labels = ("version", "commit", "python")
    registry.collect(
        "gauge", "guestmtce_build_info", "Always 1.", lambda: {build: 1}, labels, shared=True
    )
    text = "Problems that make the daemon degraded, by kind."
    keys = [(kind,) for kind in (FILES, INTERNAL, LOG)]
    registry.collect(
        "gauge", "guestmtce_problems", text, by_kind, ("kind",), keys=keys, shared=True
    )
    registry.collect_all(
        "gauge",
        ("guestmtce_start_time_seconds", "Start, in seconds since 1970.", lambda: started_at),
        ("guestmtce_healthy", "1 while it has no problem.", healthy),
        ("guestmtce_open_descriptors", "Descriptors that are open.", _open_descriptors),
        ("guestmtce_max_descriptors", "Descriptors that may be open.", _max_descriptors),
        ("guestmtce_loop_lag_seconds", "Lateness of the last timer.", lambda: loop.lag),
        shared=True,
    )
    failed = ("guestmtce_loop_errors_total", "Callbacks that failed.", lambda: loop.errors)
    registry.collect_all("counter", failed, shared=True)


def _open_descriptors() -> int:
    """Return how many are open; a newer kernel (6.2) says so without listing them."""
    try:
        return os.stat(_OPEN_DESCRIPTORS).st_size or len(os.listdir(_OPEN_DESCRIPTORS))
    except OSError:
        return 0


def _max_descriptors() -> float:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else soft
