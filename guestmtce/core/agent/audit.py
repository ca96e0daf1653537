"""The audit: what a host is told and asked at its turn, and what silence means (behaviour.md).

Replaces the audit part of guestAgent's main loop. When a host's turn comes is `schedule`'s to
say; what an answer means is in `events`.
"""

from __future__ import annotations

from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import UNANSWERED_TO_WARN, Host, Instance, Round
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.shared.condition import Condition, Diagnosis
from guestmtce.core.shared.history import What
from guestmtce.core.shared.mtc_message import Query
from guestmtce.core.shared.stamp import Stamp
from guestmtce.core.shared.vocabulary import Command

# Audits that an instance may be absent from: of an old guestServer an answer may have been lost.
ABSENCES_TO_MEND = 2
OLD_ABSENCES_TO_MEND = 3
NOT_LISTED = "its guestServer does not know it any more"


def audit(agent: Agent, host: Host, now: float) -> None:
    """One host's turn: judge the last one, ask what is not known, query its guestServer.

    Nothing is done while this agent is not the active one.
    """
    if not agent.presence.active:
        return
    _judge_last(agent, host, now)
    if not host.runs_instances:
        return
    ask_vim(agent, host, now)
    if host.reporting_told.is_over(now):
        agent.tell_host_reporting(host, now)
    _pay_owed(agent, host, now)
    _end_asks(agent, host, now)
    query(agent, host)


def _pay_owed(agent: Agent, host: Host, now: float) -> None:
    """Send the `service` events that were put off because the guest changed too often."""
    for instance in host.instances.values():
        if instance.service_owed:
            agent.report_service(instance, now)


def _end_asks(agent: Agent, host: Host, now: float) -> None:
    """Note the votes and notifies whose time was over without an answer."""
    for instance in host.instances.values():
        if instance.pending is not None and now >= instance.pending.until:
            agent.end_ask(instance, "no answer in time")


def ask_vim(agent: Agent, host: Host, now: float) -> None:
    """Ask the VIM for the host's state and instances, as far as it has not said them yet."""
    if host.reporting is None:
        agent.queue.put(host.key, Kind.HOST_STATE, now, host.uuid)
    if not host.got_instances:
        agent.queue.put(host.key, Kind.INSTANCES, now, host.uuid)


def query(agent: Agent, host: Host) -> None:
    """QRY_INST, if the host has instances and reports."""
    if not (host.instances and host.reporting):
        return
    host.queried, host.answered = True, False
    for instance in host.instances.values():
        instance.seen = False
    number = agent.port.send(host, Command.QRY_INST, Query())
    host.round = None if number is None else Round(number)


def query_later(agent: Agent, host: Host) -> None:
    """Query once the instances that have just been learned are told to the guestServer."""

    def step() -> None:
        if agent.inventory.hosts.get(host.uuid) is host:
            query(agent, host)

    agent.bursts.put(host.key, step)


def note_answer(agent: Agent, host: Host) -> None:
    """Note that the host answers audits, and say so if it was warned of."""
    if host.silent:
        agent.port.warn(
            "%s answers audits again, after %d unanswered", host.hostname, host.unanswered_audits
        )
    host.answered = True
    host.unanswered_audits = 0


def count_answer(host: Host, stamp: Stamp, uuid: str | None) -> None:
    """Count an answer of the present round; `uuid` is None where there are no instances."""
    if host.round is not None and stamp.re == host.round.query:
        host.round.of = stamp.of
        if uuid is not None:
            host.round.uuids.add(uuid)


def _judge_last(agent: Agent, host: Host, now: float) -> None:
    if host.queried and host.answered:
        _judge_absent(agent, host, now)
    elif host.queried:
        host.unanswered_audits += 1
        if host.unanswered_audits == UNANSWERED_TO_WARN:
            agent.port.warn("%s has not answered %d audits", host.hostname, host.unanswered_audits)
    host.queried = host.answered = False


def _judge_absent(agent: Agent, host: Host, now: float) -> None:
    """An instance that several audits in a row left out is not known there (decision 10).

    A new guestServer says how many answers there are: without all of them nobody is absent.
    An old one does not, and is given an audit more (decision 28).
    """
    is_new = host.role is not None and host.role.peer_epoch is not None
    if is_new and (host.round is None or not host.round.complete):
        return
    limit = ABSENCES_TO_MEND if is_new else OLD_ABSENCES_TO_MEND
    for instance in host.instances.values():
        instance.absences = 0 if instance.seen else instance.absences + 1
        if instance.absences >= limit:
            _mend_absent(agent, instance, now)


def _mend_absent(agent: Agent, instance: Instance, now: float) -> None:
    instance.absences = 0
    agent.send_instance(Command.ADD_INST, instance)
    if instance.heartbeating:
        instance.heartbeating = False
        instance.diagnosis = Diagnosis(Condition.STOPPED, agent.wall(), NOT_LISTED)
        instance.history.add(What.RECEIVED, NOT_LISTED)
        agent.report_service(instance, now)
