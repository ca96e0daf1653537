"""Every door takes its corpus, and some mutants of it; `make fuzz SECONDS=…` tries more."""

from __future__ import annotations

import contextlib

import pytest

from tests.fuzz.__main__ import knock, plan, run
from tests.fuzz.doors import DOORS, Door, corpus_of, learned
from tests.fuzz.learn import Tracer


@pytest.mark.parametrize("name", DOORS)
def test_the_corpus(name):
    """What was learned once is taken, whatever came before it."""
    door, inputs = DOORS[name], corpus_of(name)
    for some in (inputs, inputs[::-1]):
        with door.open() as enter:
            for data in some:
                with contextlib.suppress(*door.errors):
                    enter(data)


@pytest.mark.parametrize("name", DOORS)
def test_some_mutants(name):
    knock(DOORS[name], corpus_of(name), seed=1, number=300)


def test_what_was_learned_is_there():
    assert sum(bool(learned(name)) for name in DOORS) > 8


def broken(data: bytes) -> float:
    return 1 / (len(data) - 2)


def test_a_fault_is_found():
    """The judge itself."""
    door = Door([b"1"], lambda: contextlib.nullcontext(broken))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        knock(door, door.inputs, seed=1, number=200)


def test_a_run_has_as_many_inputs_as_were_asked_for():
    counts, finding = run(plan(["name", "hosts"], 1, 2500), jobs=2, until=float("inf"))
    assert counts == {"name": 2500, "hosts": 2500}
    assert finding == ""


def test_a_run_ends_in_time():
    counts, finding = run(plan(["name"], 1, None), jobs=1, until=0.0)
    assert (dict(counts), finding) == ({}, "")


def test_a_step_that_is_new_is_noticed():
    """What `learn` goes by: the same input is not kept twice."""
    door, tracer = DOORS["name"], Tracer()
    news = []
    with door.open() as enter:
        for data in (b"x", b"x", door.inputs[0]):
            with tracer:
                enter(data)
            news.append(tracer.new())
    assert news == [True, False, True]
