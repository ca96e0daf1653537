"""guestServer's link to guestAgent on simulated time (datagrams.md; decisions 1, 5, 11, 18)."""

from __future__ import annotations

import socket

import pytest

from guestmtce.core.shared.errors import StartError
from guestmtce.server import agent_link
from tests.peers import wire
from tests.peers.root import COMPUTE_0, COMPUTE_1, CONTROLLER, CONTROLLER_0
from tests.unit.server_support import HOSTS, OTHER, UUID, Agent, Server, uuid_of

INFORMATION = [
    "hostname",
    "uuid",
    "reporting",
    "heartbeating",
    "repair-action",
    "restart-to",
    "shutdown-to",
    "suspend-to",
    "resume-to",
    "vote-to",
]


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def times(server, name="MONITOR_READY"):
    """Return when that was heard, in seconds since the server's start."""
    return [round(seen.at - 1000, 3) for seen in server.agent.take() if seen.name == name]


def test_ready_until_the_agent_has_spoken(server):
    """ "2 s after start at the latest, repeated after 5, 10, 20, 40, then each 60 s"."""
    server.start()
    server.loop.advance(300)
    heard = times(server)
    assert heard[0] <= 2
    gaps = [round(after - before, 3) for before, after in zip(heard, heard[1:])]
    assert gaps == [5, 10, 20, 40, 60, 60, 60]
    server.agent.send("QRY_INST")
    server.loop.advance(600)
    assert server.agent.take() == []


def test_a_long_start_delay_delays_no_ready():
    """READY 2 s after start at the latest, whatever `start_delay` says."""
    server = Server(start_delay_secs=30).start()
    server.loop.advance(5)
    assert len(times(server)) == 1
    server.close()


def test_ready_is_1060_bytes_without_signature_and_says_who(server):
    """ "guestServer sends an all-zero hdr", "Always 1060 bytes"."""
    server.start()
    server.loop.advance(2)
    (ready,) = server.agent.take()
    assert ready.body == {"hostname": "compute-0"}
    assert ready.size == 1060
    assert ready.header == bytes(64)


def test_ready_is_said_to_an_agent_that_spoke_first(server):
    """An old agent sends host-level reporting upon READY only: it must hear of our restart."""
    server.start()
    server.agent.send("QRY_INST")
    server.loop.advance(30)
    assert len(times(server)) == 1


def test_loopback_is_not_speaking(server):
    """Decision 3: LOOPBACK does not count as having spoken for READY."""
    server.start()
    server.agent.send("LOOPBACK", ack=7)
    server.loop.advance(20)
    assert len(times(server)) == 3


def test_ready_as_soon_as_the_controller_has_an_address(server):
    """ "checked every 3 s until `controller` is found"; READY must not wait for its next turn."""
    server.renew(f"{COMPUTE_0} compute-0\n")
    server.start()
    server.loop.advance(100)
    assert server.agent.take() == []
    server.write_hosts(HOSTS)
    server.loop.advance(6.1)
    heard = times(server)
    assert len(heard) == 1
    server.loop.advance(5)
    assert [at - heard[0] for at in times(server)] == [pytest.approx(5)]


def test_the_hosts_file_is_read_again_while_running(server):
    """Decision 1: read again when it changes (… then every 60 s): events go to the new one."""
    server.start()
    guest = server.beating()
    other = Agent(server.loop, CONTROLLER_0, server.settings.agent_rx_port, ("127.0.0.1", 9))
    try:
        server.write_hosts(f"{CONTROLLER_0} controller\n{COMPUTE_0} compute-0\n")
        server.loop.advance(61)
        guest.hang_up()
        server.loop.advance(0.1)
        assert other.names() == ["STOPPED"]
        assert server.agent.take() == []
        # The old address is no peer any more.
        server.agent.send("QRY_INST")
        assert server.agent.take() == other.take() == []
        assert server.app.link.intake.dropped["stranger"] == 1
    finally:
        other.close()


@pytest.mark.parametrize("name", ["QRY_INST", "ADD_INST", "DEL_INST", "MOD_HOST", "VOTE_INST"])
def test_a_strangers_word_counts_for_nothing(server, name):
    """ "accepts datagrams only from the addresses of controller, controller-0, controller-1"."""
    server.start()
    server.beating()
    stranger = Agent(server.loop, "127.0.0.77", server.settings.agent_rx_port, server.agent.server)
    before = server.app.dump()["instances"]
    try:
        stranger.send(
            name, uuid=UUID, service="heartbeat", state="disabled", heartbeat="disabled",
            event="stop",
        )  # fmt: skip
        assert stranger.take() == []
        assert server.agent.take() == []
        assert server.app.dump()["instances"] == before
        assert server.app.worker.reporting is True
        assert server.app.link.intake.dropped["stranger"] == 1
    finally:
        stranger.close()


def test_all_in_one(server, monkeypatch):
    """Where the controller is this host, any address of it is believed, and no other."""
    local = "127.0.0.44"
    monkeypatch.setattr(agent_link, "addresses_here", lambda: frozenset({CONTROLLER, local}))
    server.start()
    agent = Agent(server.loop, local, server.settings.agent_rx_port, server.agent.server)
    try:
        agent.provision()
        assert UUID in server.app.channels
        server.write_hosts(f"127.0.0.99 controller\n{COMPUTE_0} compute-0\n")
        server.loop.advance(61)
        agent.delete()
        assert UUID in server.app.channels, "the controller is elsewhere now"
    finally:
        agent.close()


def test_answers_go_to_the_configured_port_whatever_the_source_port(server):
    """Decision 5: source ports mean nothing."""
    server.start()
    server.agent.provision()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind((CONTROLLER, 0))
        elsewhere.sendto(wire.pack("QRY_INST", {"source": CONTROLLER}), server.agent.server)
        server.loop.settle()
        assert server.agent.names() == ["QRY_INST"]
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.recv(2000)


def test_a_second_agent_does_not_get_what_the_active_one_needs(server):
    """Events go to the address of `controller`, and to nobody else (decision 22)."""
    server.write_hosts(HOSTS + f"{CONTROLLER_0} controller-0\n")
    server.start()
    guest = server.beating()
    stale = Agent(server.loop, CONTROLLER_0, server.settings.agent_rx_port, server.agent.server)
    try:
        stale.send("QRY_INST")
        guest.hang_up()
        server.loop.settle()
        assert stale.take() == []
        assert server.agent.names() == ["QRY_INST", "STOPPED"]
    finally:
        stale.close()


def test_without_a_controller_the_believed_agent_that_spoke_last_is_told(server):
    """Only while that name has no address."""
    server.write_hosts(f"{CONTROLLER_0} controller-0\n{COMPUTE_0} compute-0\n")
    server.start()
    server.loop.advance(130)  # the name that vanished is kept for a while
    agent = Agent(server.loop, CONTROLLER_0, server.settings.agent_rx_port, server.agent.server)
    try:
        agent.provision()
        agent.send("QRY_INST")
        assert agent.names().count("QRY_INST") == 1
    finally:
        agent.close()


@pytest.mark.parametrize("here", [{CONTROLLER, "127.0.0.77"}, {"127.0.0.77"}])
def test_on_an_all_in_one_host_any_of_its_addresses_is_believed(server, monkeypatch, here):
    """The agent's local address is no stranger where `controller` is this very host."""
    monkeypatch.setattr(agent_link, "addresses_here", lambda: frozenset(here))
    server.start()
    local = Agent(server.loop, "127.0.0.77", server.settings.agent_rx_port, server.agent.server)
    try:
        local.provision()
        assert (UUID in server.app.channels) is (CONTROLLER in here)
    finally:
        local.close()


def test_addresses_of_this_host_are_believed_only_where_controller_is(monkeypatch):
    """`[client] agent_peers` says who is; an all-in-one host changes nothing about that."""
    monkeypatch.setattr(agent_link, "addresses_here", lambda: frozenset({CONTROLLER}))
    server = Server(agent_peers=("controller-0",))
    try:
        server.start()
        server.agent.provision()
        assert server.app.channels == {}
    finally:
        server.close()


NOTHING = wire.pack("QRY_INST", None, full=False)


def add(**changes):
    return wire.pack(
        "ADD_INST", {"uuid": UUID, "service": "heartbeat", "state": "enabled", **changes}
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bad_length"),
        (NOTHING[:99], "bad_length"),
        (NOTHING.ljust(1061, b"\0"), "bad_length"),
        (NOTHING + b"[1]", "not_object"),
        (NOTHING + b"{", "not_json"),
        (NOTHING + b'{"a":\xff}', "not_json"),
        (NOTHING + b"[" * 900, "not_json"),
        (add(uuid="x"), "bad_member"),
        (add(uuid=7), "bad_member"),
        (add(uuid=UUID + "\n"), "bad_member"),
        (add(service=None), "bad_member"),
        (add(service="x"), "service"),
        (add(state="on"), "bad_member"),
        (wire.pack("MOD_HOST", {"uuid": UUID, "heartbeat": True}), "bad_member"),
        (wire.pack("VOTE_INST", {"uuid": UUID, "event": "stop"}), "unknown_instance"),
        (wire.pack("VOTE_INST", {"uuid": UUID, "event": "dance"}), "bad_member"),
        (wire.pack("RUNNING", {"uuid": UUID}), "command"),
    ],
)
def test_bad_datagrams_are_dropped_and_counted(server, data, reason):
    """ "drops what is shorter, longer, not JSON, or not an object"; an odd uuid crashes nothing."""
    server.start()
    server.agent.send_raw(data)
    assert server.app.link.intake.dropped == {reason: 1}
    assert server.app.channels == {}
    assert server.agent.take() == []


def test_a_truncated_datagram_is_as_good_as_a_whole_one(server):
    """ "Senders may truncate after the used part of buf", with its NUL or without."""
    server.start()
    body = {"source": "S", "uuid": UUID.upper(), "service": "heartbeat", "state": "enabled"}
    server.agent.send_raw(wire.pack("ADD_INST", body, full=False))
    server.agent.send_raw(wire.pack("QRY_INST", {"source": "S"}, full=False).rstrip(b"\0"))
    (answer,) = server.agent.take()
    assert list(answer.body) == INFORMATION
    assert answer.body["uuid"] == UUID, "decision 16: lower-cased"


def test_what_an_unconnected_instance_answers(server):
    """What an instance has until an init shows in QRY answers (protocol.md, "Terms")."""
    server.start()
    server.agent.provision()
    server.agent.send("QRY_INST")
    (answer,) = server.agent.take()
    assert answer.body == {
        "hostname": "compute-0",
        "uuid": UUID,
        "reporting": "enabled",
        "heartbeating": "disabled",
        "repair-action": "log",
        "restart-to": "120",
        "shutdown-to": "10",
        "suspend-to": "10",
        "resume-to": "10",
        "vote-to": "10",
    }


def test_a_query_is_answered_in_portions(server):
    """Decision 18: QRY answers … at most 100 per 10 ms; each instance once."""
    server.start()
    for number in range(250):
        server.agent.provision(uuid_of(number))
    server.agent.send("QRY_INST")
    server.loop.advance(1)
    answers = [seen for seen in server.agent.take() if seen.name == "QRY_INST"]
    assert [seen.body["uuid"] for seen in answers] == [uuid_of(n) for n in range(250)]
    first = answers[0].at
    assert [round(seen.at - first, 3) for seen in answers[::50]] == [0, 0, 0.01, 0.01, 0.02]


def test_queries_during_the_answers_get_one_round_more(server):
    """A storm of queries cannot keep the answers from coming to an end."""
    server.start()
    for number in range(250):
        server.agent.provision(uuid_of(number))
    for _ in range(5):
        server.agent.send("QRY_INST")
    server.agent.delete(uuid_of(249))
    server.loop.advance(1)
    answers = [seen.body["uuid"] for seen in server.agent.take() if seen.name == "QRY_INST"]
    assert answers == 2 * [uuid_of(n) for n in range(249)]
    server.loop.advance(1)
    assert server.agent.take() == [], "it has come to an end"


def test_host_reporting_is_on_until_told(server):
    """Decision 2: a guestServer assumes on until told."""
    server.start()
    assert server.app.worker.reporting
    server.agent.send("MOD_HOST", uuid=OTHER, heartbeat="disabled")
    assert not server.app.worker.reporting
    server.agent.send("MOD_HOST", uuid=OTHER, heartbeat="enabled")
    assert server.app.worker.reporting


def test_a_deleted_instances_file_is_ignored_until_a_new_one(server):
    """Decision 11: scans do not revive it; a new create event does."""
    server.start()
    guest = server.beating()
    server.agent.delete()
    assert server.app.channels == {}
    server.loop.advance(1000)
    guest.path.chmod(0o600)
    server.loop.advance(1)
    assert server.app.channels == {}
    assert len(guest.accepted) == 1
    guest.listen()
    server.loop.advance(1)
    assert server.connected()
    server.agent.send("QRY_INST")
    assert server.agent.take()[-1].body["reporting"] == "disabled"


@pytest.mark.parametrize("end", ["a new file", "the file goes", "ADD_INST"])
def test_what_ends_that_a_file_is_passed_over_ends_it_for_good(server, end):
    """Decision 11: from then on a scan finds it like any other, as after an overflow."""
    server.start()
    guest = server.beating()
    server.agent.delete()
    assert server.app.summary()["ignored"] == [UUID]
    if end == "a new file":
        guest.listen()
    elif end == "the file goes":
        guest.stop(unlink=True)
    else:
        server.agent.provision()
    server.loop.advance(1)
    assert server.app.summary()["ignored"] == []


def test_a_deleted_instance_stays_so_when_one_of_its_files_goes(server):
    """Decision 11: the other file is an old one; DEL_INST has said what it thinks of it."""
    server.start()
    server.guest(form="wrs.heartbeat.agent.0.{}.sock")
    guest = server.beating()
    server.agent.delete()
    guest.stop(unlink=True)
    server.loop.advance(1000)
    assert server.app.channels == {}
    server.agent.provision()
    server.loop.advance(1)
    assert server.heartbeating()


@pytest.mark.parametrize("command", ["ADD_INST", "MOD_INST"])
def test_a_deleted_instance_is_connected_at_once_when_named_again(server, command):
    """Decision 11: ADD/MOD_INST of an unconnected instance looks for its file and connects."""
    server.start()
    guest = server.beating()
    server.agent.delete()
    server.loop.advance(100)
    guest.hang_up()
    server.agent.provision(name=command)
    server.loop.advance(0.01)
    assert server.heartbeating()
    assert server.agent.names() == ["RUNNING"]


def test_del_of_an_instance_that_nobody_knows(server):
    """It does nothing, and does not keep a later file from being found."""
    server.start()
    server.agent.delete()
    guest = server.guest()
    server.loop.advance(1)
    assert server.connected()
    assert len(guest.accepted) == 1


def test_delete_reports_nothing_more(server):
    """Every timer ends with its instance (behaviour.md)."""
    server.start()
    guest = server.beating()
    guest.answers = False
    server.agent.send("VOTE_INST", uuid=UUID, event="stop")
    server.agent.delete()
    server.loop.advance(300)
    assert server.agent.take() == []


def test_a_reason_is_json_whatever_the_guest_said(server):
    """ "`reason` is guest text: JSON-escaped by the encoder, control characters removed"."""
    server.start()
    guest = server.beating()
    server.agent.send("VOTE_INST", uuid=UUID, event="pause")
    asked = guest.heard[-1]
    guest.say(
        "action_response",
        invocation_id=asked["invocation_id"],
        event_type="pause",
        notification_type="revocable",
        vote_result="reject",
        log_msg='"\\\n' + "\N{SNOWMAN}" * 100,
    )
    (told,) = server.agent.take()
    assert told.name == "VOTE_NOTIFY"
    assert told.size == 1060
    assert list(told.body) == [
        "hostname",
        "uuid",
        "notification_type",
        "event-type",
        "vote",
        "reason",
    ]
    assert told.body["vote"] == "reject"
    # 224 bytes of UTF-8, cut at a character.
    assert told.body["reason"] == '"\\' + "\N{SNOWMAN}" * 74


def test_a_port_in_use_names_the_port(server):
    """Decision 19: EADDRINUSE: exit 1, with a message that names the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((COMPUTE_0, server.settings.rx_port))
        with pytest.raises(StartError, match=str(server.settings.rx_port)):
            server.app.start()


def test_an_address_that_is_not_ours_yet_is_tried_again(server):
    """Decision 19: EADDRNOTAVAIL: retry every 3 s; no name yet: the same."""
    server.renew(f"{CONTROLLER} controller\n")
    server.start()
    server.loop.advance(10)
    assert "add compute-0 to /etc/hosts" in server.app.link.problems[0]
    server.write_hosts(f"{CONTROLLER} controller\n198.51.100.7 compute-0\n")
    server.loop.advance(10)
    assert "198.51.100.7 is not an address of this host" in server.app.link.problems[0]
    server.write_hosts(HOSTS)
    server.loop.advance(3.1)
    assert server.app.link.problems == []
    assert server.app.link.address == COMPUTE_0


def test_an_empty_hosts_file_for_a_moment_harms_nothing(server):
    """It is rewritten by truncating: events go out and the agent is believed (decision 23)."""
    server.start()
    guest = server.beating()
    server.agent.take()
    server.write_hosts("")
    server.loop.advance(60)
    guest.hang_up()
    server.agent.send("MOD_HOST", hostname="compute-0", heartbeat="disabled")
    server.loop.advance(2)
    assert [datagram.name for datagram in server.agent.take()][:1] == ["STOPPED"]
    assert not server.app.worker.reporting
    server.write_hosts(f"{COMPUTE_0} compute-0\n{COMPUTE_1} controller\n")
    server.loop.advance(3.1)
    assert server.app.link.destination == COMPUTE_1


def test_an_unreachable_agent_harms_nothing(server):
    """Nobody listens at the agent's port: ICMP errors come back on the socket."""
    server.start()
    server.beating()
    server.agent.close()
    server.loop.advance(600)
    assert server.heartbeating()


@pytest.mark.parametrize("other", ["::1", COMPUTE_0.replace("127", "bad.")], ids=["route", "name"])
def test_an_old_agent_hears_what_could_not_be_sent_when_it_can(server, other):
    """The controller cannot be sent to while a guest is lost: the kernel refuses, or no name."""
    server.start()
    guest = server.beating()
    server.write_hosts(f"{other} controller\n{COMPUTE_0} compute-0\n")
    server.loop.advance(130)
    guest.answers = False
    sent = server.app.link.intake.sent.copy()
    server.loop.advance(5)
    assert not server.heartbeating()
    assert server.agent.take() == []
    assert server.app.link.intake.sent == sent
    server.write_hosts(HOSTS)
    server.loop.advance(65)
    heard = [datagram.name for datagram in server.agent.take()]
    assert [name for name in heard if name in ("STOPPED", "LOSS")] == ["STOPPED", "LOSS"]


def test_ipv6():
    """UDP over IPv4 or IPv6 (datagrams.md)."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on loopback")
    server = Server(controller="::1", address="::1").start()
    try:
        server.beating()
        server.agent.send("QRY_INST")
        assert server.agent.names() == ["QRY_INST"]
    finally:
        server.close()


def test_an_agent_of_the_other_address_family_is_out_of_reach_and_no_more():
    """Its name is there, yet our socket cannot send to it: counted, tried again, no crash."""
    server = Server()
    server.write_hosts(f"::1 controller\n{COMPUTE_0} compute-0\n")
    server.start()
    try:
        server.guest()
        server.loop.advance(60)
        assert server.connected()
        assert server.agent.take() == []
        server.write_hosts(HOSTS)
        server.loop.advance(61)
        assert server.agent.names()[:2] == ["RUNNING", "MONITOR_READY"]
    finally:
        server.close()
