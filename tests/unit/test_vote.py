"""behaviour.md, "Vote", and decisions 6 and 13: ask, hold, close in time, report once."""

from __future__ import annotations

import pytest

from guestmtce.core.server.machine import Attempt, TimerName
from guestmtce.core.server.vote import VoteState
from guestmtce.core.shared.vocabulary import Event
from tests.unit.core_support import (
    LOSS,
    RUNNING,
    STOPPED,
    UUID,
    VOTE_NOTIFY,
    Rig,
    action_response,
    init,
    leaving,
)

POST_EVENTS = ["unpause", "resume", "resize_end", "live_migrate_end", "cold_migrate_end"]

# init() asks for vote 9, shutdown 8, suspend 7 and resume 14 s.
NOTIFY_SECS = {
    **dict.fromkeys(["stop", "reboot"], 8),
    **dict.fromkeys(["pause", "suspend", "resize_begin"], 7),
    **dict.fromkeys(["live_migrate_begin", "cold_migrate_begin"], 7),
    **dict.fromkeys(POST_EVENTS, 14),
}


@pytest.fixture
def beating() -> Rig:
    """A heartbeating guest that nobody has asked anything; it may miss a hundred challenges."""
    return Rig(threshold=100).beat()


def votes(rig: Rig) -> list[tuple[str, str, str, str]]:
    """Return what was reported of votes: type, event, vote, reason."""
    return [
        (m["notification_type"], m["event-type"], m["vote"], m["reason"])
        for command, m in rig.port.reports
        if command is VOTE_NOTIFY
    ]


# Asking


def test_every_event_has_its_time():
    """Each event of protocol.md has a timeout."""
    assert set(NOTIFY_SECS) == {event.value for event in Event}
    assert len(NOTIFY_SECS) == 12


@pytest.mark.parametrize("event", NOTIFY_SECS)
def test_a_vote_has_the_vote_time(beating, event):
    """`action_notify` with the last invocation id; vote → vote_secs, times 1000."""
    beating.vote(event)
    assert beating.last_sent == {
        "version": 3,
        "revision": 1,
        "msg_type": "action_notify",
        "sequence": 3,
        "invocation_id": 1804289383,
        "event_type": event,
        "notification_type": "revocable",
        "timeout_ms": 9000,
    }
    assert beating.left(TimerName.VOTE) == 8.5


@pytest.mark.parametrize(("event", "secs"), NOTIFY_SECS.items())
def test_a_notify_has_its_event_s_time(beating, event, secs):
    """shutdown for stop, reboot; suspend for pause and what begins; resume for what ends."""
    beating.notify(event)
    assert beating.out() == ["action_notify"]
    assert beating.last_sent["timeout_ms"] == secs * 1000
    assert beating.last_sent["notification_type"] == "irrevocable"
    assert beating.left(TimerName.VOTE) == secs - 0.5


@pytest.mark.parametrize(
    ("secs", "ours"), [(0, 0), (1, 0.75), (2, 1.5), (3, 2.5), (86_400, 86_399.5)]
)
def test_our_timer_ends_before_the_guests(secs, ours):
    """500 ms earlier, at three quarters of it when it is under 2 s."""
    rig = Rig(threshold=100).beat(vote_secs=secs)
    rig.vote("stop")
    assert rig.last_sent["timeout_ms"] == secs * 1000
    assert rig.left(TimerName.VOTE) == ours


# Answers


@pytest.mark.parametrize("word", ["accept", "reject", "complete", "timeout", "error", "unknown"])
def test_an_answer_is_passed_on_once(beating, word):
    """VOTE_NOTIFY with its vote and `log_msg` as reason; timer cancelled."""
    beating.vote("pause")
    beating.out()
    beating.say(action_response("pause", "revocable", word, 'busy: "quoted"'))
    assert beating.out() == [VOTE_NOTIFY]
    assert list(beating.last_report.items()) == [
        ("hostname", "compute-0"),
        ("uuid", UUID),
        ("notification_type", "revocable"),
        ("event-type", "pause"),
        ("vote", word),
        ("reason", 'busy: "quoted"'),
    ]
    assert beating.left(TimerName.VOTE) is None
    assert beating.stats.votes == {word: 1}


def test_a_second_answer_is_dropped(beating):
    """A response to no pending event: nack-free, logged, dropped."""
    beating.vote("pause")
    beating.say(action_response("pause", "revocable", "accept"))
    beating.out()
    beating.say(action_response("pause", "revocable", "reject"))
    assert beating.out() == []
    assert len(beating.port.notes) == 1
    assert beating.stats.votes == {"accept": 1, "unexpected": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"event_type": "stop"},
        {"event_type": "unknown"},
        {"event_type": "party"},
        {"notification_type": "irrevocable"},
        {"notification_type": "maybe"},
        {"vote_result": "yes"},
        {"vote_result": ""},
    ],
)
def test_only_the_whole_answer_counts(beating, changes):
    """Right id, event *and notification type* and a vote word; else dropped, timer goes on."""
    beating.vote("pause")
    beating.out()
    beating.advance(0.5)
    beating.say({**action_response("pause", "revocable", "accept"), **changes})
    assert beating.out() == []
    assert len(beating.port.notes) == 1
    assert beating.left(TimerName.VOTE) == 8.0
    beating.say(action_response("pause", "revocable", "reject", "no"))
    assert beating.out() == [VOTE_NOTIFY]


def test_another_invocation_id_is_nacked(beating):
    """`nack` "Invocation id mismatch. Received: R expect: E"; counted and logged."""
    beating.vote("pause")
    beating.out()
    beating.say(action_response("pause", "revocable", "accept", invocation_id=7))
    assert beating.out() == ["nack"]
    assert beating.last_sent["log_msg"] == "Invocation id mismatch. Received: 7 expect: 1804289383"
    assert beating.last_sent["invocation_id"] == 1804289383
    assert sum(beating.stats.bad_messages.values()) == 1
    assert len(beating.port.bad) == 1
    assert beating.instance.vote.state is VoteState.PENDING


# Nobody answers


@pytest.mark.parametrize(
    ("ask", "kind", "vote"),
    [(Rig.vote, "revocable", "accept"), (Rig.notify, "irrevocable", "complete")],
)
def test_silence_is_consent(beating, ask, kind, vote):
    """Timer rings: VOTE_NOTIFY with `accept` (revocable) or `complete` (irrevocable)."""
    ask(beating, "stop")
    secs = 8.5 if kind == "revocable" else 7.5
    beating.advance(secs - 0.001)
    assert VOTE_NOTIFY not in beating.out()
    beating.advance(0.001)
    assert VOTE_NOTIFY in beating.out()
    assert votes(beating) == [(kind, "stop", vote, "")]
    beating.advance(100)
    assert len(votes(beating)) == 1


def test_an_answer_after_the_timer_is_dropped(beating):
    """The VIM applies a later answer to its next action."""
    beating.vote("stop")
    beating.advance(8.5)
    beating.out()
    beating.say(action_response("stop", "revocable", "reject"))
    assert beating.out() == []


# Superseded


@pytest.mark.parametrize("second", [Rig.vote, Rig.notify])
def test_a_second_ask_replaces_the_first(beating, second):
    """Replaces it: nothing is reported for the first (the VIM no longer waits for it)."""
    beating.vote("stop")
    beating.advance(0.5)
    second(beating, "reboot")
    assert beating.port.notes == ["revocable stop superseded by reboot"]
    beating.say(action_response("stop", "revocable", "accept"))
    beating.advance(100)
    assert len(votes(beating)) == 1
    assert votes(beating)[0][1] == "reboot"
    assert beating.stats.votes["superseded"] == 1


def test_the_same_vote_again_starts_its_time_again(beating):
    """A repeated ask is a new one."""
    beating.vote("stop")
    beating.advance(0.5)
    beating.out()
    beating.vote("stop")
    assert beating.out() == ["action_notify"]
    assert beating.left(TimerName.VOTE) == 8.5


# What leaves a pending one alone


def test_exit_loss_disconnect_and_init_leave_it_to_its_timer():
    """Exit, loss, disconnect, init leave a pending one to its timer (decision 13)."""

    def lose(rig: Rig) -> None:
        rig.set_threshold(0)
        rig.advance(2)
        assert LOSS in rig.out()

    for happen in (
        lambda rig: rig.say(leaving()),
        lose,
        lambda rig: rig.instance.disconnected(),
        lambda rig: rig.say(init(invocation_id=5)),
        lambda rig: rig.instance.provision(False),
    ):
        rig = Rig(threshold=100).beat()
        rig.vote("stop")
        happen(rig)
        rig.advance(8.5)
        assert votes(rig) == [("revocable", "stop", "accept", "")]


def test_the_answer_may_come_over_the_next_connection(beating):
    """Every vote ends once: answered counts wherever the answer came from."""
    beating.vote("stop")
    beating.instance.disconnected()
    beating.advance(1)
    beating.say(init(), action_response("stop", "revocable", "reject", "no"))
    assert votes(beating) == [("revocable", "stop", "reject", "no")]


def test_delete_ends_it_unreported(beating):
    """Deleted: not reported."""
    beating.vote("stop")
    beating.instance.delete()
    assert votes(beating) == []
    assert beating.port.timers == {}
    assert beating.stats.votes["deleted"] == 1
    beating.instance.delete()
    assert beating.stats.votes["deleted"] == 1


# Nobody to ask


@pytest.mark.parametrize("there", ["no file", "refused", "no init", "after exit", "disconnected"])
@pytest.mark.parametrize(
    ("ask", "event", "expected"),
    [
        (Rig.vote, "stop", ("revocable", "stop", "accept", "not heartbeating")),
        (Rig.notify, "stop", ("irrevocable", "stop", "complete", "not heartbeating")),
        (Rig.notify, "live_migrate_begin", ("irrevocable", "live_migrate_begin", "complete",
                                            "not heartbeating")),
    ],
)  # fmt: skip
def test_closed_at_once(there, ask, event, expected):
    """Not connected or without init: closed at once, reason `not heartbeating`."""
    rig = Rig()
    if there == "refused":
        rig.port.connects = Attempt.REFUSED
        rig.instance.file_found()
    elif there == "no init":
        rig.connect()
    elif there == "after exit":
        rig.beat().say(leaving())
    elif there == "disconnected":
        rig.beat().instance.disconnected()
    rig.out()
    ask(rig, event)
    assert rig.out() == [VOTE_NOTIFY]
    assert votes(rig) == [expected]
    assert rig.left(TimerName.VOTE) is None


def test_no_init_on_this_connection_is_without_init():
    """A guest that did not init since the reconnect may not be there at all."""
    rig = Rig().beat()
    rig.instance.disconnected()
    rig.advance(1)
    rig.out()
    rig.vote("stop")
    assert rig.out() == [VOTE_NOTIFY]


def test_a_guest_that_has_not_answered_yet_is_asked():
    """With init it is asked, its first challenge goes before."""
    rig = Rig().connect()
    rig.say(init())
    rig.vote("stop")
    assert rig.out() == ["connect", "init_ack", "challenge", "action_notify"]


# Post-event notifications


@pytest.mark.parametrize("event", POST_EVENTS)
def test_held_until_the_first_answer_after_the_next_init(event):
    """Held, sent right after the first good response that follows the next init."""
    rig = Rig().connect()
    rig.out()
    rig.notify(event)
    assert rig.out() == []
    rig.advance(3)
    rig.say(init(resume_notice_secs=1))
    assert rig.out() == ["init_ack", "challenge"]
    rig.answer()
    assert rig.out() == [RUNNING, "action_notify"]
    assert rig.last_sent["event_type"] == event
    rig.say(action_response(event, "irrevocable", "complete", "back"))
    assert votes(rig) == [("irrevocable", event, "complete", "back")]


def test_a_held_one_keeps_its_time_from_arrival():
    """Keeps its time from arrival, goes out with the new invocation id and the time left."""
    rig = Rig().connect()
    rig.notify("resume")
    assert rig.left(TimerName.VOTE) == 9.5
    rig.advance(4)
    rig.say(init(invocation_id=77))
    rig.answer()
    assert rig.last_sent["invocation_id"] == 77
    assert rig.last_sent["timeout_ms"] == 6000
    assert rig.left(TimerName.VOTE) == 5.5


def test_a_held_one_is_closed_by_its_timer():
    """Closed by its timer if none comes."""
    rig = Rig().connect()
    rig.notify("resume")
    rig.advance(9.5)
    assert votes(rig) == [("irrevocable", "resume", "complete", "")]
    rig.say(init())
    rig.answer()
    assert "action_notify" not in rig.out()


def test_a_held_one_is_replaced_by_a_newer():
    """Is replaced by a newer one."""
    rig = Rig().connect()
    rig.notify("resume")
    rig.advance(1)
    rig.notify("unpause")
    assert rig.left(TimerName.VOTE) == 9.5
    rig.beat()
    assert rig.last_sent["event_type"] == "unpause"
    rig.advance(9.5)
    assert [event for _, event, _, _ in votes(rig)] == ["unpause"]


def test_a_held_one_is_replaced_by_a_vote():
    """Held, then a vote for a guest that is not there: the vote alone is reported."""
    rig = Rig().connect()
    rig.notify("resume")
    rig.vote("stop")
    rig.advance(100)
    assert votes(rig) == [("revocable", "stop", "accept", "not heartbeating")]


def test_a_held_one_is_dropped_by_delete():
    """Dropped by delete."""
    rig = Rig().connect()
    rig.notify("resume")
    rig.instance.delete()
    assert rig.port.timers == {}
    assert votes(rig) == []


def test_a_pending_one_is_replaced_by_a_held_one():
    """A second notify replaces the first, sent or not."""
    rig = Rig().beat()
    rig.notify("suspend")
    rig.instance.disconnected()
    rig.notify("resume")
    rig.advance(100)
    assert [event for _, event, _, _ in votes(rig)] == ["resume"]


def test_an_answer_to_a_held_one_counts_for_nothing():
    """The guest was not asked yet: a response to no pending event."""
    rig = Rig().connect()
    rig.notify("resume")
    rig.say(init(), action_response("resume", "irrevocable", "complete"))
    assert votes(rig) == []
    assert rig.instance.vote.state is VoteState.HELD


def test_it_starts_a_reconnect_at_once():
    """Starts a reconnect at once if it is not connected."""
    rig = Rig()
    rig.port.connects = Attempt.REFUSED
    rig.instance.file_found()
    rig.advance(50)
    rig.out()
    rig.port.connects = Attempt.OPENED
    rig.notify("live_migrate_end")
    assert rig.out() == ["connect"]
    rig.say(init())
    rig.answer()
    assert rig.out() == ["init_ack", "challenge", RUNNING, "action_notify"]


def test_a_reconnect_that_finds_no_file():
    """A resume for a closed channel: held and delivered once the file is there."""
    rig = Rig()
    rig.port.connects = Attempt.GONE
    rig.notify("resume")
    assert rig.out() == ["connect"]
    rig.port.connects = Attempt.OPENED
    rig.advance(2)
    rig.instance.file_found()
    rig.say(init())
    rig.answer()
    assert rig.out()[-1] == "action_notify"


def test_wrong_and_late_answers_do_not_release_it():
    """Only a good response does."""
    rig = Rig().connect()
    rig.notify("resume")
    rig.say(init())
    number = rig.challenge
    rig.advance(1)
    rig.out()
    rig.answer(heartbeat_response=number)
    rig.answer(heartbeat_response=5)
    assert rig.out() == []
    rig.answer()
    assert rig.out() == [RUNNING, "action_notify"]


def test_an_answer_before_its_init_does_not_release_it():
    """A guest that comes back first answers what it was asked before: nobody listens there yet."""
    rig = Rig().beat()
    rig.advance(5)
    rig.notify("resume")
    rig.out()
    rig.answer()
    assert rig.out() == []
    assert rig.instance.vote.state is VoteState.HELD


def test_a_heartbeating_guest_is_told_at_once(beating):
    """Held only if not heartbeating or not connected."""
    beating.notify("live_migrate_end")
    assert beating.out() == ["action_notify"]


def test_a_paused_guest_that_still_counts_as_heartbeating_is_told_at_once():
    """QEMU keeps it until the guest runs again; the recording shows the same."""
    rig = Rig().beat()
    rig.notify("pause")
    rig.say(action_response("pause", "irrevocable", "complete"))
    rig.out()
    rig.notify("unpause")
    assert rig.out() == ["action_notify"]


def test_a_post_event_vote_is_a_vote():
    """Only notifications are held; a vote is closed at once where nobody can answer."""
    rig = Rig().connect()
    rig.out()
    rig.vote("resume")
    assert rig.out() == [VOTE_NOTIFY]


# What an answer does


@pytest.mark.parametrize("word", ["accept", "complete"])
@pytest.mark.parametrize("event", ["stop", "reboot", "suspend", "live_migrate_begin"])
def test_a_vote_never_ends_the_heartbeat(event, word):
    """The old one stopped heartbeating 60 s after a vote: no such timer, misses decide."""
    rig = Rig().beat()
    rig.vote(event)
    rig.say(action_response(event, "revocable", word))
    rig.beats(200)
    assert STOPPED not in rig.out()
    assert rig.instance.heartbeat.heartbeating
