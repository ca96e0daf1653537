"""Limits that meet: client, guestServer and guestAgent each limit illness, both daemons loss.

What each of them holds back must not add up: the VIM hears of an illness or a loss that is still
true within 10 s of the last one, and never oftener (decisions 25 to 27, 38, 39).
"""

from __future__ import annotations

import pytest

from guestmtce.core.shared.history import Entry, What
from tests.unit.both_ends import BothEnds

GAP = 10.0
# From an answer to the VIM: the challenge after the change, and what the loop takes.
LAG = 0.7


@pytest.fixture
def site():
    rig = BothEnds()
    yield rig.heartbeating()
    rig.close()


def times(alarms: list[tuple[float, str]], since: float) -> list[float]:
    return [at - since for at, _action in alarms]


def spaced(alarms: list[tuple[float, str]]) -> bool:
    """Whether alarms of one action are at least 10 s apart."""
    last: dict[str, float] = {}
    for at, action in alarms:
        if at - last.get(action, -GAP) < GAP - 1e-6:
            return False
        last[action] = at
    return True


def test_ill_well_and_ill_again_within_10_s(site):
    """Ill at 3 s, well at 6 s, ill at 9 s: told at 69 s, as each limit swallowed its part."""
    began = site.time
    site.advance(3)
    site.guest.ill()
    site.advance(3)
    site.guest.well()
    site.advance(3)
    site.guest.ill()
    site.advance(30)
    told = times(site.alarms("unhealthy"), began)
    assert len(told) == 2
    assert 3 <= told[0] <= 3 + LAG
    assert told[0] + GAP <= told[1] <= told[0] + GAP + LAG


def test_ill_well_ill_and_well_within_10_s(site):
    """What is no longer true when the 10 s are over is not told."""
    for _ in range(2):
        site.guest.ill()
        site.advance(3)
        site.guest.well()
        site.advance(1)
    site.advance(30)
    assert len(site.alarms("unhealthy")) == 1


def test_a_guest_that_is_ill_and_well_by_turns_for_two_minutes(site):
    for _ in range(60):
        site.guest.ill()
        site.advance(1)
        site.guest.well()
        site.advance(1)
    site.guest.ill()
    last = site.time
    site.advance(12)
    told = site.alarms("unhealthy")
    assert spaced(told)
    assert 10 <= len(told) <= 14
    assert any(at >= last for at in (at for at, _ in told)), "ill at the end, and told so"


def test_illnesses_with_different_actions_have_a_limit_each(site):
    for _ in range(10):
        for action in ("log", "stop", "reboot"):
            site.guest.ill(action)
            site.advance(1)
    site.advance(12)
    told = site.alarms("unhealthy")
    assert spaced(told)
    assert {action for _at, action in told} == {"log", "stop", "reboot"}


def lose(site: BothEnds) -> None:
    """Hang long enough to be lost; the client speaks again 5 s after the last challenge."""
    site.guest.hang()
    site.advance(2.2)
    site.guest.recover()
    site.advance(3.2)


def test_a_guest_that_gets_lost_again_and_again(site):
    """Each loss has the VIM reboot it: one in 10 s is enough."""
    for _ in range(20):
        lose(site)
    told = site.alarms("failed")
    assert spaced(told)
    assert 8 <= len(told) <= 11
    site.advance(15)
    assert site.told_status() == "enabled"


def test_a_second_loss_that_lasts_is_told_when_the_10_s_are_over(site):
    began = site.time
    lose(site)
    site.guest.hang()
    site.advance(40)
    told = times(site.alarms("failed"), began)
    assert len(told) == 2
    assert told[0] + GAP <= told[1] <= told[0] + GAP + LAG
    assert site.told_status() == "disabled"


def test_a_second_loss_that_is_over_by_then_is_not_told(site):
    lose(site)
    losses = [entry.what for entry in memory(site)].count(What.LOSS)
    lose(site)
    site.advance(40)
    assert [entry.what for entry in memory(site)].count(What.LOSS) == losses + 1
    assert len(site.alarms("failed")) == 1
    assert site.told_status() == "enabled"


def memory(site: BothEnds) -> list[Entry]:
    (channel,) = site.server.channels.values()
    return [*channel.instance.memory.history]


def test_ill_and_then_lost(site):
    """The limit on one kind of alarm does not hold the other kind."""
    site.guest.ill()
    site.advance(1)
    began = site.time
    site.guest.hang()
    site.advance(8)
    assert len(site.alarms("unhealthy")) == 1
    (told,) = times(site.alarms("failed"), began)
    assert told <= 2


def test_lost_and_then_ill(site):
    lose(site)
    site.guest.ill()
    site.advance(8)
    assert (len(site.alarms("failed")), len(site.alarms("unhealthy"))) == (1, 1)


def test_with_the_vim_down_the_limits_hold_and_the_present_is_told(site):
    site.vim.refuse()
    for _ in range(5):
        site.guest.ill()
        lose(site)
        site.guest.well()
        site.advance(2)
    site.guest.ill()
    site.advance(3)
    site.vim.listen()
    site.advance(45)
    assert site.alarms("failed") == [], "it heartbeats"
    assert spaced(site.alarms("unhealthy"))
    assert len(site.alarms("unhealthy")) >= 1


def test_an_agent_that_restarts_while_an_illness_is_held(site):
    """Decision 25: the status is told once, and what the server holds is told when it is due."""
    site.guest.ill()
    site.advance(2)
    site.guest.well()
    site.advance(1)
    site.guest.ill()
    site.advance(1)
    site.forget()
    site.restart()
    site.add_host()
    assert site.host_command("enable") == 200
    assert site.enable()[0] == 200
    site.advance(20)
    assert len(site.alarms("unhealthy")) == 1
    assert site.told_status() == "enabled"
