"""One role of the reliable delivery, by example: what goes out at which time."""

from __future__ import annotations

import tracemalloc

import pytest

from guestmtce.core.shared import delivery, inbox
from guestmtce.core.shared.delivery import BURST, BURST_SECS, UNSENT_SECS, Role
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.inbox import Receipt, Verdict
from guestmtce.core.shared.mtc_message import InstanceState, Loss, MtcMessage, Query, Ready
from guestmtce.core.shared.owed import Owed, Topic
from guestmtce.core.shared.stamp import Acknowledgement, Probe, Stamp, read_loopback
from guestmtce.core.shared.vocabulary import Command

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
LOSS = Loss("compute-0", UUID)
OURS, THEIRS, OTHER = 11, 22, 33
ADDRESS = "192.168.204.2"


class Rig:
    """A role on a clock; `out` is what went out since it was asked last, at which time."""

    def __init__(self, *, proven: bool = False) -> None:
        self.now = 0.0
        self.role = Role(OURS)
        if proven:
            self.loopback(Acknowledgement(THEIRS, OURS, 0))
            self.out()

    def loopback(self, said: object) -> bool:
        return self.role.loopback(said, ADDRESS, self.now)

    def put(self, command: Command = Command.HEARTBEAT_LOSS, uuid: str = UUID, **more) -> None:
        self.role.put(command, uuid, LOSS, self.now, **more)

    def heard(self, seq, command=Command.HEARTBEAT_LOSS, *, epoch=THEIRS, name=""):
        return self.role.heard(command, UUID, Stamp(epoch, seq, name), ADDRESS, self.now)

    def out(self, seconds: float = 0.0) -> list[tuple[float, object]]:
        """Return (when, what) of the next `seconds`: a message by its number."""
        found = []
        end = self.now + seconds
        while True:
            for post in self.role.poll(self.now):
                what = post.stamp.seq if post.stamp else post.content
                found.append((round(self.now, 3), what))
            wake_at = self.role.wake_at(self.now)
            if wake_at is None or wake_at > end:
                self.now = end
                return found
            assert wake_at > self.now or len(found) < 10_000, "it wakes for nothing"
            self.now = max(self.now, wake_at)

    def said(self) -> list[object]:
        return [what for _when, what in self.out()]


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def proven():
    return Rig(proven=True)


PROBE = Probe(OURS)


def test_an_old_peer_gets_a_message_once_and_then_probes(rig):
    """Nobody acknowledges: probes at the times of the repeats."""
    rig.put()
    assert rig.out(13) == [
        (0.0, 1),
        *((when, PROBE) for when in (0.25, 0.5, 1.0, 2.0, 7.0, 12.0)),
    ]


def test_a_new_order_is_probed_for_at_its_own_times(rig):
    """However slow the series of an older one has become."""
    rig.put()
    rig.out(11.9)
    rig.put(uuid="another")
    assert rig.out(8) == [
        (11.9, 2),
        *((when, PROBE) for when in (12.0, 12.15, 12.4, 12.9, 13.9, 18.9)),
    ]


def refuse_all(rig: Rig) -> list[int]:
    """The kernel takes nothing of what goes out now; return the numbers."""
    posts = rig.role.poll(rig.now)
    for post in posts:
        rig.role.unsent(post, rig.now)
    return [post.stamp.seq for post in posts if post.stamp]


def test_what_the_kernel_refuses_afterwards_wakes_us():
    """It may have waited in our own queue until then."""
    woken: list[bool] = []
    role = Role(OURS, lambda: woken.append(True))
    role.put(Command.HEARTBEAT_LOSS, UUID, LOSS, 0.0)
    (post,) = role.poll(0.0)
    woken.clear()
    role.unsent(post, 0.1)
    assert woken


def messages(rig: Rig, seconds: float) -> list[tuple[float, object]]:
    return [(when, what) for when, what in rig.out(seconds) if what != PROBE]


def test_what_the_kernel_refused_an_old_peer_gets_once_all_the_same(rig):
    rig.put(Command.HEARTBEAT_STOPPED)
    rig.put()
    assert refuse_all(rig) == [1, 2]
    rig.role.heard_old()
    assert messages(rig, 30) == [(2.0, 1), (2.0, 2)]


def test_what_the_kernel_refuses_for_long(rig):
    rig.put()
    for _ in range(5):
        assert refuse_all(rig) == [1]
        rig.now += UNSENT_SECS
    assert messages(rig, 30) == [(10.0, 1)]


def test_what_the_kernel_refuses_of_many_for_long(rig):
    """One burst looks whether the way is free again, and each gets its turn to."""
    for number in range(3 * BURST):
        rig.put(uuid=str(number))
    refuse_all(rig)
    tried = []
    for _ in range(3):
        rig.now += UNSENT_SECS
        tried += refuse_all(rig)
        rig.now += BURST_SECS
        assert refuse_all(rig) == []
    assert tried == [*range(1, 3 * BURST + 1)]


def test_what_the_kernel_refused_and_nobody_wants_any_more(rig):
    for uuid, more in (("void", {}), ("late", {"expires": 1.0}), ("well", {})):
        rig.put(uuid=uuid, **more)
    assert refuse_all(rig) == [1, 2, 3]
    rig.role.void("void")
    rig.put(Command.HEARTBEAT_RUNNING, uuid="well")
    assert messages(rig, 30) == [(0.0, 4)]


def test_what_the_kernel_refused_of_many_goes_in_bursts(rig):
    for number in range(BURST + 1):
        rig.put(uuid=str(number))
    refuse_all(rig)
    whens = [when for when, _what in messages(rig, 30)]
    assert whens == [2.0] * BURST + [2.0 + BURST_SECS]


def test_an_answer_that_the_kernel_refused_is_not_said_again(rig):
    """It has the number of the last message, which went out; the next audit asks anew."""
    rig.put()
    assert messages(rig, 0) == [(0.0, 1)]
    rig.role.answer(LOSS, None, None)
    refuse_all(rig)
    assert messages(rig, 30) == []


def test_a_proven_role_gets_repeats(proven):
    proven.put()
    assert proven.out(8) == [(0, 1), (0.25, 1), (0.5, 1), (1, 1), (2, 1), (7, 1)]


def test_a_proof_lasts_15_s(proven):
    """A repeat goes at 12 s; at 17 s nobody has answered for 15 s."""
    proven.put()
    whats = dict(proven.out(20))
    assert whats[12.0] == 1
    assert whats[17.0] == PROBE


def test_a_proof_lasts_15_s_to_the_end(proven):
    proven.out(14.7)
    proven.put()
    assert proven.out(0.6) == [(14.7, 1), (14.95, 1), (15.2, PROBE)]


def test_what_is_owed_follows_the_proof(rig):
    for number in range(250):
        rig.put(uuid=f"{number}")
    rig.out(3)
    rig.loopback(Acknowledgement(THEIRS, OURS, 0))
    out = rig.out(0.1)
    assert [what for _when, what in out] == list(range(1, 251))
    times = [when for when, _what in out]
    assert [round(t - times[0], 3) for t in (times[BURST - 1], times[BURST], times[-1])] == [
        0.0,
        BURST_SECS,
        2 * BURST_SECS,
    ]


def test_whatever_wakes_us_a_burst_is_100_in_10_ms(rig):
    """Each datagram that comes in has us look for what is due."""
    for number in range(150):
        rig.put(uuid=f"{number}")
    rig.out(3)
    rig.loopback(Acknowledgement(THEIRS, OURS, 0))
    now = rig.now
    assert [len(rig.role.poll(at)) for at in (now, now + 0.001, now + 0.009)] == [100, 0, 0]
    assert len(rig.role.poll(now + BURST_SECS)) == 50


def test_an_acknowledgement_ends_it(proven):
    proven.put()
    proven.loopback(Acknowledgement(THEIRS, OURS, 1))
    assert proven.out(60) == [(0, 1)]
    assert proven.role.owed_count == 0


def test_one_for_an_earlier_life_of_ours_is_none(proven):
    proven.put()
    proven.loopback(Acknowledgement(THEIRS, OTHER, 1))
    assert proven.role.owed(UUID, Topic.LOSS)


def test_queued_is_said_again_each_10_s(proven):
    proven.put()
    proven.out()
    proven.now = 0.1
    proven.loopback(Acknowledgement(THEIRS, OURS, 1, queued=True))
    assert proven.out(11) == [(10.1, 1)]
    proven.loopback(Acknowledgement(THEIRS, OURS, 1))
    assert proven.out(60) == []


def test_queued_died_with_the_life_that_said_so(proven):
    """The role has a new life: what the old one held is owed at once."""
    proven.put()
    proven.out()
    proven.loopback(Acknowledgement(THEIRS, OURS, 1, queued=True))
    assert proven.loopback(Acknowledgement(OTHER, OURS, 0))
    assert proven.said() == [1]


def test_what_a_new_life_is_told_is_repeated_soon_like_anything_new(proven):
    """What the old one held had 10 s to its next repeat; the new one may have got nothing."""
    proven.put()
    proven.loopback(Acknowledgement(THEIRS, OURS, 1, queued=True))
    proven.out(20)
    proven.loopback(Acknowledgement(OTHER, OURS, 0))
    began = proven.now
    assert proven.out(1) == [(began + after, 1) for after in (0, 0.25, 0.5, 1)]


def test_what_is_held_is_not_said_because_a_proof_is_renewed(proven):
    """That the role is proven again says nothing new to who has it; nor to who has just got it."""
    proven.put(uuid="held")
    proven.loopback(Acknowledgement(THEIRS, OURS, 1, queued=True))
    proven.out(15.1)
    proven.put(uuid="new")
    proven.loopback(Acknowledgement(THEIRS, OURS, 0))
    assert proven.said() == [2], "the first saying"


def test_only_an_answer_to_a_probe_makes_a_new_life_the_present_one(proven):
    """One for a message may have been under way since an earlier life of the peer."""
    proven.put(Command.HEARTBEAT_STOPPED)
    proven.out()
    assert not proven.loopback(Acknowledgement(OTHER, OURS, 1))
    assert proven.role.peer_epoch == THEIRS
    assert proven.role.owed(UUID, Topic.STATUS)
    assert proven.said() == [PROBE]


def test_what_a_dead_life_did_for_good_is_done(proven):
    proven.loopback(Acknowledgement(OTHER, OURS, 0))
    proven.put()
    proven.put(Command.HEARTBEAT_STOPPED)
    proven.loopback(Acknowledgement(THEIRS, OURS, 1))
    proven.loopback(Acknowledgement(THEIRS, OURS, 2))
    assert not proven.role.owed(UUID, Topic.LOSS)
    assert proven.role.owed(UUID, Topic.STATUS)


@pytest.mark.parametrize(
    ("command", "topic"),
    [(Command.HEARTBEAT_LOSS, Topic.LOSS), (Command.HEARTBEAT_ILLHEALTH, Topic.ILLNESS)],
)
def test_running_revokes_faults(proven, command, topic):
    proven.put(command)
    proven.put(Command.HEARTBEAT_RUNNING)
    assert not proven.role.owed(UUID, topic)


def test_void_and_expired(proven):
    proven.put(Command.VOTE_NOTIFY, expires=1.5)
    proven.put()
    proven.role.void(UUID, Topic.LOSS)
    assert proven.out(60) == [(0, 1), (0, 2), (0.25, 1), (0.5, 1), (1, 1)]


def test_a_newer_one_takes_its_place(proven):
    proven.put(Command.VOTE_INST)
    proven.put(Command.NOTIFY_INST)
    assert [what for when, what in proven.out(1) if when] == [2, 2, 2]


def test_ids_outlive_a_restart(rig):
    rig.put()
    rig.put(uuid="other", order_id="7.9")
    assert rig.role.orders(Topic.LOSS) == [(UUID, "11.1"), ("other", "7.9")]
    assert [post.stamp.id for post in rig.role.poll(0.0)] == ["11.1", "7.9"]


def test_a_new_life_is_probed_before_it_is_heard(rig):
    assert rig.heard(1) == (Verdict.UNPROVEN, None)
    assert rig.said() == [PROBE]
    assert rig.loopback(Acknowledgement(THEIRS, OURS, 0))
    verdict, receipt = rig.heard(1)
    assert verdict is Verdict.TAKE
    assert receipt is not None
    assert rig.role.stats.counts["unproven"] == 1


def test_a_life_that_does_not_answer_is_left_alone(rig):
    rig.heard(1)
    assert [when for when, _what in rig.out(60)] == [0, 0.25, 0.5, 1.0, 2.0]
    assert rig.role.wake_at(rig.now) is None


def test_a_life_that_is_not_proven_costs_no_probe_for_each_of_its_words(rig):
    """Else who is believed, or forged, would have us say as much as he does."""
    said = []
    for number in range(1, 100):
        rig.now = number / 1000
        rig.heard(number)
        said += rig.said()
    assert said == [PROBE]


def test_who_is_there_has_answered_the_probe_for_another_life(proven):
    """What came of the other one was late: it is not asked for any longer."""
    proven.heard(1, epoch=OTHER)
    assert proven.said() == [PROBE]
    proven.loopback(Acknowledgement(THEIRS, OURS, 0))
    assert proven.out(10) == []


def test_a_datagram_of_an_earlier_life_changes_nothing(proven):
    """Not even a late answer to a probe, while the present life is heard of."""
    proven.loopback(Acknowledgement(OTHER, OURS, 0))
    assert not proven.loopback(Acknowledgement(THEIRS, OURS, 0))
    assert proven.heard(5) == (Verdict.UNPROVEN, None)
    assert proven.out(4.9) == []
    proven.now = 6.0
    assert proven.loopback(Acknowledgement(THEIRS, OURS, 0)), "back from a second swact"


def test_a_message_without_a_stamp_is_from_an_old_peer(proven):
    proven.put(Command.HEARTBEAT_STOPPED)
    proven.put()
    proven.out()
    proven.role.heard_old()
    assert {what for _when, what in proven.out(60)} == {PROBE}
    assert not proven.role.owed(UUID, Topic.STATUS), "states are the audit's"
    assert proven.heard(1) == (Verdict.UNPROVEN, None)


def acknowledgement(seq: int, *, queued: bool = False) -> Acknowledgement:
    return Acknowledgement(OURS, THEIRS, seq, queued)


def test_a_state_is_taken_once_and_acknowledged_each_time(proven):
    stopped = Command.HEARTBEAT_STOPPED
    verdicts = [proven.heard(seq, stopped)[0] for seq in (2, 2, 1, 3)]
    assert verdicts == [Verdict.TAKE, Verdict.BEHIND, Verdict.BEHIND, Verdict.TAKE]
    assert proven.said() == [acknowledgement(seq) for seq in (2, 2, 1, 3)]
    counts = proven.role.stats.counts
    assert (counts["behind"], counts["take"], counts["again"]) == (2, 0, 0)


def test_an_order_is_held_and_settled(proven):
    """Acknowledged as queued, then three times for good."""
    _verdict, receipt = proven.heard(1)
    proven.role.hold(receipt)
    assert proven.heard(1) == (Verdict.AGAIN, None)
    assert proven.said() == [acknowledgement(1, queued=True)] * 2
    proven.now = 5.0
    proven.role.settle(receipt)
    assert proven.out(60) == [(when, acknowledgement(1)) for when in (5.0, 5.3, 6.0)]
    assert proven.heard(1) == (Verdict.AGAIN, None)
    assert proven.said() == [acknowledgement(1)]


def test_an_order_keeps_its_name_when_its_sender_restarts(proven):
    _verdict, receipt = proven.heard(4, name="x")
    proven.role.hold(receipt)
    proven.loopback(Acknowledgement(OTHER, OURS, 0))
    assert proven.heard(1, epoch=OTHER, name="x") == (Verdict.AGAIN, None)
    proven.out()
    proven.role.settle(receipt)
    assert proven.said() == [Acknowledgement(OURS, OTHER, 1)]


def test_a_deferred_order_is_taken_with_a_repeat(proven):
    _verdict, receipt = proven.heard(1)
    proven.role.defer(receipt)
    assert proven.said() == [acknowledgement(1, queued=True)]
    verdict, receipt = proven.heard(1)
    assert verdict is Verdict.TAKE
    assert receipt is not None


def test_an_order_that_was_overtaken_is_void(proven):
    """RUNNING came first, though LOSS was said before it."""
    proven.heard(2, Command.HEARTBEAT_RUNNING)
    assert proven.heard(1) == (Verdict.BEHIND, None)
    assert proven.said() == [acknowledgement(2), acknowledgement(1)]
    assert proven.heard(3)[0] is Verdict.TAKE


def test_stopped_does_not_overtake_a_loss(proven):
    proven.heard(3, Command.HEARTBEAT_STOPPED)
    assert proven.heard(2)[0] is Verdict.TAKE


def test_an_answer_counts_as_the_last_state(proven):
    def answer(seq):
        return proven.role.heard_answer(UUID, Stamp(THEIRS, seq), proven.now, running=True)

    proven.heard(5, Command.HEARTBEAT_STOPPED)
    assert [answer(4), answer(5), answer(8)] == [Verdict.BEHIND, Verdict.TAKE, Verdict.TAKE]
    assert proven.heard(7, Command.HEARTBEAT_STOPPED)[0] is Verdict.BEHIND
    assert proven.heard(6, Command.HEARTBEAT_RUNNING)[0] is Verdict.TAKE, "it withdraws an illness"
    assert proven.heard(6, Command.HEARTBEAT_RUNNING)[0] is Verdict.BEHIND
    assert proven.heard(6)[0] is Verdict.BEHIND, "a loss before it was seen running"
    proven.out()
    assert answer(9) is Verdict.TAKE
    assert proven.said() == [], "answers are not acknowledged"


def test_a_loss_tells_a_state(proven):
    """What says that the guest runs, and was said before the loss, is behind it."""
    proven.role.hold(proven.heard(5)[1])
    assert proven.heard(4, Command.HEARTBEAT_RUNNING)[0] is Verdict.BEHIND
    answer = proven.role.heard_answer(UUID, Stamp(THEIRS, 4), proven.now, running=True)
    assert answer is Verdict.BEHIND
    assert proven.heard(6, Command.HEARTBEAT_RUNNING)[0] is Verdict.TAKE


def test_an_answer_does_not_say_that_a_guest_is_well(proven):
    """An ill guest heartbeats too: only RUNNING, said after its illness, makes that void."""
    proven.role.heard_answer(UUID, Stamp(THEIRS, 8), proven.now, running=True)
    assert proven.heard(6, Command.HEARTBEAT_LOSS)[0] is Verdict.BEHIND
    assert proven.heard(7, Command.HEARTBEAT_ILLHEALTH)[0] is Verdict.TAKE
    proven.heard(10, Command.HEARTBEAT_RUNNING)
    assert proven.heard(9, Command.HEARTBEAT_ILLHEALTH)[0] is Verdict.BEHIND


def test_numbers_of_one_life_say_nothing_of_the_next(proven):
    proven.heard(9, Command.MOD_INST)
    proven.loopback(Acknowledgement(OTHER, OURS, 0))
    assert proven.heard(1, Command.MOD_INST, epoch=OTHER)[0] is Verdict.TAKE


def test_what_one_life_said_of_a_guest_voids_no_loss_of_the_next(proven):
    """The numbers of a new life begin at 1: an answer of the old one with a higher is not newer."""
    stamp = Stamp(THEIRS, 500, re=1, of=1)
    assert proven.role.heard_answer(UUID, stamp, 0.0, running=True) is Verdict.TAKE
    proven.loopback(Acknowledgement(OTHER, OURS, 0))
    assert proven.heard(2, epoch=OTHER)[0] is Verdict.TAKE


def test_a_probe_is_answered_where_it_came_from(rig):
    rig.role.loopback(Probe(THEIRS), "10.0.0.9", 0.0)
    posts = rig.role.poll(0.0)
    assert (posts[0].content, posts[0].address) == (acknowledgement(0), "10.0.0.9")
    assert posts[1].content == PROBE, "and asked in return"


def test_what_is_never_acknowledged(proven):
    proven.role.say(Command.MONITOR_READY, Ready("compute-0"))
    query = proven.role.say(Command.QRY_INST, Query())
    proven.role.answer(LOSS, re=4, of=1)
    posts = proven.role.poll(0.0)
    assert query == 2
    assert [post.stamp for post in posts] == [
        Stamp(OURS, 1),
        Stamp(OURS, 2),
        Stamp(OURS, 2, re=4, of=1),
    ]
    assert proven.out(60) == []


def test_a_peer_that_does_not_acknowledge_costs_no_room(rig):
    """A loss that lasts is owed all the time, while another guest changes without end."""
    rig.put(uuid="lost")
    tracemalloc.start()
    for _ in range(3000):
        rig.put(Command.HEARTBEAT_STOPPED)
        rig.out(1.0)
    grown, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rig.role.owed_count == 2
    assert grown < 50_000


def test_room_is_bounded(proven, monkeypatch):
    """What a peer invents pushes out what was not heard of the longest."""
    monkeypatch.setattr(inbox, "MARKS_LIMIT", 10)
    box = inbox.Inbox()
    verdicts = []
    for number in range(100):
        key = (f"{number}", Topic.LOSS)
        box.settle(Receipt(key, THEIRS, number, f"{number}", ADDRESS))
        verdicts.append(box.judge_state(Command.MOD_INST, ("heard", Topic.PROVISION), THEIRS, 7))
    assert len(box) == 10
    assert verdicts == [Verdict.TAKE, *[Verdict.BEHIND] * 99]
    for _ in range(100):
        for command in (Command.HEARTBEAT_LOSS, Command.HEARTBEAT_ILLHEALTH, Command.VOTE_NOTIFY):
            proven.put(command)
        proven.put(Command.HEARTBEAT_STOPPED)
    assert proven.role.owed_count == 4


def test_of_many_that_are_done_each_is_said_to_be_so_at_least_once(proven, monkeypatch):
    monkeypatch.setattr(delivery, "FINALS_LIMIT", 10)
    for number in range(1, 101):
        _verdict, receipt = proven.heard(number)
        proven.role.settle(receipt)
    assert [each.ack for each in proven.said()] == list(range(1, 101))
    assert 0 < len(proven.out(60)) <= 10


@pytest.mark.parametrize(
    "members",
    [
        {"epoch": True, "seq": 1},
        {"epoch": 1.0, "seq": 1},
        {"epoch": 0, "seq": 1},
        {"epoch": 2**31, "seq": 1},
        {"epoch": None, "seq": 1},
        {"epoch": 1},
        {"epoch": 1, "seq": -1},
        {"epoch": 1, "seq": "1"},
        {"epoch": 1, "seq": 2**53},
        {"epoch": 1, "seq": 1, "id": 7},
        {"epoch": 1, "seq": 1, "id": "x" * 65},
        {"epoch": 1, "seq": 1, "re": []},
        {"epoch": 1, "seq": 1, "of": -1},
    ],
)
def test_a_bad_stamp_is_a_bad_message(members):
    with pytest.raises(ProtocolError):
        Stamp.of_message(MtcMessage(Command.HEARTBEAT_LOSS, members=members))


@pytest.mark.parametrize(
    "stamp", [Stamp(1, 2), Stamp(1, 2, "3.4"), Stamp(1, 0, re=5, of=0), Stamp(1, 2, "x", 3, 4)]
)
def test_a_stamp_survives_the_wire(stamp):
    members = {**InstanceState(UUID, True).members(), **stamp.members()}
    assert Stamp.of_message(MtcMessage(Command.ADD_INST, members=members)) == stamp


def test_no_stamp():
    assert Stamp.of_message(MtcMessage(Command.ADD_INST, members={"seq": 1})) is None


@pytest.mark.parametrize(
    "said", [Probe(3), Acknowledgement(3, 4, 0), Acknowledgement(3, 4, 5, queued=True)]
)
def test_loopback_survives_the_wire(said):
    assert read_loopback(MtcMessage(Command.LOOPBACK, members=said.members())) == said


@pytest.mark.parametrize("members", [{}, {"epoch": 3, "ack": 1}, {"epoch": 3, "of": 4, "ack": "1"}])
def test_a_loopback_of_somebody_else(members):
    with pytest.raises(ProtocolError):
        read_loopback(MtcMessage(Command.LOOPBACK, members=members))


# What is counted, and what is known of the peer


def acknowledged(role: Rig, seq: int, *, queued: bool = False) -> None:
    role.loopback(Acknowledgement(THEIRS, OURS, seq, queued))


def test_why_an_order_was_never_acknowledged(proven):
    proven.put(expires=1.0)
    proven.out(1.5)
    assert proven.role.stats.voided["expired"] == 1
    proven.put()
    proven.put()
    assert proven.role.stats.voided["replaced"] == 1
    proven.put(Command.HEARTBEAT_RUNNING)
    assert proven.role.stats.voided["revoked"] == 1
    proven.put()
    proven.role.void(UUID)
    assert proven.role.stats.voided["void"] == 1
    proven.put()
    acknowledged(proven, 6)
    assert sum(proven.role.stats.voided.values()) == 4


def test_a_state_that_was_replaced_is_no_order(proven):
    proven.put(Command.HEARTBEAT_STOPPED)
    proven.put(Command.HEARTBEAT_STOPPED)
    assert not any(proven.role.stats.voided.values())


def test_a_round_trip_is_from_the_first_saying_to_the_first_acknowledgement(proven):
    """Repeats in between do not make it shorter, and what comes later does not count."""
    took = []
    proven.role.stats.on_round_trip = took.append
    proven.put()
    proven.out(3.0)
    acknowledged(proven, 1, queued=True)
    proven.out(10.0)
    acknowledged(proven, 1, queued=True)
    acknowledged(proven, 1)
    assert took == [3.0]


def test_how_much_is_owed(proven):
    assert proven.role.how_much() == (0, 0, 0)
    proven.put()
    proven.put(Command.HEARTBEAT_STOPPED)
    acknowledged(proven, 1, queued=True)
    assert proven.role.how_much() == Owed(order=1, state=1, held=1)
    more = Owed(order=2, state=0, held=1)
    assert Owed.total([proven.role.how_much(), Owed(), more]) == (3, 1, 2)
    assert Owed.total([]) == Owed()


def test_what_a_peer_says_of_itself(rig):
    """By the answer to a probe of ours, for as long as that process is the peer."""
    assert (rig.role.acknowledges, rig.role.peer_version) == (None, "")
    rig.loopback(Acknowledgement(THEIRS, OURS, 0, version="1.1.0"))
    assert (rig.role.acknowledges, rig.role.peer_version) == (True, "1.1.0")
    rig.role.heard_old()
    assert (rig.role.acknowledges, rig.role.peer_version) == (False, "")
    rig.loopback(Acknowledgement(OTHER, OURS, 0))
    assert (rig.role.acknowledges, rig.role.peer_version) == (True, "")


def test_our_version_is_in_the_answer_to_a_probe_alone():
    role = Role(OURS, version="1.1.0")
    role.loopback(Probe(THEIRS), ADDRESS, 0.0)
    answers = [post.content for post in role.poll(0.0)]
    assert Acknowledgement(OURS, THEIRS, 0, version="1.1.0") in answers
    role.loopback(Acknowledgement(THEIRS, OURS, 0), ADDRESS, 0.0)
    role.heard(Command.HEARTBEAT_STOPPED, UUID, Stamp(THEIRS, 1), ADDRESS, 0.0)
    assert Acknowledgement(OURS, THEIRS, 1) in [post.content for post in role.poll(0.0)]
