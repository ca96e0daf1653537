"""What each datagram does: events of guestServers, commands of mtcAgent (behaviour.md).

Replaces guestAgent's msg handlers. The links have decoded the datagram and believed its
source. Every handler checks all that it needs before it changes anything, and raises PeerError
for what is no use.

Differs: reporting states in events are never taken over, they are the agent's to set; the old
agent believed them, so that a restarted guestServer could switch reporting off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from guestmtce.core.agent import audit
from guestmtce.core.agent.inventory import Host, Instance, Timeouts, short_name
from guestmtce.core.agent.rules import AgentRules
from guestmtce.core.agent.vim_messages import (
    FAILED,
    UNHEALTHY,
    Alarm,
    guest_answer,
    parse_host_state,
    parse_instances,
)
from guestmtce.core.agent.vim_queue import Kind
from guestmtce.core.shared.errors import PeerError, ProtocolError
from guestmtce.core.shared.mtc_message import MtcMessage
from guestmtce.core.shared.text import usual_address
from guestmtce.core.shared.vocabulary import Command, CorrectiveAction

READY_GAP_SECS = 2.0
ILL_GAP_SECS = 10.0
# Longer than a guest repeats an illness with its action (guest-channel.md): then it is history.
UNHEALTHY_SECS = 70.0

_SECONDS = re.compile(r"[0-9]{1,6}")

EventHandler = Callable[[AgentRules, Host, MtcMessage, float], None]


class _Info(NamedTuple):
    """Instance information, as RUNNING, STOPPED, ILLHEALTH and QRY_INST carry it."""

    uuid: str
    reporting: bool
    heartbeating: bool
    action: CorrectiveAction
    timeouts: Timeouts


def _info(message: MtcMessage) -> _Info:
    return _Info(
        message.uuid(),
        message.switch("reporting"),
        message.switch("heartbeating"),
        CorrectiveAction.parse(message.text("repair-action")),
        Timeouts(*(_seconds(message, f"{name}-to") for name in Timeouts._fields)),
    )


def _seconds(message: MtcMessage, key: str) -> str:
    text = message.text(key)
    if not _SECONDS.fullmatch(text):
        raise ProtocolError("bad_member", f"failed to parse {key}")
    return text


def _instance_on(rules: AgentRules, host: Host, uuid: str) -> Instance:
    """Return the instance; raises PeerError if it is not known on that host (decision 9)."""
    instance = rules.inventory.instances.get(uuid)
    if instance is None:
        raise PeerError("unknown_instance")
    if instance.host is not host:
        raise PeerError("other_host")
    return instance


def _take_over(instance: Instance, info: _Info) -> None:
    instance.heartbeating = info.heartbeating
    instance.timeouts = info.timeouts
    instance.action = info.action


def _on_status(rules: AgentRules, host: Host, message: MtcMessage, now: float) -> None:
    """RUNNING or STOPPED."""
    info = _info(message)
    instance = _instance_on(rules, host, info.uuid)
    _take_over(instance, info)
    rules.report_service(instance, now)


def _on_ready(rules: AgentRules, host: Host, _message: MtcMessage, now: float) -> None:
    """A guestServer has started: tell it what it has to know, once in 2 s (decision 18)."""
    if host.ready_at is not None and now - host.ready_at < READY_GAP_SECS:
        raise PeerError("ready_again")
    host.ready_at = now
    rules.tell_host_reporting(host)
    for instance in host.instances.values():
        rules.send_later(Command.MOD_INST, instance)


def _on_loss(rules: AgentRules, host: Host, message: MtcMessage, now: float) -> None:
    instance = _instance_on(rules, host, message.uuid())
    _raise_alarm(rules, instance, Alarm(FAILED, instance.action), now, None)


def _on_ill_health(rules: AgentRules, host: Host, message: MtcMessage, now: float) -> None:
    """Pass an illness on; its action serves this alarm only (decision 8)."""
    info = _info(message)
    instance = _instance_on(rules, host, info.uuid)
    last = instance.ill_at.get(info.action)
    if last is not None and now - last < ILL_GAP_SECS:
        raise PeerError("ill_again")
    _raise_alarm(rules, instance, Alarm(UNHEALTHY, info.action), now, now + UNHEALTHY_SECS)
    instance.ill_at[info.action] = now


def _raise_alarm(
    rules: AgentRules, instance: Instance, alarm: Alarm, now: float, expires: float | None
) -> None:
    if not (instance.host.reporting and instance.reporting):
        raise PeerError("not_reporting")
    rules.events[Kind.ALARM.value] += 1
    rules.queue.put(instance.uuid, Kind.ALARM, now, alarm, expires)


def _on_vote(rules: AgentRules, host: Host, message: MtcMessage, now: float) -> None:
    """A guest's answer: worth something while the VIM waits for just this one."""
    instance = _instance_on(rules, host, message.uuid())
    event, notification = message.event("event-type"), message.notification()
    pending = instance.pending
    if pending is None or (pending.event, pending.notification) != (event, notification):
        raise PeerError("no_vote")
    instance.pending = None
    if now >= pending.until:
        raise PeerError("late_vote")
    members = message.members
    answer = guest_answer(event, notification, members.get("vote"), members.get("reason"))
    rules.events[Kind.ACTION.value] += 1
    rules.queue.put(instance.uuid, Kind.ACTION, now, answer, pending.until)


def _on_answer(rules: AgentRules, host: Host, message: MtcMessage, now: float) -> None:
    """One instance in a guestServer's answer to QRY_INST."""
    info = _info(message)
    audit.note_answer(rules, host)
    instance = rules.inventory.instances.get(info.uuid)
    if instance is None and not host.got_instances:
        # After a restart of ours: the VIM may yet say that the instance is right there.
        raise PeerError("unknown_instance")
    if instance is None or instance.host is not host:
        rules.send_delete(host, info.uuid)
        return
    instance.seen = True
    changed = info.heartbeating != instance.heartbeating
    _take_over(instance, info)
    if info.reporting != instance.reporting:
        rules.send_later(Command.MOD_INST, instance)
    if changed:
        rules.report_service(instance, now)
    elif instance.heartbeating:
        rules.queue.withdraw(
            instance.uuid,
            Kind.ALARM,
            reason="heartbeats",
            only=lambda alarm: alarm.state == FAILED,
        )


_EVENTS: dict[int, EventHandler] = {
    Command.MONITOR_READY: _on_ready,
    Command.HEARTBEAT_RUNNING: _on_status,
    Command.HEARTBEAT_STOPPED: _on_status,
    Command.HEARTBEAT_LOSS: _on_loss,
    Command.HEARTBEAT_ILLHEALTH: _on_ill_health,
    Command.VOTE_NOTIFY: _on_vote,
    Command.QRY_INST: _on_answer,
}


def take_event(rules: AgentRules, host: Host, message: MtcMessage, now: float) -> None:
    """Act upon an event of `host`'s guestServer; raises PeerError, and then nothing changed."""
    handler = _EVENTS.get(message.command)
    if handler is None:
        raise PeerError("unknown_command")
    handler(rules, host, message, now)


class HostNews(NamedTuple):
    """What an mtcAgent command did to the hosts: names that came, and names that went."""

    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()


def _put_host(rules: AgentRules, message: MtcMessage, now: float) -> HostNews:
    """ADD_HOST and MOD_HOST: known afterwards, with these values."""
    uuid, hostname = message.uuid(), message.text("hostname")
    ip = usual_address(message.members.get("ip"))
    personality = short_name(message.members.get("personality"))
    named = rules.inventory.host_named(hostname)
    holder = rules.inventory.hosts.get(uuid)
    news = HostNews()
    if named is not None and holder is not None and named is not holder:
        # Two hosts become one: the name decides, the other holder of the UUID is gone.
        news = _remove_host(rules, holder)
    host = named or holder
    if host is None:
        host = Host(hostname, uuid)
        rules.inventory.add_host(host)
        news = HostNews(came=(hostname,))
    elif (host.hostname, host.uuid) != (hostname, uuid):
        news = HostNews(came=(hostname,), went=(*news.went, host.hostname))
        _identify(rules, host, hostname, uuid)
    host.ip, host.personality = ip, personality
    if host.runs_instances:
        audit.ask_vim(rules, host, now)
    return news


def _identify(rules: AgentRules, host: Host, hostname: str, uuid: str) -> None:
    """A host has another name or UUID: of another UUID the VIM has to be asked (decision 17)."""
    if host.uuid != uuid:
        rules.queue.forget(rules.host_key(host))
        host.reporting = None
        host.got_instances = False
    rules.inventory.rename_host(host, hostname, uuid)


def _delete_host(rules: AgentRules, message: MtcMessage, _now: float) -> HostNews:
    host = rules.inventory.hosts.get(message.uuid())
    if host is None:
        raise PeerError("unknown_host")
    return _remove_host(rules, host)


def _remove_host(rules: AgentRules, host: Host) -> HostNews:
    """DEL_INST for each of its instances, then forget it."""
    for instance in list(host.instances.values()):
        rules.delete_instance(instance)
    rules.queue.forget(rules.host_key(host))
    rules.inventory.remove_host(host)
    return HostNews(went=(host.hostname,))


_MTC_COMMANDS: dict[int, Callable[[AgentRules, MtcMessage, float], HostNews]] = {
    Command.ADD_HOST: _put_host,
    Command.MOD_HOST: _put_host,
    Command.DEL_HOST: _delete_host,
}


def take_mtc_command(rules: AgentRules, message: MtcMessage, now: float) -> HostNews:
    """Act upon a command of mtcAgent; raises PeerError, and then nothing changed."""
    handler = _MTC_COMMANDS.get(message.command)
    if handler is None:
        raise PeerError("unknown_command")
    return handler(rules, message, now)


def learn_host_state(rules: AgentRules, host_uuid: str, body: bytes) -> None:
    """Take the VIM's answer to the host state query, unless a command came before it."""
    host = rules.inventory.hosts.get(host_uuid)
    if host is None or host.reporting is not None:
        return
    rules.set_host_reporting(host, parse_host_state(body, host_uuid))
    audit.query_later(rules, host)


def learn_instances(
    rules: AgentRules, host_uuid: str, body: bytes, asked_at: float, now: float
) -> None:
    """Take the VIM's answer to the instances query.

    A command that came after the question is newer than the answer. Entries that are no use
    are left out and counted.
    """
    host = rules.inventory.hosts.get(host_uuid)
    if host is None or host.got_instances:
        return
    states, useless = parse_instances(body)
    rules.dropped["bad_instance"] += useless
    host.got_instances = True
    for state in states:
        instance = rules.inventory.instances.get(state.uuid)
        if instance is None:
            instance = rules.add_instance(state.uuid, host, state.reporting, now)
            rules.send_later(Command.ADD_INST, instance)
        elif instance.told_at >= asked_at:
            continue
        elif instance.host is not host:
            rules.move_instance(instance, host, state.reporting, now)
        else:
            rules.set_reporting(instance, state.reporting, now)
            rules.send_later(Command.MOD_INST, instance)
    audit.query_later(rules, host)
