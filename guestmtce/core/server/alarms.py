"""What an instance may make the VIM do: its losses and illnesses, limited.

The VIM takes each alarm as a new order to act, so a guest that gets lost or ill over and over
would have its VM rebooted over and over. At most one LOSS, and one ILLHEALTH per action, is
told in 10 s. One that comes too early is not swallowed: the latest is held, and told when the
10 s are over, if it is still true then (decisions 26 and 38). Who raised it withdraws it when
it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from guestmtce.core.server.machine import Port, TimerName
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.limits import Gap
from guestmtce.core.shared.vocabulary import Command, CorrectiveAction

GAP_SECS = 10.0


class Alarm(NamedTuple):
    """A LOSS, or an ILLHEALTH with the action that the guest wants.

    `why` is for people: how long it was silent, or what the guest says. It holds guest text.
    """

    command: Command
    action: CorrectiveAction | None
    why: str


class Alarms:
    """The alarms of one instance; `tell` is called for each that guestAgent shall hear of.

    One is held at most: a loss withdraws an illness, and who is lost can be ill only after an
    init, which withdraws the loss.
    """

    __slots__ = ("_gap", "_held", "_port", "_tell", "_worker")

    def __init__(self, worker: Worker, port: Port, tell: Callable[[Alarm], object]) -> None:
        self._worker = worker
        self._port = port
        self._tell = tell
        self._gap = Gap(GAP_SECS)
        self._held: Alarm | None = None

    def put(self, alarm: Alarm) -> None:
        """Tell it now, or hold it until the gap after the last one like it is over."""
        if self._gap.allows(self._worker.clock(), alarm[:2]):
            # It is newer than what is held: the guest's latest wish is the one that counts.
            self.withdraw()
            self._tell(alarm)
        else:
            self._hold(alarm)
            self._port.note("%s again: told in 10 s if it is still so", alarm.command.name)

    def withdraw(self) -> None:
        """The guest is neither lost nor ill any more: do not tell what is held."""
        if self._held is not None:
            self._held = None
            self._port.cancel_timer(TimerName.ALARM)

    def timer_rang(self) -> None:
        """Tell what was held long enough."""
        alarm = self._held
        if alarm is None:
            return
        if self._gap.allows(self._worker.clock(), alarm[:2]):
            self._held = None
            self._tell(alarm)
        else:
            self._hold(alarm)

    def _hold(self, alarm: Alarm) -> None:
        self._held = alarm
        due = self._gap.over_at(alarm[:2])
        self._port.start_timer(TimerName.ALARM, max(0.0, due - self._worker.clock()))
