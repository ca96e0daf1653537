"""guestAgent and its VIM on simulated time: the VIM's real sequences, and its worst days."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from types import SimpleNamespace

import pytest

from guestmtce.agent.mtc_link import MtcLink
from guestmtce.runtime.datagram import bound_socket
from tests.peers import wire
from tests.unit.agent_rig import COMPUTE_0, CONTROLLER, HOSTS, AgentRig, vim_answer
from tests.unit.agent_support import HOST_0, HOST_1, INFO, UUID, UUID_2


@pytest.fixture
def new():
    rig = AgentRig()
    yield rig
    rig.close()


@pytest.fixture
def rig(new: AgentRig) -> AgentRig:
    return new.ready()


def service(status: str, timeout: str, state: str = "enabled", uuid: str = UUID) -> dict:
    data = {
        "service": "heartbeat",
        "state": state,
        "status": status,
        "restart-timeout": timeout,
    }
    return {
        "uuid": uuid,
        "hostname": "compute-0",
        "event-type": "service",
        "event-data": {"services": [data]},
    }


def alarm(state: str, action: str) -> dict:
    data = {"service": "heartbeat", "state": state, "repair-action": action}
    return {
        "uuid": UUID,
        "hostname": "compute-0",
        "event-type": "alarm",
        "event-data": {"services": [data]},
    }


def action(name: str, response: str, reason: str = "") -> dict:
    return {
        "uuid": UUID,
        "event-type": "action",
        "event-data": {"action": name, "guest-response": response, "reason": reason},
    }


def vote_answer(rig: AgentRig, event: str, kind: str, vote: str, reason: str = "") -> None:
    rig.server_says(
        "VOTE_NOTIFY",
        uuid=UUID,
        **{"notification_type": kind, "event-type": event, "vote": vote, "reason": reason},
    )


def test_a_host_and_an_instance_from_first_to_last(new):
    """Create host, enable host, create, enable, query, vote, notify, disable, delete."""
    rig = new.start()
    assert [seen.what[:17] for seen in rig.to_mtc] == [b"guest msg header:"]
    rig.add_host()
    members = {"uuid": HOST_0, "hostname": "compute-0"}
    assert rig.command("POST", f"/v1/hosts/{HOST_0}", members)[0] == 200
    assert rig.host_command("enable") == 200
    assert rig.create() == 200
    assert rig.enable()[0] == 200
    rig.info("RUNNING")
    status, answer = rig.command("GET", f"/v1/instances/{UUID}")
    assert (status, answer["services"][0]["status"]) == (200, "enabled")
    assert rig.ask("vote", "pause")[1]["timeout"] == "3"
    vote_answer(rig, "pause", "revocable", "reject", "busy")
    assert rig.ask("notify", "pause")[1]["timeout"] == "6"
    vote_answer(rig, "pause", "irrevocable", "complete")
    assert rig.enable(state="disabled")[0] == 200
    rig.info("STOPPED", heartbeating="disabled", reporting="disabled")
    assert rig.command("DELETE", f"/v1/instances/{UUID}") == (204, None)
    assert rig.command("DELETE", f"/v1/instances/{UUID}")[0] == 404
    assert rig.command("DELETE", f"/v1/hosts/{HOST_0}") == (204, None)
    assert rig.vim.events() == [
        service("enabled", "301"),
        action("pause", "reject", "busy"),
        action("pause", "proceed"),
        service("disabled", "0", state="disabled"),
    ]
    source = {"source": "127.0.0.1"}
    instance = {**source, "uuid": UUID, "service": "heartbeat"}
    assert rig.told("VOTE_INST") == [{**source, "uuid": UUID, "event": "pause"}]
    assert rig.told("NOTIFY_INST") == [{**source, "uuid": UUID, "event": "pause"}]
    assert rig.told("ADD_INST") == [{**instance, "state": "disabled"}]
    assert [body["state"] for body in rig.told("MOD_INST")] == ["enabled", "disabled"]
    assert rig.told("DEL_INST") == [{**instance, "state": "disabled"}]


def known_to_vim(raw: bytes) -> bytes:
    """A VIM that knows one enabled host with two instances."""
    if b"GET /nfvi-plugins/v1/hosts/" in raw:
        return vim_answer({"uuid": HOST_0, "hostname": "compute-0", "state": "enabled"})
    if b"GET " in raw:
        listed = [
            {
                "uuid": uuid,
                "hostname": "compute-0",
                "services": [{"service": "heartbeat", "state": "enabled"}],
            }
            for uuid in (UUID, UUID_2)
        ]
        return vim_answer({"instances": listed})
    return b""


def test_after_a_restart_everything_is_fetched_and_told_once(new):
    """Swact: no alarm or action, at most one `service` event per instance (decision 20)."""
    rig = new
    rig.vim.behaviour = known_to_vim
    rig.start()
    rig.add_host()
    rig.advance(1)
    assert len(rig.told("QRY_INST")) == 1
    for uuid in (UUID, UUID_2):
        rig.info("QRY_INST", uuid=uuid)
    rig.forget()
    rig.restart()
    assert len(rig.to_mtc) == 1
    rig.info("QRY_INST")
    rig.add_host()
    for _ in range(3):
        for uuid in (UUID, UUID_2):
            rig.info("QRY_INST", uuid=uuid)
        rig.advance(10)
    assert rig.vim.events() == [
        service("enabled", "301"),
        service("enabled", "301", uuid=UUID_2),
    ]
    assert rig.told("DEL_INST") == []
    assert rig.command("GET", f"/v1/hosts/{HOST_0}")[1]["state"] == "enabled"


def test_a_host_disabled_with_live_instances(rig):
    assert rig.host_command("disable") == 200
    rig.info("STOPPED", heartbeating="disabled")
    rig.server_says("LOSS", uuid=UUID)
    assert rig.vim.events("alarm") == []
    rig.advance(70)
    assert rig.told("QRY_INST") == []
    assert {body["heartbeat"] for body in rig.told("MOD_HOST")} == {"disabled"}
    assert rig.host_command("enable") == 200
    rig.server_says("LOSS", uuid=UUID)
    assert rig.vim.events("alarm") == [alarm("failed", "reboot")]


def test_events_are_plain_http_that_the_vim_understands(rig):
    rig.server_says("LOSS", uuid=UUID)
    request = rig.vim.requests[-1].what
    assert request.method == "PATCH"
    assert request.target == f"/nfvi-plugins/v1/instances/{UUID}"
    assert request.headers == {
        "host": f"127.0.0.1:{rig.vim.port}",
        "content-type": "application/json",
        "user-agent": "guest-agent/1.0",
        "connection": "close",
        "content-length": str(len(request.body)),
    }


def test_questions_are_plain_http_that_the_vim_understands(new):
    rig = new.start()
    rig.add_host()
    state, instances = (seen.what for seen in rig.vim.requests)
    assert (state.method, state.target) == ("GET", f"/nfvi-plugins/v1/hosts/{HOST_0}")
    assert state.body == f'{{"hostname":"compute-0","uuid":"{HOST_0}"}}'.encode()
    assert instances.target == f"/nfvi-plugins/v1/instances/?host_uuid={HOST_0}"
    assert "content-length" not in instances.headers
    rig.advance(11)
    assert len(rig.vim.requests) == 4, "asked again at each audit until answered"


def test_a_vim_that_is_down_hears_the_present_state_when_it_is_back(rig):
    rig.vim.refuse()
    for _ in range(10):
        rig.info("STOPPED", heartbeating="disabled")
        rig.server_says("LOSS", uuid=UUID)
        rig.info("RUNNING")
        rig.advance(3)
    rig.vim.listen()
    rig.advance(31)
    assert rig.vim.events() == [service("enabled", "301")]


def test_an_alarm_survives_an_outage_while_it_is_true(rig):
    rig.vim.refuse()
    rig.info("STOPPED", heartbeating="disabled")
    rig.server_says("LOSS", uuid=UUID)
    rig.advance(20)
    rig.vim.listen()
    rig.advance(31)
    assert rig.vim.events() == [service("disabled", "0"), alarm("failed", "reboot")]


def test_with_the_vim_hung_for_30_s_everything_else_flows(rig):
    """Commands in under 20 ms at the median, no stale alarm, present states at the end."""
    rig.vim.behaviour = known_to_vim
    for number in range(10):
        uuid = f"8d80875b-fa73-4ccb-bce3-{number:012d}"
        rig.create(uuid)
        rig.enable(uuid)
    rig.forget()
    rig.vim.hang()
    rig.info("STOPPED", heartbeating="disabled")
    rig.advance(2.5)
    rig.server_says("LOSS", uuid=UUID)
    took = []
    for second in range(30):
        for number in range(10):
            uuid = f"8d80875b-fa73-4ccb-bce3-{number:012d}"
            rig.info("RUNNING" if second % 2 else "STOPPED", uuid=uuid)
            began = time.perf_counter()
            assert rig.ask("vote", "pause", uuid)[0] == 200
            took.append(time.perf_counter() - began)
        rig.advance(1)
    rig.info("RUNNING")
    assert len(rig.told("VOTE_INST")) == 300, "votes of other instances flow"
    assert statistics.median(took) < 0.02
    assert rig.vim.most_open <= 4
    rig.vim.go_on()
    rig.advance(40)
    assert rig.vim.events("alarm") == [], "the instance heartbeats again: the alarm is stale"
    last = {event["uuid"]: event for event in rig.vim.events("service")}
    assert len(last) == 11
    for event in last.values():
        (told,) = event["event-data"]["services"]
        assert told["status"] == "enabled"
    assert len(rig.agent.core.queue) == 0


def test_an_answer_that_the_vim_no_longer_waits_for_is_not_sent(rig):
    rig.vim.refuse()
    assert rig.ask("vote", "pause")[1]["timeout"] == "3"
    vote_answer(rig, "pause", "revocable", "accept")
    rig.advance(3)
    rig.vim.listen()
    rig.advance(60)
    assert rig.vim.events("action") == []


def test_a_command_of_the_vim_ends_a_long_wait(rig):
    rig.vim.refuse()
    rig.info("STOPPED", heartbeating="disabled")
    rig.advance(100)
    rig.vim.listen()
    rig.forget()
    rig.command("GET", f"/v1/instances/{UUID}")
    rig.advance(0.1)
    assert rig.vim.events() == [service("disabled", "0")]


ANSWERS = {
    "200": b"HTTP/1.0 200 OK\r\n\r\n{}",
    "nothing": b"",
    "400": b"HTTP/1.0 400 Bad Request\r\n\r\n",
    "404": b"HTTP/1.0 404 Not Found\r\n\r\nnope",
    "cut in the head": b"HTTP/1.0 200 OK\r\nContent-",
    "cut in the body": b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "garbage": b"\x00\xff" * 500 + b"\r\n",
    "endless": b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 5_000_000,
    "nested": b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_was_delivered_is_never_repeated_whatever_came_back(rig, answer):
    rig.vim.behaviour = lambda _raw: answer
    rig.ask("vote", "pause")
    vote_answer(rig, "pause", "revocable", "accept")
    rig.info("STOPPED", heartbeating="disabled")
    rig.server_says("LOSS", uuid=UUID)
    rig.advance(60)
    assert rig.vim.events() == [
        action("pause", "allow"),
        service("disabled", "0"),
        alarm("failed", "reboot"),
    ]
    assert rig.loop.errors == 0


@pytest.mark.parametrize("status", [b"500 Internal Server Error", b"503 Busy"])
def test_a_service_is_repeated_after_a_5xx_until_it_is_taken(rig, status):
    rig.vim.behaviour = lambda _raw: b"HTTP/1.0 " + status + b"\r\n\r\n"
    rig.info("STOPPED", heartbeating="disabled")
    rig.server_says("LOSS", uuid=UUID)
    rig.advance(10)
    assert len(rig.vim.events("alarm")) == 1
    told = len(rig.vim.events("service"))
    assert told >= 3
    rig.vim.behaviour = lambda _raw: b""
    rig.advance(60)
    assert len(rig.vim.events("service")) == told + 1


def test_a_vim_that_never_answers_hears_an_alarm_once(rig):
    rig.vim.behaviour = lambda _raw: None
    rig.server_says("LOSS", uuid=UUID)
    rig.advance(100)
    assert len(rig.vim.events("alarm")) == 1


@pytest.mark.parametrize("answer", [b"", *ANSWERS.values()], ids=["closed", *ANSWERS])
def test_nothing_is_learned_from_a_vim_that_does_not_answer(new, answer):
    """Answering `disabled` for it would make the VIM evacuate the host."""
    rig = new
    rig.vim.behaviour = lambda _raw: answer
    rig.start()
    rig.add_host()
    rig.advance(30)
    assert rig.command("GET", f"/v1/hosts/{HOST_0}")[0] == 404
    assert rig.told() == []
    rig.vim.behaviour = known_to_vim
    rig.advance(40)
    assert rig.command("GET", f"/v1/hosts/{HOST_0}")[1]["state"] == "enabled"
    assert rig.command("GET", f"/v1/instances/{UUID_2}")[0] == 200


def test_instance_moves_between_hosts(rig):
    rig.add_host("compute-1", HOST_1)
    rig.host_command("enable", HOST_1, "compute-1")
    rig.server_says("LOSS", uuid=UUID)
    rig.forget()
    assert rig.enable(hostname="compute-1")[0] == 200
    assert len(rig.told("DEL_INST", "compute-0")) == 1
    assert rig.told("ADD_INST", "compute-1")[0]["state"] == "enabled"
    rig.info("RUNNING", "compute-0")
    assert rig.vim.events() == [], "its old host's word counts no longer"
    rig.info("RUNNING", "compute-1")
    (event,) = rig.vim.events()
    assert event["hostname"] == "compute-1"


def test_a_host_changes_its_address_and_goes(rig):
    rig.mtc_says("MOD_HOST", uuid=HOST_0, hostname="compute-0", ip="127.0.0.4")
    rig.info("STOPPED", heartbeating="disabled")
    assert rig.vim.events() == [], "what comes from the old address is not believed"
    rig.enable()
    assert len(rig.told("MOD_INST", "compute-1")) == 1, "127.0.0.4 is where it is now"
    rig.mtc_says("DEL_HOST", uuid=HOST_0, hostname="compute-0")
    assert rig.command("GET", f"/v1/instances/{UUID}")[0] == 404
    rig.advance(30)
    assert rig.told("QRY_INST", "compute-1") == []


@pytest.mark.parametrize("address", [{"ip": "::1"}, {}], ids=["no route", "no address"])
def test_what_did_not_leave_us_an_old_server_hears_when_it_can_be_reached(rig, address):
    """A vote goes out once; one that did not go out at all goes when there is a way."""
    rig.write_hosts({name: HOSTS[name] for name in ("controller", "controller-0")})
    rig.advance(130)
    rig.mtc_says("ADD_HOST", uuid=HOST_0, hostname="compute-0", personality="worker", **address)
    rig.info("RUNNING")
    assert rig.ask("vote", "stop")[0] == 200
    rig.advance(1)
    assert rig.told("VOTE_INST") == []
    rig.add_host()
    rig.advance(3)
    assert [vote["event"] for vote in rig.told("VOTE_INST")] == ["stop"]


def test_what_follows_from_an_answer_that_is_behind_follows_at_once(rig):
    """Its reporting is wrong, whatever else it says; nothing else happens that would send it."""
    rig.server_says("LOSS", uuid=UUID)
    rig.forget()
    rig.info("QRY_INST", reporting="disabled")
    assert rig.agent.dump()["dropped"]["overtaken"] == 1
    assert [body["state"] for body in rig.told("MOD_INST")] == ["enabled"]


def test_what_a_server_claims_is_not_owed_to_it(rig):
    """It is told to forget an instance that it should not have, each time that it lists it."""
    rig.add_host("compute-1", HOST_1)
    rig.create(UUID_2, "compute-1")
    role = rig.agent.core.inventory.host_named("compute-0").role
    owed = role.owed_count
    for count in (1, 2):
        rig.info("QRY_INST", uuid=UUID_2)
        assert len(rig.told("DEL_INST")) == count
    assert role.owed_count == owed


def test_strangers_are_not_believed(rig):
    """Events only from the address of their host; mtcAgent's only from our own."""
    rig.server_sends(_event("STOPPED", "compute-0"), "compute-1")
    rig.server_sends(_event("STOPPED", "compute-9"), "compute-0")
    assert rig.vim.events() == []
    dropped = rig.agent.server_link.intake.dropped
    assert (dropped["stranger"], dropped["unknown_host"]) == (1, 1)


@pytest.mark.parametrize("signature", [b"", wire.GUEST_SIGNATURE, wire.MTC_SIGNATURE[:-1]])
def test_a_command_without_the_signature_of_mtc_agent_is_ignored(new, signature):
    rig = new.start()
    members = {"uuid": HOST_0, "hostname": "compute-0", "ip": "127.0.0.2"}
    rig.mtc_sends(wire.pack("ADD_HOST", members, signature))
    assert rig.agent.dump()["hosts"] == []
    assert rig.agent.dump()["dropped"] == {"bad_signature": 1}


def test_a_command_of_mtc_agent_counts_only_from_our_own_addresses(new):
    """Its sender is what is believed; every address of a test is loopback, which is our own."""
    own = SimpleNamespace(floating=CONTROLLER, is_own=lambda _address: False)
    with closing_link(new, own) as (link, commands):
        link.receiver.open()
        new.mtc_says("ADD_HOST", uuid=HOST_0, hostname="compute-0", ip=COMPUTE_0)
        assert commands == []
        assert link.intake.dropped == {"stranger": 1}


def test_mtc_agent_is_asked_again_if_the_kernel_took_nothing(new):
    asked = []

    def send(_data, _destination, on_end) -> bool:
        asked.append(on_end)
        return True

    own = SimpleNamespace(floating=CONTROLLER)
    with closing_link(new, own, send) as (link, _commands):
        link.receiver.open()
        link.ask_for_hosts()
        asked[0](False)
        link.refresh()
        assert len(asked) == 2
        asked[1](True)
        link.refresh()
        assert len(asked) == 2
        assert (link.intake.sent, link.intake.dropped["not_sent"]) == ({"MONITOR_READY": 1}, 1)


@contextlib.contextmanager
def closing_link(rig: AgentRig, own, send=lambda _data, _destination, _on_end: True):
    """A link of its own to mtcAgent, and the commands that it takes."""
    commands: list[object] = []
    link = MtcLink(rig.loop, rig.settings, own, commands.append, send)
    try:
        yield link, commands
    finally:
        link.receiver.close()


def test_a_host_without_ip_is_reached_by_its_name(new):
    """Decision 17: what the hosts file has for it."""
    rig = new.start()
    rig.mtc_says("ADD_HOST", uuid=HOST_0, hostname="compute-0", personality="worker")
    assert rig.host_command("enable") == 200
    assert len(rig.told("MOD_HOST")) == 1


def test_a_host_that_is_gone_has_no_turn_any_more(rig):
    rig.mtc_says("DEL_HOST", uuid=HOST_0, hostname="compute-0")
    assert rig.agent.schedule.next_at() is None


def test_no_name_or_reason_of_a_peer_is_in_the_log_as_it_is(rig, caplog):
    """A line that a peer makes up must not look like one of ours."""
    caplog.set_level("INFO")
    forged = "compute-1\nroot: all is well"
    rig.mtc_says("ADD_HOST", uuid=HOST_1, hostname=forged, ip=COMPUTE_0)
    rig.mtc_says("DEL_HOST", uuid=HOST_1, hostname=forged)
    rig.agent.warn("%s has not answered %d audits", forged, 3)
    rig.agent.why(UUID, f"VOTE_NOTIFY: {forged}")
    lines = [record.getMessage() for record in caplog.records if "compute-1" in record.getMessage()]
    assert len(lines) == 4
    assert not [line for line in lines if "\n" in line]


def test_an_agent_that_is_not_the_active_one_answers_no_probe(rig):
    """Else a guestServer would take it for the one to tell; nor does it keep what it is asked."""
    rig.away.add(CONTROLLER)
    rig.advance(15)
    rig.forget()
    for _ in range(3):
        rig.server_says("LOOPBACK", epoch=7, seq=0)
    assert rig.to_servers == []
    assert rig.agent.server_link.intake.dropped["not_active"] == 3


def test_what_a_restarted_server_has_to_know_goes_out_in_bursts_of_100_each_10_ms(rig):
    """Decision 18: all of it within 30 ms, and never more than its socket buffer takes."""
    for number in range(250):
        assert rig.create(f"8d80875b-fa73-4ccb-bce3-{number:012d}") == 200
    rig.forget()
    rig.server_says("MONITOR_READY")
    told = [len(rig.told("MOD_INST"))]
    for _ in range(2):
        rig.advance(0.01)
        told.append(len(rig.told("MOD_INST")))
    assert told == [100, 200, 251]


def test_hosts_are_asked_for_as_soon_as_there_is_an_address_to_ask_at(new):
    """The hosts file is written after the agent has started."""
    rig = new
    rig.write_hosts({"compute-0": COMPUTE_0})
    rig.agent = rig.build()
    rig.start()
    rig.advance(10)
    assert rig.to_mtc == []
    rig.write_hosts(HOSTS)
    rig.advance(3.1)
    assert len(rig.to_mtc) == 1
    rig.advance(60)
    assert len(rig.to_mtc) == 1, "asked once"


def test_a_socket_on_an_address_that_is_no_longer_ours_is_closed(rig):
    taken = ("127.0.0.1", rig.ports.agent)
    with pytest.raises(OSError, match="in use"):
        bound_socket(taken)
    rig.write_hosts({**HOSTS, "controller": "127.0.0.3"})
    rig.advance(61)
    bound_socket(taken).close()


def _event(name: str, hostname: str) -> bytes:
    return wire.pack(name, {**INFO, "hostname": hostname, "uuid": UUID})


def test_a_worker_on_the_controller_itself_is_believed(new):
    rig = new.start()
    rig.mtc_says("ADD_HOST", uuid=HOST_0, hostname="controller-0", ip="127.0.0.3")
    rig.host_command("enable", hostname="controller-0")
    rig.create(hostname="controller-0")
    rig.forget()
    rig.server_sends(_event("RUNNING", "controller-0"), "compute-1")
    assert len(rig.vim.events()) == 1


def test_lists_and_metrics(rig):
    curl = b"GET %s HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/7\r\nConnection: close\r\n\r\n"
    status, body = rig.raw_command(curl % b"/v1/hosts")
    assert status == 200
    (host,) = json.loads(body)["hosts"]
    assert (host["hostname"], host["reporting"], host["instances"]) == ("compute-0", "enabled", 1)
    status, body = rig.raw_command(curl % b"/v1/instances")
    (instance,) = json.loads(body)["instances"]
    assert instance["uuid"] == UUID
    status, body = rig.raw_command(curl % b"/metrics")
    lines = body.decode().splitlines()
    assert 'guestmtce_instances{daemon="guestAgent",state="ok"} 1' in lines
    assert (
        'guestmtce_datagrams_total{daemon="guestAgent",direction="in",cmd="HEARTBEAT_RUNNING"} 1'
        in lines
    )
    assert 'guestmtce_vim_requests_total{result="closed"} 3' in lines
    assert "guestmtce_vim_queue_length 0" in lines
    assert UUID not in body.decode(), "no instance name in a label"
    assert rig.raw_command(curl % f"/v1/hosts/{HOST_0}".encode())[0] == 403


def test_an_idle_minute_wakes_for_nothing_but_the_audit(rig):
    rig.vim.behaviour = known_to_vim
    rig.advance(12)
    for _ in range(2):
        rig.info("QRY_INST")
    turns = rig.loop.turns
    rig.advance(60)
    assert rig.loop.turns - turns < 100


def test_what_waits_is_told_before_it_stops(rig):
    stopped = []
    rig.vim.hang()
    rig.info("STOPPED", heartbeating="disabled")
    rig.server_says("LOSS", uuid=UUID)
    rig.agent.stop(lambda: stopped.append(rig.time))
    rig.loop.settle()
    assert stopped == []
    rig.vim.go_on()
    rig.advance(0.1)
    assert len(stopped) == 1
    assert rig.vim.events() == [service("disabled", "0"), alarm("failed", "reboot")]


def test_a_vim_that_takes_nothing_does_not_hold_up_the_end(rig):
    stopped = []
    rig.vim.refuse()
    rig.info("STOPPED", heartbeating="disabled")
    rig.agent.stop(lambda: stopped.append(rig.time))
    rig.loop.settle()
    assert len(stopped) == 1
