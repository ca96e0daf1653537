"""What the tests of the sans-I/O core share: a fake clock, a recording port, a rig around them.

A test is a list of inputs, then `rig.out()`: the list of outputs that they caused, in order.
The port checks at each call what must hold at any time, so that every test of the state
machines is a test of that too: whole messages only, nothing to a closed channel, consecutive
sequence numbers, one question at a time about the heartbeat.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from guestmtce.core.server import connect, heartbeat, vote
from guestmtce.core.server.guest_protocol import MESSAGE_LIMIT
from guestmtce.core.server.heartbeat import HeartbeatState
from guestmtce.core.server.instance import Instance
from guestmtce.core.server.machine import Attempt, TimerName
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.history import Entry
from guestmtce.core.shared.mtc_message import Record
from guestmtce.core.shared.settings import ServerSettings
from guestmtce.core.shared.vocabulary import Command, Event, Notification

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
HOSTNAME = "compute-0"
INVOCATION_ID = 1804289383

RUNNING = Command.HEARTBEAT_RUNNING
STOPPED = Command.HEARTBEAT_STOPPED
LOSS = Command.HEARTBEAT_LOSS
ILLHEALTH = Command.HEARTBEAT_ILLHEALTH
VOTE_NOTIFY = Command.VOTE_NOTIFY

REVOCABLE = Notification.REVOCABLE
IRREVOCABLE = Notification.IRREVOCABLE

KEYS = {
    "init_ack": ["invocation_id"],
    "challenge": ["heartbeat_challenge"],
    "action_notify": ["invocation_id", "event_type", "notification_type", "timeout_ms"],
    "nack": ["invocation_id", "log_msg"],
}
HEADER = ["version", "revision", "msg_type", "sequence"]


def message(msg_type: str, **members: Any) -> dict[str, Any]:
    """Return a guest's message; a member given as `...` is left out."""
    whole = {"version": 3, "revision": 1, "msg_type": msg_type, "sequence": 29, **members}
    return {key: value for key, value in whole.items() if value is not ...}


def init(**changes: Any) -> dict[str, Any]:
    """Return the init of protocol.md's example, with changes."""
    members = {
        "invocation_id": INVOCATION_ID,
        "name": "vm-1",
        "heartbeat_interval_ms": 1000,
        "vote_secs": 9,
        "shutdown_notice_secs": 8,
        "suspend_notice_secs": 7,
        "resume_notice_secs": 14,
        "restart_secs": 301,
        "corrective_action": "reboot",
    }
    return message("init", **{**members, **changes})


def answer(number: int, health: str = "healthy", action: str = "none", **changes: Any) -> Any:
    """Return a challenge_response."""
    members = {
        "heartbeat_response": number,
        "heartbeat_health": health,
        "corrective_action": action,
        "log_msg": "",
    }
    return message("challenge_response", **{**members, **changes})


def action_response(
    event: str, notification: str, vote: str, log_msg: str = "", **changes: Any
) -> dict[str, Any]:
    """Return the answer to a vote or notify."""
    members = {
        "invocation_id": INVOCATION_ID,
        "event_type": event,
        "notification_type": notification,
        "vote_result": vote,
        "log_msg": log_msg,
    }
    return message("action_response", **{**members, **changes})


def leaving() -> dict[str, Any]:
    """Return an exit."""
    return message("exit", log_msg="bye")


def as_line(members: Any) -> bytes:
    """Return `members` as a guest writes them: newline, object, newline."""
    return b"\n" + json.dumps(members, separators=(",", ":")).encode() + b"\n"


class Clock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class Wall:
    """The wall clock: the seconds of `clock`, told from another beginning."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def now(self) -> float:
        return 1_700_000_000.0 + self._clock.now

    def __call__(self) -> float:
        return self.now


class RecordingPort:
    """The outputs of an instance's machines: recorded, and checked at each call."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.instance: Instance
        self.outputs: list[Any] = []
        self.sent: list[dict[str, Any]] = []
        self.reports: list[tuple[Command, dict[str, Any]]] = []
        self.report_times: list[float] = []
        self.whys: list[str] = []
        self.notes: list[str] = []
        self.bad: list[tuple[str, bytes]] = []
        self.timers: dict[TimerName, float] = {}
        # What a connect comes to.
        self.connects = Attempt.OPENED
        self.attempts: list[float] = []
        self.open = False
        self.reads = True
        # Whether the guest does not read.
        self.full = False
        self.forgotten = False
        self.droppable: list[bool] = []

    def send(self, data: bytes, *, droppable: bool = False) -> None:
        assert self.open, "sent to a closed channel"
        assert data[:1] == b"\n"
        assert data[-1:] == b"\n"
        line = data[1:-1]
        assert b"\n" not in line
        assert len(line) <= MESSAGE_LIMIT
        members = json.loads(line)
        assert json.dumps(members, separators=(",", ":")).encode() == line, "spaces, or not ASCII"
        assert list(members) == HEADER + KEYS[members["msg_type"]]
        assert members["version"] == 3
        assert members["revision"] == 1
        assert members["sequence"] == len(self.sent) + 1
        self.sent.append(members)
        self.droppable.append(droppable)
        self.outputs.append(members["msg_type"])

    def connect(self) -> Attempt:
        assert not self.open, "connects while it is connected"
        self.attempts.append(self.clock.now)
        self.outputs.append("connect")
        self.open = self.connects is Attempt.OPENED
        self.reads = True
        return self.connects

    def read(self, wanted: bool) -> None:
        assert self.open, "nothing to read from"
        self.reads = wanted

    def stuck(self) -> bool:
        return self.full

    def disconnect(self) -> None:
        self.reads = True
        self.open = False
        self.outputs.append("disconnect")

    def start_timer(self, name: TimerName, delay: float) -> None:
        assert delay >= 0
        assert not self.forgotten, "a timer outlives its instance"
        self.timers[name] = self.clock.now + delay

    def cancel_timer(self, name: TimerName) -> None:
        self.timers.pop(name, None)

    def report(self, command: Command, record: Record, why: str = "") -> None:
        assert not self.forgotten, "a report of a deleted instance"
        self.reports.append((command, record.members()))
        self.report_times.append(self.clock.now)
        self.whys.append(why)
        self.outputs.append(command)

    def forget(self) -> None:
        self.outputs.append("forget")
        self.instance.delete()
        self.forgotten = True

    def note(self, text: str, *args: object, why: bool = False) -> None:
        self.notes.append(text % args)

    def bad_message(self, reason: str, excerpt: bytes) -> None:
        assert isinstance(excerpt, bytes)
        self.bad.append((reason, excerpt))

    def stalled(self, late: float) -> None:
        self.outputs.append("stalled")


class Rig:
    """One instance's state machines with a recording port and a clock of their own."""

    def __init__(
        self,
        *,
        threshold: int = 1,
        reporting: bool = True,
        host: bool = True,
        port: type[RecordingPort] = RecordingPort,
    ) -> None:
        self.clock = Clock()
        self.wall = Wall(self.clock)
        self.entries: list[Entry] = []
        self.numbers = iter(range(100, 2**31))
        self.worker = Worker(
            HOSTNAME,
            clock=self.clock,
            random_number=lambda: next(self.numbers),
            settings=ServerSettings(2401, 2411, hbs_failure_threshold=threshold),
            wall=self.wall,
            on_entry=lambda _uuid, entry: self.entries.append(entry),
            reporting=host,
        )
        self.stats = self.worker.stats
        self.port = port(self.clock)
        self.instance = Instance(UUID, self.worker, self.port)
        self.port.instance = self.instance
        if reporting:
            self.instance.provision(True)

    def check(self) -> None:
        """Check what holds after each input: of each state the timer runs, and no other."""
        instance = self.instance
        due = {
            *heartbeat.TIMERS[instance.heartbeat.state],
            *connect.TIMERS[instance.connection.state],
            *vote.TIMERS[instance.vote.state],
        }
        if not instance.heartbeat.heartbeating:
            due.discard(TimerName.GRACE)
        if self.port.reads:
            due.discard(TimerName.READ)
        # Of no state: what came too early to be told.
        assert set(self.port.timers) - {TimerName.ALARM} == due
        assert instance.connection.connected == self.port.open
        assert instance.heartbeat.state is HeartbeatState.WAITING_INIT or self.port.open

    def set_threshold(self, threshold: int) -> None:
        """The configuration is read again, with another threshold."""
        settings = replace(self.worker.settings, hbs_failure_threshold=threshold)
        self.worker.settings = settings

    def out(self) -> list[Any]:
        """Return the outputs since the last call of this."""
        outputs, self.port.outputs = self.port.outputs, []
        return outputs

    def say(self, *messages: Any) -> None:
        """The guest says these."""
        for members in messages:
            self.instance.received(as_line(members))

    def connect(self) -> Rig:
        """The socket file appears, and connecting works."""
        self.instance.file_found()
        assert self.instance.connection.connected
        return self

    def answer(self, health: str = "healthy", action: str = "none", **changes: Any) -> None:
        """The guest answers the newest challenge."""
        self.say(answer(self.challenge, health, action, **changes))

    def beat(self, **changes: Any) -> Rig:
        """The guest inits and answers: it is heartbeating, and the outputs are forgotten."""
        if not self.instance.connection.connected:
            self.connect()
        self.say(init(**changes))
        self.answer()
        assert self.instance.heartbeat.heartbeating
        self.out()
        return self

    def beats(self, seconds: float) -> None:
        """The guest answers each challenge at once for so long."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            known = self.challenge
            self.advance(min(self.instance.heartbeat.interval, end - self.clock.now))
            if self.challenge != known:
                self.answer()

    @property
    def challenge(self) -> int:
        """The number of the newest challenge."""
        challenges = [m for m in self.port.sent if m["msg_type"] == "challenge"]
        number: int = challenges[-1]["heartbeat_challenge"]
        return number

    @property
    def last_sent(self) -> dict[str, Any]:
        return self.port.sent[-1]

    @property
    def last_report(self) -> dict[str, Any]:
        return self.port.reports[-1][1]

    def advance(self, seconds: float) -> None:
        """Let time go by; timers ring exactly at their time, in order."""
        end = self.clock.now + seconds
        while self.port.timers and min(self.port.timers.values()) <= end:
            self.clock.now = max(self.clock.now, min(self.port.timers.values()))
            self._ring_first()
        self.clock.now = end

    def stall(self, seconds: float) -> None:
        """Our process stands still so long; then the timers that came due ring, late."""
        self.clock.now += seconds
        while self.port.timers and min(self.port.timers.values()) <= self.clock.now:
            self._ring_first()

    def _ring_first(self) -> None:
        name = min(self.port.timers, key=lambda timer: self.port.timers[timer])
        when = self.port.timers.pop(name)
        self.instance.timer_rang(name, self.clock.now - when)

    def left(self, name: TimerName) -> float | None:
        """Return how long that timer still runs, None if it does not."""
        when = self.port.timers.get(name)
        return None if when is None else round(when - self.clock.now, 6)

    def vote(self, event: str) -> None:
        """GuestAgent asks for the guest's consent."""
        self.instance.ask(Event(event), REVOCABLE)

    def notify(self, event: str) -> None:
        """GuestAgent has the guest told."""
        self.instance.ask(Event(event), IRREVOCABLE)
