"""The audit: behaviour.md, "guestAgent", decisions 2 and 10, and its spread over the period."""

from __future__ import annotations

import pytest

from guestmtce.core.agent import vim_answers
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.schedule import PERIOD_SECS, START_SECS, Schedule
from guestmtce.core.shared.delivery import Role
from guestmtce.core.shared.stamp import Acknowledgement
from guestmtce.core.shared.vocabulary import Command
from tests.unit.agent_support import HOST_0, HOST_1, UUID, UUID_2, CoreRig, ready_core

QUERY = [("compute-0", "QRY_INST")]
SERVICE = (UUID, Kind.SERVICE, None)


ready = pytest.fixture(ready_core)


def audit(rig: CoreRig, answers: bool = True) -> list[tuple]:
    """One turn, and perhaps the guestServer's answer; return what went out."""
    rig.now += PERIOD_SECS
    rig.audit()
    sent = rig.sent()
    if answers:
        rig.info(Command.QRY_INST)
    return sent


def test_a_host_with_instances_that_reports_is_queried(ready):
    assert audit(ready) == QUERY


@pytest.mark.parametrize("reporting", [True, False])
def test_a_host_is_told_its_reporting_every_60_s(ready, reporting):
    """Decision 45, also while off: an old guestServer logs each MOD_HOST."""
    ready.agent.set_host_reporting(ready.host(), reporting, ready.now)
    ready.sent()
    told = []
    for _ in range(12):
        told.append([call for call in audit(ready) if call[1] == "MOD_HOST"])
    word = "enabled" if reporting else "disabled"
    mod_host = [("compute-0", "MOD_HOST", HOST_0, word)]
    assert told == [[]] * 5 + [mod_host] + [[]] * 5 + [mod_host]


def test_a_host_that_does_not_report_is_not_queried(ready):
    ready.host().reporting = False
    assert audit(ready) == []


def test_a_host_without_instances_is_not_queried(ready):
    ready.vim("DELETE", f"/v1/instances/{UUID}")
    ready.sent()
    ready.now += PERIOD_SECS
    ready.audit()
    assert ready.sent() == []


def test_what_the_vim_has_not_said_is_asked_at_each_audit(ready):
    ready.host().reporting = None
    ready.host().got_instances = False
    for _ in range(2):
        assert audit(ready, answers=False) == [], "never told while unknown"
        assert [kind for _, kind, _ in ready.deliver()] == [Kind.HOST_STATE, Kind.INSTANCES]


def test_what_it_has_said_is_not_asked_again(ready):
    audit(ready)
    assert ready.deliver() == []


def test_three_unanswered_audits_are_warned_of_once_and_the_end_of_it_too(ready):
    outputs = [audit(ready, answers=False) for _ in range(6)]
    warnings = [call for sent in outputs for call in sent if call[0] == "warning"]
    assert warnings == [("warning", "compute-0 has not answered 3 audits")]
    assert ready.instance().heartbeating, "states are kept (decision 10)"
    ready.info(Command.QRY_INST)
    assert ready.sent() == [("warning", "compute-0 answers audits again, after 5 unanswered")]
    audit(ready)
    assert audit(ready) == QUERY


def test_a_host_that_lost_its_last_instance_is_not_taken_for_silent(ready):
    """It is not queried any more: what it left unanswered before is not counted again."""
    audit(ready, answers=False)
    ready.vim("DELETE", f"/v1/instances/{UUID}")
    for _ in range(5):
        ready.now += PERIOD_SECS
        ready.audit()
    assert [call for call in ready.sent() if call[0] == "warning"] == []
    assert ready.host().unanswered_audits == 1


def test_an_instance_absent_from_three_answered_audits_is_mended(ready):
    """Decisions 10, 28: heartbeating false, `service` event, ADD_INST again."""
    second = "8d80875b-fa73-4ccb-bce3-1cd4df104402"
    ready.agent.add_instance(second, ready.host(), True, ready.now).heartbeating = True
    for _ in range(3):
        audit(ready, answers=False)
        ready.info(Command.QRY_INST, uuid=second)
    assert ready.deliver() == []
    sent = audit(ready, answers=False)
    assert ("compute-0", "ADD_INST", UUID, "heartbeat", "enabled") in sent
    assert not ready.instance().heartbeating
    assert ready.deliver() == [SERVICE]


@pytest.fixture
def new(ready) -> CoreRig:
    """With a guestServer that says how many answers there are, and to which query."""
    role = ready.host().role = Role(11)
    role.loopback(Acknowledgement(7, 11, 0), "127.0.0.2", ready.now)
    ready.agent.add_instance(UUID_2, ready.host(), True, ready.now).heartbeating = True
    return ready


def numbered_audit(rig: CoreRig, of: int, *, answers_last: bool = False) -> None:
    """One turn, in which only the second instance is listed, as one of so many."""
    before = rig.port.number or 0
    rig.port.number = before + 1
    rig.now += PERIOD_SECS
    rig.audit()
    re = before if answers_last else rig.port.number
    rig.info(Command.QRY_INST, uuid=UUID_2, epoch=7, seq=rig.port.number, re=re, of=of)


@pytest.mark.parametrize(("of", "missed"), [(1, True), (2, False)])
def test_a_new_server_leaves_an_instance_out_by_complete_answers_alone(new, of, missed):
    """Decision 28: two audits; of what UDP lost nobody is missing."""
    for _ in range(2):
        numbered_audit(new, of)
    assert new.instance().heartbeating
    numbered_audit(new, of)
    assert new.instance().heartbeating is not missed


def test_an_answer_to_an_earlier_query_completes_nothing(new):
    """It may have left before the instance was there."""
    for _ in range(5):
        numbered_audit(new, 1, answers_last=True)
    assert new.instance().heartbeating


def test_an_instance_that_came_after_the_query_is_not_missed(ready):
    audit(ready)
    late = ready.agent.add_instance(UUID[:-1] + "9", ready.host(), True, ready.now)
    audit(ready)
    assert late.absences == 0


def test_a_moved_instance_is_not_missed_for_its_old_host(ready):
    """What the old host left out says nothing of the new one."""
    ready.agent.add_instance(UUID_2, ready.host(), True, ready.now)
    for _ in range(2):
        audit(ready, answers=False)
        ready.info(Command.QRY_INST, uuid=UUID_2)
    audit(ready, answers=False)
    assert ready.instance().absences == 2
    ready.agent.move_instance(ready.instance(), ready.add_host("compute-1", HOST_1), True, 0.0)
    assert ready.instance().absences == 0


def test_one_answered_audit_in_between_starts_the_count_again(ready):
    second = "8d80875b-fa73-4ccb-bce3-1cd4df104402"
    ready.agent.add_instance(second, ready.host(), True, ready.now).heartbeating = True
    for present in (False, False, True, False, False):
        audit(ready, answers=False)
        ready.info(Command.QRY_INST, uuid=second)
        if present:
            ready.info(Command.QRY_INST)
    assert ready.deliver() == []


def test_the_first_turn_is_2_s_after_the_start_then_every_10_s():
    schedule = Schedule(100)
    schedule.add("compute-0", 100)
    times = []
    for _ in range(3):
        times.append(schedule.next_at())
        assert schedule.due(times[-1] - 0.001) == []
        assert schedule.due(times[-1]) == ["compute-0"]
    assert times == [100 + START_SECS + PERIOD_SECS * n for n in range(3)]


def test_1000_hosts_are_spread_over_the_period():
    schedule = Schedule(0)
    for number in range(1000):
        schedule.add(f"compute-{number}", 0)
    tenths = [0] * 100
    seen = set()
    while (turn := schedule.next_at()) is not None and turn < START_SECS + PERIOD_SECS:
        for hostname in schedule.due(turn):
            tenths[int((turn - START_SECS) * 10)] += 1
            seen.add(hostname)
    assert len(seen) == 1000
    assert max(tenths) <= 12, "1,000 workers must not answer in the same millisecond"


def test_a_host_that_comes_late_has_its_turn_within_a_period():
    for late in (0.0, 1.9, 2.0, 3.3, 97.123):
        schedule = Schedule(0)
        schedule.add("compute-0", late)
        turn = schedule.next_at()
        assert late <= turn <= max(late + PERIOD_SECS, START_SECS)


def test_turns_that_were_slept_through_count_once():
    schedule = Schedule(0)
    schedule.add("compute-0", 0)
    assert schedule.due(75) == ["compute-0"]
    assert schedule.next_at() == 82


def test_a_removed_host_has_no_turns_even_if_it_comes_back():
    schedule = Schedule(0)
    schedule.add("compute-0", 0)
    schedule.remove("compute-0")
    assert schedule.next_at() is None
    schedule.add("compute-0", 1)
    schedule.add("compute-0", 1)
    due = schedule.due(14)
    assert due == ["compute-0"]


def test_after_a_restart_one_service_event_per_instance_and_no_alarm():
    """Swact: a fresh agent rebuilds everything with no spurious event (decision 20).

    The first status of each is told, whatever it is: the VIM may believe something else, and
    what was lost meanwhile was told to nobody (decision 25).
    """
    rig = CoreRig()
    rig.add_host()
    vim_answers.learn_host_state(rig.agent, HOST_0, b'{"state":"enabled"}', rig.now)
    uuids = [f"8d80875b-fa73-4ccb-bce3-{number:012d}" for number in range(20)]
    entries = ",".join(
        f'{{"uuid":"{uuid}","services":[{{"service":"heartbeat","state":"enabled"}}]}}'
        for uuid in uuids
    )
    body = f'{{"instances":[{entries}]}}'.encode()
    rig.deliver()
    vim_answers.learn_instances(rig.agent, HOST_0, body, rig.now, rig.now)
    assert rig.sent()[-1] == ("compute-0", "QRY_INST")
    for _ in range(2):
        for number, uuid in enumerate(uuids):
            word = "enabled" if number % 2 else "disabled"
            rig.info(Command.QRY_INST, uuid=uuid, heartbeating=word)
    delivered = rig.deliver()
    assert delivered == [(uuid, Kind.SERVICE, None) for uuid in uuids]
    assert rig.sent() == []
