"""guestAgent without its floating address (decision 32), and coming back."""

from __future__ import annotations

import errno
import json

import pytest

from guestmtce.core.agent import vim_answers
from guestmtce.core.agent.presence import ABSENT_SECS, Presence
from guestmtce.core.shared.errors import Unneeded
from guestmtce.core.shared.history import What
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime.vitals import sentences
from tests.peers.root import CONTROLLER
from tests.unit.agent_rig import AgentRig
from tests.unit.agent_support import HOST_0, UUID, CoreRig


def test_its_absence_counts_after_10_s_and_its_return_at_once():
    presence = Presence()
    said = [presence.note(False, now) for now in (0, 5, ABSENT_SECS - 0.1, ABSENT_SECS, 20)]
    assert said == [False, False, False, True, False]
    assert not presence.active
    assert presence.note(True, 21)
    assert presence.active


def test_a_moment_without_it_changes_nothing():
    presence = Presence()
    for now in range(0, 100, 9):
        assert not presence.note(False, now)
        assert not presence.note(True, now + 8)


@pytest.fixture
def absent() -> CoreRig:
    """A core whose address went away 10 s ago, with an alarm that waits."""
    rig = CoreRig()
    rig.ready()
    rig.event(Command.HEARTBEAT_LOSS)
    rig.event(Command.MONITOR_READY)
    rig.port.calls.clear()
    for _ in range(2):
        rig.agent.note_presence(False, rig.now)
        rig.now += ABSENT_SECS
    return rig


def test_it_neither_audits_nor_tells(absent):
    absent.audit()
    assert absent.sent() == []
    assert absent.deliver() == []
    assert absent.queue.dropped == {"not_active": 1}


def test_it_learns_nothing_from_an_answer_that_comes_now():
    rig = CoreRig()
    rig.add_host()
    query = rig.queue.poll(rig.now)[0]
    for _ in range(2):
        rig.agent.note_presence(False, rig.now)
        rig.now += ABSENT_SECS
    vim_answers.learn(rig.agent, query, b'{"state":"enabled"}', rig.now)
    assert rig.host().reporting is None
    assert rig.sent() == []


@pytest.mark.parametrize("command", [Command.HEARTBEAT_LOSS, Command.HEARTBEAT_STOPPED])
def test_it_takes_no_events(absent, command):
    with pytest.raises(Unneeded, match="not_active"):
        absent.info(command)
    assert absent.instance().heartbeating
    assert absent.deliver() == []


def test_it_takes_no_commands(absent):
    body = json.dumps({"uuid": HOST_0, "hostname": "compute-0"}).encode()
    status, answer = absent.vim("PUT", f"/v1/hosts/{HOST_0}/disable", body)
    assert (status, answer["status"]) == (503, "fail")
    with pytest.raises(Unneeded, match="not_active"):
        absent.mtc(Command.DEL_HOST, hostname="compute-0", uuid=HOST_0)
    assert absent.host().reporting
    assert absent.sent() == []


def test_when_it_is_back_it_begins_as_after_a_start(absent):
    """What the VIM and mtcAgent said meanwhile, they said to the other one."""
    absent.agent.note_presence(True, absent.now)
    assert absent.sent() == [("mtcAgent", "MONITOR_READY")]
    assert absent.agent.inventory.hosts == {}
    assert absent.agent.inventory.instances == {}
    instance = absent.ready()
    kinds = [entry.what for entry in instance.history]
    assert What.MOVED not in kinds
    assert kinds.count(What.RECEIVED) > 1, "what was remembered of it is remembered"


def test_what_waits_for_a_burst_is_not_sent(absent):
    """READY was answered in the moment before: a guestServer must not hear two agents."""
    assert len(absent.agent.bursts) == 0


def test_when_it_is_back_it_asks_for_the_hosts_at_once():
    """Whenever it asked the last time: without hosts it takes no events."""
    rig = CoreRig()
    rig.agent.note_presence(False, rig.now)
    rig.agent.ask_mtc_agent(rig.now + ABSENT_SECS - 0.1)
    rig.agent.note_presence(False, rig.now + ABSENT_SECS)
    rig.port.calls.clear()
    rig.agent.note_presence(True, rig.now + ABSENT_SECS + 0.1)
    assert rig.sent() == [("mtcAgent", "MONITOR_READY")]


@pytest.fixture
def controller():
    rig = AgentRig()
    yield rig.ready()
    rig.close()


def get(rig: AgentRig, path: str) -> int:
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    return rig.raw_command(request.encode())[0]


def test_a_look_that_fails_changes_nothing(controller):
    """getifaddrs needs a descriptor."""
    controller.away = OutOfDescriptors()
    controller.advance(60)
    assert controller.agent.summary()["active"]
    controller.away = {CONTROLLER}
    controller.advance(20)
    controller.away = OutOfDescriptors()
    controller.advance(60)
    assert not controller.agent.summary()["active"]


class OutOfDescriptors(set):
    def __contains__(self, _address: object) -> bool:
        raise OSError(errno.EMFILE, "Too many open files")


def test_what_is_owed_is_not_said_again_meanwhile(controller):
    """A guestServer that has just acknowledged would take it, from two agents."""
    rig = controller
    role = rig.agent.core.inventory.hosts[HOST_0].role
    assert role is not None
    rig.away.add(CONTROLLER)
    rig.advance(9)
    assert rig.enable(state="disabled")[0] == 200
    rig.server_says("LOOPBACK", epoch=7, of=role.epoch, ack=0)
    rig.advance(0.9)
    assert len(rig.told("MOD_INST")) > 1, "it is repeated to who acknowledges"
    rig.advance(5)
    assert not rig.agent.summary()["active"]
    rig.forget()
    rig.advance(9)
    assert rig.told() == []


def test_the_daemon_looks_by_itself(controller):
    rig = controller
    rig.away.add(CONTROLLER)
    rig.advance(5)
    assert rig.agent.summary()["active"]
    rig.advance(10)
    rig.forget()
    rig.info("STOPPED", heartbeating="disabled")
    rig.advance(30)
    assert rig.host_command("enable") == 503
    assert (rig.told(), rig.vim.requests) == ([], [])
    assert [get(rig, path) for path in ("/v1/hosts", "/v1/instances", "/metrics")] == [200] * 3
    assert any(
        f"{CONTROLLER} is not on this host" in problem
        for problem in sentences(rig.agent.problems())
    )
    rig.away.clear()
    rig.advance(1)
    assert len(rig.to_mtc) == 1, "the hosts are asked for at once"
    assert rig.host_command("enable") == 404, "mtcAgent has not named it yet"
    rig.add_host()
    assert rig.host_command("enable") == 200
    assert rig.create() == 200
    rig.info("RUNNING")
    assert [event["uuid"] for event in rig.vim.events("service")] == [UUID]
    rig.advance(13)
    assert len(rig.told("QRY_INST")) >= 1, "it is audited again"


def test_an_address_that_no_name_gives_is_told_with_its_remedy():
    rig = AgentRig()
    rig.write_hosts({"controller": CONTROLLER})
    rig.restart()
    found = sentences(rig.agent.problems())
    rig.close()
    remedy = "add controller-0 to /etc/hosts, or set [agent] local_address"
    assert f"our local address is not known: {remedy}" in found
