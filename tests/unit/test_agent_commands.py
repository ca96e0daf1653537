"""What each command of the VIM does: http-api.md, "Commands", and decisions 2, 6, 9, 17."""

from __future__ import annotations

import json

import pytest

from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.vim_queue import Ended
from guestmtce.core.shared.errors import Unneeded
from guestmtce.core.shared.vocabulary import Command, Event
from tests.unit.agent_support import HOST_0, HOST_1, UUID, UUID_2, CoreRig, ready_core

HOST = f"/v1/hosts/{HOST_0}"
INSTANCE = f"/v1/instances/{UUID}"
HOST_BODY = json.dumps({"uuid": HOST_0, "hostname": "compute-0"}).encode()
PASS = (200, {"status": "pass"})
NOT_FOUND = (404, {"status": "fail", "reason": "entity not found"})


@pytest.fixture
def rig() -> CoreRig:
    return CoreRig()


ready = pytest.fixture(ready_core)


def create(hostname: str = "compute-0", uuid: str = UUID) -> bytes:
    return json.dumps({"uuid": uuid, "hostname": hostname, "services": ["heartbeat"]}).encode()


def enable(state: str = "enabled", hostname: str = "compute-0", uuid: str = UUID) -> bytes:
    service = {"service": "heartbeat", "state": state}
    return json.dumps({"uuid": uuid, "hostname": hostname, "services": [service]}).encode()


def vote(action: str, hostname: str = "compute-0") -> bytes:
    return json.dumps({"uuid": UUID, "hostname": hostname, "action": action}).encode()


def services(state: str, status: str, timeout: str, hostname: str = "compute-0") -> dict:
    service = {
        "service": "heartbeat",
        "state": state,
        "restart-timeout": timeout,
        "status": status,
    }
    return {"uuid": UUID, "hostname": hostname, "services": [service]}


def test_host_create(rig):
    rig.add_host()
    assert rig.vim("POST", HOST, HOST_BODY) == PASS
    assert rig.vim("POST", HOST) == PASS
    assert rig.sent() == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", HOST, HOST_BODY),
        ("PUT", HOST + "/enable", HOST_BODY),
        ("PUT", HOST + "/disable", HOST_BODY),
        ("GET", HOST, b""),
        ("GET", HOST + "/disable", b""),
    ],
)
def test_an_unknown_host_is_404_and_mtc_agent_is_asked(rig, method, path, body):
    assert rig.vim(method, path, body) == NOT_FOUND
    assert rig.sent() == [("mtcAgent", "MONITOR_READY")]


def test_mtc_agent_is_asked_at_most_once_in_5_s(rig):
    for _ in range(10):
        rig.vim("GET", HOST)
        rig.now += 1
    assert rig.sent() == [("mtcAgent", "MONITOR_READY")] * 2


@pytest.mark.parametrize("word", ["enabled", "disabled"])
def test_host_enable_and_disable(rig, word):
    host = rig.add_host()
    assert rig.vim("PUT", f"{HOST}/{word[:-1]}", HOST_BODY) == PASS
    assert host.reporting is (word == "enabled")
    assert rig.sent() == [("compute-0", "MOD_HOST", HOST_0, word)]
    state = (200, {"uuid": HOST_0, "hostname": "compute-0", "state": word})
    assert rig.vim("GET", HOST) == state
    assert rig.vim("GET", HOST + "/disable") == state
    assert rig.sent() == [], "the query changes nothing"


def test_a_host_whose_state_is_not_learned_is_404(rig):
    """Answering `disabled` would make the VIM migrate every instance away."""
    rig.add_host()
    assert rig.vim("GET", HOST) == NOT_FOUND


def test_a_command_makes_the_question_about_the_host_needless(rig):
    rig.add_host()
    rig.vim("PUT", HOST + "/enable", HOST_BODY)
    assert (f"host {HOST_0}", Kind.HOST_STATE, HOST_0) not in rig.deliver()


def test_host_delete_is_always_204_and_changes_nothing(rig):
    assert rig.vim("DELETE", HOST) == (204, {})
    rig.add_host()
    assert rig.vim("DELETE", HOST) == (204, {})
    assert rig.host() is not None


def test_instance_create(rig):
    rig.add_host()
    assert rig.vim("POST", INSTANCE, create()) == PASS
    assert rig.sent() == [("compute-0", "ADD_INST", UUID, "heartbeat", "disabled")]
    assert rig.vim("GET", INSTANCE) == (200, services("disabled", "disabled", "0"))


def test_instance_create_on_an_unknown_host_is_400_and_changes_nothing(ready):
    """The old agent deleted the instance from its present host."""
    answer = ready.vim("POST", INSTANCE, create("compute-9"))
    assert answer == (400, {"status": "fail", "reason": "invalid data"})
    assert ready.sent() == [("mtcAgent", "MONITOR_READY")]
    assert ready.instance().host.hostname == "compute-0"


def test_instance_create_again_on_its_host_changes_nothing(ready):
    """Decision 17: unchanged, ADD_INST with its present reporting, 200."""
    assert ready.vim("POST", INSTANCE, create()) == PASS
    assert ready.sent() == [("compute-0", "ADD_INST", UUID, "heartbeat", "enabled")]
    assert ready.vim("GET", INSTANCE) == (200, services("enabled", "enabled", "301"))


def test_instance_create_on_another_host_moves_it(ready):
    ready.add_host("compute-1", HOST_1)
    assert ready.vim("POST", INSTANCE, create("compute-1")) == PASS
    assert ready.sent() == [
        ("compute-0", "DEL_INST", UUID, "heartbeat", "disabled"),
        ("compute-1", "ADD_INST", UUID, "heartbeat", "disabled"),
    ]
    answer = services("disabled", "disabled", "0", "compute-1")
    assert ready.vim("GET", INSTANCE) == (200, answer)
    assert UUID not in ready.host("compute-0").instances


def test_a_move_withdraws_alarms_and_answers(ready):
    """Decision 9."""
    ready.add_host("compute-1", HOST_1)
    ready.deliver()
    ready.vim("POST", INSTANCE + "/vote", vote("pause"))
    ready.event(
        Command.VOTE_NOTIFY,
        **{"notification_type": "revocable", "event-type": "pause", "vote": "accept"},
    )
    ready.event(Command.HEARTBEAT_LOSS)
    ready.vim("POST", INSTANCE, create("compute-1"))
    assert ready.deliver() == []
    assert ready.queue.dropped == {"moved": 2}
    assert ready.instance().timeouts.restart == 0


@pytest.mark.parametrize("state", ["enabled", "disabled"])
def test_instance_set(ready, state):
    assert ready.vim("PATCH", INSTANCE, enable(state)) == (200, services(state, "enabled", "301"))
    assert ready.sent() == [("compute-0", "MOD_INST", UUID, "heartbeat", state)]


def test_instance_set_adds_an_unknown_one(rig):
    rig.add_host()
    assert rig.vim("PATCH", INSTANCE, enable()) == (200, services("enabled", "disabled", "0"))
    assert rig.sent() == [("compute-0", "ADD_INST", UUID, "heartbeat", "enabled")]


def test_instance_set_moves_one_from_another_host(ready):
    ready.add_host("compute-1", HOST_1)
    answer = services("enabled", "disabled", "0", "compute-1")
    assert ready.vim("PATCH", INSTANCE, enable(hostname="compute-1")) == (200, answer)
    assert ready.sent() == [
        ("compute-0", "DEL_INST", UUID, "heartbeat", "disabled"),
        ("compute-1", "ADD_INST", UUID, "heartbeat", "enabled"),
    ]


def test_instance_set_on_an_unknown_host_is_404_and_changes_nothing(ready):
    assert ready.vim("PATCH", INSTANCE, enable(hostname="compute-9")) == NOT_FOUND
    assert ready.instance().host.hostname == "compute-0"


def test_reporting_turned_off_withdraws_the_alarm(ready):
    ready.event(Command.HEARTBEAT_LOSS)
    ready.vim("PATCH", INSTANCE, enable("disabled"))
    assert ready.deliver() == []
    assert ready.queue.dropped == {"reporting_off": 1}


def test_host_reporting_turned_off_withdraws_its_alarms(ready):
    ready.event(Command.HEARTBEAT_LOSS)
    ready.vim("PUT", HOST + "/disable", HOST_BODY)
    assert ready.deliver() == []


def test_instance_delete(ready):
    ready.event(Command.HEARTBEAT_LOSS)
    assert ready.vim("DELETE", INSTANCE) == (204, {})
    assert ready.sent() == [("compute-0", "DEL_INST", UUID, "heartbeat", "disabled")]
    assert ready.deliver() == []
    assert ready.vim("DELETE", INSTANCE) == NOT_FOUND
    assert ready.vim("GET", INSTANCE) == NOT_FOUND


# http-api.md, "Asking the guest": the guest's own, by what is asked.
TIMEOUT_OF = {
    Event.STOP: "5",
    Event.REBOOT: "5",
    Event.PAUSE: "6",
    Event.SUSPEND: "6",
    Event.RESIZE_BEGIN: "6",
    Event.LIVE_MIGRATE_BEGIN: "6",
    Event.COLD_MIGRATE_BEGIN: "6",
    Event.UNPAUSE: "7",
    Event.RESUME: "7",
    Event.RESIZE_END: "7",
    Event.LIVE_MIGRATE_END: "7",
    Event.COLD_MIGRATE_END: "7",
}


def test_every_event_has_its_timeout():
    assert set(TIMEOUT_OF) == set(Event)


@pytest.mark.parametrize("event", Event)
def test_notify(ready, event):
    answer = {"uuid": UUID, "hostname": "compute-0", "action": event, "timeout": TIMEOUT_OF[event]}
    assert ready.vim("POST", INSTANCE + "/notify", vote(event.value)) == (200, answer)
    assert ready.sent() == [("compute-0", "NOTIFY_INST", UUID, event.value)]


@pytest.mark.parametrize("event", Event)
def test_vote(ready, event):
    answer = {"uuid": UUID, "hostname": "compute-0", "action": event, "timeout": "3"}
    assert ready.vim("POST", INSTANCE + "/vote", vote(event.value)) == (200, answer)
    assert ready.sent() == [("compute-0", "VOTE_INST", UUID, event.value)]


@pytest.mark.parametrize(
    ("verb", "action", "beats", "seconds"),
    [("vote", "pause", True, 3), ("notify", "stop", True, 5), ("notify", "unpause", False, 60)],
)
def test_what_is_asked_is_void_when_its_window_is_over(rig, verb, action, beats, seconds):
    """VOTE_INST, NOTIFY_INST: a worker that is back later must not ask what nobody waits for."""
    rig.ready(heartbeating=beats)
    rig.vim("POST", f"{INSTANCE}/{verb}", vote(action))
    assert rig.port.expires[-1] == rig.now + seconds


POST_EVENTS = {"unpause", "resume", "resize_end", "live_migrate_end", "cold_migrate_end"}


@pytest.mark.parametrize("event", Event)
def test_a_guest_that_does_not_heartbeat_is_not_waited_for(rig, event):
    """Decision 6: only what has happened already is told to it."""
    rig.ready(heartbeating=False)
    for verb, sent_as in (("vote", None), ("notify", "NOTIFY_INST")):
        status, members = rig.vim("POST", f"{INSTANCE}/{verb}", vote(event.value))
        assert (status, members["timeout"]) == (200, "0")
        told = [("compute-0", sent_as, UUID, event.value)] if event.value in POST_EVENTS else []
        assert rig.sent() == (told if sent_as else [])
    rig.running()
    rig.deliver()
    with pytest.raises(Unneeded, match="no_vote"):
        rig.event(
            Command.VOTE_NOTIFY,
            **{"notification_type": "irrevocable", "event-type": event.value, "vote": "complete"},
        )


def test_vote_of_an_unknown_instance_is_404(ready):
    path = f"/v1/instances/{UUID_2}/vote"
    body = json.dumps({"uuid": UUID_2, "hostname": "compute-0", "action": "stop"}).encode()
    assert ready.vim("POST", path, body) == NOT_FOUND


def test_a_command_of_the_vim_is_a_sign_of_life(ready):
    ready.running()
    for _ in range(5):
        ready.deliver(Ended.NOT_DELIVERED)
        ready.now = ready.queue.wake_at()
    ready.deliver(Ended.NOT_DELIVERED)
    ready.now += 1
    assert ready.queue.poll(ready.now) == []
    ready.vim("GET", HOST)
    assert len(ready.queue.poll(ready.now)) == 1
