"""The heartbeat of an instance: challenge, response, miss, loss (behaviour.md).

Replaces guestSvrFsm's heartbeat handlers. `TABLE` is the state machine; what depends on
counters or settings becomes an input of its own in `tick` and `response` before the look-up.
"""

from __future__ import annotations

from enum import Enum

from guestmtce.core.server import guest_protocol
from guestmtce.core.server.guest_protocol import ChallengeResponse, Exit, Init
from guestmtce.core.server.machine import HeartbeatState, Machine, Row, TimerName
from guestmtce.core.shared.vocabulary import Command, CorrectiveAction, Health

GRACE_SECS = 10.0
GRACE_INTERVALS = 3
SILENCE_GRACE_SECS = 60.0
ANSWERED_SECS = 60.0
ILLHEALTH_PERIOD_SECS = 10.0
_NO_ACTION = frozenset({CorrectiveAction.NONE, CorrectiveAction.UNKNOWN})


class Input(Enum):
    """What can happen to a heartbeat, guards already decided."""

    INIT = "init"
    HEALTHY = "healthy response"
    UNHEALTHY = "unhealthy response"
    LATE = "response to an earlier challenge"
    WRONG = "response to no challenge"
    INTERVAL_OVER = "interval over"
    STALLED = "interval over, noticed late"
    MISS = "interval over, within the threshold"
    LOSS = "interval over, beyond the threshold"
    EXPECTED_SILENCE = "interval over, beyond the threshold, silence expected"
    UNREPORTED_SILENCE = "interval over, reporting off or failed"
    EXIT = "exit"
    DISCONNECTED = "disconnected"
    REPORTING_OFF = "reporting off"
    PAUSED = "pause ended"
    SUSPENDED = "suspend ended"
    RESUMED = "post-event notification"
    GRACE_OVER = "grace over"


def step(m: Machine, event: Input, argument: object = None) -> None:
    """Apply one input; an input without a row in this state is ignored (see IGNORED)."""
    row = TABLE.get((m.heartbeat_state, event))
    if row is not None:
        m.heartbeat_state = row.next_state
        row.handler(m, argument)


def tick(m: Machine, late: float) -> None:
    """The interval timer rang, `late` seconds after its time."""
    m.worker.stats.on_lateness(late)
    step(m, _classify_tick(m, late), late)


def _classify_tick(m: Machine, late: float) -> Input:
    if late > m.instance.interval / 2:
        return Input.STALLED
    if m.heartbeat_state is not HeartbeatState.WAITING_RESPONSE:
        return Input.INTERVAL_OVER
    if not m.instance.reporting or m.instance.failed:
        return Input.UNREPORTED_SILENCE
    if m.instance.misses < m.worker.failure_threshold:
        return Input.MISS
    return Input.EXPECTED_SILENCE if m.expecting_silence else Input.LOSS


def response(m: Machine, message: ChallengeResponse) -> bool:
    """Judge an answer to a challenge; True if it answered the newest one in time."""
    if m.heartbeat_state is not HeartbeatState.WAITING_RESPONSE:
        m.worker.stats.unexpected_responses += 1
        return False
    challenges = m.instance.challenges
    if message.number == challenges[-1]:
        healthy = message.health is Health.HEALTHY
        step(m, Input.HEALTHY if healthy else Input.UNHEALTHY, message)
        return True
    step(m, Input.LATE if message.number in challenges else Input.WRONG, message)
    return False


def _challenge(m: Machine, _argument: object = None) -> None:
    """Send a new challenge; the interval runs from it."""
    instance = m.instance
    number = m.worker.random_number()
    instance.challenges.append(number)
    instance.challenge_sent_at = m.worker.clock()
    m.port.send(guest_protocol.encode_challenge(m.next_sequence(), number), droppable=True)
    m.port.start_timer(TimerName.TICK, instance.interval)


def _start_over(m: Machine, init: Init) -> None:
    """Take the guest's terms, acknowledge, and challenge at once."""
    instance = m.instance
    interval_ms = max(init.terms.interval_ms, m.worker.pulse_period_ms)
    instance.terms = init.terms._replace(interval_ms=interval_ms)
    instance.invocation_id = init.invocation_id
    instance.initialized = True
    instance.misses = 0
    instance.failed = False
    m.port.cancel_timer(TimerName.GRACE)
    m.port.send(guest_protocol.encode_init_ack(m.next_sequence(), init.invocation_id))
    _challenge(m)


def _alive(m: Machine) -> None:
    """The newest challenge was answered."""
    instance = m.instance
    now = m.worker.clock()
    m.worker.stats.on_response(now - instance.challenge_sent_at)
    instance.misses = 0
    instance.failed = False
    if m.expecting_silence:
        if m.answered_since is None:
            m.answered_since = now
        elif now - m.answered_since >= ANSWERED_SECS:
            m.expecting_silence = False


def _beat(m: Machine, _message: ChallengeResponse) -> None:
    """A healthy answer: heartbeating. RUNNING if that, or the terms, are news to the agent."""
    _alive(m)
    m.worker.stats.heartbeats += 1
    instance = m.instance
    if instance.heartbeating and m.reported_terms is instance.terms:
        return
    news = not instance.heartbeating or _differ(m.reported_terms, instance.terms)
    instance.heartbeating = True
    m.reported_terms = instance.terms
    if news:
        m.report_information(Command.HEARTBEAT_RUNNING)


def _differ(told: guest_protocol.Terms | None, terms: guest_protocol.Terms) -> bool:
    """True if name, timeouts or action differ; the interval is no business of the agent's."""
    return told is None or told._replace(interval_ms=terms.interval_ms) != terms


def _fall_ill(m: Machine, message: ChallengeResponse) -> None:
    """An unhealthy answer: the guest is alive, and may name an action that it wants.

    Each report is a new order to the VIM, so an action is passed on once in 10 s (decision 8).
    """
    _alive(m)
    instance = m.instance
    m.worker.stats.unhealthy += 1
    action = message.corrective_action
    if not message.health_known:
        m.port.note("an unknown health word from the guest; taken as unhealthy")
    if action in _NO_ACTION or not (m.worker.reporting and instance.reporting):
        return
    now = m.worker.clock()
    if now - instance.corrective_actions_sent.get(action, float("-inf")) < ILLHEALTH_PERIOD_SECS:
        return
    instance.corrective_actions_sent[action] = now
    members = instance.information(m.worker.hostname, action)
    m.port.report(Command.HEARTBEAT_ILLHEALTH, members)


def _count_late(m: Machine, _message: ChallengeResponse) -> None:
    """The window is the guest's own promise, and the threshold is its tolerance: no answer."""
    m.worker.stats.late_responses += 1


def _count_wrong(m: Machine, _message: ChallengeResponse) -> None:
    m.worker.stats.wrong_responses += 1


def _forgive(m: Machine, late: float) -> None:
    """Our process or host was stopped or starved: the silence is ours, ask again."""
    m.worker.stats.host_stalls += 1
    m.answered_since = None
    m.port.stalled(late)
    _challenge(m)


def _miss(m: Machine, _argument: object) -> None:
    _count_miss(m)
    m.port.note("miss %d of %d", m.instance.misses, m.worker.failure_threshold + 1)
    _challenge(m)


def _count_miss(m: Machine) -> None:
    m.instance.misses += 1
    m.worker.stats.misses += 1
    m.answered_since = None


def _lose(m: Machine, _argument: object) -> None:
    """Loss: STOPPED if it was heartbeating (decision 14), then LOSS if both levels report."""
    _count_miss(m)
    instance = m.instance
    instance.failed = True
    instance.failures += 1
    m.worker.stats.losses += 1
    _stop(m)
    if m.worker.reporting and instance.reporting:
        m.report_loss()


def _fall_silent(m: Machine, _argument: object) -> None:
    """Silence beyond the threshold that was expected is no loss (decision 7)."""
    _count_miss(m)
    _stop(m)


def _stop(m: Machine, _argument: object = None) -> None:
    """Into waiting_init: no challenges; STOPPED if it was heartbeating."""
    m.port.cancel_timer(TimerName.TICK)
    m.port.cancel_timer(TimerName.GRACE)
    m.answered_since = None
    if m.instance.heartbeating:
        m.instance.heartbeating = False
        m.reported_terms = None
        m.report_information(Command.HEARTBEAT_STOPPED)


def _leave(m: Machine, message: Exit) -> None:
    m.instance.initialized = False
    m.port.note("the guest's client exits")
    _stop(m, message)


def _disconnect(m: Machine, _argument: object) -> None:
    """The channel is gone: STOPPED at once, and no LOSS; that fault is the VIM's to know."""
    m.instance.initialized = False
    _stop(m)


def _expect_silence(m: Machine) -> None:
    m.expecting_silence = True
    m.answered_since = None
    m.instance.misses = 0


def _pause(m: Machine, _argument: object) -> None:
    """A paused guest must not be lost; its heartbeating may stand for a while (decision 7)."""
    _expect_silence(m)
    m.port.cancel_timer(TimerName.TICK)
    if m.instance.heartbeating:
        m.port.start_timer(TimerName.GRACE, SILENCE_GRACE_SECS)


def _suspend(m: Machine, _argument: object) -> None:
    _expect_silence(m)
    _stop(m)


def _resume(m: Machine, _argument: object) -> None:
    """What was expected is over: old misses say nothing; the guest has a while to come back."""
    if not m.expecting_silence:
        return  # the grace that runs, runs on: repeats must not stretch it
    m.expecting_silence = False
    m.instance.misses = 0
    if m.heartbeat_state is HeartbeatState.WAITING_INIT and m.instance.heartbeating:
        grace = max(GRACE_SECS, GRACE_INTERVALS * m.instance.interval)
        m.port.start_timer(TimerName.GRACE, grace)


_INIT = HeartbeatState.WAITING_INIT
_RESPONSE = HeartbeatState.WAITING_RESPONSE
_CHALLENGE = HeartbeatState.WAITING_CHALLENGE

TABLE: dict[tuple[HeartbeatState, Input], Row[HeartbeatState]] = {
    (_INIT, Input.INIT): Row(_RESPONSE, _start_over),
    (_INIT, Input.EXIT): Row(_INIT, _leave),
    (_INIT, Input.DISCONNECTED): Row(_INIT, _disconnect),
    (_INIT, Input.REPORTING_OFF): Row(_INIT, _stop),
    (_INIT, Input.PAUSED): Row(_INIT, _pause),
    (_INIT, Input.SUSPENDED): Row(_INIT, _suspend),
    (_INIT, Input.RESUMED): Row(_INIT, _resume),
    (_INIT, Input.GRACE_OVER): Row(_INIT, _stop),
    (_RESPONSE, Input.INIT): Row(_RESPONSE, _start_over),
    (_RESPONSE, Input.HEALTHY): Row(_CHALLENGE, _beat),
    (_RESPONSE, Input.UNHEALTHY): Row(_CHALLENGE, _fall_ill),
    (_RESPONSE, Input.LATE): Row(_RESPONSE, _count_late),
    (_RESPONSE, Input.WRONG): Row(_RESPONSE, _count_wrong),
    (_RESPONSE, Input.STALLED): Row(_RESPONSE, _forgive),
    (_RESPONSE, Input.MISS): Row(_RESPONSE, _miss),
    (_RESPONSE, Input.LOSS): Row(_INIT, _lose),
    (_RESPONSE, Input.EXPECTED_SILENCE): Row(_INIT, _fall_silent),
    (_RESPONSE, Input.UNREPORTED_SILENCE): Row(_INIT, _stop),
    (_RESPONSE, Input.EXIT): Row(_INIT, _leave),
    (_RESPONSE, Input.DISCONNECTED): Row(_INIT, _disconnect),
    (_RESPONSE, Input.REPORTING_OFF): Row(_INIT, _stop),
    (_RESPONSE, Input.PAUSED): Row(_INIT, _pause),
    (_RESPONSE, Input.SUSPENDED): Row(_INIT, _suspend),
    (_RESPONSE, Input.RESUMED): Row(_RESPONSE, _resume),
    (_CHALLENGE, Input.INIT): Row(_RESPONSE, _start_over),
    (_CHALLENGE, Input.INTERVAL_OVER): Row(_RESPONSE, _challenge),
    (_CHALLENGE, Input.STALLED): Row(_RESPONSE, _forgive),
    (_CHALLENGE, Input.EXIT): Row(_INIT, _leave),
    (_CHALLENGE, Input.DISCONNECTED): Row(_INIT, _disconnect),
    (_CHALLENGE, Input.REPORTING_OFF): Row(_INIT, _stop),
    (_CHALLENGE, Input.PAUSED): Row(_INIT, _pause),
    (_CHALLENGE, Input.SUSPENDED): Row(_INIT, _suspend),
    (_CHALLENGE, Input.RESUMED): Row(_CHALLENGE, _resume),
}

# What can come in a state and means nothing there: an answer after the cycle ended, a timer
# that rang in the turn in which it was cancelled.
IGNORED = frozenset(
    {(_INIT, event) for event in Input if (_INIT, event) not in TABLE}
    | {(_RESPONSE, Input.INTERVAL_OVER), (_RESPONSE, Input.GRACE_OVER)}
    | {
        (_CHALLENGE, event)
        for event in (
            Input.HEALTHY,
            Input.UNHEALTHY,
            Input.LATE,
            Input.WRONG,
            Input.MISS,
            Input.LOSS,
            Input.EXPECTED_SILENCE,
            Input.UNREPORTED_SILENCE,
            Input.GRACE_OVER,
        )
    }
)
