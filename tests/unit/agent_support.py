"""What the tests of the agent's core share: a recording port, a rig with hosts and instances."""

from __future__ import annotations

import json
from typing import Any

from guestmtce.core.agent import audit, commands, events, mtc_commands
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Host, Instance
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.vim_commands import CommandError, parse_command
from guestmtce.core.agent.vim_queue import Delivery, Ended
from guestmtce.core.shared.history import Entry
from guestmtce.core.shared.mtc_message import MTC_SIGNATURE, MtcMessage, Record
from guestmtce.core.shared.vocabulary import Command

HOST_0 = "8aee436e-d564-459e-a0d8-26c447920000"
HOST_1 = "8aee436e-d564-459e-a0d8-26c447921111"
UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
UUID_2 = "8d80875b-fa73-4ccb-bce3-1cd4df104402"

# How an instance is, as a guestServer says it.
INFO = {
    "reporting": "enabled",
    "heartbeating": "enabled",
    "repair-action": "reboot",
    "restart-to": "301",
    "shutdown-to": "5",
    "suspend-to": "6",
    "resume-to": "7",
    "vote-to": "3",
}


def host_state(word: str) -> bytes:
    """The VIM's answer to the question how compute-0 is."""
    return json.dumps({"uuid": HOST_0, "state": word}).encode()


def instances(*entries: tuple[str, str]) -> bytes:
    """The VIM's answer to the question which instances compute-0 has."""
    listed = [
        {"uuid": uuid, "hostname": "x", "services": [{"service": "heartbeat", "state": state}]}
        for uuid, state in entries
    ]
    return json.dumps({"instances": listed}).encode()


class RecordingPort:
    """Keeps what the agent sends, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        # Until when each of them is worth something; what number a link gives to what it sends.
        self.expires: list[float | None] = []
        self.number: int | None = None
        self.told_why: list[str] = []
        self.remembered: list[tuple[str, Entry]] = []

    def send(
        self,
        host: Host,
        command: Command,
        record: Record,
        expires: float | None = None,
        *,
        once: bool = False,
    ) -> int | None:
        self.calls.append((host.hostname, command.name, *map(str, record.members().values())))
        self.expires.append(expires)
        return self.number

    def ask_mtc_agent(self) -> None:
        self.calls.append(("mtcAgent", "MONITOR_READY"))

    def why(self, uuid: str, text: str) -> None:
        self.told_why.append(text)

    def remember(self, uuid: str, entry: Entry) -> None:
        self.remembered.append((uuid, entry))

    def warn(self, text: str, *args: object) -> None:
        self.calls.append(("warning", text % args))


class CoreRig:
    """The agent's core on a fake clock, and the inputs as their peers would give them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.wall = 1_700_000_000.0
        self.port = RecordingPort()
        self.agent = Agent(self.port, lambda: self.wall)

    @property
    def queue(self):
        return self.agent.queue

    def host(self, hostname: str = "compute-0") -> Host:
        host = self.agent.inventory.host_named(hostname)
        assert host is not None
        return host

    def instance(self, uuid: str = UUID) -> Instance:
        return self.agent.inventory.instances[uuid]

    def sent(self) -> list[tuple]:
        """What went out since the last look, bursts included."""
        while self.agent.bursts:
            self.agent.bursts.send_burst()
        calls, self.port.calls = self.port.calls, []
        return calls

    def mtc(self, command: Command = Command.ADD_HOST, **members: Any) -> mtc_commands.HostNews:
        message = MtcMessage(command, MTC_SIGNATURE, members)
        return mtc_commands.take_mtc_command(self.agent, message, self.now)

    def add_host(self, hostname: str = "compute-0", uuid: str = HOST_0) -> Host:
        self.mtc(hostname=hostname, uuid=uuid, ip="127.0.0.2", personality="worker")
        return self.host(hostname)

    def event(self, command: Command, hostname: str = "compute-0", **members: Any) -> None:
        message = MtcMessage(command, members={"hostname": hostname, "uuid": UUID, **members})
        events.take_event(self.agent, self.host(hostname), message, self.now)

    def info(
        self,
        command: Command,
        *,
        hostname: str = "compute-0",
        uuid: str = UUID,
        action: str = "reboot",
        **members: Any,
    ) -> None:
        """An event with instance information."""
        self.event(command, hostname, uuid=uuid, **{**INFO, "repair-action": action, **members})

    def running(self, **members: Any) -> None:
        self.info(Command.HEARTBEAT_RUNNING, **members)

    def stopped(self, **members: Any) -> None:
        self.info(Command.HEARTBEAT_STOPPED, heartbeating="disabled", **members)

    def vim(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """A command of the VIM; an error comes back as its status and reason."""
        try:
            command = parse_command(method, path, {"user-agent": "vim/1.0"}, body)
            return tuple(commands.execute(self.agent, command, self.now))
        except CommandError as error:
            return error.status, {"status": "fail", "reason": error.reason}

    def audit(self, hostname: str = "compute-0") -> None:
        audit.audit(self.agent, self.host(hostname), self.now)

    def deliver(self, ended: Ended = Ended.TAKEN) -> list[tuple[str, Kind, Any]]:
        """Let the VIM have everything that is due; return what it was."""
        delivered: list[Delivery] = []
        while started := self.queue.poll(self.now):
            for delivery in started:
                delivered.append(delivery)
                self.queue.done(delivery, ended, self.now)
            if ended is Ended.NOT_DELIVERED:
                break
        return [(each.key, each.message.kind, each.message.detail) for each in delivered]

    def ready(self, reporting: bool = True, heartbeating: bool = True) -> Instance:
        """One host and one instance as after a quiet start; nothing left to look at."""
        host = self.add_host()
        self.agent.set_host_reporting(host, True, self.now)
        host.got_instances = True
        instance = self.agent.add_instance(UUID, host, reporting, self.now)
        if heartbeating:
            self.running()
        self.deliver()
        self.sent()
        return instance


def ready_core() -> CoreRig:
    """Return a core with one host and one instance, as after a quiet start."""
    rig = CoreRig()
    rig.ready()
    return rig
