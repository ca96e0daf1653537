"""The words that both daemons share: what a guest may take for which event."""

from __future__ import annotations

import pytest

from guestmtce.core.shared.vocabulary import Event, Notification, Timeouts

TERMS = Timeouts(restart=301, shutdown=5, suspend=6, resume=7, vote=3)


def test_until_a_guest_has_said_it_has_no_time():
    """So that the VIM does not wait for it (http-api.md, "Asking the guest")."""
    assert Timeouts() == (0, 0, 0, 0, 0)
    assert {Timeouts().of(event, kind) for event in Event for kind in Notification} == {0}


@pytest.mark.parametrize("event", Event)
def test_a_vote_has_its_own_time(event):
    assert TERMS.of(event, Notification.REVOCABLE) == 3


@pytest.mark.parametrize(
    ("words", "secs"),
    [
        ("stop reboot", 5),
        ("pause suspend resize_begin live_migrate_begin cold_migrate_begin", 6),
        ("unpause resume resize_end live_migrate_end cold_migrate_end", 7),
    ],
)
def test_a_notification_has_the_time_of_its_event(words, secs):
    for word in words.split():
        assert TERMS.of(Event(word), Notification.IRREVOCABLE) == secs
