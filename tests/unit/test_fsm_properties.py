"""Any sequence of inputs keeps the invariants of an instance's state machines; none raises."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from guestmtce.core.server import guest_protocol
from guestmtce.core.server.guest_protocol import Framer, Terms
from guestmtce.core.server.machine import Attempt
from guestmtce.core.server.vote import VoteState
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.mtc_message import InstanceInformation, Record
from guestmtce.core.shared.vocabulary import (
    Command,
    CorrectiveAction,
    Event,
    Notification,
    VoteResult,
)
from tests.unit.core_support import (
    ILLHEALTH,
    LOSS,
    RUNNING,
    STOPPED,
    VOTE_NOTIFY,
    RecordingPort,
    Rig,
    action_response,
    answer,
    as_line,
    init,
    leaving,
)


class WatchingPort(RecordingPort):
    """A port that judges each output at the moment it comes, by a small model of its own."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.told_running = False
        self.told_terms: Terms | None = None
        # When each challenge was sent that no good answer and no init has followed.
        self.unanswered: list[float] = []
        self.last_illhealth: dict[str, float] = {}
        self.votes_reported = 0

    def send(self, data: bytes, *, droppable: bool = False) -> None:
        super().send(data, droppable=droppable)
        kind = self.outputs[-1]
        if kind == "init_ack":
            self.unanswered.clear()
        elif kind == "challenge":
            self.unanswered.append(self.clock.now)

    def report(self, command: Command, record: Record, why: str = "") -> None:
        super().report(command, record, why)
        beat = self.instance.heartbeat
        worker = beat.worker
        if command is RUNNING:
            terms = self.instance.reports.terms._replace(interval_ms=0)
            assert not self.told_running or terms != self.told_terms, "RUNNING is no news"
            self.told_running, self.told_terms = True, terms
        elif command is STOPPED:
            assert self.told_running, "STOPPED without RUNNING"
            self.told_running = False
        elif command is LOSS:
            assert worker.reporting
            assert self.instance.reports.reporting
            assert not beat.silence.expected
            least = worker.settings.hbs_failure_threshold + 1
            assert len(self.unanswered) >= least, "LOSS before threshold + 1 misses"
            silence = self.clock.now - self.unanswered[0]
            assert silence >= least * beat.interval - 1e-6
        elif command is ILLHEALTH:
            assert worker.reporting
            assert self.instance.reports.reporting
            assert isinstance(record, InstanceInformation)
            action = record.corrective_action
            assert action in {"reboot", "stop", "log"}
            assert self.clock.now - self.last_illhealth.get(action, -1e9) >= 10
            self.last_illhealth[action] = self.clock.now
        else:
            assert command is VOTE_NOTIFY
            self.votes_reported += 1


EVENTS = st.sampled_from(Event)
NOTIFICATIONS = st.sampled_from(Notification)
SECONDS = st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.5, 1.0, 2.0, 5.0, 10.0, 61.0, 121.0])


SELDOM = st.sampled_from([False, False, False, True])


class Lifetime(RuleBasedStateMachine):
    """One instance after another, and whatever can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = 1
        self.new_instance()

    def new_instance(self) -> None:
        self.rig = Rig(threshold=self.threshold, reporting=False, port=WatchingPort)
        self.port: WatchingPort = self.rig.port
        self.asked = 0
        self.superseded = 0

    @initialize(threshold=st.integers(0, 2), reporting=st.booleans())
    def start(self, threshold: int, reporting: bool) -> None:
        self.threshold = threshold
        self.new_instance()
        self.rig.instance.provision(reporting)

    # The socket file and the channel

    @rule(connects=st.sampled_from([Attempt.OPENED, Attempt.OPENED, Attempt.REFUSED, Attempt.GONE]))
    def connecting_comes_to(self, connects: Attempt) -> None:
        self.port.connects = connects

    @rule(what=st.sampled_from(["file_found", "file_changed", "file_replaced"]))
    def file(self, what: str) -> None:
        getattr(self.rig.instance, what)()

    @rule(gone=SELDOM)
    def file_goes(self, gone: bool) -> None:
        if gone:
            self.rig.instance.file_gone()

    @precondition(lambda self: self.rig.instance.connection.connected)
    @rule()
    def peer_closes(self) -> None:
        self.rig.instance.disconnected()

    # The guest

    @rule(interval_ms=st.sampled_from([400, 1000]))
    def guest_comes_up(self, interval_ms: int) -> None:
        """The long way to heartbeating in one step: without it few examples get there."""
        self.port.connects = Attempt.OPENED
        if not self.rig.instance.connection.connected:
            self.rig.instance.file_found()
            self.rig.advance(0.2)
        self.hear(as_line(init(heartbeat_interval_ms=interval_ms)))
        self.guest_answers(0, "healthy", "none")

    @rule(times=st.integers(1, 4))
    def guest_beats(self, times: int) -> None:
        for _ in range(times):
            self.rig.advance(self.rig.instance.heartbeat.interval)
            self.guest_answers(0, "healthy", "none")

    def hear(self, data: bytes) -> None:
        """Bytes come from the guest; only an open channel has them."""
        if not self.rig.instance.connection.connected:
            return
        stats = self.rig.stats
        answers = stats.heartbeats + stats.unhealthy
        self.rig.instance.received(data)
        if stats.heartbeats + stats.unhealthy > answers:
            self.port.unanswered.clear()

    @rule(
        interval_ms=st.sampled_from([0, 400, 1000, 5000]),
        secs=st.sampled_from([0, 1, 9]),
        action=st.sampled_from(CorrectiveAction),
        invocation_id=st.sampled_from([7, 1804289383]),
    )
    def guest_inits(self, interval_ms: int, secs: int, action: str, invocation_id: int) -> None:
        members = init(
            heartbeat_interval_ms=interval_ms,
            vote_secs=secs,
            corrective_action=str(action),
            invocation_id=invocation_id,
        )
        self.hear(as_line(members))

    @rule(
        back=st.sampled_from([0, 0, 0, 1, 7, -5]),
        health=st.sampled_from(["healthy", "healthy", "unhealthy", "odd"]),
        action=st.sampled_from(CorrectiveAction),
    )
    def guest_answers(self, back: int, health: str, action: str) -> None:
        if self.rig.instance.heartbeat.challenges:
            number = max(0, self.rig.instance.heartbeat.challenges[-1] - back)
            self.hear(as_line(answer(number, health, str(action))))

    @rule(
        event=EVENTS,
        notification=NOTIFICATIONS,
        vote=st.sampled_from(VoteResult),
        right=st.booleans(),
    )
    def guest_votes(self, event: Any, notification: Any, vote: Any, right: bool) -> None:
        pending = self.rig.instance.vote.open_ask
        if right and pending is not None:
            event, notification = pending.event, pending.notification
        invocation_id = self.rig.instance.heartbeat.writer.invocation_id
        members = action_response(
            str(event), str(notification), str(vote), invocation_id=invocation_id
        )
        self.hear(as_line(members))

    @rule(leaves=SELDOM)
    def guest_exits(self, leaves: bool) -> None:
        if leaves:
            self.hear(as_line(leaving()))

    @rule(data=st.binary(max_size=40) | st.sampled_from([b"x" * 2000, b"\n" * 9, b"\n{}\n" * 3]))
    def guest_babbles(self, data: bytes) -> None:
        self.hear(data)

    # GuestAgent

    @rule(reporting=st.booleans())
    def agent_provisions(self, reporting: bool) -> None:
        self.rig.instance.provision(reporting)

    @rule(reporting=st.booleans())
    def agent_sets_host_reporting(self, reporting: bool) -> None:
        self.rig.worker.reporting = reporting

    @rule(event=EVENTS, notification=NOTIFICATIONS)
    def agent_asks(self, event: Event, notification: Notification) -> None:
        self.superseded += self.rig.instance.vote.open_ask is not None
        self.asked += 1
        self.rig.instance.ask(event, notification)

    @rule(event=EVENTS, notification=NOTIFICATIONS, vote=st.sampled_from(VoteResult))
    def agent_asks_and_guest_votes(
        self, event: Event, notification: Notification, vote: VoteResult
    ) -> None:
        self.agent_asks(event, notification)
        self.guest_votes(event, notification, vote, right=True)

    @rule(deleted=SELDOM)
    def agent_deletes(self, deleted: bool) -> None:
        if deleted:
            self.rig.instance.delete()
            self.port.forgotten = True

    # Time

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.rig.advance(seconds)

    @rule(seconds=SECONDS)
    def host_stalls(self, seconds: float) -> None:
        self.rig.stall(seconds)

    # What holds after each of them

    @invariant()
    def one_condition(self) -> None:
        """What metrics count is what a table shows."""
        instance = self.rig.instance
        assert instance.condition() is instance.diagnosis().condition

    @invariant()
    def nothing_of_a_forgotten_instance_runs_on(self) -> None:
        if self.port.forgotten:
            assert self.port.timers == {}
            assert not self.port.open
            assert not self.rig.instance.connection.connected
            self.check_votes()
            assert self.rig.instance.vote.state is VoteState.NONE
            self.new_instance()

    @invariant()
    def what_is_told_is_so(self) -> None:
        self.rig.check()
        beat = self.rig.instance.heartbeat
        assert beat.heartbeating == self.port.told_running
        assert 0 <= beat.misses <= self.rig.worker.settings.hbs_failure_threshold + 1

    @invariant()
    def each_vote_ends_once(self) -> None:
        self.check_votes()

    def check_votes(self) -> None:
        """Every vote is closed exactly once; reported unless superseded or deleted."""
        votes = self.rig.stats.votes
        is_open = self.rig.instance.vote.open_ask is not None
        ended = sum(votes.values()) - votes["unexpected"]
        assert ended == self.asked - is_open
        assert votes["superseded"] == self.superseded
        assert self.port.votes_reported == ended - self.superseded - votes["deleted"]


Lifetime.TestCase.settings = settings(stateful_step_count=40)
TestLifetime = Lifetime.TestCase


# Arbitrary bytes

LINES = [
    as_line(members)
    for members in (
        init(),
        init(vote_secs=-1),
        answer(100),
        answer(100, "unhealthy", "reboot"),
        action_response("stop", "revocable", "reject", "x" * 300),
        leaving(),
        {"version": 2},
        {},
    )
]


@st.composite
def babble(draw: Any) -> bytes:
    """Return valid messages, mutated ones, and rubbish, in a row."""
    parts = []
    for _ in range(draw(st.integers(1, 8))):
        part = bytearray(draw(st.sampled_from(LINES) | st.binary(max_size=50)))
        for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
            if part:
                part[draw(st.integers(0, len(part) - 1))] = draw(st.integers(0, 255))
        parts.append(bytes(part))
    return b"".join(parts)


@given(babble())
@settings(max_examples=80)
def test_bytes_never_raise_and_are_counted(data):
    """Nothing that a guest sends may stop the daemon; what is bad is counted, each once."""
    rig = Rig().connect()
    rig.instance.received(data)
    bad = 0
    for line in Framer().feed(data):
        try:
            guest_protocol.decode(line or b"")
        except ProtocolError:
            bad += 1
    counts = rig.stats.bad_messages
    assert sum(counts.values()) - counts["invocation_id"] == bad
    assert len(rig.port.bad) == sum(counts.values())


@given(babble(), st.sampled_from([1, 2, 7]))
def test_the_outcome_does_not_depend_on_the_split(data, size):
    """The same result however the bytes are split, in what comes out of the whole machine."""
    whole, split = Rig().connect(), Rig().connect()
    whole.instance.received(data)
    for at in range(0, len(data), size):
        split.instance.received(data[at : at + size])
    assert split.out() == whole.out()
    assert split.port.sent == whole.port.sent
    assert split.port.reports == whole.port.reports


@given(st.lists(st.sampled_from([m.value for m in Event] + ["unknown", "x"]), max_size=4))
def test_reports_are_json_of_strings(events):
    """Whatever the guest called its things, a report is a JSON object of strings."""
    rig = Rig().beat(name="\ud800\x00", corrective_action="\ud800")
    for event in events:
        rig.vote("stop")
        rig.say(action_response(event, "revocable", "reject", f"\ud800\x1b{event}"))
    for _, members in rig.port.reports:
        assert all(isinstance(value, str) for value in members.values())
        json.dumps(members, ensure_ascii=False).encode("utf-8")
