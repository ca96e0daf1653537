"""Conformance: each recorded exchange of the old guestServer, played to ours.

`python3 -m tests.replay` prints the table of what differs, and why.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from tests.peers.root import free_ports
from tests.replay.compare import Difference
from tests.replay.intended import INTENDED, unexplained
from tests.replay.recording import Recording, scenarios
from tests.replay.subjects import replay_process, replay_simulated

# Played to a process, in real time, all at once: short ones, one of each kind.
IN_REAL_TIME = [
    "server-commands",
    "server-guest-closes-heartbeating",
    "server-guest-exit",
    "server-inotify-socket",
    "server-interval-400",
    "server-malformed",
    "server-notify-stop",
    "server-sigterm",
    "server-silent-reporting-thr1",
    "server-unhealthy-reboot",
]


@cache
def differences(scenario: str) -> list[Difference]:
    """A scenario's differences in simulated time: played once, looked at by each test."""
    return replay_simulated(scenario)


def test_there_are_recordings():
    assert len(scenarios()) == 64
    assert sum(len(Recording(scenario).events) for scenario in scenarios()) > 2000


@pytest.mark.parametrize("scenario", scenarios())
def test_replay(scenario):
    assert unexplained(scenario, differences(scenario)) == []


@pytest.mark.parametrize("row", INTENDED, ids=lambda row: f"{row.recording}: {row.reason[:40]}")
def test_the_table_counts(row):
    """A row that explains less than it says is stale; what it explains beyond is unintended."""
    assert row.times > 0
    assert row.times == sum(
        row.explains(scenario, difference)
        for scenario in scenarios()
        if row.is_about(scenario)
        for difference in differences(scenario)
    )


def test_replays_to_a_process():
    """One test, because it waits: as long as the longest recording is."""
    ports = iter(free_ports(2 * len(IN_REAL_TIME)))
    pairs = list(zip(ports, ports))
    with ThreadPoolExecutor(len(IN_REAL_TIME)) as pool:
        found = dict(zip(IN_REAL_TIME, pool.map(replay_process, IN_REAL_TIME, pairs)))
    wrong = {scenario: unexplained(scenario, found[scenario]) for scenario in found}
    assert wrong == {scenario: [] for scenario in IN_REAL_TIME}
