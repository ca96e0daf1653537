"""An instance as data: what QRY answers say of it; the files that are passed over."""

from __future__ import annotations

from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.server.instance import Ignored, Instance, Stats
from guestmtce.core.shared.vocabulary import CorrectiveAction
from tests.unit.core_support import UUID, Rig


def test_defaults_show_in_query_answers():
    """Until an init: timeouts 10 s, restart 120 s, action `log` (they show in QRY answers)."""
    assert list(Instance(UUID).information("compute-0").items()) == [
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
    assert Instance(UUID).interval == 1.0


def test_each_timeout_stands_under_its_own_key():
    """All values strings."""
    instance = Instance(UUID)
    instance.terms = Terms("vm", 500, 1, 2, 3, 4, 5, CorrectiveAction.UNKNOWN)
    instance.reporting = instance.heartbeating = True
    information = instance.information("h")
    assert information == {
        "hostname": "h",
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
    assert all(type(value) is str for value in information.values())
    assert instance.interval == 0.5


def test_the_action_of_an_unhealthy_response_replaces_the_init_s():
    """In ILLHEALTH it is the one from the unhealthy response."""
    information = Instance(UUID).information("h", CorrectiveAction.STOP)
    assert information["repair-action"] == "stop"


def test_deleted_instances_are_passed_over():
    """After DEL_INST the file is ignored until asked for again (decision 11)."""
    ignored = Ignored()
    ignored.add(UUID)
    ignored.add(UUID)
    assert UUID in ignored
    assert list(ignored) == [UUID]
    ignored.discard(UUID)
    ignored.discard(UUID)
    assert UUID not in ignored


def test_stats_need_nobody_who_listens():
    """Histograms are the edge's; without one, nothing happens."""
    stats = Stats()
    assert stats.on_response(1.0) is None
    assert stats.on_lateness(1.0) is None


def test_a_worker_reports_until_told_otherwise():
    """Host-level reporting: true until MOD_HOST says otherwise."""
    rig = Rig()
    assert rig.worker.reporting
    assert (rig.worker.failure_threshold, rig.worker.pulse_period_ms) == (1, 400)


def test_heartbeats_are_counted():
    """Metrics: heartbeats, misses, losses, unhealthy answers."""
    rig = Rig().beat()
    rig.beats(3)
    rig.advance(1)
    rig.answer("unhealthy")
    rig.advance(10)
    stats = rig.stats
    assert (stats.heartbeats, stats.unhealthy, stats.misses, stats.losses) == (4, 1, 2, 1)
