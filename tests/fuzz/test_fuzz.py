"""Every door takes its corpus, and some mutants of it; `make fuzz SECONDS=…` tries more."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import knock
from tests.fuzz.doors import DOORS, Door


@pytest.mark.parametrize("name", DOORS)
def test_the_corpus(name):
    door = DOORS[name]
    for data in door.corpus:
        try:
            door.enter(data)
        except door.errors:
            continue


@pytest.mark.parametrize("name", DOORS)
def test_some_mutants(name):
    knock(DOORS[name], seed=1, number=500)


def test_a_fault_is_found():
    """The judge itself."""
    door = Door([b"1"], lambda data: 1 / (len(data) - 2))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        knock(door, seed=1, number=200)
