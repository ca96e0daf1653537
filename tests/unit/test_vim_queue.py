"""The rules of http-api.md, "Rules for events", and decision 12."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from guestmtce.core.agent.lanes import SWEEP_SECS, Kind, Message, Spacing
from guestmtce.core.agent.vim_health import Input, State
from guestmtce.core.agent.vim_queue import Delivery, Ended, VimQueue
from guestmtce.core.shared.limits import Gap

A, B = "instance-a", "instance-b"
NEVER = float("inf")


class Ends:
    """Keeps what became of messages: the kinds that were told, and what was dropped and why."""

    def __init__(self) -> None:
        self.kinds_told: list[Kind] = []
        self.drops: list[tuple[str, Kind, str]] = []

    def told(self, _key: str, message: Message, _ended: Ended) -> None:
        self.kinds_told.append(message.kind)

    def untold(self, key: str, message: Message, reason: str) -> None:
        self.drops.append((key, message.kind, reason))


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def drops(ends: Ends) -> list:
    return ends.drops


@pytest.fixture
def queue(ends: Ends) -> VimQueue:
    return VimQueue(ends)


def test_what_was_written_whole_was_told_whatever_came_back(queue, ends):
    for ended in Ended:
        queue.put(A, Kind.ALARM, 0, "failed")
        queue.done(only(queue.poll(0)), ended, 0)
        queue.forget(A)
        queue.health.step(Input.WELL, 0)
    assert len(ends.kinds_told) == 3
    assert ends.drops == [(A, Kind.ALARM, "deleted")], "the one that was not delivered"


def kinds(deliveries: list) -> list:
    return [(delivery.key, delivery.message.kind) for delivery in deliveries]


def only(deliveries: list) -> Delivery:
    assert len(deliveries) == 1
    return deliveries[0]


def make_suspect(queue: VimQueue, now: float = 0.0) -> None:
    """A connect fails; the event that found out is taken away again."""
    queue.put("finder", Kind.SERVICE, now)
    delivery = next(d for d in queue.poll(now) if d.key == "finder")
    queue.forget("finder")
    queue.done(delivery, Ended.NOT_DELIVERED, now)


def test_one_request_of_an_instance_at_a_time_in_order(queue):
    queue.put(A, Kind.SERVICE, 0)
    queue.put(A, Kind.ALARM, 0)
    first = only(queue.poll(0))
    assert first.message.kind is Kind.SERVICE
    assert queue.poll(0) == []
    queue.done(first, Ended.TAKEN, 0.1)
    assert kinds(queue.poll(0.1)) == [(A, Kind.ALARM)]


def test_at_most_four_connections(queue):
    for number in range(6):
        queue.put(f"instance-{number}", Kind.SERVICE, 0)
    flying = queue.poll(0)
    assert len(flying) == 4
    queue.done(flying[0], Ended.TAKEN, 0)
    assert len(queue.poll(0)) == 1


def test_a_queued_service_is_replaced_by_a_newer_one(queue):
    queue.put(A, Kind.SERVICE, 0)
    flying = only(queue.poll(0))
    queue.put(A, Kind.SERVICE, 1)
    queue.put(A, Kind.SERVICE, 1)
    queue.done(flying, Ended.TAKEN, 1)
    queue.done(only(queue.poll(1)), Ended.TAKEN, 1)
    assert queue.poll(2) == []


def test_the_newest_service_comes_after_what_was_queued_before_it(queue):
    queue.put(A, Kind.SERVICE, 0)
    queue.put(A, Kind.ACTION, 0, "vote")
    queue.put(A, Kind.SERVICE, 0)
    assert only(queue.poll(0)).message.kind is Kind.ACTION


def test_queues_are_bounded(queue, drops):
    for number in range(9):
        queue.put(A, Kind.SERVICE, 0)
        queue.put(A, Kind.ALARM, 0, number)
        queue.put(A, Kind.ACTION, 0, number)
    assert len(queue) == 1 + 1 + 4
    assert drops.count((A, Kind.ALARM, "replaced")) == 8
    assert drops.count((A, Kind.ACTION, "replaced")) == 5
    told = []
    while len(queue):
        delivery = only(queue.poll(0))
        told.append((delivery.message.kind, delivery.message.detail))
        queue.done(delivery, Ended.TAKEN, 0)
    actions = [detail for kind, detail in told if kind is Kind.ACTION]
    assert actions == [5, 6, 7, 8], "the oldest went, in their order"
    assert (Kind.ALARM, 8) in told


def test_votes_and_alarms_go_before_the_states_of_others(queue):
    for number in range(10):
        queue.put(f"instance-{number}", Kind.SERVICE, 0)
    queue.put(A, Kind.ACTION, 0, "vote")
    assert kinds(queue.poll(0))[0] == (A, Kind.ACTION)


@pytest.mark.parametrize("kind", [Kind.ALARM, Kind.ACTION])
@pytest.mark.parametrize("ended", [Ended.TAKEN, Ended.TAKEN_BADLY, Ended.TIMED_OUT])
def test_what_was_delivered_is_never_repeated(queue, kind, ended):
    """Delivered: written entirely, and the VIM closed, answered, or let the deadline pass."""
    queue.put(A, kind, 0, "x")
    queue.done(only(queue.poll(0)), ended, 20)
    assert len(queue) == 0


@pytest.mark.parametrize("ended", [Ended.TAKEN_BADLY, Ended.TIMED_OUT])
def test_a_service_is_repeated_after_a_timeout_reset_or_5xx(queue, ended):
    queue.put(A, Kind.SERVICE, 0)
    queue.done(only(queue.poll(0)), ended, 20)
    assert queue.poll(20.5) == []
    assert kinds(queue.poll(21)) == [(A, Kind.SERVICE)]


def test_a_service_that_was_taken_is_not_repeated(queue):
    queue.put(A, Kind.SERVICE, 0)
    queue.done(only(queue.poll(0)), Ended.TAKEN, 1)
    assert queue.wake_at() is None


def test_a_repeated_service_holds_up_no_alarm(queue):
    queue.put(A, Kind.SERVICE, 0)
    queue.put(A, Kind.ALARM, 0, "failed")
    queue.done(only(queue.poll(0)), Ended.TAKEN_BADLY, 0.1)
    assert kinds(queue.poll(0.1)) == [(A, Kind.ALARM)]


def test_a_new_state_does_not_wait_for_the_repeat_of_an_old_one(queue):
    queue.put(A, Kind.SERVICE, 0)
    queue.done(only(queue.poll(0)), Ended.TAKEN_BADLY, 0)
    queue.put(A, Kind.SERVICE, 0.2)
    assert kinds(queue.poll(0.2)) == [(A, Kind.SERVICE)]


def test_a_vim_that_is_down_is_tried_after_1_2_4_up_to_30_seconds(queue):
    queue.put(A, Kind.SERVICE, 0)
    now, gaps = 0.0, []
    for _ in range(8):
        queue.done(only(queue.poll(now)), Ended.NOT_DELIVERED, now)
        wake = queue.wake_at()
        gaps.append(wake - now)
        assert queue.poll(wake - 0.01) == []
        now = wake
    assert gaps == [1, 2, 4, 8, 16, 30, 30, 30]


def test_four_requests_refused_together_are_one_failure(queue):
    for number in range(4):
        queue.put(f"instance-{number}", Kind.SERVICE, 0)
    for delivery in queue.poll(0):
        queue.done(delivery, Ended.NOT_DELIVERED, 0)
    assert queue.wake_at() == 1


def test_an_undelivered_alarm_keeps_its_place(queue):
    queue.put(A, Kind.ALARM, 0, "failed")
    flying = only(queue.poll(0))
    queue.put(A, Kind.SERVICE, 0)
    queue.done(flying, Ended.NOT_DELIVERED, 0)
    probe = only(queue.poll(1))
    assert queue.health.state is State.PROBING
    queue.done(probe, Ended.TAKEN, 1)
    assert kinds(queue.poll(1)) == [(A, Kind.ALARM)]


def test_no_alarm_or_action_is_written_while_a_request_is_outstanding_for_2_s(queue):
    queue.put(A, Kind.SERVICE, 0)
    hung = only(queue.poll(0))
    assert queue.wake_at() == 2
    queue.poll(2)
    queue.put(B, Kind.ALARM, 2, "failed")
    assert queue.poll(2.5) == []
    queue.done(hung, Ended.TAKEN, 2.8)
    assert kinds(queue.poll(2.8)) == [(B, Kind.ALARM)]


def test_before_2_s_it_is_written(queue):
    queue.put(A, Kind.SERVICE, 0)
    queue.poll(0)
    queue.put(B, Kind.ALARM, 1.9, "failed")
    assert kinds(queue.poll(1.9)) == [(B, Kind.ALARM)]


def test_no_alarm_or_action_is_written_after_a_connect_failed_until_one_request_ends_well(queue):
    make_suspect(queue)
    queue.put(A, Kind.SERVICE, 0)
    queue.put(B, Kind.ACTION, 0, "vote")
    probe = only(queue.poll(1))
    assert kinds([probe]) == [(A, Kind.SERVICE)]
    assert queue.poll(1.5) == []
    queue.done(probe, Ended.TAKEN, 1.6)
    assert kinds(queue.poll(1.6)) == [(B, Kind.ACTION)]


@pytest.mark.parametrize("kind", [Kind.HOST_STATE, Kind.INSTANCES])
def test_a_query_probes_too(queue, kind):
    make_suspect(queue)
    queue.put("host 1", kind, 0)
    assert kinds([only(queue.poll(1))]) == [("host 1", kind)]
    assert queue.health.state is State.PROBING


def test_where_only_an_alarm_waits_the_state_of_its_instance_probes(queue):
    make_suspect(queue)
    queue.put(A, Kind.ALARM, 0, "failed")
    probe = only(queue.poll(1))
    assert kinds([probe]) == [(A, Kind.SERVICE)]
    queue.done(probe, Ended.NOT_DELIVERED, 1)
    assert len(queue) == 1
    queue.done(only(queue.poll(3)), Ended.TAKEN, 3)
    assert kinds(queue.poll(3)) == [(A, Kind.ALARM)]


def test_news_and_signs_of_life_shorten_a_long_wait_to_a_second_after_the_last_try(queue):
    queue.put(A, Kind.SERVICE, 0)
    now = 0.0
    for _ in range(6):
        queue.done(only(queue.poll(now)), Ended.NOT_DELIVERED, now)
        now = queue.wake_at()
    tried = now - 30
    queue.put(B, Kind.SERVICE, tried + 0.2)
    assert queue.wake_at() == tried + 1
    queue.done(queue.poll(tried + 1)[0], Ended.NOT_DELIVERED, tried + 1)
    tried = queue.wake_at() - 30
    queue.vim_spoke(tried + 0.3)
    assert queue.wake_at() == tried + 1
    queue.vim_spoke(tried + 5)
    assert queue.wake_at() == tried + 1


def test_an_action_is_dropped_when_its_window_is_over(queue, drops):
    """When its lane's turn comes: never written, however late the VIM is back."""
    make_suspect(queue)
    queue.put(A, Kind.ACTION, 0, "vote", expires=9)
    queue.put(A, Kind.SERVICE, 0)
    assert kinds(queue.poll(9)) == [(A, Kind.SERVICE)]
    assert drops == [(A, Kind.ACTION, "expired")]


def test_what_expires_behind_a_dead_vim_is_counted_within_10_s(queue, drops):
    make_suspect(queue)
    queue.put(A, Kind.ACTION, 0, "vote", expires=3)
    queue.put(B, Kind.ALARM, 0, "unhealthy", expires=70)
    probe = only(queue.poll(1))
    assert queue.wake_at() == SWEEP_SECS
    assert queue.poll(SWEEP_SECS) == []
    assert drops == [(A, Kind.ACTION, "expired")]
    assert queue.wake_at() == 2 * SWEEP_SECS, "there is another that expires"
    queue.done(probe, Ended.NOT_DELIVERED, SWEEP_SECS)


def test_what_expires_while_something_else_of_its_lane_is_on_its_way(queue, drops):
    queue.put(A, Kind.SERVICE, 0)
    flying = only(queue.poll(0))
    queue.put(A, Kind.ACTION, 0, "vote", expires=1)
    queue.done(flying, Ended.TAKEN, 1)
    assert queue.poll(1) == []
    assert drops == [(A, Kind.ACTION, "expired")]


def test_an_action_whose_window_ended_on_its_way_is_not_tried_again(queue, drops):
    queue.put(A, Kind.ACTION, 0, "vote", expires=9)
    queue.done(only(queue.poll(0)), Ended.NOT_DELIVERED, 9.5)
    assert drops == [(A, Kind.ACTION, "expired")]


def test_a_stale_alarm_is_withdrawn(queue, drops):
    make_suspect(queue)
    queue.put(A, Kind.SERVICE, 0)
    queue.put(A, Kind.ALARM, 0, "failed")
    queue.withdraw(A, Kind.ALARM, reason="heartbeats")
    assert drops == [(A, Kind.ALARM, "heartbeats")]
    assert len(queue) == 1


def test_only_the_named_alarm_is_withdrawn(queue):
    queue.put(A, Kind.ALARM, 0, "unhealthy")
    queue.withdraw(A, Kind.ALARM, reason="heartbeats", only=lambda state: state == "failed")
    assert len(queue) == 1


def test_an_alarm_on_its_way_is_not_tried_again_where_a_newer_one_waits(queue, drops):
    """One `alarm` waits for each instance: two would be two orders to reboot."""
    queue.put(A, Kind.ALARM, 0, "old")
    on_its_way = only(queue.poll(0))
    queue.put(A, Kind.ALARM, 0, "new")
    queue.done(on_its_way, Ended.NOT_DELIVERED, 0)
    assert drops == [(A, Kind.ALARM, "replaced")]
    queue.done(only(queue.poll(1)), Ended.TAKEN, 1)
    assert only(queue.poll(1)).message.detail == "new"


def test_an_alarm_withdrawn_on_its_way_is_not_tried_again(queue, drops):
    queue.put(A, Kind.ALARM, 0, "failed")
    flying = only(queue.poll(0))
    queue.withdraw(A, Kind.ALARM, reason="heartbeats")
    queue.done(flying, Ended.NOT_DELIVERED, 0.1)
    assert len(queue) == 0
    assert drops == [(A, Kind.ALARM, "heartbeats")], "the VIM was not told"


def test_an_alarm_withdrawn_on_its_way_that_the_vim_heard_is_not_dropped(queue, drops):
    queue.put(A, Kind.ALARM, 0, "failed")
    flying = only(queue.poll(0))
    queue.withdraw(A, Kind.ALARM, reason="heartbeats")
    queue.done(flying, Ended.TAKEN, 0.1)
    assert (len(queue), drops) == (0, [])


def test_a_repeated_state_that_was_taken_starts_the_next_one_afresh(queue):
    """The longer wait is that of one state told again and again, not of its instance."""
    now = 0.0
    queue.put(A, Kind.SERVICE, now)
    for wait in (1, 2, 4):
        queue.done(only(queue.poll(now)), Ended.TAKEN_BADLY, now)
        assert queue.wake_at() == now + wait
        now += wait
    queue.done(only(queue.poll(now)), Ended.TAKEN, now)
    queue.put(A, Kind.SERVICE, now)
    queue.done(only(queue.poll(now)), Ended.TAKEN_BADLY, now)
    assert queue.wake_at() == now + 1


def test_everything_of_a_deleted_instance_goes(queue):
    queue.put(A, Kind.SERVICE, 0)
    flying = only(queue.poll(0))
    queue.put(A, Kind.SERVICE, 0)
    queue.put(A, Kind.ALARM, 0, "failed")
    queue.forget(A)
    queue.done(flying, Ended.TIMED_OUT, 20)
    assert len(queue) == 0
    assert queue.poll(100) == []


def test_an_instance_that_comes_back_does_not_inherit_the_retry_of_the_deleted_one(queue):
    queue.put(A, Kind.SERVICE, 0)
    queue.done(only(queue.poll(0)), Ended.TAKEN_BADLY, 0)
    queue.forget(A)
    queue.put(A, Kind.SERVICE, 0)
    for number in range(4):
        queue.put(f"instance-{number}", Kind.ALARM, 0, "failed")
    flying = queue.poll(0)
    queue.poll(1)
    for delivery in flying:
        queue.done(delivery, Ended.TAKEN, 1)
    assert kinds(queue.poll(1)) == [(A, Kind.SERVICE)]


def test_a_query_on_its_way_is_not_asked_twice(queue):
    queue.put("host 1", Kind.HOST_STATE, 0)
    flying = only(queue.poll(0))
    queue.put("host 1", Kind.HOST_STATE, 10)
    queue.put("host 1", Kind.INSTANCES, 10)
    queue.done(flying, Ended.TAKEN, 10)
    assert kinds(queue.poll(10)) == [("host 1", Kind.INSTANCES)]


def test_after_an_outage_each_instance_is_told_once(queue):
    """After an outage of the VIM the current state is what it hears."""
    make_suspect(queue)
    for second in range(30):
        for number in range(20):
            queue.put(f"instance-{number}", Kind.SERVICE, second)
    told = []
    now = 30.0
    while deliveries := queue.poll(now):
        for delivery in deliveries:
            told.append(delivery.key)
            queue.done(delivery, Ended.TAKEN, now)
    assert sorted(told) == sorted({f"instance-{number}" for number in range(20)})


def test_what_is_over_does_not_grow_the_queue(queue):
    for number in range(5_000):
        queue.put(A, Kind.ACTION, number, "vote", expires=number + 86_400)
        for delivery in queue.poll(number):
            queue.done(delivery, Ended.TAKEN, number)
    assert len(queue) == 0
    queue.poll(queue.wake_at())
    assert queue.wake_at() is None


class QueueMachine(RuleBasedStateMachine):
    """Any events, any endings, any times: the invariants of the rules hold."""

    keys = st.sampled_from([f"instance-{number}" for number in range(7)])

    @initialize()
    def start(self):
        self.queue = VimQueue(Ends())
        self.now = 0.0
        self.flying: list = []
        self.sent_urgent: set = set()
        self.gaps: dict[str, Gap] = {}
        self.told_at: dict[str, float] = {}

    @rule(key=keys, kind=st.sampled_from(Kind), window=st.sampled_from([NEVER, 0.5, 9.0]))
    def put(self, key, kind, window):
        expires = self.now + window if kind in (Kind.ALARM, Kind.ACTION) else NEVER
        spacing = Spacing(self.gaps.setdefault(key, Gap(10.0)), "failed")
        spaced = spacing if kind is Kind.ALARM else None
        self.queue.put(key, kind, self.now, object(), expires, spacing=spaced)

    @rule(key=keys, kind=st.sampled_from(Kind))
    def withdraw(self, key, kind):
        self.queue.withdraw(key, kind, reason="stale")

    @rule(key=keys)
    def forget(self, key):
        self.queue.forget(key)

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 20.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def wait_until_due(self):
        self.now = max(self.now, self.queue.wake_at() or self.now)

    @rule()
    def poll(self):
        was_suspect = self.queue.suspect
        for delivery in self.queue.poll(self.now):
            message = delivery.message
            if message.kind in (Kind.ALARM, Kind.ACTION):
                assert not self.queue.suspect
                assert not was_suspect
                assert message.expires > self.now
                assert id(message) not in self.sent_urgent
            assert message.kind is Kind.SERVICE or not message.void
            if message.kind is Kind.ALARM:
                assert self.now >= self.told_at.get(delivery.key, -10.0) + 10.0
            assert delivery.key not in [other.key for other in self.flying]
            self.flying.append(delivery)
        wake = self.queue.wake_at()
        assert wake is None or wake > self.now, "the owner would spin"

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), ended=st.sampled_from(Ended))
    def done(self, data, ended):
        delivery = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        self.queue.done(delivery, ended, self.now)
        if ended is not Ended.NOT_DELIVERED and delivery.message.kind is Kind.ALARM:
            self.told_at[delivery.key] = delivery.started
        if ended is not Ended.NOT_DELIVERED and delivery.message.kind in (Kind.ALARM, Kind.ACTION):
            self.sent_urgent.add(id(delivery.message))
            self.keep_alive = [*getattr(self, "keep_alive", []), delivery]

    @invariant()
    def bounded(self):
        if hasattr(self, "queue"):
            assert self.queue.in_flight == len(self.flying) <= 4
            # one of each kind and four actions; a fifth action may come back undelivered
            assert len(self.queue) <= 7 * (4 + 5)

    def teardown(self):
        """With a VIM that takes everything, everything that waits goes out, and then rest."""
        if not hasattr(self, "queue"):
            return
        for delivery in self.flying:
            self.queue.done(delivery, Ended.TAKEN, self.now)
        for _ in range(300):
            wake = self.queue.wake_at()
            if not len(self.queue):
                break
            self.now = max(self.now, wake or self.now)
            for delivery in self.queue.poll(self.now):
                self.queue.done(delivery, Ended.TAKEN, self.now)
        assert len(self.queue) == 0
        for _ in range(40):
            self.now = self.queue.wake_at() or self.now
            assert self.queue.poll(self.now) == []
        assert self.queue.wake_at() is None


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(stateful_step_count=40)
