"""What is dropped at a link is counted by its reason, and logged now and then."""

from __future__ import annotations

import logging

import pytest

from guestmtce.core.shared.errors import PeerError, Unneeded
from guestmtce.runtime.intake import Intake

LOG = logging.getLogger("guestmtce.test.intake")


@pytest.fixture
def intake(caplog):
    caplog.set_level(logging.DEBUG, LOG.name)
    return Intake(LOG, "event")


def refuse(intake, error, source="10.0.0.1"):
    with intake.guard(source):
        raise error


def test_a_peers_fault_costs_its_message_and_is_warned_of(intake, caplog):
    refuse(intake, PeerError("stranger"))
    assert intake.dropped == {"stranger": 1}
    assert caplog.record_tuples == [
        (LOG.name, logging.WARNING, "event from 10.0.0.1 dropped: stranger (1 so far)")
    ]


def test_of_each_source_and_reason_the_first_and_every_hundredth_is_warned_of(intake, caplog):
    for source in ("10.0.0.1", "10.0.0.2"):
        for _ in range(100):
            refuse(intake, PeerError("stranger"), source)
    assert intake.dropped == {"stranger": 200}
    assert [line.rpartition("(")[2] for line in caplog.messages] == ["1 so far)", "100 so far)"] * 2


def test_what_is_merely_not_needed_is_counted_and_not_warned_of(intake, caplog):
    refuse(intake, Unneeded("too_late", "nobody waits for it"))
    assert intake.dropped == {"too_late": 1}
    assert caplog.record_tuples == [
        (LOG.name, logging.DEBUG, "event from 10.0.0.1: nobody waits for it")
    ]


def test_our_own_fault_is_not_taken_for_the_peers(intake):
    with pytest.raises(KeyError):
        refuse(intake, KeyError("odd"))
    assert not intake.dropped


def test_sent_is_what_the_kernel_took(intake):
    intake.count_sent("QRY_INST", True)
    intake.count_sent("QRY_INST", False)
    assert (intake.sent, intake.dropped) == ({"QRY_INST": 1}, {"not_sent": 1})
