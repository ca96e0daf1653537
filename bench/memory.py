"""What remembering costs guestServer: microseconds a heartbeat, and KiB an instance.

A heartbeat with and without it, by turns, so that both meet the same machine: without means the
same functions compiled from their source, less the lines that speak to `self.memory`.
"""

from __future__ import annotations

import inspect
import itertools
import textwrap
import time
import tracemalloc
from collections.abc import Callable
from types import CodeType, FunctionType

from bench._measure import microseconds, show
from bench.fsm import Beating
from guestmtce.core.server.heartbeat import Heartbeat
from guestmtce.core.server.memory import Memory
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.history import DETAIL_LIMIT, ENTRIES, EXCHANGES, What
from guestmtce.core.shared.settings import ServerSettings

ROUNDS = 60
INSTANCES = 200
# What of a heartbeat speaks to the memory, and how many lines that are.
_SPEAKS: dict[FunctionType, int] = {Heartbeat._challenge: 1, Heartbeat.response: 3}  # type: ignore[dict-item]


def run() -> None:
    beating = Beating()
    with_it, without = _by_turns(beating.beat)
    show("one heartbeat in the state machines, remembered", with_it, "µs")
    show("the same, not remembered", without, "µs")
    show("what remembering costs", (with_it - without) / without * 100, "%")
    for length in (0, 30, DETAIL_LIMIT):
        show(f"a full memory, details of {length} characters", _memory_kib(length), "KiB")
    show("a full memory, details of 12 emoji", _memory_kib(12, "\N{SLEEPING FACE}"), "KiB")


def _by_turns(beat: Callable[[], object]) -> tuple[float, float]:
    """Return the best time of a heartbeat with and without remembering."""
    whole = {function: function.__code__ for function in _SPEAKS}
    less = {function: _forgetful(function, lines) for function, lines in _SPEAKS.items()}
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for number, codes in enumerate((whole, less)):
            for function, code in codes.items():
                function.__code__ = code
            best[number] = min(best[number], microseconds(beat, 2_000, rounds=1))
    for function, code in whole.items():
        function.__code__ = code
    return best[0], best[1]


def _forgetful(function: FunctionType, lines: int) -> CodeType:
    """Return the function's code less its `lines` lines that begin with `self.memory.`."""
    source = textwrap.dedent(inspect.getsource(function)).splitlines()
    kept = [line for line in source if not line.strip().startswith("self.memory.")]
    assert len(source) - len(kept) == lines, "the heartbeat speaks to its memory elsewhere"
    made: dict[str, FunctionType] = {}
    exec("\n".join(kept), function.__globals__, made)
    return made[function.__name__].__code__


def _memory_kib(length: int, filling: str = "x") -> float:
    """Return what one memory takes that is full: of texts of that length, all different."""
    worker = Worker("compute-0", ServerSettings(2401, 2411), time.monotonic, lambda: 0, time.time)
    numbers = itertools.count(10**9)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    memories = [Memory(str(number), worker) for number in range(INSTANCES)]
    for memory in memories:
        for _ in range(2 * ENTRIES):
            memory.add(What.ANSWERED, f"{next(numbers)}".rjust(length, filling)[:length])
        for _ in range(EXCHANGES):
            sent_at = time.monotonic()
            memory.challenged(sent_at)
            memory.answered(time.monotonic(), time.monotonic() - sent_at, healthy=True)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / INSTANCES / 1024
