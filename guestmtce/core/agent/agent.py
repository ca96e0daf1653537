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
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.vim_queue import VimQueue
from guestmtce.core.shared.limits import Gap
from guestmtce.core.shared.mtc_message import HostState, InstanceState, Record
from guestmtce.core.shared.vocabulary import Command

ASK_GAP_SECS = 5.0


class Port(Protocol):
    """Where the agent's output goes."""

    def send(self, host: Host, command: Command, record: Record) -> object:
        """Send a command to a host's guestServer; the link adds `source`."""

    def ask_mtc_agent(self) -> object:
        """Send MONITOR_READY: mtcAgent answers with ADD_HOST for every host."""

    def warn(self, text: str, *args: object) -> object:
        """Tell the operator; `args` are from peers."""


class Agent:
    """The agent's memory and its outgoing messages.

    `dropped` counts by reason what was received and changed nothing, `events` by kind what was
    queued for the VIM.
    """

    def __init__(
        self, port: Port, on_drop: Callable[[str, Kind, str], object] = lambda *_: None
    ) -> None:
        self.port = port
        self.inventory = Inventory()
        self.queue = VimQueue(on_drop)
        self.bursts = Bursts()
        self.dropped: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._asking = Gap(ASK_GAP_SECS)

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

    def send_instance(self, command: Command, instance: Instance) -> None:
        """Send ADD_INST or MOD_INST with the instance's reporting."""
        self.port.send(instance.host, command, InstanceState(instance.uuid, instance.reporting))

    def send_delete(self, host: Host, uuid: str) -> None:
        """Send DEL_INST: the instance is not, or no longer, on that host."""
        self.port.send(host, Command.DEL_INST, InstanceState(uuid, False))

    def send_later(self, command: Command, instance: Instance) -> None:
        """Queue `command` for the next burst. The reporting is read when it is sent, not now."""
        self.bursts.put(instance.uuid, partial(self._send_if_known, command, instance))

    def _send_if_known(self, command: Command, instance: Instance) -> None:
        if self.inventory.instances.get(instance.uuid) is instance:
            self.send_instance(command, instance)

    def set_reporting(self, instance: Instance, reporting: bool, now: float) -> None:
        """Take the VIM's word on an instance; the caller sends it on."""
        instance.reporting = reporting
        instance.told_at = now
        if not reporting:
            self.queue.withdraw(instance.uuid, Kind.ALARM, reason="reporting_off")

    def add_instance(self, uuid: str, host: Host, reporting: bool, now: float) -> Instance:
        """Enter a new instance and return it; the caller tells its guestServer."""
        instance = Instance(uuid, host, reporting, told_at=now)
        self.inventory.add_instance(instance)
        return instance

    def move_instance(self, instance: Instance, host: Host, reporting: bool, now: float) -> None:
        """Send DEL_INST to its old host and ADD_INST to its new one.

        What was to be told to the VIM of it is void (decision 9).
        """
        self.send_delete(instance.host, instance.uuid)
        self.inventory.move_instance(instance, host)
        self.queue.withdraw(instance.uuid, Kind.ALARM, Kind.ACTION, reason="moved")
        self.set_reporting(instance, reporting, now)
        self.send_instance(Command.ADD_INST, instance)

    def delete_instance(self, instance: Instance) -> None:
        """Send DEL_INST and forget the instance; nothing more is told of it."""
        self.send_delete(instance.host, instance.uuid)
        self.inventory.remove_instance(instance)
        self.queue.forget(instance.uuid)

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

    def report_service(self, instance: Instance, now: float) -> None:
        """Queue a `service` event. If the guest heartbeats again, withdraw its queued alarm.

        Over SERVICE_SHARE the event is put off to the next audit of the host.
        """
        if instance.heartbeating:
            self.queue.withdraw(instance.uuid, Kind.ALARM, reason="heartbeats")
        instance.service_owed = not instance.service_share.allows(now)
        if instance.service_owed:
            self.dropped["flapping"] += 1
            return
        self.events[Kind.SERVICE.value] += 1
        self.queue.put(instance.uuid, Kind.SERVICE, now)
