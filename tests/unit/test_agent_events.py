"""What datagrams and the VIM's answers do: behaviour.md, "guestAgent", and the decisions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.agent import events, mtc_commands, vim_answers
from guestmtce.core.agent.bursts import BURST
from guestmtce.core.agent.inventory import SERVICE_SHARE
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.vim_queue import Ended
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.delivery import Role
from guestmtce.core.shared.errors import PeerError, ProtocolError, Unneeded
from guestmtce.core.shared.stamp import Acknowledgement
from guestmtce.core.shared.vocabulary import Command, CorrectiveAction
from tests.unit.agent_support import (
    HOST_0,
    HOST_1,
    INFO,
    UUID,
    UUID_2,
    CoreRig,
    host_state,
    instances,
    ready_core,
)

INSTANCE = f"/v1/instances/{UUID}"
SERVICE = (UUID, Kind.SERVICE, None)
# Nobody broke the protocol: counted, and not warned of.
NO_FAULT = {"ill_again", "loss_again", "not_reporting", "ready_again"}


@pytest.fixture
def rig() -> CoreRig:
    return CoreRig()


ready = pytest.fixture(ready_core)


def refused(rig: CoreRig, reason: str, command: Command, **members: object) -> None:
    """An event that is not wanted: nothing changes, nothing is told."""
    before = [instance.for_operator() for instance in rig.agent.inventory.instances.values()]
    with pytest.raises(Unneeded if reason in NO_FAULT else PeerError) as caught:
        rig.event(command, **members)
    assert caught.value.reason == reason
    after = [instance.for_operator() for instance in rig.agent.inventory.instances.values()]
    assert before == after
    assert rig.deliver() == []
    assert rig.sent() == []


def info(**changed: str) -> dict[str, str]:
    return {**INFO, **changed}


def test_running_updates_and_is_told(rig):
    rig.ready(heartbeating=False)
    rig.running()
    instance = rig.instance()
    assert instance.heartbeating
    assert instance.timeouts == (301, 5, 6, 7, 3)
    assert instance.action is CorrectiveAction.REBOOT
    assert rig.deliver() == [SERVICE]


def test_running_again_is_told_again(ready):
    ready.running()
    assert ready.deliver() == [SERVICE]


def test_stopped_updates_and_is_told(ready):
    ready.stopped()
    assert not ready.instance().heartbeating
    assert ready.instance().for_vim().restart_timeout == 0
    assert ready.deliver() == [SERVICE]


@pytest.mark.parametrize("command", [Command.HEARTBEAT_RUNNING, Command.HEARTBEAT_ILLHEALTH])
def test_reporting_is_never_taken_from_an_event(ready, command):
    ready.info(command, reporting="disabled")
    assert ready.instance().reporting


def test_a_guest_that_comes_and_goes_has_its_share_of_the_vim(ready):
    """One thread serves the whole VIM: what is over the share, the next audit tells, as it is."""
    limit, period = SERVICE_SHARE
    ready.now += period
    told = []
    for _ in range(limit):
        ready.running()
        told += ready.deliver()
        ready.stopped()
        told += ready.deliver()
    assert len(told) == limit
    ready.running()
    ready.now += period
    ready.audit()
    assert [kind for _key, kind, _detail in ready.deliver()] == [Kind.SERVICE]
    ready.audit()
    assert not ready.deliver()


def test_loss_is_an_alarm_with_the_action_of_init(ready):
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    assert ready.deliver() == [
        SERVICE,
        (UUID, Kind.ALARM, ("failed", CorrectiveAction.REBOOT)),
    ]


def test_ill_health_is_an_alarm_with_its_own_action_and_stores_nothing(ready):
    """Decision 8."""
    ready.info(Command.HEARTBEAT_ILLHEALTH, action="log", **{"restart-to": "7"})
    assert ready.deliver() == [(UUID, Kind.ALARM, ("unhealthy", CorrectiveAction.LOG))]
    assert ready.instance().action is CorrectiveAction.REBOOT
    assert ready.instance().timeouts.restart == 301


def test_an_old_servers_illness_is_passed_on_once_in_10_s_and_action(ready):
    """Decisions 26, 38: none is held, for it does not say when the guest is well again."""
    ready.info(Command.HEARTBEAT_ILLHEALTH, action="log")
    ready.deliver()
    ready.now += 8.9
    refused(ready, "ill_again", Command.HEARTBEAT_ILLHEALTH, **info(**{"repair-action": "log"}))
    ready.info(Command.HEARTBEAT_ILLHEALTH, action="stop")
    assert len(ready.deliver()) == 1
    ready.now += 1.1
    ready.info(Command.HEARTBEAT_ILLHEALTH, action="log")
    assert len(ready.deliver()) == 1


def test_an_illness_that_the_network_brought_too_early_is_told_when_the_10_s_are_over(ready):
    """The guestServer's own limit is 10 s as well: two limits must not add up to twenty."""
    ready.info(Command.HEARTBEAT_ILLHEALTH, action="log")
    ready.deliver()
    ready.now += 9.95
    ready.info(Command.HEARTBEAT_ILLHEALTH, action="log")
    assert ready.deliver() == []
    ready.now = ready.queue.wake_at()
    assert ready.now == pytest.approx(110)
    assert len(ready.deliver()) == 1


def test_an_illness_of_a_new_server_within_10_s_is_held_and_told_if_it_is_still_true(ready):
    """It sends RUNNING when the guest is well again."""
    illness = {**info(), "epoch": 7, "seq": 1}
    ready.event(Command.HEARTBEAT_ILLHEALTH, **illness)
    assert len(ready.deliver()) == 1
    ready.now += 3
    ready.event(Command.HEARTBEAT_ILLHEALTH, **{**illness, "seq": 2})
    assert ready.deliver() == []
    ready.running()
    assert ready.deliver() == [SERVICE]
    ready.event(Command.HEARTBEAT_ILLHEALTH, **{**illness, "seq": 3})
    ready.now += 7
    assert [kind for _, kind, _ in ready.deliver()] == [Kind.ALARM]


FAILED_ALARM = (UUID, Kind.ALARM, ("failed", CorrectiveAction.REBOOT))


def test_a_loss_said_twice_within_1_s_is_one(ready):
    """Decision 27: two copies on the network were two reboots."""
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    assert FAILED_ALARM in ready.deliver()
    ready.now += 0.05
    refused(ready, "loss_again", Command.HEARTBEAT_LOSS)
    ready.now += 60
    assert ready.deliver() == []


def test_two_losses_of_a_new_server_are_two(ready):
    ready.event(Command.HEARTBEAT_LOSS, epoch=7, seq=1)
    assert ready.deliver() == [FAILED_ALARM]
    ready.now += 0.05
    ready.event(Command.HEARTBEAT_LOSS, epoch=7, seq=2)
    assert ready.deliver() == []
    ready.now += 10
    assert ready.deliver() == [FAILED_ALARM]


def test_a_guest_that_gets_lost_on_purpose_is_told_once_in_10_s(ready):
    """Decision 38: 20 guests made 201 alarms in 14 s."""
    told = []
    start = ready.now
    for _ in range(30):
        ready.stopped()
        ready.event(Command.HEARTBEAT_LOSS)
        told += [ready.now - start] * ready.deliver().count(FAILED_ALARM)
        ready.now += 1.1
        ready.running()
        ready.deliver()
    assert told == pytest.approx([0, 11, 22])


def test_a_loss_that_is_held_back_is_told_when_the_10_s_are_over(ready):
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    ready.deliver()
    ready.now += 2
    ready.running()
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    assert ready.deliver() == [SERVICE]
    ready.now = ready.queue.wake_at()
    assert ready.now == 110
    assert ready.deliver() == [FAILED_ALARM]


@pytest.mark.parametrize("end", ["running", "reporting", "deleted"])
def test_a_loss_that_is_held_back_is_not_told_when_it_is_no_longer_true(ready, end):
    for _ in range(2):
        ready.event(Command.HEARTBEAT_LOSS)
        ready.deliver()
        ready.now += 2
    if end == "running":
        ready.running()
    elif end == "reporting":
        ready.agent.set_reporting(ready.instance(), False, ready.now)
    else:
        ready.agent.delete_instance(ready.instance())
    ready.now += 60
    assert FAILED_ALARM not in ready.deliver()


def test_an_alarm_that_was_not_delivered_does_not_count(ready):
    """While the VIM is down an alarm is told as soon as it is back."""
    ready.event(Command.HEARTBEAT_LOSS)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.now += 5
    ready.event(Command.HEARTBEAT_LOSS)
    assert FAILED_ALARM in ready.deliver()


def test_the_first_status_is_told_whatever_it_is(rig):
    """Decision 25: the VIM may believe what an earlier agent told it."""
    rig.ready(heartbeating=False)
    assert rig.deliver() == [], "nothing was learned yet"
    answer(rig, heartbeating="disabled")
    assert rig.deliver() == [SERVICE]
    answer(rig, heartbeating="disabled")
    assert rig.deliver() == []


def test_an_illness_says_how_its_guest_is_when_nothing_else_was_learned(rig):
    rig.ready(heartbeating=False)
    rig.info(Command.HEARTBEAT_ILLHEALTH)
    assert rig.instance().heartbeating
    assert [kind for _, kind, _ in rig.deliver()] == [Kind.SERVICE, Kind.ALARM]


def test_an_answer_that_a_loss_has_overtaken_withdraws_nothing(ready):
    """Decision 39: it left before the LOSS, and says that all is well."""
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.now += 0.9
    with pytest.raises(Unneeded, match="overtaken"):
        answer(ready)
    assert not ready.instance().heartbeating
    ready.now += 0.2
    assert FAILED_ALARM in ready.deliver()


def test_an_answer_that_is_older_than_the_last_event_withdraws_nothing(ready):
    """Of a new guestServer the number counts, however late the answer is (decision 28)."""
    ready.host().role = role = Role(11)
    role.loopback(Acknowledgement(7, 11, 0), "127.0.0.2", ready.now)
    ready.stopped(epoch=7, seq=5)
    ready.event(Command.HEARTBEAT_LOSS, epoch=7, seq=6)
    ready.now += 5
    answer = {**info(), "epoch": 7, "re": 1, "of": 1}
    with pytest.raises(Unneeded, match="behind"):
        ready.event(Command.QRY_INST, **answer, seq=4)
    assert not ready.instance().heartbeating
    assert FAILED_ALARM in ready.deliver()


def test_an_answer_a_second_after_a_loss_counts(ready):
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.now += 1
    answer(ready)
    assert ready.instance().heartbeating
    assert ready.deliver() == [SERVICE]


def test_an_unhealthy_alarm_is_told_within_70_s(ready):
    ready.info(Command.HEARTBEAT_ILLHEALTH)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.now += 69.9
    assert [kind for _, kind, _ in ready.deliver()] == [Kind.SERVICE, Kind.ALARM]


def test_an_unhealthy_alarm_is_dropped_after_70_s(ready):
    """Decision 12."""
    ready.info(Command.HEARTBEAT_ILLHEALTH)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.now += 70
    assert [kind for _, kind, _ in ready.deliver()] == []
    assert ready.queue.dropped == {"expired": 1}


@pytest.mark.parametrize("command", [Command.HEARTBEAT_LOSS, Command.HEARTBEAT_ILLHEALTH])
@pytest.mark.parametrize("off", ["host", "instance", "unknown"])
def test_no_alarm_unless_host_and_instance_report(ready, command, off):
    if off == "instance":
        ready.instance().reporting = False
    else:
        ready.host().reporting = False if off == "host" else None
    refused(ready, "not_reporting", command, **info())


def test_an_alarm_is_withdrawn_when_the_instance_heartbeats_again(ready):
    ready.stopped()
    ready.event(Command.HEARTBEAT_LOSS)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.running()
    ready.now += 1
    assert ready.deliver() == [SERVICE]
    assert ready.queue.dropped == {"heartbeats": 1}


def test_after_an_outage_the_vim_hears_the_present_state(ready):
    for _ in range(5):
        ready.stopped()
        ready.event(Command.HEARTBEAT_LOSS)
        ready.deliver(Ended.NOT_DELIVERED)
        ready.now += 5
        ready.running()
    assert ready.deliver() == [SERVICE]
    assert ready.instance().heartbeating


@pytest.mark.parametrize(
    "command",
    [
        Command.HEARTBEAT_RUNNING,
        Command.HEARTBEAT_STOPPED,
        Command.HEARTBEAT_LOSS,
        Command.HEARTBEAT_ILLHEALTH,
        Command.VOTE_NOTIFY,
    ],
)
def test_an_instance_unknown_or_elsewhere_changes_nothing(ready, command):
    """Decision 9."""
    ready.add_host("compute-1", HOST_1)
    ready.deliver()
    members = {**info(), "notification_type": "revocable", "event-type": "pause"}
    refused(ready, "unknown_instance", command, uuid=UUID_2, **members)
    refused(ready, "other_host", command, hostname="compute-1", **members)


ODD_MEMBERS = [
    (key, value)
    for key in (*info(), "uuid")
    for value in (None, 1, "", "bogus" * 60, "-1", "1.5")
    # any word is a repair action, though an unknown one
    if not (key == "repair-action" and value in ("-1", "1.5"))
]


@pytest.mark.parametrize(("key", "value"), ODD_MEMBERS)
def test_a_missing_or_odd_member_changes_nothing(ready, key, value):
    with pytest.raises(PeerError):
        ready.event(Command.HEARTBEAT_RUNNING, **{**info(), key: value})
    assert ready.deliver() == []


def answer_vote(rig: CoreRig, *, hostname: str = "compute-0", **changed: object) -> None:
    members = {
        "notification_type": "revocable",
        "event-type": "pause",
        "vote": "reject",
        "reason": "busy",
    }
    rig.event(Command.VOTE_NOTIFY, hostname, **{**members, **changed})


def ask(rig: CoreRig, action: str = "pause", verb: str = "vote") -> None:
    body = {"uuid": UUID, "hostname": "compute-0", "action": action}
    assert rig.vim("POST", f"{INSTANCE}/{verb}", json.dumps(body).encode())[0] == 200
    rig.sent()


def test_the_answer_to_a_vote_is_passed_on(ready):
    ask(ready)
    answer_vote(ready)
    assert ready.deliver() == [(UUID, Kind.ACTION, ("pause", "reject", "busy"))]


def test_at_most_one_answer_to_each_vote(ready):
    ask(ready)
    answer_vote(ready)
    ready.deliver()
    with pytest.raises(Unneeded, match="no_vote"):
        answer_vote(ready)


@pytest.mark.parametrize("changed", [{"event-type": "stop"}, {"notification_type": "irrevocable"}])
def test_an_answer_to_something_else_is_dropped_and_the_vote_goes_on(ready, changed):
    ask(ready)
    with pytest.raises(Unneeded, match="no_vote"):
        answer_vote(ready, **changed)
    answer_vote(ready)
    assert len(ready.deliver()) == 1


@pytest.mark.parametrize("changed", [{"event-type": "bogus"}, {"notification_type": "bogus"}])
def test_an_answer_with_an_unknown_word_is_dropped(ready, changed):
    ask(ready)
    with pytest.raises(PeerError):
        answer_vote(ready, **changed)
    assert ready.deliver() == []


def test_an_answer_after_the_window_is_dropped(ready):
    """The VIM applies a late answer to whatever action is then in progress."""
    ask(ready)
    ready.now += 3
    with pytest.raises(Unneeded, match="late_vote"):
        answer_vote(ready)
    assert ready.deliver() == []


def test_a_queued_answer_expires_with_its_window(ready):
    ask(ready)
    ready.now += 1
    answer_vote(ready)
    ready.deliver(Ended.NOT_DELIVERED)
    ready.now += 2
    assert [kind for _, kind, _ in ready.deliver()] == []
    assert ready.queue.dropped == {"expired": 1}


def test_a_second_vote_supersedes_the_first(ready):
    ask(ready)
    answer_vote(ready)
    ask(ready, "stop")
    assert ready.deliver() == []
    with pytest.raises(Unneeded, match="no_vote"):
        answer_vote(ready)
    answer_vote(ready, **{"event-type": "stop"})
    assert len(ready.deliver()) == 1


def test_the_new_host_does_not_answer_the_vote_that_the_old_one_was_asked(ready):
    ready.add_host("compute-1", HOST_1)
    ask(ready)
    body = {"uuid": UUID, "hostname": "compute-1", "services": ["heartbeat"]}
    assert ready.vim("POST", INSTANCE, json.dumps(body).encode())[0] == 200
    ready.deliver()
    with pytest.raises(Unneeded, match="no_vote"):
        answer_vote(ready, hostname="compute-1")
    assert ready.deliver() == []


def test_ready_is_answered_with_host_and_instances(ready):
    ready.event(Command.MONITOR_READY)
    assert ready.sent() == [
        ("compute-0", "MOD_HOST", HOST_0, "enabled"),
        ("compute-0", "MOD_INST", UUID, "heartbeat", "enabled"),
    ]


def test_ready_says_nothing_of_host_reporting_that_is_not_known(rig):
    rig.ready()
    rig.host().reporting = None
    rig.event(Command.MONITOR_READY)
    assert [call[1] for call in rig.sent()] == ["MOD_INST"]


def test_ready_is_answered_at_most_once_in_2_s(ready):
    """Decision 18."""
    ready.event(Command.MONITOR_READY)
    ready.sent()
    ready.now += 1.9
    refused(ready, "ready_again", Command.MONITOR_READY)
    ready.now += 0.1
    ready.event(Command.MONITOR_READY)
    assert len(ready.sent()) == 2


def test_bursts_are_at_most_100_at_once(ready):
    for number in range(250):
        uuid = f"8d80875b-fa73-4ccb-bce3-{number:012d}"
        ready.agent.add_instance(uuid, ready.host(), True, ready.now)
    ready.event(Command.MONITOR_READY)
    sizes = []
    while ready.agent.bursts:
        ready.port.calls.clear()
        ready.agent.bursts.send_burst()
        sizes.append(len(ready.port.calls))
    assert sizes == [BURST, BURST, 51]


def test_what_was_deleted_before_its_burst_is_not_sent(ready):
    ready.event(Command.MONITOR_READY)
    ready.vim("DELETE", INSTANCE)
    assert "MOD_INST" not in [call[1] for call in ready.sent()]


def answer(rig: CoreRig, **changed: object) -> None:
    rig.info(Command.QRY_INST, **changed)


def test_an_answer_like_ours_changes_nothing(ready):
    answer(ready)
    assert ready.sent() == []
    assert ready.deliver() == []


def test_a_name_is_kept_until_there_is_another(ready):
    """A guestServer that does not know it says none."""
    names = []
    for said in ({"name": "db"}, {}, {"name": "db2"}):
        answer(ready, **said)
        names.append(ready.instance().name)
    assert names == ["db", "db", "db2"]


def test_other_timeouts_are_taken_over_silently(ready):
    answer(ready, **{"restart-to": "99"}, action="stop")
    assert ready.deliver() == []
    assert ready.instance().for_vim().restart_timeout == 99
    assert ready.instance().action is CorrectiveAction.STOP


def test_other_reporting_is_mended_ours_wins(ready):
    answer(ready, reporting="disabled")
    assert ready.sent() == [("compute-0", "MOD_INST", UUID, "heartbeat", "enabled")]
    assert ready.instance().reporting


@pytest.mark.parametrize("word", ["enabled", "disabled"])
def test_other_heartbeating_is_taken_over_theirs_wins(rig, word):
    rig.ready(heartbeating=word == "disabled")
    answer(rig, heartbeating=word)
    assert rig.instance().heartbeating is (word == "enabled")
    assert rig.deliver() == [SERVICE]


def test_an_instance_unknown_there_is_deleted_at_the_sender(ready):
    answer(ready, uuid=UUID_2)
    assert ready.sent() == [("compute-0", "DEL_INST", UUID_2, "heartbeat", "disabled")]


def test_an_instance_known_on_another_host_is_deleted_at_the_sender(ready):
    ready.add_host("compute-1", HOST_1)
    answer(ready, hostname="compute-1")
    assert ready.sent() == [("compute-1", "DEL_INST", UUID, "heartbeat", "disabled")]
    assert ready.instance().host.hostname == "compute-0"


def test_nothing_is_deleted_before_the_vim_has_named_the_instances(ready):
    """After a restart of the agent the unknown instance may yet be named by the VIM."""
    ready.host().got_instances = False
    with pytest.raises(Unneeded, match="unknown_instance"):
        answer(ready, uuid=UUID_2)
    assert ready.sent() == []


def test_an_answer_withdraws_a_loss_that_was_a_mistake(ready):
    ready.event(Command.HEARTBEAT_LOSS)
    ready.now += 1
    answer(ready)
    assert ready.deliver() == []


def test_an_answer_does_not_withdraw_an_illness(ready):
    """A guest that is ill heartbeats."""
    ready.info(Command.HEARTBEAT_ILLHEALTH)
    answer(ready)
    assert [kind for _, kind, _ in ready.deliver()] == [Kind.ALARM]


def test_a_late_repeat_of_running_does_not_withdraw_the_illness_after_it(ready):
    """guestServer had said RUNNING for another reason, before the guest fell ill."""
    role = ready.host().role = Role(5)
    role.loopback(Acknowledgement(7, 5, 0), "127.0.0.2", ready.now)
    ready.event(Command.HEARTBEAT_ILLHEALTH, **info(), epoch=7, seq=4)
    ready.running(epoch=7, seq=3)
    assert Kind.ALARM in [kind for _, kind, _ in ready.deliver()]
    ready.now += 20
    ready.event(Command.HEARTBEAT_ILLHEALTH, **info(), epoch=7, seq=5)
    ready.running(epoch=7, seq=6)
    assert Kind.ALARM not in [kind for _, kind, _ in ready.deliver()]


def test_a_service_event_that_was_put_off_does_not_withdraw_an_illness(ready):
    ready.info(Command.HEARTBEAT_ILLHEALTH)
    ready.instance().service_owed = True
    ready.audit()
    assert sorted(kind for _, kind, _ in ready.deliver()) == [Kind.ALARM, Kind.SERVICE]


def test_an_unknown_command_is_refused(ready):
    refused(ready, "unknown_command", Command.VOTE_INST)


def test_a_new_host_is_asked_about_at_once(rig):
    assert rig.mtc(hostname="compute-0", uuid=HOST_0, ip="127.0.0.2").came == ("compute-0",)
    assert rig.deliver() == [
        (f"host {HOST_0}", Kind.HOST_STATE, HOST_0),
        (f"host {HOST_0}", Kind.INSTANCES, HOST_0),
    ]


@pytest.mark.parametrize("command", [Command.ADD_HOST, Command.MOD_HOST])
def test_add_and_mod_host_end_in_known_with_these_values(rig, command):
    """The old agent crashed at MOD_HOST of an unknown host."""
    rig.mtc(command, hostname="compute-0", uuid=HOST_0, ip="192.168.204.50", personality="worker")
    rig.mtc(command, hostname="compute-0", uuid=HOST_0, ip="::ffff:192.168.204.51")
    assert rig.host().ip == "192.168.204.51"
    assert len(rig.agent.inventory.hosts) == 1


@pytest.mark.parametrize("ip", [None, "none", "", 7, "192.168.204.999", "host.example"])
def test_a_host_without_a_usable_ip_is_known_by_its_name(rig, ip):
    """Decision 17: the hostname's address; it is looked up when something is sent."""
    rig.mtc(hostname="compute-0", uuid=HOST_0, ip=ip)
    assert rig.host().ip is None


def test_a_changed_uuid_is_asked_about_again(ready):
    """Decision 17."""
    news = ready.mtc(hostname="compute-0", uuid=HOST_1, ip="127.0.0.2")
    assert set(news.went) == set(news.came) == {"compute-0"}
    assert ready.agent.inventory.hosts.keys() == {HOST_1}
    assert ready.host().reporting is None
    assert ready.instance().host is ready.host()
    assert [detail for _, _, detail in ready.deliver()] == [HOST_1, HOST_1]


@pytest.mark.parametrize("change", ["uuid", "gone"])
@pytest.mark.parametrize("when", ["waiting", "on its way"])
def test_a_host_that_is_no_more_is_not_asked_about(rig, change, when):
    """Neither what waits, nor what is on its way and has to be asked again."""
    rig.add_host()
    started = rig.queue.poll(rig.now) if when == "on its way" else []
    if change == "uuid":
        rig.mtc(hostname="compute-0", uuid=HOST_1, ip="127.0.0.2")
    else:
        rig.mtc(Command.DEL_HOST, hostname="compute-0", uuid=HOST_0)
    for delivery in started:
        rig.queue.done(delivery, Ended.NOT_DELIVERED, rig.now)
    rig.now += 60
    asked = [key for _ in range(3) for key, _, _ in rig.deliver()]
    assert f"host {HOST_0}" not in asked


def test_a_renamed_host_keeps_its_instances(ready):
    news = ready.mtc(hostname="compute-7", uuid=HOST_0, ip="127.0.0.2")
    assert (news.came, news.went) == (("compute-7",), ("compute-0",))
    assert ready.instance().host is ready.host("compute-7")
    assert ready.host("compute-7").reporting


def test_two_hosts_that_become_one(ready):
    ready.add_host("compute-1", HOST_1)
    news = ready.mtc(hostname="compute-1", uuid=HOST_0, ip="127.0.0.4")
    assert "compute-0" in news.went
    assert ready.agent.inventory.hosts.keys() == {HOST_0}
    assert ready.agent.inventory.instances == {}
    assert ("compute-0", "DEL_INST", UUID, "heartbeat", "disabled") in ready.sent()


def test_del_host_deletes_its_instances_then_forgets_it(ready):
    ready.event(Command.HEARTBEAT_LOSS)
    assert ready.mtc(Command.DEL_HOST, hostname="compute-0", uuid=HOST_0).went == ("compute-0",)
    assert ready.sent() == [("compute-0", "DEL_INST", UUID, "heartbeat", "disabled")]
    assert ready.agent.inventory.host_named("compute-0") is None
    assert ready.agent.inventory.instances == {}
    assert ready.deliver() == []


@pytest.mark.parametrize(
    "members",
    [
        {"hostname": "compute-0"},
        {"uuid": HOST_0},
        {"hostname": "compute-0", "uuid": "none"},
        {"hostname": 7, "uuid": HOST_0},
        {"hostname": "", "uuid": HOST_0},
        {},
    ],
)
def test_a_host_without_name_or_uuid_is_refused(rig, members):
    """A missing key was read as the word `none`."""
    with pytest.raises(PeerError):
        rig.mtc(**members)
    assert rig.agent.inventory.hosts == {}


@pytest.mark.parametrize("command", [Command.QRY_HOST, Command.ADD_INST])
def test_other_commands_of_mtc_agent_are_refused(rig, command):
    with pytest.raises(PeerError, match="unknown_command"):
        rig.mtc(command, hostname="compute-0", uuid=HOST_0)


def test_del_host_of_an_unknown_uuid_is_refused(ready):
    with pytest.raises(PeerError, match="unknown_host"):
        ready.mtc(Command.DEL_HOST, hostname="compute-0", uuid=HOST_1)
    assert ready.host() is not None


def test_a_storage_host_is_not_asked_about(rig):
    rig.mtc(hostname="storage-0", uuid=HOST_0, ip="127.0.0.2", personality="storage")
    assert rig.deliver() == []


def test_the_state_of_a_host_is_learned_and_passed_on(rig):
    rig.add_host()
    vim_answers.learn_host_state(rig.agent, HOST_0, host_state("enabled"), rig.now)
    assert rig.host().reporting is True
    assert rig.sent() == [("compute-0", "MOD_HOST", HOST_0, "enabled")]


def test_a_host_that_turns_out_to_report_is_queried_at_once(rig):
    """Its instances were named by commands before the VIM said how the host is."""
    rig.add_host()
    rig.agent.add_instance(UUID, rig.host(), True, rig.now)
    vim_answers.learn_host_state(rig.agent, HOST_0, host_state("enabled"), rig.now)
    assert [call[1] for call in rig.sent()] == ["MOD_HOST", "QRY_INST"]


def test_a_command_is_newer_than_the_answer_to_an_earlier_question(rig):
    rig.add_host()
    rig.agent.set_host_reporting(rig.host(), True, rig.now)
    rig.sent()
    vim_answers.learn_host_state(rig.agent, HOST_0, host_state("disabled"), rig.now)
    assert rig.host().reporting is True
    assert rig.sent() == []


def test_instances_are_learned_added_and_queried_at_once(rig):
    rig.add_host()
    vim_answers.learn_host_state(rig.agent, HOST_0, host_state("enabled"), rig.now)
    rig.sent()
    body = instances((UUID, "enabled"), (UUID_2, "disabled"), ("none", "enabled"))
    vim_answers.learn_instances(rig.agent, HOST_0, body, rig.now, rig.now)
    assert rig.sent() == [
        ("compute-0", "ADD_INST", UUID, "heartbeat", "enabled"),
        ("compute-0", "ADD_INST", UUID_2, "heartbeat", "disabled"),
        ("compute-0", "QRY_INST"),
    ]
    assert rig.agent.dropped == {"bad_instance": 1}
    assert rig.host().got_instances


def test_instances_of_a_host_that_does_not_report_are_not_queried(rig):
    rig.add_host()
    vim_answers.learn_host_state(rig.agent, HOST_0, host_state("disabled"), rig.now)
    vim_answers.learn_instances(rig.agent, HOST_0, instances((UUID, "enabled")), 0, rig.now)
    assert [call[1] for call in rig.sent()] == ["MOD_HOST", "ADD_INST"]


def test_what_the_vim_said_after_the_question_is_newer_than_its_answer(ready):
    ready.host().got_instances = False
    asked = ready.now
    ready.now += 1
    ready.agent.set_reporting(ready.instance(), False, ready.now)
    body = instances((UUID, "enabled"))
    vim_answers.learn_instances(ready.agent, HOST_0, body, asked, ready.now + 1)
    assert not ready.instance().reporting


def test_an_instance_that_is_created_again_is_as_its_next_command_says(ready):
    """POST of one that is there is the VIM's word on it too, newer than an earlier answer."""
    ready.host().got_instances = False
    ready.now += 1
    asked = ready.now
    ready.now += 1
    body = {"uuid": UUID, "hostname": "compute-0", "services": ["heartbeat"]}
    ready.vim("POST", INSTANCE, json.dumps(body).encode())
    answered = instances((UUID, "disabled"))
    vim_answers.learn_instances(ready.agent, HOST_0, answered, asked, ready.now + 1)
    assert ready.instance().reporting


def test_what_it_said_before_is_older(ready):
    ready.host().got_instances = False
    ready.now += 1
    body = instances((UUID, "disabled"))
    vim_answers.learn_instances(ready.agent, HOST_0, body, ready.now, ready.now)
    assert not ready.instance().reporting
    assert ("compute-0", "MOD_INST", UUID, "heartbeat", "disabled") in ready.sent()


def test_an_instance_that_the_vim_names_on_another_host_is_moved(ready):
    ready.add_host("compute-1", HOST_1)
    ready.now += 1
    body = instances((UUID, "enabled"))
    vim_answers.learn_instances(ready.agent, HOST_1, body, ready.now, ready.now)
    assert ready.instance().host.hostname == "compute-1"
    assert [call[:2] for call in ready.sent()][:2] == [
        ("compute-0", "DEL_INST"),
        ("compute-1", "ADD_INST"),
    ]


def test_an_answer_without_one_usable_entry_is_none(rig):
    """Decision 44: it is asked again with the next audit."""
    rig.add_host()
    vim_answers.learn_host_state(rig.agent, HOST_0, host_state("enabled"), rig.now)
    with pytest.raises(PeerError, match="no_instances"):
        vim_answers.learn_instances(rig.agent, HOST_0, instances(("none", "enabled")), 0, rig.now)
    rig.deliver()
    rig.audit()
    assert rig.deliver() == [(f"host {HOST_0}", Kind.INSTANCES, HOST_0)]


@pytest.mark.parametrize("state", [None, "enabled"])
def test_an_empty_answer_counts_once_the_vim_has_told_the_hosts_state(rig, state):
    rig.add_host()
    if state is not None:
        vim_answers.learn_host_state(rig.agent, HOST_0, host_state(state), rig.now)
        vim_answers.learn_instances(rig.agent, HOST_0, instances(), 0, rig.now)
    else:
        with pytest.raises(PeerError, match="no_instances"):
            vim_answers.learn_instances(rig.agent, HOST_0, instances(), 0, rig.now)
    assert rig.host().got_instances is (state is not None)


@pytest.mark.parametrize("body", [b"", b"{}", b"not json"])
def test_no_answer_is_learned_from_rubbish(rig, body):
    rig.add_host()
    with pytest.raises(PeerError):
        vim_answers.learn_host_state(rig.agent, HOST_0, body, 0)
    with pytest.raises(PeerError):
        vim_answers.learn_instances(rig.agent, HOST_0, body, 0, 0)
    assert rig.host().reporting is None
    assert not rig.host().got_instances


def test_answers_about_a_host_that_has_gone_are_ignored(rig):
    vim_answers.learn_host_state(rig.agent, HOST_0, host_state("enabled"), rig.now)
    vim_answers.learn_instances(rig.agent, HOST_0, instances((UUID, "enabled")), 0, 0)
    assert rig.sent() == []


WORDS = st.sampled_from(
    [
        UUID,
        UUID_2,
        HOST_0,
        HOST_1,
        "compute-0",
        "enabled",
        "disabled",
        "revocable",
        "pause",
        "9",
        "",
    ]
)
MEMBERS = st.dictionaries(
    st.sampled_from([*info(), "uuid", "hostname", "event-type", "notification_type", "vote", "ip"]),
    WORDS | st.text(max_size=5) | st.integers() | st.none() | st.floats() | st.lists(WORDS),
)


@given(st.lists(st.tuples(st.sampled_from(Command), MEMBERS), max_size=12))
def test_whatever_a_peer_says_is_acted_upon_or_refused(said):
    """Nothing but PeerError or Unneeded comes out; an instance is always on a known host."""
    rig = CoreRig()
    rig.ready()
    for command, members in said:
        message = mtc_message.MtcMessage(command, members=members)
        host = next(iter(rig.agent.inventory.hosts.values()), None)
        try:
            mtc_commands.take_mtc_command(rig.agent, message, rig.now)
            if host is not None and host.uuid in rig.agent.inventory.hosts:
                events.take_event(rig.agent, host, message, rig.now)
        except (PeerError, Unneeded):
            pass
        rig.now += 1
    for instance in rig.agent.inventory.instances.values():
        assert rig.agent.inventory.hosts[instance.host.uuid] is instance.host
    rig.sent()
    rig.deliver()


@given(st.binary(max_size=1100) | st.binary(max_size=200).map(lambda data: bytes(100) + data))
def test_any_datagram_is_decoded_or_refused(data):
    try:
        message = mtc_message.decode(data)
    except ProtocolError:
        return
    assert isinstance(message.members, dict)
