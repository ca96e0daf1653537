"""What guestAgent knows, what it owes, and the changes that its inputs have in common.

It knows the inventory; it owes the VIM what is in the queue, and guestServers what waits for the
next burst. Commands, events and the audit are modules of their own, which call this one.

Sans-I/O: datagrams leave through the port, requests to the VIM through the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

from guestmtce.core.agent.bursts import Bursts
from guestmtce.core.agent.inventory import Host, Instance, Inventory
from guestmtce.core.agent.lanes import NOT_ACTIVE, QUERIES, Kind, Message
from guestmtce.core.agent.presence import Presence
from guestmtce.core.agent.unknown_hosts import UnknownHosts
from guestmtce.core.agent.vim_messages import FAILED, GuestAnswer, VimAlarm
from guestmtce.core.agent.vim_queue import Ended, VimQueue
from guestmtce.core.shared.errors import Unneeded
from guestmtce.core.shared.history import Entry, History, Past, What
from guestmtce.core.shared.limits import Gap
from guestmtce.core.shared.mtc_message import HostState, InstanceState, Record
from guestmtce.core.shared.owed import Topic
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Command, Switch

ASK_GAP_SECS = 5.0
# By whom an instance is set when the VIM was asked for it.
VIM_ANSWER = "the VIM's answer"
DEFAULT_MAX_HOSTS = 5000

_CAME_OF = {
    Ended.TAKEN: "taken",
    Ended.TAKEN_BADLY: "answered with an error",
    Ended.TIMED_OUT: "no answer in 20 s",
}


class Port(Protocol):
    """Where the agent's output goes."""

    def send(
        self,
        host: Host,
        command: Command,
        record: Record,
        expires: float | None = None,
        *,
        once: bool = False,
    ) -> int | None:
        """Send a command to a host's guestServer; the link adds `source` and delivers it.

        `expires` is when nobody wants to hear it any more; with `once` it is not repeated, as
        what caused it will. Returns its number, if it has one.
        """

    def ask_mtc_agent(self) -> object:
        """Send MONITOR_READY: mtcAgent answers with ADD_HOST for every host."""

    def warn(self, text: str, *args: object) -> object:
        """Tell the operator; `args` are from peers."""

    def why(self, uuid: str, text: str) -> object:
        """Log what answers "why was my VM rebooted?": it has a budget of its own (decision 42)."""

    def remember(self, uuid: str, entry: Entry) -> object:
        """Take what an instance's history remembers, for files and followers."""


class Agent:
    """The agent's memory and its outgoing messages.

    `wall` returns the wall clock's seconds, for what people read; `past` is what is remembered of
    instances that are not there. `dropped` counts by reason what was received and changed nothing,
    `refused_hosts` what of that was over `max_hosts`, `events` by kind what was queued for the VIM.
    `alarms_told` counts alarms by state and action, `alarms_untold` by why they were void.
    """

    def __init__(
        self,
        port: Port,
        wall: Callable[[], float],
        max_hosts: int = DEFAULT_MAX_HOSTS,
        past: Past | None = None,
    ) -> None:
        self.port = port
        self.wall = wall
        self.max_hosts = max_hosts
        self.past = past or Past(())
        self.unknown_hosts = UnknownHosts()
        self.refused_hosts = 0
        self.presence = Presence()
        self.inventory = Inventory()
        self.queue = VimQueue(self)
        self.bursts = Bursts()
        self.dropped: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.alarms_told: Counter[tuple[str, ...]] = Counter()
        self.alarms_untold: Counter[str] = Counter()
        self._asking = Gap(ASK_GAP_SECS)

    def note_presence(self, there: bool, now: float) -> None:
        """Take whether our floating address is on this host (decision 32).

        Without it nothing more is sent, and what was to be told is the other agent's to tell.
        With it again, we begin as after a start: much may have changed meanwhile.
        """
        if not self.presence.note(there, now):
            return
        self.queue.forget_all(NOT_ACTIVE)
        self.bursts.clear()
        if self.presence.active:
            for instance in self.inventory.instances.values():
                self.past.put(instance.uuid, instance.history, printable(instance.name))
            self.inventory.clear()
            self._asking.forget()
            self.ask_mtc_agent(now)

    def check_active(self) -> None:
        """Raise Unneeded unless this agent is the active one."""
        if not self.presence.active:
            raise Unneeded("not_active")

    def told(self, key: str, message: Message, ended: Ended) -> None:
        """Note what the VIM was told, and what came of it."""
        if isinstance(message.detail, VimAlarm):
            self.alarms_told[message.detail.state, str(message.detail.action)] += 1
        instance = self.inventory.instances.get(key)
        if instance is None or message.kind in QUERIES:
            return
        detail = f"{in_words(message, instance)}: {_CAME_OF[ended]}"
        instance.history.add(What.TOLD, detail)
        if message.urgent:
            self._why(instance, f"told the VIM: {detail}")

    def untold(self, key: str, message: Message, reason: str) -> None:
        """Note what the VIM will not be told."""
        if isinstance(message.detail, VimAlarm):
            self.alarms_untold[reason] += 1
        instance = self.inventory.instances.get(key)
        if instance is None:
            return
        detail = f"{in_words(message, instance)}: {reason.replace('_', ' ')}"
        instance.history.add(What.UNTOLD, detail)
        self._why(instance, f"not told to the VIM: {detail}")

    def note(self, instance: Instance, what: What, detail: str) -> None:
        """Remember what answers "why?" of an instance, and log it."""
        instance.history.add(what, detail)
        self._why(instance, detail)

    def end_ask(self, instance: Instance, why: str) -> None:
        """Wait no longer for the answer to a vote or notify, if one is open."""
        ask, instance.pending = instance.pending, None
        if ask is not None:
            self.note(instance, What.ENDED, f"{ask.notification} {ask.event}: {why}")

    def _why(self, instance: Instance, text: str) -> None:
        self.port.why(instance.uuid, f"{instance.uuid} on {instance.host.hostname}: {text}")

    def ask_mtc_agent(self, now: float) -> None:
        """Ask mtcAgent for the inventory of hosts, at most once in 5 s."""
        if self._asking.allows(now):
            self.port.ask_mtc_agent()

    def tell_host_reporting(self, host: Host, now: float) -> None:
        """Send MOD_HOST, unless the VIM has not said yet what to tell (decision 2)."""
        if host.reporting is not None:
            host.reporting_told.note(now)
            self.port.send(host, Command.MOD_HOST, HostState(host.uuid, host.reporting))

    def set_host_reporting(self, host: Host, reporting: bool, now: float) -> None:
        """Take the VIM's word on a host, and pass it on."""
        host.reporting = reporting
        self.queue.withdraw(host.key, Kind.HOST_STATE, reason="answered")
        if not reporting:
            for uuid in host.instances:
                self.queue.withdraw(uuid, Kind.ALARM, reason="reporting_off")
        self.tell_host_reporting(host, now)
        self.judge_deferred(host, now)

    def judge_deferred(self, host: Host, now: float) -> None:
        """Judge the orders that came before the VIM had told what they are judged by."""
        if not host.deferred or host.reporting is None or not host.got_instances:
            return
        waiting, host.deferred = host.deferred, {}
        for deferral in waiting.values():
            deferral.judge(now)

    def judge_loss(self, instance: Instance, now: float) -> None:
        """Judge a LOSS that came before its guestServer had told what the guest wants then."""
        deferral = instance.host.deferred.pop((instance.uuid, Topic.LOSS), None)
        if deferral is not None:
            deferral.judge(now)

    def send_instance(self, command: Command, instance: Instance) -> None:
        """Send ADD_INST or MOD_INST with the instance's reporting."""
        self.port.send(instance.host, command, InstanceState(instance.uuid, instance.reporting))

    def send_delete(self, host: Host, uuid: str, *, once: bool = False) -> None:
        """Send DEL_INST: the instance is not, or no longer, on that host; `once` as `Port.send`."""
        self.port.send(host, Command.DEL_INST, InstanceState(uuid, False), once=once)

    def send_later(self, command: Command, instance: Instance) -> None:
        """Queue `command` for the next burst. The reporting is read when it is sent, not now."""
        self.bursts.put(instance.uuid, partial(self._send_if_known, command, instance))

    def _send_if_known(self, command: Command, instance: Instance) -> None:
        if self.inventory.instances.get(instance.uuid) is instance:
            self.send_instance(command, instance)

    def set_reporting(
        self, instance: Instance, reporting: bool, now: float, by: str = VIM_ANSWER
    ) -> None:
        """Take the word of the VIM, or of the local user `by`; the caller sends it on."""
        if instance.reporting is not reporting:
            detail = f"{'on' if reporting else 'off'} by {by}"
            instance.history.add(What.REPORTING, detail)
        instance.reporting = reporting
        instance.told_at = now
        if not reporting:
            self.queue.withdraw(instance.uuid, Kind.ALARM, reason="reporting_off")

    def place(
        self,
        uuid: str,
        host: Host,
        reporting: bool,
        now: float,
        *,
        by: str = VIM_ANSWER,
        later: bool = False,
    ) -> Instance | None:
        """Have an instance on a host: add it (told with the next burst if `later`), or move it.

        `by` is whose word that is. Returns it if it was there already; then nothing is changed.
        """
        instance = self.inventory.instances.get(uuid)
        if instance is None:
            tell = self.send_later if later else self.send_instance
            tell(Command.ADD_INST, self.add_instance(uuid, host, reporting, now))
            return None
        if instance.host is not host:
            self.move_instance(instance, host, reporting, now, by)
            return None
        return instance

    def add_instance(self, uuid: str, host: Host, reporting: bool, now: float) -> Instance:
        """Enter a new instance and return it; the caller tells its guestServer."""
        history = History(self.wall, partial(self.port.remember, uuid))
        name = self.past.name(uuid)
        history.restore(self.past.take(uuid))
        instance = Instance(uuid, host, history, reporting, name, told_at=now)
        self.inventory.add_instance(instance)
        return instance

    def move_instance(
        self, instance: Instance, host: Host, reporting: bool, now: float, by: str = VIM_ANSWER
    ) -> None:
        """Send DEL_INST to its old host and ADD_INST to its new one.

        What was to be told to the VIM of it is void (decision 9).
        """
        instance.history.add(What.MOVED, f"from {instance.host.hostname} to {host.hostname}")
        self.send_delete(instance.host, instance.uuid)
        self.end_ask(instance, "its instance has moved")
        self.inventory.move_instance(instance, host)
        self.queue.withdraw(instance.uuid, Kind.ALARM, Kind.ACTION, reason="moved")
        self.set_reporting(instance, reporting, now, by)
        self.send_instance(Command.ADD_INST, instance)
        self.judge_deferred(host, now)

    def delete_instance(self, instance: Instance) -> None:
        """Send DEL_INST and forget the instance; nothing more is told of it."""
        self.send_delete(instance.host, instance.uuid)
        self.end_ask(instance, "its instance is deleted")
        self.queue.forget(instance.uuid)
        self.past.put(instance.uuid, instance.history, printable(instance.name))
        self.inventory.remove_instance(instance)

    def remove_host(self, host: Host) -> None:
        """Send DEL_INST for each of a host's instances, then forget it."""
        for instance in list(host.instances.values()):
            self.delete_instance(instance)
        self.queue.forget(host.key)
        self.inventory.remove_host(host)

    def learn_status(self, instance: Instance, heartbeating: bool, now: float) -> None:
        """Take what is the first status of an instance since we started, and tell it.

        The VIM may believe what an earlier agent told it (decision 25).
        """
        if instance.heartbeating is None:
            instance.heartbeating = heartbeating
            self.report_service(instance, now)

    def withdraw_alarm(self, instance: Instance, *, well: bool) -> None:
        """The guest heartbeats, so it is not lost; that it is ill is withdrawn if it is `well`."""

        def is_void(alarm: object) -> bool:
            return well or (isinstance(alarm, VimAlarm) and alarm.state == FAILED)

        self.queue.withdraw(instance.uuid, Kind.ALARM, reason="heartbeats", only=is_void)

    def report_service(self, instance: Instance, now: float, *, well: bool = False) -> None:
        """Queue a `service` event; if the guest heartbeats, withdraw what that makes void.

        Over SERVICE_SHARE the event is put off to the next audit of the host.
        """
        if instance.heartbeating:
            self.withdraw_alarm(instance, well=well)
        instance.service_owed = not instance.service_share.allows(now)
        if instance.service_owed:
            self.dropped["flapping"] += 1
            return
        self.events[Kind.SERVICE.value] += 1
        self.queue.put(instance.uuid, Kind.SERVICE, now)


def in_words(message: Message, instance: Instance) -> str:
    """Return what a message tells the VIM, in words."""
    detail = message.detail
    if isinstance(detail, (VimAlarm, GuestAnswer)):
        return detail.in_words()
    return f"service, heartbeating {Switch.of(bool(instance.heartbeating))}"
