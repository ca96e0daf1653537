"""Hours of both daemons on simulated time; `make soak` lives a whole day of 200 guests."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.soak import Level, Rhythm, Soak


@pytest.fixture(scope="module")
def soak():
    made = Soak(seed=3, guests=6, hours=1.0)
    made.run()
    yield made
    made.world.close()


def test_an_hour_is_all_true_and_leaves_nothing_behind(soak):
    assert soak.judge() == []
    assert soak.counts["losses"] > 100
    assert soak.counts["agents_killed"] > 1


def test_timers_do_not_drift(soak):
    """Each witness is challenged once an interval, and each host audited every 10 s."""
    drifts = soak.drifts()
    audits, late = drifts.pop("audits")
    assert audits > 100
    assert abs(late) < 0.001
    for times, late in drifts.values():
        assert times > 400
        assert abs(late) < 0.001


def test_growth_and_drift_are_found(soak):
    """The judge itself."""
    levels, last = soak.levels, soak.levels[-1]
    leaked = Level(2 * last.total, last.commonest + Counter(Leak=last.total), 2 * last.resident)
    soak.levels = [*levels, leaked]
    try:
        found = soak.judge()
    finally:
        soak.levels = levels
    assert [each.split()[0] for each in found] == ["objects", "memory"]
    assert "Leak" in found[0]
    assert Rhythm(11, 10.5, 1.0).drift(Rhythm(1, 0.0, 1.0)) == 0.5


def test_a_run_follows_from_its_seed():
    """Every datagram of a storm is the same, at the same time, in another process."""
    command = [sys.executable, "-m", "tests.chaos", "--seed=5", "--guests=8", "--simulated=60"]
    root = Path(__file__).parents[2]
    outputs = {
        subprocess.run(
            command,
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "all true" in outputs.pop()
