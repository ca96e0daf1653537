"""What guestAgent remembers of each instance, and what makes it degraded (decisions 31, 42)."""

from __future__ import annotations

import json

import pytest

from guestmtce.agent.problems import problems
from guestmtce.core.agent.unknown_hosts import MAX_NAMES
from guestmtce.core.agent.vim_queue import Ended
from guestmtce.core.shared.errors import PeerError, Unneeded
from guestmtce.core.shared.history import What
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime.vitals import sentences
from tests.peers import wire
from tests.unit.agent_rig import AgentRig
from tests.unit.agent_support import HOST_0, HOST_1, UUID, CoreRig, ready_core

INSTANCE = f"/v1/instances/{UUID}"


@pytest.fixture
def ready() -> CoreRig:
    rig = ready_core()
    rig.port.told_why.clear()
    return rig


@pytest.fixture
def daemon():
    rig = AgentRig()
    yield rig.ready()
    rig.close()


def story(rig: CoreRig) -> list[str]:
    return [f"{entry.what}: {entry.detail}" for entry in rig.instance().history]


def told(rig: CoreRig) -> list[str]:
    return sentences(problems(rig.agent, "127.0.0.1", rig.now))


def test_a_loss_from_the_datagram_to_the_vim(ready):
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    ready.deliver()
    assert story(ready)[-5:] == [
        "received: STOPPED",
        "received: LOSS",
        "queued: alarm failed, action reboot",
        "told: service, heartbeating disabled: taken",
        "told: alarm failed, action reboot: taken",
    ]
    assert ready.port.told_why == [
        f"{UUID} on compute-0: LOSS",
        f"{UUID} on compute-0: told the VIM: alarm failed, action reboot: taken",
    ]


def test_a_loss_that_the_vim_is_not_told_of(ready):
    ready.event(Command.HEARTBEAT_LOSS)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.running()
    assert "untold: alarm failed, action reboot: heartbeats" in story(ready)
    line = f"{UUID} on compute-0: not told to the VIM: alarm failed, action reboot: heartbeats"
    assert line in ready.port.told_why


@pytest.mark.parametrize(
    ("ended", "words"),
    [(Ended.TAKEN_BADLY, "answered with an error"), (Ended.TIMED_OUT, "no answer in 20 s")],
)
def test_what_became_of_an_alarm(ready, ended, words):
    ready.info(Command.HEARTBEAT_ILLHEALTH, action="stop")
    ready.deliver(ended)
    assert story(ready)[-1] == f"told: alarm unhealthy, action stop: {words}"


def test_a_vote(ready):
    body = json.dumps({"uuid": UUID, "hostname": "compute-0", "action": "pause"}).encode()
    assert ready.vim("POST", INSTANCE + "/vote", body)[0] == 200
    ready.event(
        Command.VOTE_NOTIFY,
        **{
            "notification_type": "revocable",
            "event-type": "pause",
            "vote": "reject",
            "reason": "busy\x1b[2J",
        },
    )
    ready.deliver()
    assert story(ready)[-3:] == [
        "asked: revocable pause, 3 s to answer",
        "answered: revocable pause: reject, busy[2J",
        "told: answer to pause: reject (busy[2J): taken",
    ]
    assert len(ready.port.told_why) == 3


def test_where_it_was_and_whether_it_reports(ready):
    ready.add_host("compute-1", HOST_1)
    ready.agent.move_instance(ready.instance(), ready.host("compute-1"), False, ready.now)
    assert story(ready)[-2:] == [
        "moved: from compute-0 to compute-1",
        "reporting: off by the VIM's answer",
    ]


def test_a_deleted_instance_that_comes_back_is_remembered(ready):
    ready.event(Command.HEARTBEAT_LOSS)
    ready.agent.delete_instance(ready.instance())
    remembered = ready.agent.past.for_operator(UUID)
    assert [entry["what"] for entry in remembered[-2:]] == ["queued", "untold"]
    ready.agent.add_instance(UUID, ready.host(), True, ready.now)
    assert len(ready.instance().history) == len(remembered)


def test_each_entry_is_passed_on(ready):
    ready.port.remembered.clear()
    ready.stopped()
    assert [(uuid, entry.what) for uuid, entry in ready.port.remembered] == [(UUID, What.RECEIVED)]


CONDITIONS = {
    "ok": lambda rig: rig.running(),
    "stopped": lambda rig: rig.stopped(),
    "lost": lambda rig: (rig.stopped(), rig.event(Command.HEARTBEAT_LOSS), rig.stopped()),
    "ill": lambda rig: rig.info(Command.HEARTBEAT_ILLHEALTH),
}


@pytest.mark.parametrize("word", CONDITIONS)
def test_how_it_is_in_a_word(ready, word):
    CONDITIONS[word](ready)
    assert ready.instance().for_operator()["condition"] == word
    counts = {key: ready.host().for_operator()[key] for key in ("lost", "ill")}
    assert counts == {"lost": int(word == "lost"), "ill": int(word == "ill")}
    ready.running()
    assert ready.instance().for_operator()["condition"] == "ok"


def test_an_illness_of_an_old_server_is_over_when_it_is_not_repeated(ready):
    ready.info(Command.HEARTBEAT_ILLHEALTH)
    ready.wall += 69
    ready.info(Command.QRY_INST)
    assert ready.instance().for_operator()["condition"] == "ill"
    ready.wall += 1
    ready.info(Command.QRY_INST)
    assert ready.instance().for_operator()["condition"] == "ok"


def be_silent(rig: CoreRig, audits: int) -> None:
    for _ in range(audits + 1):
        rig.now += 10
        rig.wall += 10
        rig.audit()


def test_a_worker_that_leaves_three_audits_unanswered_is_a_problem(ready):
    heard = ready.wall
    be_silent(ready, 2)
    assert told(ready) == []
    be_silent(ready, 0)
    (problem,) = told(ready)
    assert problem.startswith("compute-0 answers no audit (last heard 40 s ago): how its")
    shown = ready.instance().for_operator()
    assert (shown["condition"], shown["since"]) == ("unknown", heard)
    ready.info(Command.QRY_INST)
    assert told(ready) == []
    assert ready.instance().for_operator()["condition"] == "ok"


def test_a_site_full_of_silent_workers_has_few_sentences(ready):
    for number in range(40):
        uuid = f"8aee436e-d564-459e-a0d8-26c4479{number:05d}"
        host = ready.add_host(f"worker-{number}", uuid)
        host.unanswered_audits = 3
    assert len(told(ready)) == 6
    assert told(ready)[-1] == "35 more hosts answer no audit"


def test_events_of_a_host_that_the_inventory_knows_by_another_name(daemon):
    """Decision 31: the remedy names the host that is meant."""
    for _ in range(4):
        members = {"hostname": "compute-0.example", "uuid": UUID}
        daemon.server_sends(wire.pack("LOSS", members))
        daemon.advance(11)
    assert (
        "events of compute-0.example are dropped: compute-0.example is not in the inventory; "
        "compute-0 is: set [host] name there"
    ) in sentences(daemon.agent.problems())
    daemon.advance(130)
    daemon.info("QRY_INST")
    assert sentences(daemon.agent.problems()) == []


def test_a_host_that_nobody_has_named_yet_is_no_problem_at_once(ready):
    ready.agent.unknown_hosts.note("compute-9", ready.now)
    assert told(ready) == []
    ready.agent.unknown_hosts.note("compute-9", ready.now + 30)
    ready.now += 30
    assert told(ready) == [
        "events of compute-9 are dropped: compute-9 is not in the inventory: let mtcAgent add it, "
        "or stop its guestServer"
    ]
    ready.add_host("compute-9", HOST_1)
    assert told(ready) == []


def test_names_that_anybody_sends_are_few_and_cleaned(ready):
    for number in range(1000):
        for now in (0, 30):
            ready.agent.unknown_hosts.note(f"\x1b[2J{number}", ready.now + now)
    assert len(told(ready)) == MAX_NAMES
    assert all(problem.isprintable() for problem in told(ready))


def test_the_inventory_is_bounded(ready):
    ready.agent.max_hosts = 2
    ready.add_host("compute-1", HOST_1)
    with pytest.raises(PeerError, match="too_many_hosts"):
        ready.mtc(hostname="compute-2", uuid=HOST_0[:-1] + "9", ip="127.0.0.9")
    assert len(ready.agent.inventory.hosts) == 2
    assert any("max_hosts = 2" in problem for problem in told(ready))
    ready.add_host("compute-7", HOST_1)
    assert ready.host("compute-7").uuid == HOST_1, "a known one may change its name"
    ready.mtc(Command.DEL_HOST, hostname="compute-7", uuid=HOST_1)
    assert told(ready) == []


def test_a_restarted_daemon_still_knows_why(daemon):
    daemon.server_says("LOSS", uuid=UUID)
    daemon.restart()
    answer = daemon.agent.commands()["show"]({"uuid": UUID})
    assert "received" in [entry["what"] for entry in answer["instance"]["history"]]
    events = daemon.agent.commands()["events"]({})
    assert events == {"events": [], "next": 0}


def test_silent_hosts_are_counted(daemon):
    daemon.advance(60)
    assert "guestmtce_hosts_silent 1" in daemon.agent.registry.render().splitlines()


def test_the_lines_that_tell_why_have_their_budget(daemon, caplog):
    """Decision 42: no flood of other lines is in their way."""
    caplog.set_level("INFO")
    daemon.server_says("LOSS", uuid=UUID)
    lines = [record for record in caplog.records if getattr(record, "why", None) == UUID]
    assert [line.getMessage() for line in lines] == [
        f"{UUID} on compute-0: LOSS",
        f"{UUID} on compute-0: told the VIM: alarm failed, action reboot: taken",
    ]


def ask_pause(rig: CoreRig) -> None:
    body = json.dumps({"uuid": UUID, "hostname": "compute-0", "action": "pause"}).encode()
    assert rig.vim("POST", INSTANCE + "/vote", body)[0] == 200


def notify_stop(rig: CoreRig) -> None:
    body = json.dumps({"uuid": UUID, "hostname": "compute-0", "action": "stop"}).encode()
    assert rig.vim("POST", INSTANCE + "/notify", body)[0] == 200


def answer_pause(rig: CoreRig, vote: str, reason: str = "") -> None:
    said = {"notification_type": "revocable", "event-type": "pause", "vote": vote, "reason": reason}
    rig.event(Command.VOTE_NOTIFY, **said)


def answer_late(rig: CoreRig) -> None:
    rig.now += 4
    with pytest.raises(Unneeded, match="late_vote"):
        answer_pause(rig, "reject", "busy")


def let_time_go_by(rig: CoreRig) -> None:
    rig.now += 10
    rig.audit()


# How a vote can end on the controller, each with the entry that tells it.
ENDS = {
    "accepted": (lambda rig: answer_pause(rig, "accept"), "answered: revocable pause: accept"),
    "rejected": (
        lambda rig: answer_pause(rig, "reject", "busy"),
        "answered: revocable pause: reject, busy",
    ),
    "too late": (answer_late, "answered: revocable pause: reject, busy, too late"),
    "expired": (let_time_go_by, "ended: revocable pause: no answer in time"),
    "superseded": (notify_stop, "ended: revocable pause: superseded by irrevocable stop"),
    "moved": (
        lambda rig: (
            rig.add_host("compute-1", HOST_1),
            rig.agent.move_instance(rig.instance(), rig.host("compute-1"), True, rig.now),
        ),
        "ended: revocable pause: its instance has moved",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_end_of_a_vote(ready, end):
    ask_pause(ready)
    bring_about, told = ENDS[end]
    bring_about(ready)
    ends = [line for line in story(ready) if line.startswith(("answered", "ended"))]
    assert ends == [told]
    assert any(told.partition(": ")[2] in line for line in ready.port.told_why)


def test_a_vote_ends_with_its_instance(ready):
    ask_pause(ready)
    ready.agent.delete_instance(ready.instance())
    last = ready.agent.past.for_operator(UUID)[-1]
    assert (last["what"], last["detail"]) == (
        "ended",
        "revocable pause: its instance is deleted",
    )


def test_nobody_waits_for_a_guest_that_does_not_heartbeat(ready):
    ready.stopped()
    ask_pause(ready)
    assert story(ready)[-1] == "ended: revocable pause: not heartbeating, nobody waits"
