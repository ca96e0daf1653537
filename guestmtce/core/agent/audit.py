"""The audit: when each host is audited, what is asked, and what silence means (behaviour.md).

Replaces the audit part of guestAgent's main loop. What an answer means is in `agent_events`.
"""

from __future__ import annotations

import heapq

from guestmtce.core.agent.inventory import Host
from guestmtce.core.agent.rules import AgentRules
from guestmtce.core.agent.vim_queue import Kind
from guestmtce.core.shared.vocabulary import Command

START_SECS = 2.0
PERIOD_SECS = 10.0
MISSES_TO_WARN = 3
ABSENCES_TO_MEND = 2

# Multiples of the golden ratio's fraction fall evenly into a period, however many there are.
_GOLDEN = 0.6180339887498949


class Schedule:
    """When each host's turn comes: spread over the period, the first host's at its beginning."""

    def __init__(self, start: float) -> None:
        self._base = start + START_SECS
        self._turns: list[tuple[float, int, str]] = []
        self._numbers: dict[str, int] = {}
        self._count = 0

    def add(self, hostname: str, now: float) -> None:
        """Give a host its turns; the first one is the next that is not past."""
        if hostname in self._numbers:
            return
        number = self._count
        self._count += 1
        self._numbers[hostname] = number
        turn = self._base + PERIOD_SECS * (number * _GOLDEN % 1.0)
        if turn < now:
            turn += PERIOD_SECS * -((turn - now) // PERIOD_SECS)
        heapq.heappush(self._turns, (turn, number, hostname))

    def remove(self, hostname: str) -> None:
        """A host has gone."""
        self._numbers.pop(hostname, None)

    def next_at(self) -> float | None:
        """Return when the next turn is."""
        while self._turns and not self._is_current(self._turns[0]):
            heapq.heappop(self._turns)
        return self._turns[0][0] if self._turns else None

    def due(self, now: float) -> list[str]:
        """Return the hosts whose turn has come; turns that were slept through count once."""
        names = []
        while (turn := self.next_at()) is not None and turn <= now:
            _turn, number, hostname = heapq.heappop(self._turns)
            names.append(hostname)
            missed = (now - turn) // PERIOD_SECS
            heapq.heappush(self._turns, (turn + PERIOD_SECS * (missed + 1), number, hostname))
        return names

    def _is_current(self, entry: tuple[float, int, str]) -> bool:
        return self._numbers.get(entry[2]) == entry[1]


def audit(rules: AgentRules, host: Host, now: float) -> None:
    """One host's turn: judge the last one, ask what is not known, query its guestServer."""
    _judge_last(rules, host, now)
    if not host.runs_instances:
        return
    ask_vim(rules, host, now)
    rules.tell_host_reporting(host)
    _pay_owed(rules, host, now)
    query(rules, host)


def _pay_owed(rules: AgentRules, host: Host, now: float) -> None:
    """Tell what guests are now that changed too often to be told each time."""
    for instance in host.instances.values():
        if instance.service_owed:
            rules.report_service(instance, now)


def ask_vim(rules: AgentRules, host: Host, now: float) -> None:
    """Ask the VIM for what it has not said yet."""
    if host.reporting is None:
        rules.queue.put(rules.host_key(host), Kind.HOST_STATE, now, host.uuid)
    if not host.got_instances:
        rules.queue.put(rules.host_key(host), Kind.INSTANCES, now, host.uuid)


def query(rules: AgentRules, host: Host) -> None:
    """QRY_INST, if the host has instances and reports."""
    if not (host.instances and host.reporting):
        return
    host.queried, host.answered = True, False
    for instance in host.instances.values():
        instance.seen = False
    rules.port.send(host, Command.QRY_INST, {})


def query_later(rules: AgentRules, host: Host) -> None:
    """Query once the instances that have just been learned are told to the guestServer."""

    def step() -> None:
        if rules.inventory.hosts.get(host.uuid) is host:
            query(rules, host)

    rules.later(rules.host_key(host), step)


def note_answer(rules: AgentRules, host: Host) -> None:
    """The host answers: warn no longer."""
    if host.misses >= MISSES_TO_WARN:
        rules.port.warn("%s answers audits again, after %d misses", host.hostname, host.misses)
    host.answered = True
    host.misses = 0


def _judge_last(rules: AgentRules, host: Host, now: float) -> None:
    if host.queried and host.answered:
        _mend_absent(rules, host, now)
    elif host.queried:
        host.misses += 1
        if host.misses == MISSES_TO_WARN:
            rules.port.warn("%s has not answered %d audits", host.hostname, host.misses)
    host.queried = host.answered = False


def _mend_absent(rules: AgentRules, host: Host, now: float) -> None:
    """An instance that two answers in a row left out is not known there (decision 10)."""
    for instance in host.instances.values():
        instance.absences = 0 if instance.seen else instance.absences + 1
        if instance.absences >= ABSENCES_TO_MEND:
            instance.absences = 0
            rules.send_instance(Command.ADD_INST, instance)
            if instance.heartbeating:
                instance.heartbeating = False
                rules.report_service(instance, now)
