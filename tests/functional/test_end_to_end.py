"""Both daemons as processes, scripted guests, a VIM and an mtcAgent: what the VIM hears."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from guestmtce.runtime import control
from tests.peers.guest import ScriptedGuest
from tests.peers.journal import wait_until
from tests.peers.mtc_agent import MtcAgent
from tests.peers.reactor import Reactor
from tests.peers.root import Daemon, Root
from tests.peers.vim import Vim

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df1044{:02d}"
HOSTS = {
    "compute-0": ("8aee436e-d564-459e-a0d8-26c447920000", "127.0.0.2"),
    "compute-1": ("8aee436e-d564-459e-a0d8-26c447920001", "127.0.0.4"),
}
INTERVAL_MS = 500
BACK_SECS = 8.0  # decision 20


class Platform:
    """A controller with guestAgent, a VIM and an mtcAgent; workers as they are added."""

    def __init__(self) -> None:
        self.root = Root()
        self.vim = Vim(self.root.vim_port, self.root.vim_cmd_port)
        self.mtc = MtcAgent(self.root.mtc_event_port, self.root.mtc_cmd_port)
        self.reactor = Reactor()
        self.guests: dict[str, ScriptedGuest] = {}
        self.workers: dict[str, Root] = {}
        self.agent = self.root.start_agent()

    def add_worker(self, hostname: str) -> Root:
        """Start a guestServer under a root of its own, known to the VIM and to mtcAgent."""
        uuid, address = HOSTS[hostname]
        worker = Root()
        worker.agent_port, worker.server_port = self.root.agent_port, self.root.server_port
        worker.write_ini("guestServer", hostname, {})
        self.workers[hostname] = worker
        self.vim.set_host(uuid, hostname)
        self.mtc.add_host(hostname, uuid, address)
        worker.start_server()
        return worker

    def add_guest(self, number: int, hostname: str = "compute-0", **init: object) -> str:
        """Let an instance heartbeat, created and enabled by the VIM; return its UUID."""
        uuid = UUID.format(number)
        init.setdefault("heartbeat_interval_ms", INTERVAL_MS)
        self.guests[uuid] = ScriptedGuest(
            self.workers[hostname].channels, uuid, reactor=self.reactor, **init
        )
        self.vim.set_instance(uuid, hostname)
        self.create(uuid, hostname)
        self.vim.wait_event("service", uuid, status="enabled")
        return uuid

    def create(self, uuid: str, hostname: str) -> None:
        """What the VIM does for a new instance, once guestAgent knows its host."""
        command = self.vim.command
        wait_until(lambda: command.create_instance(uuid, hostname).status == 200, 15.0)
        assert command.set_instance(uuid, hostname).status == 200

    def heartbeating(self) -> bool:
        """Whether guestAgent says so of every guest."""
        answers = [self.vim.command.query_instance(uuid) for uuid in self.guests]
        return all(
            answer.status == 200 and answer.body["services"][0]["status"] == "enabled"
            for answer in answers
        )

    def close(self) -> None:
        for guest in self.guests.values():
            guest.close()
        for worker in self.workers.values():
            worker.close()
        self.root.close()
        self.reactor.stop()
        self.vim.close()
        self.mtc.close()


@pytest.fixture
def platform() -> Iterator[Platform]:
    made = Platform()
    yield made
    made.close()


def kill(root: Root, daemon: Daemon) -> None:
    """End a daemon as a crash would, and forget it."""
    daemon.signal(signal.SIGKILL)
    daemon.process.wait()
    root.daemons.remove(daemon)


def reporting(worker: Root, uuid: str) -> bool:
    """Whether the guestServer has been told to report the instance."""
    path = str(worker.path / "var/run/guestServer.ctl")
    return control.ask(path, {"command": "show", "uuid": uuid})["instance"]["reporting"] is True


def false_alarms(vim: Vim) -> list[object]:
    return [*vim.events("alarm"), *vim.events("action")]


def test_a_silent_guest_is_reported_two_intervals_after_the_unanswered_challenge(
    platform: Platform,
) -> None:
    """Interval 500 ms, threshold 1: the alarm is there 2 intervals later, within 250 ms."""
    platform.add_worker("compute-0")
    uuid = platform.add_guest(1, corrective_action="reboot")
    guest = platform.guests[uuid]
    guest.auto_answer = False
    seen = len(guest.seen)
    first = guest.wait_for("challenge", since=seen)
    alarm = platform.vim.wait_event("alarm", uuid)
    assert alarm.data["state"] == "failed"
    assert alarm.data["repair-action"] == "reboot"
    assert alarm.at - first.at == pytest.approx(2 * INTERVAL_MS / 1000, abs=0.25)
    assert len(platform.vim.events("alarm")) == 1


def test_a_killed_guest_server_comes_back_without_an_alarm(platform: Platform) -> None:
    """kill -9, restart: "everything is back within 8 s", "the VIM hears no false alarm"."""
    worker = platform.add_worker("compute-0")
    for number in range(3):
        platform.add_guest(number)
    kill(worker, worker.daemons[0])
    since = [len(guest.seen) for guest in platform.guests.values()]
    worker.start_server()
    for guest, start in zip(platform.guests.values(), since):
        guest.wait_for("init_ack", BACK_SECS, start)
    wait_until(platform.heartbeating, BACK_SECS)
    # Reporting is back too: a guest that hangs now is an alarm.
    hung = UUID.format(0)
    wait_until(lambda: reporting(worker, hung), BACK_SECS)
    assert not false_alarms(platform.vim)
    platform.guests[hung].auto_answer = False
    platform.vim.wait_event("alarm", hung, state="failed")


def test_a_fresh_agent_rebuilds_everything_and_says_nothing_that_is_not_true(
    platform: Platform,
) -> None:
    """Swact: no alarm or action, at most one `service` event per instance, with its status."""
    platform.add_worker("compute-0")
    uuids = [platform.add_guest(number) for number in range(3)]
    platform.guests[uuids[2]].auto_init = False
    platform.guests[uuids[2]].send("exit", log_msg="")
    platform.vim.wait_event("service", uuids[2], status="disabled")
    del platform.guests[uuids[2]]
    kill(platform.root, platform.agent)
    since = len(platform.vim.requests)
    platform.root.start_agent()
    wait_until(platform.heartbeating, BACK_SECS)
    time.sleep(0.5)  # what is not to come has had its time
    heard = platform.vim.requests.since(since)
    for uuid in uuids[:2]:
        told = [seen for seen in heard if seen.uuid == uuid and seen.event_type == "service"]
        assert [seen.data["status"] for seen in told] == ["enabled"]
    # The VIM may believe what the agent before told it: the first status is told whatever it is.
    assert [seen.data["status"] for seen in heard if seen.uuid == uuids[2] and seen.event_type] == [
        "disabled"
    ]
    assert not [seen for seen in heard if seen.event_type in {"alarm", "action"}]


@pytest.mark.parametrize("server_too", [False, True])
def test_three_losses_outlive_the_agent_while_the_vim_is_down(
    platform: Platform, server_too: bool
) -> None:
    """kill -9 of guestAgent, a fresh one, and then the VIM comes back: three alarms, once each."""
    worker = platform.add_worker("compute-0")
    uuids = [platform.add_guest(number) for number in range(3)]
    wait_until(lambda: all(reporting(worker, uuid) for uuid in uuids))
    platform.vim.refuse()
    for guest in platform.guests.values():
        guest.auto_answer = guest.auto_init = False
    saved = worker.path / "var/run/guestServer.losses"
    wait_until(lambda: saved.exists() and all(uuid in saved.read_text() for uuid in uuids))
    kill(platform.root, platform.agent)
    if server_too:
        kill(worker, worker.daemons[0])
        worker.start_server()
    platform.root.start_agent()
    platform.vim.listen()
    for uuid in uuids:
        platform.vim.wait_event("alarm", uuid, timeout=60.0, state="failed")
    wait_until(lambda: not saved.exists())  # each is acknowledged for good: nothing is owed
    assert len(platform.vim.events("alarm")) == 3


def test_two_workers_are_not_confused(platform: Platform) -> None:
    """Two guestServers, 127.0.0.2 and 127.0.0.4, one agent: a loss there is no loss here."""
    platform.add_worker("compute-0")
    platform.add_worker("compute-1")
    here = platform.add_guest(1, "compute-0")
    there = platform.add_guest(2, "compute-1")
    platform.guests[there].auto_answer = False
    alarm = platform.vim.wait_event("alarm", there)
    assert alarm.body["hostname"] == "compute-1"
    assert platform.vim.command.vote(here, "compute-0", "pause").status == 200
    action = platform.vim.wait_event("action", here)
    assert action.data["guest-response"] == "allow"
    assert {seen.uuid for seen in platform.vim.events("alarm")} == {there}


def test_an_instance_that_moves_is_heartbeated_where_it_went(platform: Platform) -> None:
    """Create on another host moves it: DEL_INST there, ADD_INST here, status from here."""
    platform.add_worker("compute-0")
    target = platform.add_worker("compute-1")
    uuid = platform.add_guest(1)
    old = platform.guests[uuid]
    new = ScriptedGuest(
        target.channels, uuid, reactor=platform.reactor, heartbeat_interval_ms=INTERVAL_MS
    )
    since = len(platform.vim.requests)
    platform.create(uuid, "compute-1")
    old.wait_for("closed")
    old.close()
    platform.guests[uuid] = new
    wait_until(platform.heartbeating, BACK_SECS)
    told = platform.vim.wait_event("service", uuid, since=since, status="enabled")
    assert told.body["hostname"] == "compute-1"
    assert not false_alarms(platform.vim)


def test_a_stopped_host_daemon_blames_no_guest(platform: Platform) -> None:
    """Whose silence? SIGSTOP of guestServer for several intervals is no loss of any guest."""
    worker = platform.add_worker("compute-0")
    uuid = platform.add_guest(1)
    worker.daemons[0].signal(signal.SIGSTOP)
    time.sleep(4 * INTERVAL_MS / 1000)
    worker.daemons[0].signal(signal.SIGCONT)
    guest = platform.guests[uuid]
    answered = guest.answered
    wait_until(lambda: guest.answered >= answered + 3)
    assert not platform.vim.events("alarm")
    assert platform.heartbeating()
