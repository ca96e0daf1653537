"""What each command of the VIM does (http-api.md, "Commands").

Replaces the handlers of guestHttpSvr. Checked commands in, status and JSON members out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Host, Instance, PendingAsk
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.vim_commands import CommandError, Operation, Reason, VimCommand
from guestmtce.core.agent.vim_messages import ask_members, host_members, services_members
from guestmtce.core.shared.history import What
from guestmtce.core.shared.mtc_message import Ask
from guestmtce.core.shared.vocabulary import POST_EVENTS, Command, Event, Notification

# How long what has happened to a guest is worth telling it, when the VIM does not wait for it.
POST_EVENT_SECS = 60.0


class CommandAnswer(NamedTuple):
    """An answer's status and JSON members; a 204 has none."""

    status: int
    members: dict[str, object]


_PASS = CommandAnswer(200, {"status": "pass"})
_GONE = CommandAnswer(204, {})


def execute(agent: Agent, command: VimCommand, now: float) -> CommandAnswer:
    """Do what the VIM says; raises CommandError, and then nothing was changed.

    An agent that is not the active one does nothing (decision 32).
    """
    if not agent.presence.active:
        raise CommandError(503, Reason.NO_BUFFER, "not the active guestAgent")
    agent.queue.vim_spoke(now)
    return _HANDLERS[command.operation](agent, command, now)


def _host(agent: Agent, command: VimCommand, now: float) -> Host:
    """Return the host that is meant; if mtcAgent has not named it yet, ask."""
    host = agent.inventory.hosts.get(command.uuid)
    if host is None:
        agent.ask_mtc_agent(now)
        raise CommandError(404, Reason.NOT_FOUND, f"unknown host {command.uuid}")
    return host


def _instance(agent: Agent, command: VimCommand) -> Instance:
    instance = agent.inventory.instances.get(command.uuid)
    if instance is None:
        raise CommandError(404, Reason.NOT_FOUND, f"unknown instance {command.uuid}")
    return instance


def _host_create(agent: Agent, command: VimCommand, now: float) -> CommandAnswer:
    _host(agent, command, now)
    return _PASS


def _host_set(reporting: bool, agent: Agent, command: VimCommand, now: float) -> CommandAnswer:
    agent.set_host_reporting(_host(agent, command, now), reporting, now)
    return _PASS


def _host_query(agent: Agent, command: VimCommand, now: float) -> CommandAnswer:
    """Answer with the state; 404 until it is learned.

    Differs: the old agent said `disabled` then, and the VIM evacuated the host.
    """
    host = _host(agent, command, now)
    if host.reporting is None:
        detail = f"the VIM has not said yet whether {host.hostname} is enabled"
        raise CommandError(404, Reason.NOT_FOUND, detail)
    return CommandAnswer(200, host_members(host.uuid, host.hostname, host.reporting))


def _host_delete(_agent: Agent, _command: VimCommand, _now: float) -> CommandAnswer:
    """Only mtcAgent deletes hosts."""
    return _GONE


def _named_host(agent: Agent, command: VimCommand, now: float, status: int, reason: Reason) -> Host:
    """Return the host of that name; if mtcAgent has not named it yet, ask."""
    host = agent.inventory.host_named(command.hostname)
    if host is None:
        agent.ask_mtc_agent(now)
        raise CommandError(status, reason, f"unknown host {command.hostname}")
    return host


def _instance_create(agent: Agent, command: VimCommand, now: float) -> CommandAnswer:
    # Differs: the old agent had deleted the instance from its present host by now.
    host = _named_host(agent, command, now, 400, Reason.INVALID_DATA)
    instance = agent.place(command.uuid, host, False, now, by=command.by)
    if instance is not None:
        instance.told_at = now
        agent.send_instance(Command.ADD_INST, instance)
    return _PASS


def _instance_set(agent: Agent, command: VimCommand, now: float) -> CommandAnswer:
    host = _named_host(agent, command, now, 404, Reason.NOT_FOUND)
    instance = agent.place(command.uuid, host, command.reporting, now, by=command.by)
    if instance is not None:
        agent.set_reporting(instance, command.reporting, now, command.by)
        agent.send_instance(Command.MOD_INST, instance)
    return _instance_query(agent, command, now)


def _instance_query(agent: Agent, command: VimCommand, _now: float) -> CommandAnswer:
    return CommandAnswer(200, services_members(_instance(agent, command).for_vim()))


def _instance_delete(agent: Agent, command: VimCommand, _now: float) -> CommandAnswer:
    agent.delete_instance(_instance(agent, command))
    return _GONE


_SENT_AS = {
    Notification.REVOCABLE: Command.VOTE_INST,
    Notification.IRREVOCABLE: Command.NOTIFY_INST,
}


def _ask(
    notification: Notification, agent: Agent, command: VimCommand, now: float
) -> CommandAnswer:
    """Pass a vote or notify on, and say how long the guest has.

    It supersedes an earlier one. A guest that does not heartbeat is not waited for; only what
    has happened already is told to it all the same (decision 6).
    """
    instance = _instance(agent, command)
    event = command.event
    if event is None:
        raise CommandError(400, Reason.INVALID_DATA, "no action")
    timeout = 0
    asked = f"{notification} {event}"
    agent.end_ask(instance, f"superseded by {asked}")
    agent.queue.withdraw(instance.uuid, Kind.ACTION, reason="superseded")
    if instance.heartbeating:
        timeout = instance.timeouts.of(event, notification)
        instance.pending = PendingAsk(event, notification, now + timeout)
        agent.note(instance, What.ASKED, f"{asked}, {timeout} s to answer")
    else:
        agent.note(instance, What.ENDED, f"{asked}: not heartbeating, nobody waits")
    if instance.heartbeating or _tells_what_happened(event, notification):
        expires = now + (timeout or POST_EVENT_SECS)
        agent.port.send(instance.host, _SENT_AS[notification], Ask(instance.uuid, event), expires)
    return CommandAnswer(200, ask_members(instance.uuid, command.hostname, event, timeout))


def _tells_what_happened(event: Event, notification: Notification) -> bool:
    return notification is Notification.IRREVOCABLE and event in POST_EVENTS


_HANDLERS: dict[Operation, Callable[[Agent, VimCommand, float], CommandAnswer]] = {
    Operation.HOST_CREATE: _host_create,
    Operation.HOST_ENABLE: partial(_host_set, True),
    Operation.HOST_DISABLE: partial(_host_set, False),
    Operation.HOST_QUERY: _host_query,
    Operation.HOST_DELETE: _host_delete,
    Operation.INSTANCE_CREATE: _instance_create,
    Operation.INSTANCE_SET: _instance_set,
    Operation.INSTANCE_QUERY: _instance_query,
    Operation.INSTANCE_DELETE: _instance_delete,
    Operation.INSTANCE_VOTE: partial(_ask, Notification.REVOCABLE),
    Operation.INSTANCE_NOTIFY: partial(_ask, Notification.IRREVOCABLE),
}
