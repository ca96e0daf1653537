"""What each command of the VIM does (vim.md, "Commands").

Replaces the handlers of guestHttpSvr. Checked commands in, status and JSON members out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from guestmtce.core.agent.inventory import Host, Instance, PendingVote
from guestmtce.core.agent.rules import AgentRules
from guestmtce.core.agent.vim_commands import Action, Command, CommandError, Reason
from guestmtce.core.agent.vim_messages import services_members
from guestmtce.core.agent.vim_queue import Kind
from guestmtce.core.shared.vocabulary import POST_EVENTS, Event, Notification, Switch
from guestmtce.core.shared.vocabulary import Command as MtcCommand


class Answer(NamedTuple):
    """An answer's status and JSON members; a 204 has none."""

    status: int
    members: dict[str, Any]


_PASS = Answer(200, {"status": "pass"})
_GONE = Answer(204, {})


def execute(rules: AgentRules, command: Command, now: float) -> Answer:
    """Do what the VIM says; raises CommandError, and then nothing was changed."""
    rules.queue.vim_spoke(now)
    return _HANDLERS[command.action](rules, command, now)


def _host(rules: AgentRules, command: Command, now: float) -> Host:
    """Return the host that is meant; if mtcAgent has not named it yet, ask."""
    host = rules.inventory.hosts.get(command.uuid)
    if host is None:
        rules.ask_mtc_agent(now)
        raise CommandError(404, Reason.NOT_FOUND)
    return host


def _instance(rules: AgentRules, command: Command) -> Instance:
    instance = rules.inventory.instances.get(command.uuid)
    if instance is None:
        raise CommandError(404, Reason.NOT_FOUND)
    return instance


def _host_create(rules: AgentRules, command: Command, now: float) -> Answer:
    _host(rules, command, now)
    return _PASS


def _host_enable(rules: AgentRules, command: Command, now: float) -> Answer:
    rules.set_host_reporting(_host(rules, command, now), True)
    return _PASS


def _host_disable(rules: AgentRules, command: Command, now: float) -> Answer:
    rules.set_host_reporting(_host(rules, command, now), False)
    return _PASS


def _host_query(rules: AgentRules, command: Command, now: float) -> Answer:
    """Answer with the state; 404 until it is learned.

    Differs: the old agent said `disabled` then, and the VIM evacuated the host.
    """
    host = _host(rules, command, now)
    if host.reporting is None:
        raise CommandError(404, Reason.NOT_FOUND)
    state = Switch.of(host.reporting)
    return Answer(200, {"uuid": host.uuid, "hostname": host.hostname, "state": state})


def _host_delete(_rules: AgentRules, _command: Command, _now: float) -> Answer:
    """Only mtcAgent deletes hosts."""
    return _GONE


def _instance_create(rules: AgentRules, command: Command, now: float) -> Answer:
    host = rules.inventory.host_named(command.hostname)
    if host is None:
        # Differs: the old agent had deleted the instance from its present host by now.
        rules.ask_mtc_agent(now)
        raise CommandError(400, Reason.INVALID_DATA)
    instance = rules.inventory.instances.get(command.uuid)
    if instance is None:
        instance = rules.add_instance(command.uuid, host, False, now)
        rules.send_instance(MtcCommand.ADD_INST, instance)
    elif instance.host is not host:
        rules.move_instance(instance, host, False, now)
    else:
        instance.told_at = now
        rules.send_instance(MtcCommand.ADD_INST, instance)
    return _PASS


def _instance_set(rules: AgentRules, command: Command, now: float) -> Answer:
    host = rules.inventory.host_named(command.hostname)
    if host is None:
        rules.ask_mtc_agent(now)
        raise CommandError(404, Reason.NOT_FOUND)
    instance = rules.inventory.instances.get(command.uuid)
    if instance is None:
        instance = rules.add_instance(command.uuid, host, command.reporting, now)
        rules.send_instance(MtcCommand.ADD_INST, instance)
    elif instance.host is not host:
        rules.move_instance(instance, host, command.reporting, now)
    else:
        rules.set_reporting(instance, command.reporting, now)
        rules.send_instance(MtcCommand.MOD_INST, instance)
    return Answer(200, services_members(instance.facts()))


def _instance_query(rules: AgentRules, command: Command, _now: float) -> Answer:
    return Answer(200, services_members(_instance(rules, command).facts()))


def _instance_delete(rules: AgentRules, command: Command, _now: float) -> Answer:
    rules.delete_instance(_instance(rules, command))
    return _GONE


def _instance_vote(rules: AgentRules, command: Command, now: float) -> Answer:
    return _notification(rules, command, Notification.REVOCABLE, now)


def _instance_notify(rules: AgentRules, command: Command, now: float) -> Answer:
    return _notification(rules, command, Notification.IRREVOCABLE, now)


_SENT_AS = {
    Notification.REVOCABLE: MtcCommand.VOTE_INST,
    Notification.IRREVOCABLE: MtcCommand.NOTIFY_INST,
}


def _notification(
    rules: AgentRules, command: Command, notification: Notification, now: float
) -> Answer:
    """Pass a vote or notify on, and say how long the guest has.

    It supersedes an earlier one. A guest that does not heartbeat is not waited for; only what
    has happened already is told to it all the same (decision 6).
    """
    instance = _instance(rules, command)
    event = command.event
    if event is None:
        raise CommandError(400, Reason.INVALID_DATA)
    timeout = "0"
    instance.pending = None
    rules.queue.withdraw(instance.uuid, Kind.ACTION, reason="superseded")
    if instance.heartbeating:
        timeout = instance.timeouts.of(event, notification)
        instance.pending = PendingVote(event, notification, now + int(timeout))
    if instance.heartbeating or _tells_what_happened(event, notification):
        members = {"uuid": instance.uuid, "event": event}
        rules.port.send(instance.host, _SENT_AS[notification], members)
    members = {"uuid": instance.uuid, "hostname": command.hostname, "action": event}
    return Answer(200, {**members, "timeout": timeout})


def _tells_what_happened(event: Event, notification: Notification) -> bool:
    return notification is Notification.IRREVOCABLE and event in POST_EVENTS


_HANDLERS: dict[Action, Callable[[AgentRules, Command, float], Answer]] = {
    Action.HOST_CREATE: _host_create,
    Action.HOST_ENABLE: _host_enable,
    Action.HOST_DISABLE: _host_disable,
    Action.HOST_QUERY: _host_query,
    Action.HOST_DELETE: _host_delete,
    Action.INSTANCE_CREATE: _instance_create,
    Action.INSTANCE_SET: _instance_set,
    Action.INSTANCE_QUERY: _instance_query,
    Action.INSTANCE_DELETE: _instance_delete,
    Action.INSTANCE_VOTE: _instance_vote,
    Action.INSTANCE_NOTIFY: _instance_notify,
}
