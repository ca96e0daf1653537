"""Both daemons as processes, guests, and a VIM with one thread: swact, outages, bad answers."""

from __future__ import annotations

import time

import pytest

from tests.peers.guest import ScriptedGuest
from tests.peers.journal import wait_until
from tests.peers.mtc_agent import MtcAgent
from tests.peers.reactor import Reactor
from tests.peers.root import COMPUTE_0, Root
from tests.peers.vim import Vim

HOST, HOST_UUID = "compute-0", "8aee436e-d564-459e-a0d8-26c447920000"
UUIDS = [f"8d80875b-fa73-4ccb-bce3-{number:012d}" for number in range(3)]
INTERVAL_MS = 500


class Site:
    """A controller and a worker with three heartbeating guests that report."""

    def __init__(self) -> None:
        self.root = Root(settings={"timeouts": {"start_delay": 0}})
        self.reactor = Reactor()
        self.vim = Vim(self.root.vim_port, self.root.vim_cmd_port, serial=True)
        self.vim.set_host(HOST_UUID, HOST)
        for uuid in UUIDS:
            self.vim.set_instance(uuid, HOST)
        self.mtc = MtcAgent(self.root.mtc_event_port, self.root.mtc_cmd_port)
        self.mtc.add_host(HOST, HOST_UUID, COMPUTE_0, tell=False)
        self.guests = [
            ScriptedGuest(
                self.root.channels, uuid, reactor=self.reactor, heartbeat_interval_ms=INTERVAL_MS
            )
            for uuid in UUIDS
        ]
        self.server = self.root.start_server()
        self.agent = self.root.start_agent()
        for uuid in UUIDS:
            self.vim.wait_event("service", uuid, status="enabled")

    def status_of(self, uuid: str) -> tuple[str, str]:
        """What the agent says of an instance: reporting and heartbeating."""
        try:
            answer = self.vim.command.query_instance(uuid)
        except OSError:
            return "", ""  # it does not listen yet
        if answer.status != 200:
            return "", ""
        (service,) = answer.body["services"]
        return service["state"], service["status"]

    def close(self) -> None:
        self.root.stop()
        for guest in self.guests:
            guest.close()
        self.reactor.stop()
        self.mtc.close()
        self.vim.close()
        self.root.remove()


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


def test_swact(site):
    """Back within 8 s; no alarm, no action, at most one `service` event an instance, and true."""
    site.agent.kill()
    since = len(site.vim.requests)
    began = time.monotonic()
    site.agent = site.root.start_agent()

    def is_back() -> bool:
        return all(site.status_of(uuid) == ("enabled", "enabled") for uuid in UUIDS)

    wait_until(is_back, 8, "every instance heartbeating again")
    assert time.monotonic() - began < 8
    time.sleep(1)
    events = [seen for seen in list(site.vim.requests)[since:] if seen.event_type]
    assert {seen.event_type for seen in events} <= {"service"}
    assert all(seen.data["status"] == "enabled" for seen in events)
    assert len(events) == len({seen.uuid for seen in events})
    for guest in site.guests:
        assert guest.connected, "no channel was lost meanwhile"


def lose(site: Site, number: int = 0) -> str:
    """A guest falls silent."""
    site.reactor.call(setattr, site.guests[number], "auto_answer", False)
    return UUIDS[number]


@pytest.mark.parametrize("mode", ["hang", "slow", "garbage", "500"])
def test_an_alarm_is_heard_once_whatever_the_vim_does_with_it(site, mode):
    site.vim.misbehave(mode, lambda request: request.event_type == "alarm")
    uuid = lose(site)
    site.vim.wait_event("alarm", uuid, state="failed")
    time.sleep(1.5)
    assert len(site.vim.events("alarm", uuid)) == 1


def test_after_an_outage_of_the_vim_the_loss_is_told_once(site):
    site.vim.refuse()
    uuid = lose(site)
    time.sleep(3)
    since = len(site.vim.requests)
    site.vim.listen()
    site.vim.wait_event("alarm", uuid, timeout=10, since=since, state="failed")
    told = [seen.event_type for seen in list(site.vim.requests)[since:] if seen.uuid == uuid]
    assert told == ["service", "alarm"]
    assert len(site.vim.unreadable) == 0


def test_a_guest_that_recovers_during_an_outage_is_not_rebooted(site):
    site.vim.refuse()
    uuid = lose(site)
    time.sleep(3)
    site.reactor.call(setattr, site.guests[0], "auto_answer", True)
    site.guests[0].send_init()
    wait_until(lambda: site.status_of(uuid)[1] == "enabled", 10, "the guest heartbeats again")
    since = len(site.vim.requests)
    site.vim.listen()
    site.vim.wait_event("service", uuid, timeout=15, since=since, status="enabled")
    time.sleep(0.5)
    assert site.vim.events("alarm", uuid) == []
