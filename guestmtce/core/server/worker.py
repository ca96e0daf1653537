"""What the instances of one host share: its clock, its settings, what it counts.

Replaces the globals of guestServer. Data only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from guestmtce.core.server.flow import Pace
from guestmtce.core.shared.history import Entry
from guestmtce.core.shared.settings import ServerSettings


@dataclass
class Stats:
    """What a guestServer counts since its start (operations.md, Metrics).

    `on_response` and `on_lateness` take seconds: the edge feeds them to its histograms.
    """

    heartbeats: int = 0
    misses: int = 0
    losses: int = 0
    unhealthy: int = 0
    late_responses: int = 0
    wrong_responses: int = 0
    unexpected_responses: int = 0
    host_stalls: int = 0
    votes: Counter[str] = field(default_factory=Counter)
    bad_messages: Counter[str] = field(default_factory=Counter)
    on_response: Callable[[float], object] = lambda _seconds: None
    on_lateness: Callable[[float], object] = lambda _seconds: None


@dataclass
class Worker:
    """What the instances of one host share: the one home of the settings in force.

    `clock` returns monotonic seconds and `random_number` 0 … 2**31 - 1 from a cryptographic
    source: both are passed in, the core has neither. `wall` returns seconds since 1970, for
    what people read; `on_entry(uuid, entry)` hears what each instance remembers. `reporting` is
    host-level reporting, on until guestAgent says otherwise (decision 2). `illness_over` takes
    that an instance is well, and returns whether a RUNNING has to withdraw its illness;
    `names_told` says whether guestAgent is told what the guests call themselves. `pace` is the
    queue of the guests that flood.
    """

    hostname: str
    settings: ServerSettings
    clock: Callable[[], float]
    random_number: Callable[[], int]
    wall: Callable[[], float] = lambda: 0.0
    on_entry: Callable[[str, Entry], object] = lambda _uuid, _entry: None
    reporting: bool = True
    stats: Stats = field(default_factory=Stats)
    illness_over: Callable[[str], bool] = lambda _uuid: False
    names_told: Callable[[], bool] = lambda: False
    pace: Pace = field(default_factory=Pace)
