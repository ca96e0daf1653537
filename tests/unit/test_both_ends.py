"""Limits that meet: client, guestServer and guestAgent each limit what they say, hear and log.

What each of them holds back must not add up: the VIM hears of an illness or a loss that is still
true within 10 s of the last one, and never oftener (decisions 25 to 27, 38, 39); of a status soon;
of a vote once. The pairs, each across both ends: illness and loss (client, server, agent, VIM),
status (inits and exits; the agent's share), connections (QEMU, server, client), floods and misses,
READY and restarts, reporting and its repeats, votes (three windows), the lines of the logs.
"""

from __future__ import annotations

import logging

import pytest

from guestmtce.core.shared.history import Entry, What
from guestmtce.runtime.log import SiteLimit
from tests.peers.root import CONTROLLER
from tests.unit.agent_support import HOST_0, UUID
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


def test_an_agent_that_restarts_after_a_loss_does_not_have_it_told_again(site):
    """What the server owes and what the new agent finds are one loss, with the VIM told of it."""
    site.guest.hang()
    site.advance(3)
    assert len(site.alarms("failed")) == 1
    site.restart()
    site.add_host()
    assert site.host_command("enable") == 200
    assert site.enable()[0] == 200
    site.advance(30)
    assert len(site.alarms("failed")) == 1
    assert site.told_status() == "disabled"


@pytest.mark.parametrize("how", ["the host is added again", "the floating address is back"])
def test_a_host_that_was_forgotten_is_told_all_anew(site, how):
    """Its guestServer has gone on: what it heard before must not make the new word an old one."""
    for _ in range(20):
        site.enable(state="disabled")
        site.enable()
    assert site.ask("vote", "reboot")[0] == 200
    site.advance(5)
    if how == "the host is added again":
        site.mtc_says("DEL_HOST", uuid=HOST_0, hostname="compute-0")
    else:
        site.away.add(CONTROLLER)
        site.advance(20)
        site.away.clear()
    site.advance(5)
    site.add_host()
    assert site.host_command("enable") == 200
    assert site.create() == 200
    assert site.enable()[0] == 200
    site.advance(5)
    site.forget()
    assert site.ask("vote", "stop")[1]["timeout"] != "0"
    site.advance(1)
    assert [answer["action"] for answer in site.answers()] == ["stop"]
    site.enable(state="disabled")
    site.advance(1)
    assert not site.server.channels[UUID].instance.reports.reporting
    assert not site.server.link.intake.dropped.keys() & {"again", "behind"}


@pytest.mark.parametrize("ends", [True, False])
def test_what_an_agent_does_not_tell_as_another_is_the_active_one_is_not_done(site, ends):
    """It holds a loss, the VIM is down, the floating address goes: it settles nothing then."""
    site.vim.refuse()
    site.guest.hang()
    site.advance(4)
    site.away.add(CONTROLLER)
    site.advance(15)
    assert not site.agent.summary()["active"]
    if ends:
        site.agent.stop(lambda: None)
        site.loop.settle()
    assert site.server.link.role.how_much().held == 1
    site.away.clear()
    if ends:
        site.agent = site.build()
        site.start()
    site.advance(3)
    site.add_host()
    assert site.host_command("enable") == 200
    assert site.enable()[0] == 200
    site.vim.listen()
    site.advance(30)
    assert [action for _at, action in site.alarms("failed")] == ["reboot"]


def test_an_illness_that_outlasts_an_outage_of_the_vim(site):
    """Named each 60 s by the client, kept for 70 s by the agent: one is always there to tell."""
    site.vim.refuse()
    site.guest.ill()
    site.advance(300)
    site.vim.listen()
    site.advance(70)
    assert len(site.alarms("unhealthy")) >= 1
    assert spaced(site.alarms("unhealthy"))


def services_in(site: BothEnds, secs: float) -> int:
    """Return how many `service` events the VIM heard at most in so many seconds."""
    times = [
        seen.at
        for seen in site.vim.requests
        if seen.what.method == "PATCH" and seen.what.members["event-type"] == "service"
    ]
    return max((sum(at <= each < at + secs for each in times) for at in times), default=0)


@pytest.mark.parametrize("stays", [True, False])
def test_a_client_that_is_restarted_all_the_time(site, stays):
    """Each init and exit is told by the server, and few by the agent: the last one at the end."""
    for _ in range(100):
        site.guest.restart()
        site.advance(0.4)
    if not stays:
        site.guest.client.stop("over")
    site.advance(21)
    assert site.told_status() == ("enabled" if stays else "disabled")
    assert 2 <= services_in(site, 10.0) <= 22
    assert site.alarms("failed") == []


def test_a_qemu_that_hangs_up_all_the_time(site):
    """Its gap, the server's backoff and the client's patience end when it stays."""
    for _ in range(60):
        site.guest.close_channel()
        site.advance(0.5)
    site.advance(70)
    assert site.told_status() == "enabled"
    assert site.alarms("failed") == []


def test_a_guest_that_hangs_for_long_and_recovers(site):
    """The server connects anew each 120 s, the client says init when no challenge comes."""
    site.guest.hang()
    site.advance(600)
    assert len(site.alarms("failed")) == 1
    site.guest.recover()
    site.advance(10)
    assert site.told_status() == "enabled"
    assert len(site.alarms("failed")) == 1


def test_a_flood_beside_the_client_costs_no_loss(site):
    """Time in which the server does not read a flooded channel is no guest's silence."""
    for _ in range(300):
        site.guest.flood(600)
        site.advance(0.1)
    # What QEMU and the socket hold of the flood is read in its time, and the answers after it.
    site.advance(200)
    assert site.vim.events("alarm") == []
    assert site.vim.events("service") == []
    site.guest.hang()
    site.advance(3)
    assert len(site.alarms("failed")) == 1


def test_a_server_that_restarts_again_and_again(site):
    """One answer to READY in 2 s is enough: the last server knows that faults are wanted."""
    for _ in range(6):
        site.restart_server()
        site.advance(1)
    site.advance(20)
    assert site.vim.events("alarm") == []
    assert site.vim.events("service") == [], "the VIM believes that it is enabled, and it is"
    site.guest.hang()
    site.advance(4)
    assert len(site.alarms("failed")) == 1


def test_reporting_switched_off_and_on_again_and_again(site):
    for _ in range(30):
        assert site.enable(state="disabled")[0] == 200
        site.advance(0.05)
        assert site.enable()[0] == 200
        site.advance(0.05)
    site.advance(15)
    assert site.told_status() == "enabled"
    site.guest.hang()
    site.advance(4)
    assert len(site.alarms("failed")) == 1


@pytest.mark.parametrize("second", ["reboot", "stop"])
def test_a_second_vote_takes_the_place_of_the_first_everywhere(site, second):
    site.guest.ponders = 1.0
    assert site.ask("vote", "stop")[0] == 200
    site.advance(0.5)
    assert site.ask("vote", second)[0] == 200
    site.advance(30)
    (answer,) = site.answers()
    assert (answer["action"], answer["guest-response"]) == (second, "allow")
    assert [asked.event for _at, asked in site.guest.asked] == ["stop", second]


# The client has 1 s less than what the server tells it, the server 0.5 s less than the VIM.
@pytest.mark.parametrize("early", [3.0, 1.0, 0.6, 0.5, 0.4, 0.01, 0.0, -0.5, -5.0])
def test_a_vote_ends_once_whosever_time_is_over_first(site, early):
    status, answer = site.ask("vote", "reboot")
    assert status == 200
    window = float(answer["timeout"])
    site.advance(window + 2)
    site.forget()
    site.guest.ponders = window - early
    assert site.ask("vote", "reboot")[0] == 200
    site.advance(window)
    (answer,) = site.answers()
    assert answer["guest-response"] == "allow"
    site.advance(10)
    assert len(site.answers()) == 1


def suspend_without_a_post_event_notification(site: BothEnds) -> None:
    """The VIM's order, with an agent that sends no notification to a guest it believes silent."""
    assert site.ask("vote", "suspend")[0] == 200
    site.advance(1)
    assert site.ask("notify", "suspend")[0] == 200
    site.advance(1)
    assert site.enable(state="disabled")[0] == 200
    site.guest.hang()
    site.advance(30)
    site.guest.recover()
    assert site.enable()[0] == 200


def test_after_a_suspend_without_the_notification_of_its_end_a_loss_is_told(site):
    """Expected silence, 60 s of it, ends with reporting that is on again (decision 37)."""
    suspend_without_a_post_event_notification(site)
    site.advance(15)
    assert site.told_status() == "enabled"
    assert site.alarms("failed") == []
    site.guest.hang()
    site.advance(4)
    assert len(site.alarms("failed")) == 1


class LogLines(logging.Handler):
    """What a daemon's log would hold, with its limits, on the site's clock."""

    def __init__(self, site: BothEnds, package: str) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []
        self.addFilter(logging.Filter(package))
        self.addFilter(SiteLimit(site.loop.time))

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def logs(site):
    """Give the lines of guestServer and of guestAgent."""
    handlers = [LogLines(site, f"guestmtce.{package}") for package in ("server", "agent")]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    yield [handler.texts for handler in handlers]
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(level)


def test_whatever_a_guest_has_logged_its_loss_is_in_both_logs(site, logs):
    """All that one guest can do, in its 10 s: floods, restarts, illnesses of each action, votes."""
    for turn in range(40):
        site.guest.flood(40)
        site.guest.ill(("log", "stop", "reboot")[turn % 3])
        site.advance(0.1)
        site.guest.restart()
        site.guest.well()
        site.advance(0.1)
        if turn % 20 == 0:
            site.ask("vote", "pause")
    site.guest.hang()
    site.advance(4)
    assert len(site.alarms("failed")) == 1
    server, agent = logs
    assert any("HEARTBEAT_LOSS (no answer for" in text for text in server)
    assert any(f"{UUID} on compute-0: told the VIM: alarm failed" in text for text in agent)
    assert len(server) + len(agent) < 400


# A guestServer that ends


def test_a_guest_that_hangs_as_guestserver_ends(site):
    """Told `disabled` and never `failed`: the next guestServer cannot tell it from an exit.

    What is not promised (datagrams.md, "Bounds, and what is not promised"): an alarm would reboot
    the VM of the next test too, which is well.
    """
    site.guest.hang()
    site.restart_server()
    site.advance(70)
    assert site.told_status() == "disabled"
    assert site.alarms("failed") == []
    site.guest.recover()
    site.advance(10)
    assert site.told_status() == "enabled"


def test_a_client_that_ends_while_guestserver_is_away(site):
    """Nobody heard its `exit`; the VM is well."""
    site.server.stop(lambda: None)
    site.loop.settle()
    site.guest.client.stop("done")
    site.guest.hang()
    site.restart_server()
    site.advance(70)
    assert site.told_status() == "disabled"
    assert site.alarms("failed") == []
