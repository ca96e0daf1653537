"""The heartbeat of an instance: challenge, answer, miss, loss.

Replaces guestSvrFsm's heartbeat handlers. What the table below rests on:

Nothing is challenged before the guest's client says `init`, which names its interval, its
timeouts and the action that it wants if it is lost. Then we send a challenge, a random number,
and the guest answers with that number and its health before the interval is over. When it is
over the next challenge goes out: after an answer (`waiting_challenge`) as a matter of course,
without one (`waiting_response`) as a miss. More misses in a row than the threshold allows are
a loss: the guest's own promise is the window, the threshold is the tolerance, and an answer
that comes later still counts for nothing. A guest that is lost is challenged no more until it
says `init` again, which a live client does by itself when it hears no challenge.

*Heartbeating* begins with the first healthy answer and stands until the cycle ends; an unhealthy
answer proves life all the same. What guestAgent is told of it is in `reports`; what comes in
place of an answer is one of five silences (`silence`).

What depends on counters or settings becomes an input of its own in `tick` and `response`
before the look-up in `TABLE`.
"""

from __future__ import annotations

from collections import deque

from guestmtce.core.server.guest_protocol import ChallengeResponse, Exit, Init, Writer
from guestmtce.core.server.machine import Handler, Machine, Port, Row, Symbol, TimerName, belong
from guestmtce.core.server.memory import LATE, UNEXPECTED, WRONG, Memory
from guestmtce.core.server.reports import Reports
from guestmtce.core.server.silence import (
    PAUSED_GRACE_SECS,
    UNJUDGED_SECS,
    ChosenSilence,
    ExpectedSilence,
    grace_secs,
)
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.history import What
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Health

RECENT_CHALLENGES = 6


class HeartbeatState(Symbol):
    """Where the challenge cycle of an instance stands."""

    WAITING_INIT = "waiting_init"
    WAITING_RESPONSE = "waiting_response"
    WAITING_CHALLENGE = "waiting_challenge"


class Input(Symbol):
    """What can happen to a heartbeat, guards already decided."""

    INIT = "init"
    HEALTHY = "healthy response"
    UNHEALTHY = "unhealthy response"
    LATE = "response to an earlier challenge"
    WRONG = "response to no challenge"
    INTERVAL_OVER = "interval over"
    STALLED = "interval over, noticed late"
    UNREAD = "interval over, not all of it read"
    MISS = "interval over, within the threshold"
    LOSS = "interval over, beyond the threshold"
    EXPECTED_SILENCE = "interval over, beyond the threshold, silence expected"
    UNREPORTED_SILENCE = "interval over, reporting off"
    EXIT = "exit"
    DISCONNECTED = "disconnected"
    REPORTING_OFF = "reporting off"
    REPORTING_ON = "reporting on again"
    PAUSED = "pause ended"
    SUSPENDED = "suspend ended"
    RESUMED = "post-event notification"
    GRACE_OVER = "grace over"
    DELETED = "instance deleted"


class Heartbeat(Machine[HeartbeatState]):
    """How the guest does, by what it asked for and by what guestAgent set (both: `reports`).

    `initialized` says that an init came on this connection. `misses` are those in a row,
    `failures` all losses. `silence`: after pause and suspend the guest's silence is no fault.
    `ill` says that its last answer was unhealthy, and `reason` what the guest gave as the
    reason, of that or of its exit; `heard_at` is when it last answered, or said init (seconds
    of the worker's clock, -inf: never). `unread` is what we chose not to read of it.
    `memory` is for people: nothing here depends on it.
    """

    __slots__ = (
        "_challenge_sent_at",
        "challenges",
        "failures",
        "heard_at",
        "ill",
        "initialized",
        "memory",
        "misses",
        "reason",
        "reports",
        "silence",
        "unread",
        "writer",
    )

    def __init__(
        self, worker: Worker, port: Port, reports: Reports, writer: Writer, memory: Memory
    ) -> None:
        super().__init__(HeartbeatState.WAITING_INIT, TABLE, worker, port)
        self.reports = reports
        self.writer = writer
        self.memory = memory
        self.initialized = False
        self.silence = ExpectedSilence()
        self.misses = 0
        self.failures = 0
        self.challenges: deque[int] = deque(maxlen=RECENT_CHALLENGES)
        self._challenge_sent_at = 0.0
        self.ill = False
        self.reason = ""
        self.heard_at = float("-inf")
        self.unread = ChosenSilence()

    @property
    def heartbeating(self) -> bool:
        """Whether the guest has answered, and has not been lost, stopped or exited since."""
        return self.reports.heartbeating

    @property
    def interval(self) -> float:
        """The heartbeat interval in seconds."""
        return self.reports.terms.interval_ms / 1000

    def tick(self, late: float) -> None:
        """The interval timer rang, `late` seconds after its time."""
        self.worker.stats.on_lateness(late)
        self.step(self._classify_tick(late), late)

    def _classify_tick(self, late: float) -> Input:
        if late > self.interval / 2:
            return Input.STALLED
        if self.state is not HeartbeatState.WAITING_RESPONSE:
            return Input.INTERVAL_OVER
        if self.unread.may_hide_answer(self.worker.clock()):
            return Input.UNREAD
        if not self.reports.reporting:
            return Input.UNREPORTED_SILENCE
        if self.misses < self.worker.settings.hbs_failure_threshold:
            return Input.MISS
        return Input.EXPECTED_SILENCE if self.silence.expected else Input.LOSS

    def response(self, message: ChallengeResponse) -> bool:
        """Judge an answer to a challenge; True if it answered the newest one in time."""
        if self.state is not HeartbeatState.WAITING_RESPONSE:
            self.worker.stats.unexpected_responses += 1
            self.memory.message(UNEXPECTED)
            return False
        if message.number == self.challenges[-1]:
            healthy = message.health is Health.HEALTHY
            now = self.worker.clock()
            secs = now - self._challenge_sent_at
            self.worker.stats.on_response(secs)
            self.memory.answered(now, secs, healthy)
            self.step(Input.HEALTHY if healthy else Input.UNHEALTHY, message)
            return True
        late = message.number in self.challenges
        self.memory.message(LATE if late else WRONG)
        self.step(Input.LATE if late else Input.WRONG, message)
        return False

    def set_reporting(self, reporting: bool) -> None:
        """Set instance-level reporting; the present value again changes nothing."""
        if self.reports.reporting == reporting:
            return
        self.reports.reporting = reporting
        self.memory.add(What.REPORTING, "on" if reporting else "off")
        self.step(Input.REPORTING_ON if reporting else Input.REPORTING_OFF)

    def _challenge(self, _argument: object = None) -> None:
        """Send a new challenge; the interval runs from it."""
        number = self.worker.random_number()
        self.challenges.append(number)
        self._challenge_sent_at = now = self.worker.clock()
        self.memory.challenged(now)
        self.port.send(self.writer.challenge(number), droppable=True)
        self.port.start_timer(TimerName.TICK, self.interval)

    def _start_over(self, init: Init) -> None:
        """Take the guest's terms, acknowledge, and challenge at once."""
        interval_ms = max(init.terms.interval_ms, self.worker.settings.hbs_pulse_period_ms)
        self.reports.terms = terms = init.terms._replace(interval_ms=interval_ms)
        self.initialized = True
        self.misses = 0
        self.heard_at = self.worker.clock()
        self.unread.judged()
        self._forget_alarms()
        self.writer.invocation_id = init.invocation_id
        name = terms.name or "no name"
        self.memory.add(
            What.INIT, f"{name}, each {interval_ms} ms, action {terms.corrective_action}"
        )
        self.memory.message("> init_ack")
        self.port.send(self.writer.init_ack())
        self._challenge()

    def _alive(self) -> None:
        """The newest challenge was answered."""
        now = self.worker.clock()
        self.heard_at = now
        self.misses = 0
        self.unread.judged()
        if self.silence.expected:
            self.silence.answered(now)

    def _beat(self, _message: ChallengeResponse) -> None:
        """A healthy answer: heartbeating."""
        self._alive()
        self.worker.stats.heartbeats += 1
        if self.ill:
            self._forget_alarms()
            self.reason = ""
            self.memory.add(What.WELL)
        if not self.reports.heartbeating:
            self.memory.add(What.HEARTBEATING)
        self.reports.running()

    def _fall_ill(self, message: ChallengeResponse) -> None:
        """An unhealthy answer: the guest is alive, and may name an action that it wants."""
        self._alive()
        self.worker.stats.unhealthy += 1
        action = message.corrective_action
        self.reason = message.log_msg or self.reason
        if not self.ill:
            self.memory.add(What.ILL, f"{self.reason or 'no reason given'}, action {action}")
        self.ill = True
        if not message.health_known:
            self.port.note("an unknown health word from the guest; taken as unhealthy")
        self.reports.ill(action, self.reason)

    def _forget_alarms(self) -> None:
        """Take the guest for neither lost nor ill: its next answers say what it is."""
        self.ill = False
        self.reports.withdraw_alarms()

    def _count_late(self, _message: ChallengeResponse) -> None:
        """Count an answer to an earlier challenge. It does not undo the miss."""
        self.worker.stats.late_responses += 1

    def _count_wrong(self, _message: ChallengeResponse) -> None:
        self.worker.stats.wrong_responses += 1

    def _forgive(self, late: float) -> None:
        """Our process or host was stopped or starved: the silence is ours, ask again."""
        self.worker.stats.host_stalls += 1
        self.silence.unanswered()
        self.port.stalled(late)
        self._challenge()

    def _excuse(self, _argument: object) -> None:
        """We chose not to read all that the guest said: its answer may be in what is left."""
        self.silence.unanswered()
        if self.unread.excuse(self.worker.clock()):
            silent = f"says too much to be heard: no answer was found for {UNJUDGED_SECS:.0f} s"
            self.memory.add(What.REFUSED, f"{silent}; it is not lost while that goes on")
            self.port.note("%s; it is not lost while that goes on", silent, why=True)
        self._challenge()

    def _miss(self, _argument: object) -> None:
        self._count_miss()
        most = self.worker.settings.hbs_failure_threshold + 1
        before = self.memory.last_good() if self.misses == 1 else ""
        self.memory.add(What.MISS, f"{self.misses} of {most}{before}")
        self.port.note("miss %d of %d", self.misses, most)
        self._challenge()

    def _count_miss(self) -> None:
        self.misses += 1
        self.worker.stats.misses += 1
        self.silence.unanswered()
        self.unread.judged()

    def _lose(self, _argument: object) -> None:
        """Loss: STOPPED if it was heartbeating (decision 14), then LOSS if both levels report."""
        self._count_miss()
        self.failures += 1
        self.worker.stats.losses += 1
        why = self._how_silent()
        self._end_beats(why="lost")
        self.memory.add(What.LOSS, f"{why}; {self.reports.fate_of_a_loss()}")
        self.port.note("lost; the last messages: %s", self.memory.last_messages(), why=True)
        self.reports.lost(why)

    def _how_silent(self) -> str:
        """Return what came in place of a good answer, for how long, and what it had said before."""
        silence = "it does not read its channel" if self.port.stuck() else self.memory.silence()
        why = f"{silence} for {self.worker.clock() - self.heard_at:.1f} s, {self.misses} misses"
        return f"{why}; it had said: {self.reason}" if self.reason else why

    def _fall_silent(self, _argument: object) -> None:
        """Silence beyond the threshold that was expected is no loss (decision 7)."""
        self._count_miss()
        self._stop(why="silent as expected")

    def _stop(self, why: str) -> None:
        """Into waiting_init: no challenges; STOPPED if it was heartbeating."""
        if self.heartbeating:
            self.memory.add(What.STOPPED, why)
        self._end_beats(why)

    def _end_beats(self, why: str) -> None:
        self.silence.unanswered()
        self.unread.judged()
        self._forget_alarms()
        if self.heartbeating:
            self.port.cancel_timer(TimerName.GRACE)
            self.reports.stopped(why)

    def _stop_unreported(self, _argument: object) -> None:
        """Silence of a guest that is not reported is no loss (decision 7)."""
        self._stop(why="silent, and not reported: reporting of the instance is off")

    def _stop_reporting(self, _argument: object) -> None:
        self._stop(why="reporting of the instance is switched off")

    def _stay_away(self, _argument: object) -> None:
        """The grace is over: it has not come back from what its silence was expected for."""
        self._stop(why="it has not come back")

    def _leave(self, message: Exit) -> None:
        self.initialized = False
        self.reason = message.log_msg
        self.memory.add(What.EXIT, message.log_msg)
        self.port.note("the guest's client exits: %s", printable(message.log_msg))
        self._stop(why="its client exits")

    def _disconnect(self, _argument: object) -> None:
        """The channel is gone: STOPPED at once, and no LOSS; that fault is the VIM's to know."""
        self.initialized = False
        self._stop(why="its channel closed")

    def _expect_silence(self) -> None:
        self.silence.begin()
        self.memory.add(What.HELD)
        self._forget_alarms()

    def _pause(self, _argument: object) -> None:
        """A paused guest must not be lost; its heartbeating may stand for a while (decision 7)."""
        self._expect_silence()
        if self.heartbeating:
            self.port.start_timer(TimerName.GRACE, PAUSED_GRACE_SECS)

    def _suspend(self, _argument: object) -> None:
        self._expect_silence()
        self._stop(why="suspended")

    def _resume(self, _argument: object) -> None:
        """A post-event notification ends the expected silence; old misses are forgotten.

        So does reporting that is switched on again: it is off while the VIM acts (decision 37).
        A guest that still counts as heartbeating has the grace period to say init.
        """
        if not self.silence.expected:
            return  # the grace that runs, runs on: repeats must not stretch it
        self.silence.expected = False
        self.misses = 0
        if self.state is HeartbeatState.WAITING_INIT and self.heartbeating:
            self.port.start_timer(TimerName.GRACE, grace_secs(self.interval))

    def _end(self, _argument: object) -> None:
        """Deleted: nothing more is told."""
        self._forget_alarms()
        self.port.cancel_timer(TimerName.GRACE)


_INIT = HeartbeatState.WAITING_INIT
_RESPONSE = HeartbeatState.WAITING_RESPONSE
_CHALLENGE = HeartbeatState.WAITING_CHALLENGE

TIMERS = {
    _INIT: (TimerName.GRACE,),
    _RESPONSE: (TimerName.TICK,),
    _CHALLENGE: (TimerName.TICK,),
}

# What ends the cycle from wherever it stands.
_ENDS: dict[Input, Handler] = {
    Input.EXIT: Heartbeat._leave,
    Input.DISCONNECTED: Heartbeat._disconnect,
    Input.REPORTING_OFF: Heartbeat._stop_reporting,
    Input.PAUSED: Heartbeat._pause,
    Input.SUSPENDED: Heartbeat._suspend,
    Input.DELETED: Heartbeat._end,
}

TABLE = belong(
    {
        (_INIT, Input.INIT): Row(_RESPONSE, Heartbeat._start_over),
        (_INIT, Input.GRACE_OVER): Row(_INIT, Heartbeat._stay_away),
        (_RESPONSE, Input.INIT): Row(_RESPONSE, Heartbeat._start_over),
        (_RESPONSE, Input.HEALTHY): Row(_CHALLENGE, Heartbeat._beat),
        (_RESPONSE, Input.UNHEALTHY): Row(_CHALLENGE, Heartbeat._fall_ill),
        (_RESPONSE, Input.LATE): Row(_RESPONSE, Heartbeat._count_late),
        (_RESPONSE, Input.WRONG): Row(_RESPONSE, Heartbeat._count_wrong),
        (_RESPONSE, Input.STALLED): Row(_RESPONSE, Heartbeat._forgive),
        (_RESPONSE, Input.UNREAD): Row(_RESPONSE, Heartbeat._excuse),
        (_RESPONSE, Input.MISS): Row(_RESPONSE, Heartbeat._miss),
        (_RESPONSE, Input.LOSS): Row(_INIT, Heartbeat._lose),
        (_RESPONSE, Input.EXPECTED_SILENCE): Row(_INIT, Heartbeat._fall_silent),
        (_RESPONSE, Input.UNREPORTED_SILENCE): Row(_INIT, Heartbeat._stop_unreported),
        (_CHALLENGE, Input.INIT): Row(_RESPONSE, Heartbeat._start_over),
        (_CHALLENGE, Input.INTERVAL_OVER): Row(_RESPONSE, Heartbeat._challenge),
        (_CHALLENGE, Input.STALLED): Row(_RESPONSE, Heartbeat._forgive),
        **{(state, end): Row(_INIT, _ENDS[end]) for state in HeartbeatState for end in _ENDS},
        **{(state, Input.RESUMED): Row(state, Heartbeat._resume) for state in HeartbeatState},
        **{(state, Input.REPORTING_ON): Row(state, Heartbeat._resume) for state in HeartbeatState},
    },
    TIMERS,
)

_ANSWERS = (Input.HEALTHY, Input.UNHEALTHY, Input.LATE, Input.WRONG)
_SILENCES = (Input.UNREAD, Input.MISS, Input.LOSS, Input.EXPECTED_SILENCE, Input.UNREPORTED_SILENCE)

# What means nothing in a state: before an init there is no challenge to answer or to miss,
# after an answer there is none to answer again, and grace is for waiting_init alone.
IGNORED = frozenset(
    {
        *((_INIT, event) for event in _ANSWERS + _SILENCES),
        (_INIT, Input.INTERVAL_OVER),
        (_INIT, Input.STALLED),
        (_RESPONSE, Input.INTERVAL_OVER),
        (_RESPONSE, Input.GRACE_OVER),
        *((_CHALLENGE, event) for event in _ANSWERS + _SILENCES),
        (_CHALLENGE, Input.GRACE_OVER),
    }
)
