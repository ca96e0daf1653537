"""What guestAgent is told of one instance: RUNNING, STOPPED, LOSS and ILLHEALTH.

`heartbeat` finds out how the guest does. What of that is news to guestAgent, and whether it is
told, is decided here: RUNNING with the first healthy answer, and again when the terms change;
STOPPED when heartbeating ends; LOSS and ILLHEALTH only while both levels of reporting are on,
and no more often than `alarms` allows.
"""

from __future__ import annotations

from guestmtce.core.server.alarms import Alarm, Alarms
from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.server.machine import Port
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.mtc_message import InstanceInformation, Loss
from guestmtce.core.shared.vocabulary import Command, CorrectiveAction

_NO_ACTION = frozenset({CorrectiveAction.NONE, CorrectiveAction.UNKNOWN})


class Reports:
    """What guestAgent knows of one instance, by what it was told and by what it set.

    `terms` are those of the guest's last init, `reporting` is instance-level reporting.
    """

    __slots__ = ("_port", "_told_terms", "_worker", "alarms", "reporting", "terms", "uuid")

    def __init__(self, uuid: str, worker: Worker, port: Port) -> None:
        self.uuid = uuid
        self._worker = worker
        self._port = port
        self.terms = Terms()
        self.reporting = False
        # The terms in the last RUNNING; None after STOPPED, and before the first RUNNING.
        self._told_terms: Terms | None = None
        self.alarms = Alarms(worker, port, self._tell)

    @property
    def heartbeating(self) -> bool:
        """What guestAgent was told last: True after RUNNING, False after STOPPED."""
        return self._told_terms is not None

    def information(self, action: CorrectiveAction | None = None) -> InstanceInformation:
        """Return what guestAgent is told of the instance; `action` replaces the one from init."""
        return InstanceInformation(
            self._worker.hostname,
            self.uuid,
            self.reporting,
            self.heartbeating,
            action or self.terms.corrective_action,
            self.terms.timeouts,
            self.terms.name if self._worker.names_told() else "",
        )

    @property
    def loss(self) -> Loss:
        """What guestAgent is told with a LOSS."""
        return Loss(self._worker.hostname, self.uuid)

    @property
    def wants_faults(self) -> bool:
        """Whether reporting is on, of the host and of the instance."""
        return self._worker.reporting and self.reporting

    def running(self) -> None:
        """The guest heartbeats: RUNNING if that, or the terms, are news to guestAgent."""
        recovered = self._worker.illness_over(self.uuid)
        told, terms = self._told_terms, self.terms
        if told is terms and not recovered:
            return
        self._told_terms = terms
        # The interval is no business of guestAgent's.
        if told is None or recovered or told._replace(interval_ms=terms.interval_ms) != terms:
            self._port.report(Command.HEARTBEAT_RUNNING, self.information())

    def stopped(self, why: str) -> None:
        """The guest no longer heartbeats: STOPPED."""
        self._told_terms = None
        self._port.report(Command.HEARTBEAT_STOPPED, self.information(), why)

    def lost(self, why: str) -> None:
        """The guest is lost: LOSS; `why` says how silent it was."""
        if self.wants_faults:
            self.alarms.put(Alarm(Command.HEARTBEAT_LOSS, None, why))

    def ill(self, action: CorrectiveAction, reason: str) -> None:
        """The guest is ill: ILLHEALTH, if it names an action that it wants."""
        if action not in _NO_ACTION and self.wants_faults:
            self.alarms.put(Alarm(Command.HEARTBEAT_ILLHEALTH, action, reason))

    def withdraw_alarms(self) -> None:
        """Neither a loss nor an illness is true now: what was held is not told."""
        self.alarms.withdraw()

    def fate_of_a_loss(self) -> str:
        """Return whether a loss is reported, for people."""
        if self.wants_faults:
            return f"reported, action {self.terms.corrective_action}"
        # While that of the instance is off, no silence is a loss.
        return "not reported: reporting of the host is off"

    def _tell(self, alarm: Alarm) -> None:
        """Tell guestAgent of a loss or an illness that is true, and not too early."""
        if not self.wants_faults:
            return
        if alarm.action is None:
            self._port.report(alarm.command, self.loss, alarm.why)
        else:
            self._port.report(alarm.command, self.information(alarm.action), alarm.why)
