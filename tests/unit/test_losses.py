"""guestServer and a new guestAgent: what is acknowledged, what is saved, what is told again."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.server.saved_loss import SavedLoss, to_text
from guestmtce.runtime import files
from guestmtce.runtime.outside import OUTSIDE, Outside, seconds_since_boot
from guestmtce.runtime.vitals import sentences
from guestmtce.server.app import GuestServer
from guestmtce.server.losses import LOSSES_FILE
from tests.peers import wire
from tests.unit.server_support import UUID, Guest, Server

EPOCH = 4711


class NewAgent:
    """Speaks for the rig's agent with stamps, and acknowledges when told to."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._agent = server.agent
        self._agent.is_new = True
        self._seq = 0
        self._server_epoch = 0

    def say(self, name: str, **body) -> None:
        self._seq += 1
        self._agent.send(name, **body, epoch=EPOCH, seq=self._seq)

    def set_instance(self, name: str, state: str) -> None:
        self.say(name, uuid=UUID, service="heartbeat", state=state)

    def prove(self) -> None:
        """Answer the probe that the first word of a new process brings."""
        self.say("QRY_INST")
        probe = next(each for each in self._agent.take() if each.name == "LOOPBACK")
        self._server_epoch = probe.body["epoch"]
        self.stay()

    def stay(self) -> None:
        """Be there still: what is owed to us is repeated for 15 s more."""
        self._agent.send("LOOPBACK", epoch=EPOCH, of=self._server_epoch, ack=0)

    def acknowledge(self, datagram: wire.Datagram, **more) -> None:
        body = datagram.body
        self._agent.send("LOOPBACK", epoch=EPOCH, of=body["epoch"], ack=body["seq"], **more)

    def heard(self, name: str) -> list[wire.Datagram]:
        return [each for each in self._agent.take() if each.name == name]


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def beating(server):
    """A reported guest that heartbeats, and an agent that acknowledges nothing yet."""
    server.start()
    agent = NewAgent(server)
    agent.prove()
    agent.set_instance("ADD_INST", "enabled")
    guest = server.guest()
    assert server.loop.run_until(lambda: server.heartbeating(UUID), 5)
    agent.heard("")
    return guest, agent


@pytest.fixture
def lost(server, beating):
    """The guest was lost just now, and the agent holds the LOSS."""
    guest, agent = beating
    guest.answers = guest.inits = False
    server.loop.advance(5)
    return guest, agent


def saved(server) -> list[str]:
    path = server.root / LOSSES_FILE.lstrip("/")
    return (
        [loss["uuid"] for loss in json.loads(path.read_text())["losses"]] if path.exists() else []
    )


def test_a_loss_is_repeated_until_it_is_told(server, lost):
    _guest, agent = lost
    losses = agent.heard("LOSS")
    assert len(losses) > 1
    assert len({each.body["id"] for each in losses}) == 1
    agent.acknowledge(losses[0], queued=True)
    server.loop.advance(11)
    assert len(agent.heard("LOSS")) == 1, "a queued one each 10 s"
    agent.acknowledge(losses[0])
    server.loop.advance(30)
    assert agent.heard("LOSS") == []


def test_what_became_of_a_loss_is_remembered(server, lost):
    _guest, agent = lost
    loss = agent.heard("LOSS")[0]
    for held in (True, True, False):
        agent.acknowledge(loss, queued=held)
    server.loop.advance(1)
    entries = server.app.commands()["show"]({"uuid": UUID})["instance"]["history"]
    assert [each["detail"] for each in entries if each["what"] == "acknowledged"] == [
        f"loss held for the VIM by {server.app.link.destination}",
        f"loss settled by {server.app.link.destination}",
    ]


def test_what_is_owed_is_saved_for_ourselves_alone(server, lost):
    _guest, agent = lost
    path = server.root / LOSSES_FILE.lstrip("/")
    assert saved(server) == [UUID]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    agent.acknowledge(agent.heard("LOSS")[0])
    assert not path.exists()


def come_back(guest: Guest, _agent: NewAgent) -> None:
    guest.answers = True
    guest.say_init()


VOIDS: dict[str, Callable[[Guest, NewAgent], object]] = {
    "hangs up": lambda guest, _agent: guest.hang_up(),
    "file goes": lambda guest, _agent: guest.path.unlink(),
    "file replaced": lambda guest, _agent: guest.listen(),
    "deleted": lambda _guest, agent: agent.set_instance("DEL_INST", "disabled"),
    "reporting off": lambda _guest, agent: agent.set_instance("MOD_INST", "disabled"),
    "host off": lambda _guest, agent: agent.say("MOD_HOST", uuid=UUID, heartbeat="disabled"),
    "back": come_back,
}


@pytest.mark.parametrize("void", VOIDS.values(), ids=VOIDS)
def test_a_void_loss_is_neither_told_nor_saved(server, lost, void):
    guest, agent = lost
    void(guest, agent)
    server.loop.advance(1)
    agent.heard("LOSS")
    server.loop.advance(30)
    assert agent.heard("LOSS") == []
    assert saved(server) == []


def restart(server: Server, agent: NewAgent, outside: Outside = OUTSIDE) -> None:
    server.app.stop(lambda: None)
    agent.heard("")
    root = str(server.root)
    server.app = GuestServer(server.loop, server.settings, "compute-0", root, outside)
    server.start()
    agent.prove()


def test_after_a_restart_it_is_told_if_it_is_still_true(server, lost):
    """Only when its channel has been open for 15 s without an init."""
    _guest, agent = lost
    order = agent.heard("LOSS")[0].body["id"]
    restart(server, agent)
    agent.set_instance("ADD_INST", "enabled")
    server.loop.advance(10)
    assert agent.heard("LOSS") == []
    server.loop.advance(10)
    assert {each.body["id"] for each in agent.heard("LOSS")} == {order}


def test_after_a_restart_each_state_says_what_the_guest_wanted(server, lost):
    """What guestAgent hears of it first is what it tells the VIM with the loss."""
    _guest, agent = lost
    restart(server, agent)
    agent.set_instance("ADD_INST", "enabled")
    server.loop.advance(0.5)
    said = agent.heard("STOPPED")
    assert {each.body["repair-action"] for each in said} == {"reboot"}


@pytest.mark.parametrize("void", VOIDS.values(), ids=VOIDS)
def test_after_a_restart_it_is_not_told_if_it_is_void_by_then(server, lost, void):
    guest, agent = lost
    restart(server, agent)
    agent.set_instance("ADD_INST", "enabled")
    server.loop.advance(10)
    void(guest, agent)
    server.loop.advance(1)
    assert saved(server) == []
    agent.say("MOD_HOST", uuid=UUID, heartbeat="enabled")
    agent.set_instance("ADD_INST", "enabled")
    server.loop.advance(100)
    assert agent.heard("LOSS") == []


def test_after_a_restart_that_we_connect_anew_makes_no_loss_void(server):
    """A channel that brings nothing for 120 s is opened afresh; three of its intervals are more."""
    server.start()
    agent = NewAgent(server)
    agent.prove()
    agent.set_instance("ADD_INST", "enabled")
    guest = server.guest()
    guest.init = {**guest.init, "heartbeat_interval_ms": 60_000}
    assert server.loop.run_until(lambda: server.heartbeating(UUID), 5)
    guest.answers = guest.inits = False
    server.loop.advance(200)
    assert saved(server) == [UUID]
    restart(server, agent)
    agent.set_instance("ADD_INST", "enabled")
    server.loop.advance(179)
    assert len(guest.accepted) == 3, "afresh"
    agent.heard("LOSS")
    server.loop.advance(5)
    assert agent.heard("LOSS") != []


def test_after_a_restart_it_waits_until_reporting_is_on(server, lost):
    """guestAgent says that it wants to hear of it, and what it is told has the guest's action."""
    _guest, agent = lost
    restart(server, agent)
    server.loop.advance(30)
    assert agent.heard("LOSS") == []
    agent.set_instance("ADD_INST", "enabled")
    (state,) = agent.heard("STOPPED")
    assert state.body["repair-action"] == "reboot"
    server.loop.advance(1)
    assert len(agent.heard("LOSS")) == 1


def test_after_a_restart_it_grows_old_while_it_waits(server, lost):
    """Owed LOSSes survive for 10 min at most: its channel may be open only after that."""
    guest, agent = lost
    lost_at, now = OUTSIDE.since_boot(), server.loop.time()
    server.app.stop(lambda: None)
    elsewhere = guest.path.rename(server.root / "elsewhere")
    clock = OUTSIDE._replace(since_boot=lambda: lost_at + server.loop.time() - now)
    restart(server, agent, clock)
    agent.set_instance("ADD_INST", "enabled")
    server.loop.advance(601)
    assert saved(server) == []
    elsewhere.rename(guest.path)
    server.loop.advance(100)
    assert server.connected()
    assert agent.heard("LOSS") == []


def test_no_loss_is_told_of_a_host_that_did_not_report_before_it_was_found_again(server, lost):
    guest, agent = lost
    server.app.stop(lambda: None)
    elsewhere = guest.path.rename(server.root / "elsewhere")
    restart(server, agent)
    agent.say("MOD_HOST", uuid=UUID, heartbeat="disabled")
    server.loop.advance(1)
    assert saved(server) == []
    agent.say("MOD_HOST", uuid=UUID, heartbeat="enabled")
    elsewhere.rename(guest.path)
    agent.set_instance("ADD_INST", "enabled")
    server.loop.advance(100)
    assert server.connected()
    assert agent.heard("LOSS") == []


def fall_ill(server: Server, guest: Guest) -> None:
    """It says once that it is ill, and neither that it is well nor that it is gone after that."""
    guest.answers = False
    challenges = guest.types().count("challenge")
    assert server.loop.run_until(lambda: guest.types().count("challenge") > challenges, 5)
    guest.answer(guest.heard[-1]["heartbeat_challenge"], "unhealthy", "reboot")
    server.loop.advance(0.1)


def test_an_illness_is_not_said_again_when_it_is_history(server, beating):
    """ILLHEALTH is void when 70 s are over."""
    guest, agent = beating
    guest.init = {**guest.init, "heartbeat_interval_ms": 80_000}
    guest.say_init()
    fall_ill(server, guest)
    illness = agent.heard("ILLHEALTH")[-1]
    server.loop.advance(40)
    agent.acknowledge(illness, queued=True)
    agent.stay()
    server.loop.advance(11)
    assert agent.heard("ILLHEALTH") != []
    server.loop.advance(13)
    agent.heard("ILLHEALTH")
    server.loop.advance(8)
    agent.stay()
    server.loop.advance(12)
    assert agent.heard("ILLHEALTH") == []


@pytest.mark.parametrize("name", ["MOD_INST", "MOD_HOST"])
def test_an_illness_is_void_when_reporting_goes_off(server, beating, name):
    guest, agent = beating
    fall_ill(server, guest)
    if name == "MOD_INST":
        agent.set_instance(name, "disabled")
    else:
        agent.say(name, uuid=UUID, heartbeat="disabled")
    server.loop.advance(0.1)
    agent.acknowledge(agent.heard("ILLHEALTH")[-1], queued=True)
    server.loop.advance(30)
    assert agent.heard("ILLHEALTH") == []


def test_a_vote_s_answer_is_void_when_the_vim_waits_no_longer(server, beating):
    """VOTE_NOTIFY, VOTE_INST: void when its window is over."""
    _guest, agent = beating
    agent.say("VOTE_INST", uuid=UUID, event="pause")
    server.loop.advance(8.9)
    assert agent.heard("VOTE_NOTIFY") != [], "half a second before the VIM's time"
    server.loop.advance(0.2)
    agent.heard("VOTE_NOTIFY")
    agent.stay()
    server.loop.advance(10)
    assert agent.heard("VOTE_NOTIFY") == []


def test_a_vote_s_answer_is_void_when_a_newer_one_is_asked(server, beating):
    _guest, agent = beating
    agent.say("VOTE_INST", uuid=UUID, event="pause")
    server.loop.advance(8.6)
    assert agent.heard("VOTE_NOTIFY") != []
    agent.say("VOTE_INST", uuid=UUID, event="stop")
    server.loop.advance(0.35)
    assert agent.heard("VOTE_NOTIFY") == []


@pytest.mark.parametrize("to", ["an old agent", "one that has not acknowledged yet"])
def test_what_is_for_new_agents_alone_is_told_to_nobody_else(server, to):
    """What a guest calls itself; and that it is well again, once more (decisions 24 and 49)."""
    server.start()
    server.agent.is_new = True
    if to == "an old agent":
        server.agent.provision()
    guest = server.guest()
    assert server.loop.run_until(lambda: server.heartbeating(UUID), 5)
    fall_ill(server, guest)
    guest.answers = True
    server.loop.advance(5)
    told = [each for each in server.agent.take() if each.name in ("RUNNING", "ILLHEALTH")]
    illnesses = 1 if to == "an old agent" else 0
    assert [each.name for each in told] == ["RUNNING", *["ILLHEALTH"] * illnesses]
    assert all("name" not in each.body for each in told)


def test_a_new_agent_is_told_what_a_guest_calls_itself(server, beating):
    _guest, agent = beating
    agent.set_instance("MOD_INST", "enabled")
    assert agent.heard("RUNNING")[0].body["name"] == "vm-1"


def test_a_new_agent_is_told_that_there_are_no_instances(server):
    """Else it could not tell that from an answer that was lost (decision 28)."""
    server.start()
    agent = NewAgent(server)
    agent.prove()
    agent.heard("")
    agent.say("QRY_INST")
    (answer,) = agent.heard("QRY_INST")
    assert answer.body["of"] == 0
    assert "uuid" not in answer.body


def test_a_new_agent_is_told_in_return_what_an_instance_is(server, beating):
    _guest, agent = beating
    agent.set_instance("MOD_INST", "enabled")
    assert len(agent.heard("RUNNING")) == 1


def test_a_new_qemu_that_came_while_we_were_away_is_not_the_one_that_was_lost(server, lost):
    """Its guest boots, and says nothing yet: an alarm would reboot it again."""
    guest, agent = lost
    server.app.stop(lambda: None)
    guest.stop(unlink=True)
    guest.listen()
    restart(server, agent)
    agent.set_instance("ADD_INST", "enabled")
    agent.heard("")
    server.loop.advance(30)
    assert agent.heard("LOSS") == []
    assert saved(server) == []


def test_what_is_deleted_before_its_channel_is_found_was_not_lost(server, lost):
    guest, agent = lost
    guest.stop(unlink=True)
    server.loop.advance(1)
    (server.root / LOSSES_FILE.lstrip("/")).write_text(loss_file(UUID))
    restart(server, agent)
    agent.set_instance("DEL_INST", "disabled")
    assert saved(server) == []


def loss_file(*uuids: str) -> str:
    """What a guestServer of this boot left, just now."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    lost_at = seconds_since_boot()
    return to_text(boot_id, [SavedLoss(uuid, "7.1", lost_at, Terms("", 1000)) for uuid in uuids])


def test_of_hundreds_of_losses_several_changes_are_written_together(server, monkeypatch):
    """Ten thousand are two megabytes, and a worker that stands still loses them one by one."""
    uuids = [f"8d80875b-fa73-4ccb-bce3-{number:012d}" for number in range(400)]
    path = server.root / LOSSES_FILE.lstrip("/")
    path.write_text(loss_file(*uuids))
    written = []
    write = files.write_atomic

    def counted(where: str, *rest) -> None:
        written.append(where)
        write(where, *rest)

    monkeypatch.setattr(files, "write_atomic", counted)
    server.start()
    agent = NewAgent(server)
    agent.prove()
    for uuid in uuids[:300]:
        agent.say("DEL_INST", uuid=uuid, service="heartbeat", state="disabled")
        server.loop.advance(0.001)
    server.loop.advance(0.1)
    assert sorted(saved(server)) == uuids[300:]
    assert len(written) < 30


def test_a_file_that_cannot_be_written_is_a_problem(server):
    server.start()
    agent = NewAgent(server)
    agent.prove()
    (server.root / LOSSES_FILE.lstrip("/")).mkdir()
    (server.root / LOSSES_FILE.lstrip("/") / "full").touch()
    agent.set_instance("ADD_INST", "enabled")
    guest = server.guest()
    assert server.loop.run_until(lambda: server.heartbeating(UUID), 5)
    guest.answers = guest.inits = False
    server.loop.advance(5)
    assert any("losses are not saved" in each for each in sentences(server.app.problems()))


def test_acknowledge_no_says_and_hears_what_the_old_daemon_did():
    server = Server(acknowledge=False)
    try:
        server.start()
        server.agent.is_new = True
        server.agent.send("QRY_INST", epoch=EPOCH, seq=1)
        server.agent.send("LOOPBACK", epoch=EPOCH, seq=0)
        server.loop.advance(3)
        heard = server.agent.take()
        assert {each.name for each in heard} <= {"MONITOR_READY"}
        assert all(wire.STAMP.isdisjoint(each.body) for each in heard)
    finally:
        server.close()
