"""The loop: order of timers, fairness of a turn, signals (architecture.md, "The loop")."""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime.loop import Loop, Timer, Timers
from tests.simulation import Clock, SimulatedLoop, SimulatedSelector


@pytest.fixture
def loop():
    simulated = SimulatedLoop()
    yield simulated
    simulated.close()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def test_timers_ring_in_the_order_of_their_times(loop):
    rung = []
    for delay in (3.0, 1.0, 2.0):
        loop.call_later(delay, rung.append, delay)
    loop.advance(5.0)
    assert rung == [1.0, 2.0, 3.0]


def test_timers_of_the_same_time_ring_in_the_order_of_their_making(loop):
    rung = []
    for name in "abc":
        loop.call_later(1.0, rung.append, name)
    loop.advance(1.0)
    assert rung == ["a", "b", "c"]


def test_the_loop_sleeps_exactly_until_the_next_timer():
    clock = Clock()
    asked = []

    class Recorder(SimulatedSelector):
        def select(self, timeout=None):
            asked.append(timeout)
            return super().select(timeout)

    loop = Loop(clock, Recorder(clock))
    loop.call_later(0.4, lambda: None)
    loop.call_later(7.0, loop.stop)
    loop.run()
    assert asked == [pytest.approx(0.4), pytest.approx(6.6)]
    loop.close()


def test_an_idle_loop_does_not_wake(loop):
    """behaviour.md: zero wake-ups in an idle minute beyond the timers' own."""
    loop.call_later(60.0, loop.stop)
    loop.run()
    assert loop.turns == 1


class AskedSelector(selectors.DefaultSelector):
    """Notes how long it was to wait, and does not."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def select(self, timeout=None):
        self.asked.append(timeout)
        return []


def test_without_timers_it_sleeps_until_a_descriptor_is_ready():
    selector = AskedSelector()
    loop = Loop(selector=selector)
    loop.run_once()
    assert selector.asked == [None]
    loop.close()


@pytest.mark.parametrize("delay", [3e9, float("inf")])
def test_a_timer_in_the_far_future_does_not_overflow_the_system_call(delay):
    selector = AskedSelector()
    loop = Loop(selector=selector)
    timer = loop.call_later(delay, lambda: None)
    loop.run_once()
    assert selector.asked == [86_400.0]
    assert timer.active
    loop.close()


def test_a_cancelled_timer_never_rings(loop):
    rung = []
    timer = loop.call_later(1.0, rung.append, 1)
    timer.cancel()
    timer.cancel()
    loop.advance(2.0)
    assert rung == []
    assert not timer.active


def test_a_timer_that_rang_is_not_active_and_may_be_cancelled(loop):
    timer = loop.call_later(1.0, lambda: None)
    assert timer.active
    loop.advance(1.0)
    assert not timer.active
    timer.cancel()
    later = loop.call_later(1.0, lambda: None)
    loop.advance(1.0)
    assert not later.active


def test_a_timer_may_cancel_one_that_is_due_in_the_same_turn(loop):
    rung = []
    loop.call_later(1.0, lambda: doomed.cancel())  # noqa: PLW0108 - not made yet
    doomed = loop.call_later(1.0, rung.append, "cancelled")
    loop.advance(2.0)
    assert rung == []


def test_a_timer_set_by_a_timer_waits_for_the_next_turn(loop):
    """A callback that sets a timer of 0 s again and again must not starve descriptors."""
    rung = []

    def again():
        rung.append(loop.turns)
        loop.call_soon(again)

    loop.call_soon(again)
    for _ in range(3):
        loop.run_once()
    assert rung == [1, 2, 3]


def test_a_negative_delay_is_none(loop):
    timer = loop.call_later(-5.0, lambda: None)
    assert timer.when == loop.time()


def test_what_has_arrived_is_read_before_timers_are_judged(loop, pair):
    """behaviour.md, "Whose silence?"."""
    order = []
    loop.watch(
        pair[0], selectors.EVENT_READ, lambda _ready: order.append("read") or pair[0].recv(9)
    )
    loop.call_later(0.0, order.append, "timer")
    pair[1].send(b"x")
    loop.run_once()
    assert order == ["read", "timer"]


def test_lag_tells_how_late_a_timer_ran(loop):
    loop.call_later(1.0, lambda: None)
    loop.clock.now += 1.75
    loop.run_once()
    assert loop.lag == pytest.approx(0.75)


def test_many_cancelled_timers_do_not_stay_in_memory(loop):
    keep = [loop.call_later(100.0 + n, lambda: None) for n in range(10)]
    for _ in range(50_000):
        loop.call_later(3600.0, lambda: None).cancel()
    assert sum(isinstance(each, Timer) for each in gc.get_objects()) < 2_000
    assert all(timer.active for timer in keep)


def test_compaction_in_the_midst_of_a_turn_loses_no_timer(loop):
    rung = []
    doomed = [loop.call_later(5.0, rung.append, "doomed") for _ in range(2_000)]
    loop.call_later(1.0, lambda: [timer.cancel() for timer in doomed])
    for n in range(20):
        loop.call_later(1.0, rung.append, n)
    loop.advance(10.0)
    assert rung == list(range(20))


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100, allow_nan=False), st.booleans(), st.floats(0, 100, allow_nan=False)
        ),
        max_size=60,
    )
)
def test_any_timers_ring_once_in_order_and_never_early(plans):
    """Each plan is (delay, whether it is cancelled, delay of the timer that it sets)."""
    loop = SimulatedLoop()
    rung = []

    def ring(number, when, then):
        assert loop.time() >= when
        rung.append((when, number))
        if then is not None:
            loop.call_later(then, ring, number + 1000, loop.time() + then, None)

    kept = 0
    for number, (delay, cancelled, then) in enumerate(plans):
        timer = loop.call_later(delay, ring, number, loop.time() + delay, then)
        if cancelled:
            timer.cancel()
        else:
            kept += 1
    loop.advance(201.0)
    assert len(rung) == 2 * kept
    assert [when for when, _number in rung] == sorted(when for when, _number in rung)
    loop.close()


def test_an_exception_in_a_callback_is_logged_and_counted_and_the_loop_goes_on(loop, caplog):
    rung = []
    loop.call_later(1.0, lambda: 1 / 0)
    loop.call_later(1.0, rung.append, "next")
    loop.advance(1.0)
    assert rung == ["next"]
    assert loop.errors == 1
    assert "ZeroDivisionError" in caplog.text


def test_watch_again_replaces_interest_and_callback(loop, pair):
    calls = []
    loop.watch(pair[0], selectors.EVENT_READ, lambda _ready: calls.append("first"))
    loop.watch(pair[0], selectors.EVENT_WRITE, calls.append)
    loop.run_once()
    assert calls == [selectors.EVENT_WRITE]


def test_watching_for_nothing_is_not_watching(loop, pair):
    calls = []
    loop.watch(pair[0], selectors.EVENT_WRITE, calls.append)
    loop.watch(pair[0], 0, calls.append)
    loop.call_soon(lambda: None)
    loop.run_once()
    assert calls == []


def test_unwatch_of_an_unknown_or_closed_descriptor_is_no_error(loop, pair):
    loop.unwatch(pair[0])
    loop.watch(pair[0], selectors.EVENT_READ, lambda _ready: None)
    pair[0].close()
    loop.unwatch(pair[0])
    loop.unwatch(pair[0])


def test_a_descriptor_unwatched_in_this_turn_is_not_called_any_more(loop, pair):
    """Both are ready at once; whichever comes first puts an end to the other."""
    calls = []

    def first(end):
        def callback(_ready):
            calls.append(end)
            loop.unwatch(pair[1 - end])

        return callback

    for end in (0, 1):
        loop.watch(pair[end], selectors.EVENT_WRITE, first(end))
    loop.run_once()
    assert len(calls) == 1


def test_a_descriptor_number_taken_over_in_this_turn_is_not_called_for_the_old_one(loop, pair):
    """The number of a socket that was closed in this turn may belong to a new one by now."""
    calls = []
    others = socket.socketpair()

    def close_one(end):
        def callback(_ready):
            calls.append("old")
            other = pair[1 - end]
            number = other.fileno()
            loop.unwatch(other)
            other.close()
            os.dup2(others[0].fileno(), number)
            loop.watch(number, selectors.EVENT_WRITE, lambda _ready: calls.append("new"))

        return callback

    for end in (0, 1):
        loop.watch(pair[end], selectors.EVENT_WRITE, close_one(end))
    loop.run_once()
    assert calls == ["old"]
    for sock in others:
        sock.close()


def test_signals_run_in_the_loop_once_for_each_turn(loop):
    calls = []
    loop.on_signal(signal.SIGUSR1, lambda: calls.append("usr1"))
    loop.on_signal(signal.SIGUSR2, lambda: calls.append("usr2"))
    for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        os.kill(os.getpid(), signum)
    assert calls == []
    loop.run_once()
    assert calls == ["usr1", "usr2"]


def test_no_signal_is_lost_behind_a_storm_of_another(loop, capfd):
    """The wake-up socket holds a few hundred; a SIGTERM behind them must count."""
    calls = []
    loop.on_signal(signal.SIGUSR1, lambda: calls.append("storm"))
    loop.on_signal(signal.SIGUSR2, lambda: calls.append("last"))
    for _ in range(2_000):
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    loop.run_once()
    assert calls == ["storm", "last"]
    loop.settle()
    assert calls == ["storm", "last"]
    assert capfd.readouterr().err == ""


def test_closing_gives_the_signals_back():
    loop = SimulatedLoop()
    loop.on_signal(signal.SIGUSR1, lambda: None)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_stop_ends_run_after_the_turn(loop):
    rung = []
    loop.call_later(1.0, loop.stop)
    loop.call_later(1.0, rung.append, "same turn")
    loop.call_later(2.0, rung.append, "too late")
    loop.run()
    assert rung == ["same turn"]


# Timers by name


@pytest.fixture
def named():
    loop = SimulatedLoop()
    rung = []
    yield loop, Timers(loop), rung
    loop.close()


def test_a_name_rings_once_with_its_arguments(named):
    loop, timers, rung = named
    timers.start("a", 1.0, rung.append, "x")
    assert timers.active("a")
    loop.advance(5.0)
    assert rung == ["x"]
    assert not timers.active("a")


def test_a_name_started_again_replaces_what_it_was_to_run(named):
    loop, timers, rung = named
    timers.start("a", 1.0, rung.append, "old")
    timers.start("a", 2.0, rung.append, "new")
    timers.start("b", 1.0, rung.append, "b")
    loop.advance(5.0)
    assert rung == ["b", "new"]


def test_a_callback_may_start_its_own_name_again(named):
    loop, timers, rung = named

    def ring():
        rung.append(loop.time())
        if len(rung) < 3:
            timers.start("a", 1.0, ring)

    timers.start("a", 1.0, ring)
    loop.advance(10.0)
    assert len(rung) == 3


def test_cancelled_names_do_not_ring(named):
    loop, timers, rung = named
    for name in "abc":
        timers.start(name, 1.0, rung.append, name)
    timers.cancel("b")
    timers.cancel("never started")
    loop.advance(0.5)
    assert [timers.active(name) for name in "abc"] == [True, False, True]
    timers.cancel_all()
    loop.advance(5.0)
    assert rung == []


def test_a_time_that_stays_the_same_moves_nothing(named):
    loop, timers, rung = named
    when = loop.time() + 3.0
    timers.start_at("a", when, rung.append, "first")
    timers.start_at("a", when, rung.append, "second")
    loop.advance(2.9)
    assert rung == []
    loop.advance(0.2)
    assert rung == ["first"]
    timers.start_at("a", when, rung.append, "again")
    loop.advance(0.1)
    assert rung == ["first", "again"]


def test_another_time_or_none_replaces_it(named):
    loop, timers, rung = named
    timers.start_at("a", loop.time() + 3.0, rung.append, "late")
    timers.start_at("a", loop.time() + 1.0, rung.append, "early")
    timers.start_at("b", loop.time() + 1.0, rung.append, "never")
    timers.start_at("b", None, rung.append, "never")
    loop.advance(5.0)
    assert rung == ["early"]
