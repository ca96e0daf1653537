"""An instance as others see it: what guestAgent and an operator are told, and the counters."""

from __future__ import annotations

from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.server.worker import Stats
from guestmtce.core.shared.vocabulary import CorrectiveAction, Timeouts
from tests.unit.core_support import UUID, Rig


def test_defaults_show_in_query_answers():
    """Until an init: timeouts 10 s, restart 120 s, action `log` (they show in QRY answers)."""
    instance = Rig(reporting=False).instance
    assert list(instance.for_agent().members().items()) == [
        ("hostname", "compute-0"),
        ("uuid", UUID),
        ("reporting", "disabled"),
        ("heartbeating", "disabled"),
        ("repair-action", "log"),
        ("restart-to", "120"),
        ("shutdown-to", "10"),
        ("suspend-to", "10"),
        ("resume-to", "10"),
        ("vote-to", "10"),
    ]
    assert instance.heartbeat.interval == 1.0


def test_each_timeout_stands_under_its_own_key():
    """All values strings."""
    instance = Rig().beat().instance
    timeouts = Timeouts(restart=5, shutdown=2, suspend=3, resume=4, vote=1)
    instance.reports.terms = Terms("vm", 500, timeouts, CorrectiveAction.UNKNOWN)
    information = instance.reports.information().members()
    assert information == {
        "hostname": "compute-0",
        "uuid": UUID,
        "reporting": "enabled",
        "heartbeating": "enabled",
        "repair-action": "unknown",
        "restart-to": "5",
        "shutdown-to": "2",
        "suspend-to": "3",
        "resume-to": "4",
        "vote-to": "1",
    }
    assert all(isinstance(value, str) for value in information.values())
    assert instance.heartbeat.interval == 0.5


def test_the_action_of_an_unhealthy_response_replaces_the_init_s():
    """In ILLHEALTH it is the one from the unhealthy response."""
    information = Rig().instance.reports.information(CorrectiveAction.STOP)
    assert information.members()["repair-action"] == "stop"


def test_an_operator_sees_each_term_under_the_guest_s_own_name():
    """guestctl: the keys of init; the guest's text is escaped."""
    rig = Rig().beat(name="vm\u202e\\", vote_secs=1, restart_secs=5)
    assert rig.instance.for_operator() == {
        "uuid": UUID,
        "host": "compute-0",
        "name": "vm\\\\",
        "condition": "ok",
        "since": rig.wall.now,
        "detail": "",
        "last_answer": rig.wall.now,
        "state": "waiting_challenge",
        "channel": "connected",
        "connected": True,
        "provisioned": True,
        "reporting": True,
        "heartbeating": True,
        "interval_ms": 1000,
        "corrective_action": "reboot",
        "vote_secs": 1,
        "shutdown_notice_secs": 8,
        "suspend_notice_secs": 7,
        "resume_notice_secs": 14,
        "restart_secs": 5,
        "flooding": False,
        "misses": 0,
        "failures": 0,
        "ill": False,
        "reason": "",
        "vote": "none",
        "last_vote": "",
    }


def test_stats_need_nobody_who_listens():
    """Histograms are the edge's; without one, nothing happens."""
    stats = Stats()
    assert stats.on_response(1.0) is None
    assert stats.on_lateness(1.0) is None


def test_a_worker_reports_until_told_otherwise():
    """Host-level reporting: true until MOD_HOST says otherwise."""
    rig = Rig()
    assert rig.worker.reporting


def test_heartbeats_are_counted():
    """Metrics: heartbeats, misses, losses, unhealthy answers."""
    rig = Rig().beat()
    rig.beats(3)
    rig.advance(1)
    rig.answer("unhealthy")
    rig.advance(10)
    stats = rig.stats
    assert (stats.heartbeats, stats.unhealthy, stats.misses, stats.losses) == (4, 1, 2, 1)
