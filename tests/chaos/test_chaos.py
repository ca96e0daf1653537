"""Chaos on simulated time: what the VIM hears is the truth, whatever happens on the way.

Each schedule follows from its seed. `make chaos SECONDS=… SEED=…` runs other ones.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.chaos.oracle import findings, timeline
from tests.chaos.schedule import lossy, run, storm
from tests.chaos.world import World

SEEDS = (1, 2, 3)


@contextlib.contextmanager
def world(seed: int, guests: int) -> Iterator[World]:
    made = World(seed, guests)
    try:
        made.start()
        yield made
    finally:
        made.close()


def check(made: World) -> None:
    found = findings(made)
    assert found == [], "\n".join([*map(str, found), timeline(made, found)])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lossy_network_loses_nothing(seed):
    """30 % lost, 10 % twice, reordered by 40 ms, for 160 s: all is told, once, and soon."""
    with world(seed, 20) as made:
        run(made, lossy, 160.0)
        check(made)
        told = Counter(data["services"][0]["state"] for _at, _uuid, data in made.heard("alarm"))
        assert told["failed"] == len(made.truth.silences) > 30
        assert told["unhealthy"] >= len(made.truth.illnesses) > 20
        # A vote has six tries in its window; where all of them were lost, the oracle knows.
        assert len(made.truth.questions) > 30
        assert len(made.heard("action")) >= len(made.truth.questions) - 1
        assert within(state_delays(made), 0.99) <= 3.0


def state_delays(made: World) -> list[float]:
    """Return how long after guestServer knew it the VIM was told, of each change of a state."""
    heard = [(at, uuid, data["services"][0]["status"]) for at, uuid, data in made.heard("service")]
    found = []
    for silence in made.truth.silences:
        for name, status, since in (
            ("STOPPED", "disabled", silence.begin),
            ("RUNNING", "enabled", silence.end),
        ):
            if since == float("inf"):
                continue  # it hangs still
            said = made.evidence.said((name, silence.uuid), since, made.now)
            first = min(each.sent for each in said)
            times = [at for at, uuid, told in heard if (uuid, told) == (silence.uuid, status)]
            found.append(min(at for at in times if at >= first) - first)
    return found


def within(delays: list[float], share: float) -> float:
    return sorted(delays)[int(share * (len(delays) - 1))]


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos(seed):
    """Cuts, a VIM that goes away, kill -9 of both daemons, on top of a bad network."""
    with world(seed, 12) as made:
        run(made, storm, 60.0)
        check(made)


def test_what_is_still_true_after_a_cut_is_told():
    """15 s without a network: guests are lost, illnesses end and votes run out meanwhile."""
    with world(1, 6) as made:
        lost, back, ill, healed, asked, _well = made.uuids
        made.cut(15.0)
        made.ask(asked)
        made.hang(lost, 60.0)
        made.hang(back, 8.0)
        made.fall_ill(ill, 25.0)
        made.fall_ill(healed, 6.0)
        made.advance(24.0)
        told = {(uuid, data["services"][0]["state"]) for _, uuid, data in made.heard("alarm")}
        assert told == {(lost, "failed"), (ill, "unhealthy")}
        assert made.heard("action") == [], "the VIM waits for no answer any more"
        assert made.vim_believes()[lost] == "disabled"
        made.advance(66.0)
        check(made)


def test_an_illness_outlives_the_agent_that_did_not_hear_of_it():
    """The new agent asks how the guest is, which must not count as its being well."""
    with world(1, 2) as made:
        ill, _well = made.uuids
        made.cut(4.0)
        made.fall_ill(ill, 9.0)
        made.advance(2.5)
        made.kill_agent()
        made.advance(30.0)
        assert [uuid for _at, uuid, _data in made.heard("alarm")] == [ill]
        check(made)


@pytest.mark.parametrize("server_too", [False, True])
def test_alarms_outlive_the_agent_while_the_vim_is_down(server_too):
    """VIM down, three losses, kill -9 of guestAgent, a fresh one, VIM up: three alarms, once."""
    with world(1, 4) as made:
        made.vim_goes_down(40.0)
        for uuid in made.uuids[:3]:
            made.hang(uuid, 150.0)
        made.advance(10.0)
        assert made.heard("alarm") == []
        made.kill_agent()
        if server_too:
            made.advance(2.0)
            made.kill_server()
        made.advance(80.0)
        told = sorted(uuid for _at, uuid, _data in made.heard("alarm"))
        assert told == made.uuids[:3]
