"""What the agent does to its inventory, and what it says when it does (behaviour.md).

The state that the commands, the events and the audit share, and the steps that they have in
common. Sans-I/O: datagrams leave through the port, requests to the VIM through the queue.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from guestmtce.core.agent.inventory import Host, Instance, Inventory
from guestmtce.core.agent.vim_queue import Kind, VimQueue
from guestmtce.core.shared.vocabulary import HEARTBEAT_SERVICE, Command, Switch

ASK_GAP_SECS = 5.0
BURST = 100
BURST_SECS = 0.01


class Port(Protocol):
    """Where the rules' output goes."""

    def send(self, host: Host, command: Command, members: dict[str, Any]) -> object:
        """Send a command to a host's guestServer; the link adds `source`."""

    def ask_mtc_agent(self) -> object:
        """Send MONITOR_READY: mtcAgent answers with ADD_HOST for every host."""

    def warn(self, text: str, *args: object) -> object:
        """Tell the operator; `args` are from peers."""


class AgentRules:
    """Inventory, queue, and the steps that more than one input takes.

    `dropped` counts by reason what was received and was no use, `events` by kind what was
    queued for the VIM.
    """

    def __init__(
        self, port: Port, on_drop: Callable[[str, Kind, str], object] = lambda *_: None
    ) -> None:
        self.port = port
        self.inventory = Inventory()
        self.queue = VimQueue(on_drop)
        self.dropped: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._asked_at: float | None = None
        self._steps: OrderedDict[str, Callable[[], object]] = OrderedDict()

    @staticmethod
    def host_key(host: Host) -> str:
        """Return the lane of the queue for questions about a host."""
        return f"host {host.uuid}"

    def ask_mtc_agent(self, now: float) -> None:
        """Ask for the inventory of hosts, at most once in 5 s (server-agent.md)."""
        if self._asked_at is None or now - self._asked_at >= ASK_GAP_SECS:
            self._asked_at = now
            self.port.ask_mtc_agent()

    def tell_host_reporting(self, host: Host) -> None:
        """MOD_HOST, unless the VIM has not said yet (decision 2)."""
        if host.reporting is not None:
            members = {"uuid": host.uuid, "heartbeat": Switch.of(host.reporting)}
            self.port.send(host, Command.MOD_HOST, members)

    def set_host_reporting(self, host: Host, reporting: bool) -> None:
        """Take the VIM's word on a host, and pass it on."""
        host.reporting = reporting
        self.queue.withdraw(self.host_key(host), Kind.HOST_STATE, reason="answered")
        if not reporting:
            for uuid in host.instances:
                self.queue.withdraw(uuid, Kind.ALARM, reason="reporting_off")
        self.tell_host_reporting(host)

    def send_instance(self, command: Command, instance: Instance) -> None:
        """ADD_INST or MOD_INST with the instance's reporting."""
        members = {
            "uuid": instance.uuid,
            "service": HEARTBEAT_SERVICE,
            "state": Switch.of(instance.reporting),
        }
        self.port.send(instance.host, command, members)

    def send_delete(self, host: Host, uuid: str) -> None:
        """DEL_INST: that host has no business with that instance."""
        members = {"uuid": uuid, "service": HEARTBEAT_SERVICE, "state": Switch.DISABLED}
        self.port.send(host, Command.DEL_INST, members)

    def set_reporting(self, instance: Instance, reporting: bool, now: float) -> None:
        """Take the VIM's word on an instance; the caller sends it on."""
        instance.reporting = reporting
        instance.told_at = now
        if not reporting:
            self.queue.withdraw(instance.uuid, Kind.ALARM, reason="reporting_off")

    def add_instance(self, uuid: str, host: Host, reporting: bool, now: float) -> Instance:
        """A new instance; the caller tells its guestServer."""
        instance = Instance(uuid, host, reporting, told_at=now)
        self.inventory.add_instance(instance)
        return instance

    def move_instance(self, instance: Instance, host: Host, reporting: bool, now: float) -> None:
        """DEL_INST where it was, ADD_INST where it is; what was to be told is void (decision 9)."""
        self.send_delete(instance.host, instance.uuid)
        self.inventory.move_instance(instance, host)
        self.queue.withdraw(instance.uuid, Kind.ALARM, Kind.ACTION, reason="moved")
        self.set_reporting(instance, reporting, now)
        self.send_instance(Command.ADD_INST, instance)

    def delete_instance(self, instance: Instance) -> None:
        """DEL_INST, and nothing more is told of it."""
        self.send_delete(instance.host, instance.uuid)
        self.inventory.remove_instance(instance)
        self.queue.forget(instance.uuid)

    def report_service(self, instance: Instance, now: float) -> None:
        """Tell the VIM the instance's state; an alarm of a guest that heartbeats is stale."""
        if instance.heartbeating:
            self.queue.withdraw(instance.uuid, Kind.ALARM, reason="heartbeats")
        instance.service_owed = not instance.service_share.allows(now)
        if instance.service_owed:
            self.dropped["flapping"] += 1
            return
        self.events[Kind.SERVICE.value] += 1
        self.queue.put(instance.uuid, Kind.SERVICE, now)

    def later(self, key: str, step: Callable[[], object]) -> None:
        """Take `step` after those that wait, and not an earlier one with the same key."""
        self._steps.pop(key, None)
        self._steps[key] = step

    def send_later(self, command: Command, instance: Instance) -> None:
        """ADD_INST or MOD_INST with the next burst, with the reporting of that time."""
        self.later(instance.uuid, partial(self._send_if_known, command, instance))

    def _send_if_known(self, command: Command, instance: Instance) -> None:
        if self.inventory.instances.get(instance.uuid) is instance:
            self.send_instance(command, instance)

    @property
    def has_bursts(self) -> bool:
        """True while steps wait for the next burst."""
        return bool(self._steps)

    def send_burst(self) -> None:
        """Take up to 100 of the waiting steps: call it every 10 ms (decision 18)."""
        for _ in range(min(BURST, len(self._steps))):
            _key, step = self._steps.popitem(last=False)
            step()
