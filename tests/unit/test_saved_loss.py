"""What a guestServer saves of the losses that it owes: the file's text, and what is none."""

from __future__ import annotations

import json

import pytest

from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.server.saved_loss import OLDEST_SECS, SavedLoss, from_text, to_text
from guestmtce.core.shared.vocabulary import CorrectiveAction, Timeouts
from guestmtce.server.losses import FILE_BYTES
from guestmtce.server.virtio import MAX_INSTANCES

BOOT = "a3c1"
TERMS = Terms("", 2000, Timeouts(301, 8, 7, 14, 9), CorrectiveAction.REBOOT)
LOSS = SavedLoss("8d80875b-fa73-4ccb-bce3-1cd4df104401", "7.12", 100.0, TERMS, "8.131.17")


def text(**changes: object) -> str:
    content = json.loads(to_text(BOOT, [LOSS]))
    content["losses"][0].update(changes)
    return json.dumps(content)


def test_a_loss_survives_a_restart():
    assert from_text(to_text(BOOT, [LOSS]), BOOT, 160.0) == [LOSS]


def test_a_file_of_a_release_that_did_not_note_the_socket():
    content = json.loads(to_text(BOOT, [LOSS]))
    del content["losses"][0]["socket"]
    assert from_text(json.dumps(content), BOOT, 160.0) == [LOSS._replace(socket="")]


def test_ten_minutes_at_most():
    """A rollback to the old daemon leaves the file unread."""
    assert from_text(text(), BOOT, LOSS.lost_at + OLDEST_SECS) == [LOSS]
    assert from_text(text(), BOOT, LOSS.lost_at + OLDEST_SECS + 1) == []


def test_one_of_each_instance_fits_into_what_is_read():
    """Whatever they are: two limits that meet are one."""
    most = SavedLoss(
        LOSS.uuid,
        "x" * 64,
        123456.123456789,
        TERMS._replace(interval_ms=86_400_000, timeouts=Timeouts(*[86_400] * 5)),
        "9" * 64,
    )
    assert len(to_text("e" * 36, [most] * MAX_INSTANCES)) <= FILE_BYTES


def test_another_boot():
    assert from_text(text(), "b4", 160.0) == []
    assert from_text(text(lost_at=500.0), BOOT, 160.0) == [], "from the future"


@pytest.mark.parametrize(("interval_ms", "secs"), [(400, 15.0), (5000, 15.0), (60_000, 180.0)])
def test_how_long_its_channel_has_to_be_silent(interval_ms, secs):
    """max(15 s, 3 intervals)."""
    assert LOSS._replace(terms=TERMS._replace(interval_ms=interval_ms)).silent_secs == secs


@pytest.mark.parametrize(
    "changes",
    [
        {"uuid": "../../etc/passwd"},
        {"uuid": 7},
        {"id": ""},
        {"id": "x" * 65},
        {"id": None},
        {"lost_at": "now"},
        {"lost_at": True},
        {"interval_ms": -1},
        {"interval_ms": 1.5},
        {"timeouts": [1, 2, 3, 4]},
        {"timeouts": [1, 2, 3, 4, 86_401]},
        {"timeouts": {}},
        {"socket": 7},
        {"socket": "x" * 65},
    ],
)
def test_what_is_no_loss(changes):
    with pytest.raises(ValueError, match="not a loss"):
        from_text(text(**changes), BOOT, 160.0)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"losses":1}', '{"boot":"a3c1","losses":[3]}', "[" * 100_000, "\ufffd"],
)
def test_what_is_no_file_of_losses(content):
    with pytest.raises(ValueError, match=r"."):
        from_text(content, BOOT, 160.0)
