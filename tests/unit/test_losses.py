"""guestServer and a new guestAgent: what is acknowledged, what is saved, what is told again."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.server.saved_loss import SavedLoss, to_text
from guestmtce.runtime import files
from guestmtce.runtime.outside import seconds_since_boot
from guestmtce.runtime.vitals import sentences
from guestmtce.server.app import GuestServer
from guestmtce.server.losses import LOSSES_FILE
from tests.peers import wire
from tests.unit.server_support import UUID, Server

EPOCH = 4711


class NewAgent:
    """Speaks for the rig's agent with stamps, and acknowledges when told to."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._agent = server.agent
        self._agent.is_new = True
        self._seq = 0

    def say(self, name: str, **body) -> None:
        self._seq += 1
        self._agent.send(name, **body, epoch=EPOCH, seq=self._seq)

    def prove(self) -> None:
        """Answer the probe that the first word of a new process brings."""
        self.say("QRY_INST")
        probe = next(each for each in self._agent.take() if each.name == "LOOPBACK")
        self.acknowledge(probe)

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
def lost(server):
    """A reported guest that was lost just now, and the agent that holds the LOSS."""
    server.start()
    agent = NewAgent(server)
    agent.prove()
    agent.say("ADD_INST", uuid=UUID, service="heartbeat", state="enabled")
    guest = server.guest()
    assert server.loop.run_until(lambda: server.heartbeating(UUID), 5)
    guest.answers = guest.inits = False
    agent.heard("")
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


@pytest.mark.parametrize("void", ["hangs up", "deleted", "reporting off", "host off", "back"])
def test_a_void_loss_is_neither_told_nor_saved(server, lost, void):
    guest, agent = lost
    if void == "hangs up":
        guest.hang_up()
    elif void == "deleted":
        agent.say("DEL_INST", uuid=UUID, service="heartbeat", state="disabled")
    elif void == "reporting off":
        agent.say("MOD_INST", uuid=UUID, service="heartbeat", state="disabled")
    elif void == "host off":
        agent.say("MOD_HOST", uuid=UUID, heartbeat="disabled")
    else:
        guest.answers = True
        guest.say_init()
    server.loop.advance(1)
    agent.heard("LOSS")
    server.loop.advance(30)
    assert agent.heard("LOSS") == []
    assert saved(server) == []


def restart(server) -> None:
    """Another guestServer, after the one that owed a loss."""
    server.app.stop(lambda: None)
    server.app = GuestServer(server.loop, server.settings, "compute-0", str(server.root))
    server.start()


@pytest.mark.parametrize("recovers", [False, True])
def test_after_a_restart_it_is_told_if_it_is_still_true(server, lost, recovers):
    """Only when its channel has been open for 15 s without an init."""
    guest, agent = lost
    order = agent.heard("LOSS")[0].body["id"]
    restart(server)
    agent.prove()
    agent.say("ADD_INST", uuid=UUID, service="heartbeat", state="enabled")
    server.loop.advance(10)
    assert agent.heard("LOSS") == []
    if recovers:
        guest.answers = True
        guest.say_init()
    server.loop.advance(10)
    told = {each.body["id"] for each in agent.heard("LOSS")}
    assert told == (set() if recovers else {order})


def test_a_new_qemu_that_came_while_we_were_away_is_not_the_one_that_was_lost(server, lost):
    """Its guest boots, and says nothing yet: an alarm would reboot it again."""
    guest, agent = lost
    server.app.stop(lambda: None)
    guest.stop(unlink=True)
    guest.listen()
    restart(server)
    agent.prove()
    agent.say("ADD_INST", uuid=UUID, service="heartbeat", state="enabled")
    agent.heard("")
    server.loop.advance(30)
    assert agent.heard("LOSS") == []
    assert saved(server) == []


def test_what_is_deleted_before_its_channel_is_found_was_not_lost(server, lost):
    guest, agent = lost
    guest.stop(unlink=True)
    server.loop.advance(1)
    (server.root / LOSSES_FILE.lstrip("/")).write_text(loss_file(UUID))
    restart(server)
    agent.prove()
    agent.say("DEL_INST", uuid=UUID, service="heartbeat", state="disabled")
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
    agent.say("ADD_INST", uuid=UUID, service="heartbeat", state="enabled")
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
