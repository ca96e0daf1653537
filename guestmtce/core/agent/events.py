"""What each event of a guestServer does (behaviour.md, "guestAgent").

Replaces guestAgent's msg handlers. The link has decoded the datagram and believed its source.
Every handler checks all that it needs before it changes anything. It raises PeerError for what
breaks the protocol, and Unneeded for what breaks no rule but changes nothing now.

Differs: reporting states in events are never taken over, they are the agent's to set; the old
agent believed them, so that a restarted guestServer could switch reporting off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from guestmtce.core.agent import audit
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Deferral, Host, Instance
from guestmtce.core.agent.lanes import Kind, Spacing
from guestmtce.core.agent.vim_messages import FAILED, UNHEALTHY, VimAlarm, guest_answer
from guestmtce.core.shared.condition import Condition, Diagnosis
from guestmtce.core.shared.errors import NotYet, PeerError, Unneeded
from guestmtce.core.shared.history import What
from guestmtce.core.shared.inbox import Receipt, Verdict
from guestmtce.core.shared.mtc_message import (
    InstanceInformation,
    Loss,
    MtcMessage,
    VoteAnswer,
)
from guestmtce.core.shared.owed import ORDERS, REVOKES, TOPICS, Topic
from guestmtce.core.shared.stamp import Stamp
from guestmtce.core.shared.vocabulary import Command, Switch

# Longer than a guest repeats an illness with its action (protocol.md): then it is history.
UNHEALTHY_SECS = 70.0
# Of one host, in the time in which nothing of it can be judged; more come again by themselves.
DEFERRED_LIMIT = 1000


class Heard(NamedTuple):
    """An event, and what comes with it from a guestServer that numbers what it says.

    `came` is when; `on_over` is to be called when the alarm or answer that it causes is told, or
    is void.
    """

    host: Host
    message: MtcMessage
    stamp: Stamp | None = None
    came: float = 0.0
    on_over: Callable[[], object] | None = None


EventHandler = Callable[[Agent, Heard, float], None]


def take_event(agent: Agent, host: Host, message: MtcMessage, now: float, source: str = "") -> None:
    """Act upon an event of `host`'s guestServer that came from the address `source`.

    Raises PeerError or Unneeded, and then nothing changed but when the host was last heard.
    """
    handler = _HANDLERS.get(message.command)
    if handler is None:
        raise PeerError("unknown_command")
    agent.check_active()
    host.last_heard = agent.wall()
    role, stamp = host.role, Stamp.of_message(message)
    heard = Heard(host, message, stamp, came=now)
    if role is not None and stamp is None:
        role.heard_old()
    if role is None or stamp is None:
        _take_from_old(agent, heard, now)
        return
    if message.command == Command.QRY_INST:
        handler(agent, heard, now)
        return
    uuid = message.uuid() if message.command in TOPICS else ""
    verdict, receipt = role.heard(message.command, uuid, stamp, source, now)
    if verdict is not Verdict.TAKE:
        raise Unneeded(verdict.name.lower())
    if receipt is None:
        handler(agent, heard, now)
    else:
        _take_order(agent, heard._replace(on_over=partial(role.settle, receipt)), receipt, now)


def _take_from_old(agent: Agent, heard: Heard, now: float) -> None:
    """Act upon an event of a guestServer that says each thing once."""
    command = heard.message.command
    for revoked in REVOKES.get(command, ()):
        heard.host.deferred.pop((heard.message.uuid(), revoked), None)
    try:
        _HANDLERS[command](agent, heard, now)
    except NotYet:
        if TOPICS.get(command) in ORDERS:
            _defer(agent, heard, None)
        raise


def _take_order(agent: Agent, heard: Heard, receipt: Receipt, now: float) -> None:
    """Act upon an order, and acknowledge it by what comes of it (decision 24)."""
    role = heard.host.role
    assert role is not None  # noqa: S101 - for the type checker: a receipt is a role's
    try:
        _HANDLERS[heard.message.command](agent, heard, now)
    except NotYet:
        _defer(agent, heard, receipt)
        role.defer(receipt)
        raise
    except (PeerError, Unneeded):
        role.settle(receipt)
        raise
    role.hold(receipt)


def _defer(agent: Agent, heard: Heard, receipt: Receipt | None) -> None:
    """Keep an order that cannot be judged yet until it can; the newest of its topic counts."""
    deferred, message = heard.host.deferred, heard.message
    key = message.uuid(), TOPICS[message.command]
    if key in deferred or len(deferred) < DEFERRED_LIMIT:
        deferred[key] = Deferral(heard.came, partial(_judge_again, agent, heard, receipt))


def _judge_again(agent: Agent, heard: Heard, receipt: Receipt | None, now: float) -> None:
    """Act upon an order that was deferred, unless something newer has made it void."""
    role = heard.host.role
    try:
        if receipt is None:
            _take_from_old(agent, heard, now)
        elif role is not None and role.judge_again(receipt) is Verdict.TAKE:
            _take_order(agent, heard, receipt, now)
    except (PeerError, Unneeded) as refused:
        agent.dropped[refused.reason] += 1


def _instance_on(agent: Agent, host: Host, uuid: str) -> Instance:
    """Return the instance; raises PeerError if it is not known on that host (decision 9).

    One that is not known while the VIM has not named the host's instances is our own want,
    after a restart of ours: raises NotYet.
    """
    instance = agent.inventory.instances.get(uuid)
    if instance is None and not host.got_instances:
        raise NotYet("unknown_instance")
    if instance is None:
        raise PeerError("unknown_instance")
    if instance.host is not host:
        raise PeerError("other_host")
    return instance


def _instance_to_judge(agent: Agent, heard: Heard, uuid: str) -> Instance:
    """Return the instance that an order is about, if the order can be judged now.

    It cannot while the VIM has not said how the host is, nor while a new guestServer's instance
    is known on another host: it may be moving here, as the next audit tells. Raises NotYet.
    """
    instance = agent.inventory.instances.get(uuid)
    if heard.on_over is not None and instance is not None and instance.host is not heard.host:
        raise NotYet("other_host")
    instance = _instance_on(agent, heard.host, uuid)
    if heard.host.reporting is None:
        raise NotYet("not_reporting")
    return instance


def _take_over(instance: Instance, info: InstanceInformation) -> None:
    instance.informed = True
    instance.heartbeating = info.heartbeating
    instance.timeouts = info.timeouts
    instance.action = info.corrective_action
    instance.name = info.name or instance.name


def _on_status(agent: Agent, heard: Heard, now: float) -> None:
    """RUNNING or STOPPED: take over how the instance is, and tell the VIM.

    A new guestServer says its present state again and again: the VIM is told what is new.
    """
    info = InstanceInformation.of(heard.message)
    instance = _instance_on(agent, heard.host, info.uuid)
    well = not _fell_ill_since(heard, info.uuid)
    before = (instance.heartbeating, instance.for_vim())
    _take_over(instance, info)
    if heard.stamp is None or before != (instance.heartbeating, instance.for_vim()):
        _note_status(
            agent, instance, info.heartbeating, "RUNNING" if info.heartbeating else "STOPPED"
        )
        agent.report_service(instance, now, well=well)
    elif instance.heartbeating:
        if well:
            instance.diagnosis = Diagnosis(Condition.OK, agent.wall())
        agent.withdraw_alarm(instance, well=well)
    agent.judge_loss(instance, now)


def _fell_ill_since(heard: Heard, uuid: str) -> bool:
    """Return whether an illness was taken that was said after this status: a late repeat."""
    role, stamp = heard.host.role, heard.stamp
    return role is not None and stamp is not None and role.overtaken(uuid, Topic.ILLNESS, stamp)


def _note_status(agent: Agent, instance: Instance, heartbeating: bool, said: str) -> None:
    """Remember a status that a guestServer said. A guest that stopped may have been lost."""
    instance.history.add(What.RECEIVED, said)
    if heartbeating:
        instance.diagnosis = Diagnosis(Condition.OK, agent.wall())
    elif instance.diagnosis.condition is not Condition.LOST:
        instance.diagnosis = Diagnosis(Condition.STOPPED, agent.wall())


def _on_ready(agent: Agent, heard: Heard, now: float) -> None:
    """A guestServer has started, once in 2 s (decision 18)."""
    if not heard.host.readies.allows(now):
        raise Unneeded("ready_again")
    server_started(agent, heard.host, now)


def server_started(agent: Agent, host: Host, now: float) -> None:
    """A guestServer has started: tell it what it has to know."""
    agent.tell_host_reporting(host, now)
    for instance in host.instances.values():
        agent.send_later(Command.MOD_INST, instance)


def _on_loss(agent: Agent, heard: Heard, now: float) -> None:
    """LOSS: queue a `failed` alarm with the action from init.

    It cannot be judged before that action is known: the VIM would do nothing for `unknown`.
    From an old guestServer, one within 1 s of the last is a duplicate (decision 27).
    """
    instance = _instance_to_judge(agent, heard, Loss.of(heard.message).uuid)
    if heard.stamp is None and not instance.losses.is_over(now):
        raise Unneeded("loss_again")
    _check_reporting(instance)
    if not instance.informed:
        raise NotYet("unknown_action")
    instance.losses.note(now)
    agent.note(instance, What.RECEIVED, "LOSS")
    instance.diagnosis = Diagnosis(Condition.LOST, agent.wall(), f"action {instance.action}")
    _raise_alarm(agent, instance, VimAlarm(FAILED, instance.action), heard, now)


def _on_ill_health(agent: Agent, heard: Heard, now: float) -> None:
    """ILLHEALTH: queue an `unhealthy` alarm with the action in the event.

    The stored action stays: this one serves this alarm only (decision 8). Of an old guestServer
    one in 10 s and action is passed on and none is held, for it does not say when the guest is
    well again (decision 26).
    """
    info = InstanceInformation.of(heard.message)
    instance = _instance_to_judge(agent, heard, info.uuid)
    action = info.corrective_action
    if heard.stamp is None and not instance.illnesses.is_over(now, action):
        raise Unneeded("ill_again")
    _check_reporting(instance)
    instance.illnesses.note(now, action)
    agent.note(instance, What.RECEIVED, f"ILLHEALTH, action {action}")
    instance.diagnosis = Diagnosis(Condition.ILL, agent.wall(), f"action {action}")
    agent.learn_status(instance, info.heartbeating, now)
    _raise_alarm(
        agent,
        instance,
        VimAlarm(UNHEALTHY, action),
        heard,
        now,
        expires=heard.came + UNHEALTHY_SECS,
    )


def _check_reporting(instance: Instance) -> None:
    if not (instance.host.reporting and instance.reporting):
        raise Unneeded("not_reporting")


def _raise_alarm(
    agent: Agent,
    instance: Instance,
    alarm: VimAlarm,
    heard: Heard,
    now: float,
    *,
    expires: float = float("inf"),
) -> None:
    """Queue an alarm: told at once, or when the last one like it is 10 s old (decision 38).

    Until then it is withdrawn by all that withdraws an alarm: it is told if it is still true.
    """
    agent.events[Kind.ALARM.value] += 1
    instance.history.add(What.QUEUED, alarm.in_words())
    spacing = Spacing(instance.alarms, FAILED if alarm.state == FAILED else alarm)
    agent.queue.put(
        instance.uuid, Kind.ALARM, now, alarm, expires, spacing=spacing, on_over=heard.on_over
    )


def _on_vote(agent: Agent, heard: Heard, now: float) -> None:
    """VOTE_NOTIFY: queue the answer if the VIM still waits for this event and notification."""
    said = VoteAnswer.of(heard.message)
    instance = _instance_on(agent, heard.host, said.uuid)
    pending = instance.pending
    if pending is None or (pending.event, pending.notification) != (said.event, said.notification):
        raise Unneeded("no_vote")
    instance.pending = None
    late = now >= pending.until
    agent.note(instance, What.ANSWERED, _answer_in_words(said, late=late))
    if late:
        raise Unneeded("late_vote")
    agent.events[Kind.ACTION.value] += 1
    answer = guest_answer(said)
    agent.queue.put(instance.uuid, Kind.ACTION, now, answer, pending.until, on_over=heard.on_over)


def _answer_in_words(said: VoteAnswer, *, late: bool) -> str:
    reason = f", {said.reason}" if said.reason else ""
    return f"{said.notification} {said.event}: {said.vote}{reason}{', too late' * late}"


def _on_answer(agent: Agent, heard: Heard, now: float) -> None:
    """QRY_INST: one instance in a guestServer's answer to our query, or that it has none."""
    host, stamp = heard.host, heard.stamp
    if stamp is not None and stamp.of == 0:
        audit.count_answer(host, stamp, None)
        audit.note_answer(agent, host)
        return
    info = InstanceInformation.of(heard.message)
    is_newest = _is_newest(heard, info, now)
    audit.note_answer(agent, host)
    instance = agent.inventory.instances.get(info.uuid)
    if instance is None and not host.got_instances:
        # After a restart of ours: the VIM may yet say that the instance is right there.
        raise Unneeded("unknown_instance")
    if instance is None or instance.host is not host:
        # A next answer causes the next one: what a guestServer invents must not be owed to it.
        agent.send_delete(host, info.uuid, once=True)
        return
    instance.seen = True
    instance.name = info.name or instance.name
    if info.reporting != instance.reporting:
        agent.send_later(Command.MOD_INST, instance)
    if not is_newest:
        raise Unneeded("behind")
    if info.heartbeating and stamp is None and not instance.losses.is_over(now):
        # It may have left before the LOSS that has overtaken it (decision 39).
        raise Unneeded("overtaken")
    changed = info.heartbeating != instance.heartbeating
    if changed:
        word = Switch.of(info.heartbeating)
        _note_status(agent, instance, info.heartbeating, f"audit: heartbeating {word}")
    elif instance.diagnosis.condition is Condition.ILL and not _ill_lately(agent, instance):
        instance.diagnosis = Diagnosis(Condition.OK, agent.wall())
    _take_over(instance, info)
    if changed:
        agent.report_service(instance, now)
    elif instance.heartbeating:
        agent.withdraw_alarm(instance, well=False)
    agent.judge_loss(instance, now)


def _ill_lately(agent: Agent, instance: Instance) -> bool:
    """Return whether its last illness counts: an old guestServer does not say when it is over."""
    since = instance.diagnosis.since
    return since is not None and agent.wall() - since < UNHEALTHY_SECS


def _is_newest(heard: Heard, info: InstanceInformation, now: float) -> bool:
    """Return whether nothing newer of that instance was taken than this answer (decision 28).

    An old guestServer's answers have no number: they are taken as they come.
    """
    role, stamp = heard.host.role, heard.stamp
    if role is None or stamp is None:
        return True
    verdict = role.heard_answer(info.uuid, stamp, now, running=info.heartbeating)
    if verdict is Verdict.UNPROVEN:
        raise Unneeded("unproven")
    audit.count_answer(heard.host, stamp, info.uuid)
    return verdict is Verdict.TAKE


_HANDLERS: dict[int, EventHandler] = {
    Command.MONITOR_READY: _on_ready,
    Command.HEARTBEAT_RUNNING: _on_status,
    Command.HEARTBEAT_STOPPED: _on_status,
    Command.HEARTBEAT_LOSS: _on_loss,
    Command.HEARTBEAT_ILLHEALTH: _on_ill_health,
    Command.VOTE_NOTIFY: _on_vote,
    Command.QRY_INST: _on_answer,
}
