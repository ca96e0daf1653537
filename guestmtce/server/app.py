"""guestServer: one per worker; discovers channels, heartbeats instances, reports (architecture.md).

Replaces guestServer.cpp. It owns the table of instances and joins three things that do not
know one another: the channel directory, the channels, and the link to guestAgent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from guestmtce.core.server.guest_protocol import CHALLENGE_LIMIT
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.history import Entry, Past, What
from guestmtce.core.shared.mtc_message import (
    Ask,
    HostState,
    InstanceState,
    MtcMessage,
    Record,
    VoteAnswer,
)
from guestmtce.core.shared.owed import Debt, Topic
from guestmtce.core.shared.settings import ServerSettings, management_interface
from guestmtce.core.shared.stamp import Stamp, new_epoch
from guestmtce.core.shared.vocabulary import Command, Notification, canonical_uuid
from guestmtce.runtime import files, vitals
from guestmtce.runtime import log as logs
from guestmtce.runtime.control import Handler
from guestmtce.runtime.event_log import EventLog
from guestmtce.runtime.hosts import HostsFile
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.metrics import Registry
from guestmtce.runtime.metrics_file import MetricsFile
from guestmtce.runtime.outside import OUTSIDE, Outside
from guestmtce.server import metrics, status
from guestmtce.server.agent_link import AgentLink, MessageHandler
from guestmtce.server.channel import Channel
from guestmtce.server.losses import LOSSES_FILE, Losses
from guestmtce.server.platform import Platform
from guestmtce.server.telling import Telling
from guestmtce.server.virtio import ChannelDirectory

log = logging.getLogger(__name__)

EVENTS_FILE = "/var/log/mtce-guest/guestServer.events.jsonl"
# Longer than a guest repeats an illness with its action: then it is history.
ILLNESS_SECS = 70.0
# A channel that got no descriptor is tried again every 2 s: without a failure it is over.
STARVED_SECS = 5.0
# Stalls closer together than this are one episode, logged once.
STALL_EPISODE_SECS = 10.0
_STARVED = (
    "no descriptors left for some channels: raise LimitNOFILE of guestServer.service, then restart"
)


class GuestServer:
    """The daemon on its loop. `root` prefixes every absolute path."""

    def __init__(
        self,
        loop: Loop,
        settings: ServerSettings,
        hostname: str,
        root: str,
        outside: Outside = OUTSIDE,
    ) -> None:
        self.hostname = hostname
        self._loop = loop
        self._root = root
        self.channels: dict[str, Channel] = {}
        self.worker = Worker(
            hostname=hostname,
            settings=settings,
            clock=loop.time,
            random_number=lambda: outside.number_below(CHALLENGE_LIMIT),
            wall=outside.wall,
            on_entry=self._note_entry,
        )
        self._events = EventLog(self._path(EVENTS_FILE), loop.call_later)
        self._past = Past(
            self._events.remembered(), Entry(outside.wall(), What.RESTARTED, "guestServer")
        )
        # Instances that guestAgent deleted: their files are passed over. A scan does not revive
        # them; ADD/MOD_INST or a new create or move event does (decision 11).
        self._ignored: set[str] = set()
        self._directory = ChannelDirectory(loop, self._path(settings.channel_directory), self)
        self.link = self._make_link(outside)
        self.worker.illness_over = self.link.illness_over
        self.worker.names_told = lambda: self.link.agent_acknowledges is True
        self._telling = Telling(loop, hostname, self.link, self.channels)
        self._losses = Losses(
            loop,
            self._path(LOSSES_FILE),
            self.link,
            channels=self.channels,
            since_boot=outside.since_boot,
        )
        self.registry = Registry("guestServer")
        metrics.register(self.registry, self.worker, self.channels, self._directory)
        metrics.register_link(self.registry, self.link)
        self._metrics_file = MetricsFile(loop, self.registry.render, root)
        self._platform = Platform(loop, root, self._discover)
        self._stalled_at = float("-inf")
        self._starved_at = float("-inf")

    def _make_link(self, outside: Outside) -> AgentLink:
        handlers: dict[Command, MessageHandler] = {
            Command.ADD_INST: self._provision,
            Command.MOD_INST: self._provision,
            Command.DEL_INST: self._delete_instance,
            Command.MOD_HOST: self._set_host_reporting,
            Command.QRY_INST: lambda _message, stamp: self._telling.query(stamp),
            Command.VOTE_INST: partial(self._ask, Notification.REVOCABLE),
            Command.NOTIFY_INST: partial(self._ask, Notification.IRREVOCABLE),
        }
        return AgentLink(
            self._loop,
            self.settings,
            self.hostname,
            hosts=HostsFile(self._path("/etc/hosts"), self._loop.time),
            management_interface=management_interface(files.reader(self._root)),
            handlers=handlers,
            epoch=new_epoch(outside.number_below) if self.settings.acknowledge else None,
            on_new_agent=self._new_agent,
            on_flush=self._on_flush,
            on_order=self._note_acknowledged,
        )

    @property
    def settings(self) -> ServerSettings:
        """The settings in force."""
        return self.worker.settings

    def _path(self, path: str) -> str:
        return files.under(self._root, path)

    def start(self) -> None:
        """Bind, then wait for the platform, then discover. Raises StartError."""
        self._losses.load()
        self.link.open()
        self._events.open()
        self._metrics_file.start(self.settings.metrics_file)
        self._platform.start()

    def stop(self, done: Callable[[], None]) -> None:
        """Close everything at once. No STOPPED is sent: the guests are as well as before."""
        self._platform.stop()
        self._losses.stop()
        self._telling.stop()
        self._directory.stop()
        for channel in self.channels.values():
            channel.instance.delete()
        self.channels.clear()
        self._metrics_file.stop()
        self.link.close()
        self._events.close()
        done()

    def reload(self, settings: ServerSettings) -> None:
        """Go by these settings from now on (SIGHUP)."""
        self.worker.settings = settings
        self.link.reload(self.settings)
        self._metrics_file.start(self.settings.metrics_file)

    def _discover(self) -> None:
        self._directory.start()
        self.link.start_ready(min(self.settings.start_delay_secs, 1))

    def file_found(self, uuid: str, *, fresh: bool) -> None:
        """An instance has a socket file; one that was deleted counts only if it is new."""
        if uuid in self._ignored:
            if not fresh:
                return
            self._ignored.discard(uuid)
        self._channel(uuid).file_found()

    def file_changed(self, uuid: str) -> None:
        """The file of an instance was modified."""
        channel = self.channels.get(uuid)
        if channel is not None:
            channel.instance.file_changed()

    def file_gone(self, uuid: str) -> None:
        """The last file of an instance is gone."""
        self._ignored.discard(uuid)
        self.loss_is_void(uuid)
        channel = self.channels.get(uuid)
        if channel is not None:
            channel.instance.file_gone()

    def _channel(self, uuid: str) -> Channel:
        """Return the instance's channel, a new one if it is not known."""
        channel = self.channels.get(uuid)
        if channel is None:
            channel = Channel(uuid, self.worker, self._loop, self._directory, self)
            channel.instance.memory.name = self._past.name(uuid)
            channel.instance.memory.history.restore(self._past.take(uuid))
            self._losses.recall(uuid, channel.instance.reports)
            self.channels[uuid] = channel
            log.info("instance %s: added", uuid)
        return channel

    def forget(self, uuid: str) -> None:
        """Drop an instance and all that runs for it."""
        self._losses.void(uuid)
        channel = self.channels.pop(uuid, None)
        if channel is not None:
            channel.instance.delete()
            self._past.put(uuid, channel.instance.memory.history, channel.instance.name)
            self.link.void(uuid)
            log.info("instance %s: forgotten", uuid)

    def report(self, command: Command, record: Record) -> None:
        """Send an event of an instance to guestAgent."""
        expires = None
        if command is Command.HEARTBEAT_ILLHEALTH:
            expires = self._loop.time() + ILLNESS_SECS
        elif isinstance(record, VoteAnswer):
            expires = self.channels[record.uuid].instance.vote.expires_at
        self.link.send(command, record, expires=expires)

    def loss_is_void(self, uuid: str) -> None:
        """Its channel was closed by QEMU, or its file is gone: that is the VIM's to know."""
        self.link.void(uuid, Topic.LOSS)
        self._losses.void(uuid)

    def _on_flush(self) -> None:
        self._losses.note_flush()

    def _new_agent(self) -> None:
        self._telling.say_states()

    def out_of_descriptors(self) -> None:
        """Show for a while that channels wait for a descriptor; they are tried again."""
        self._starved_at = self._loop.time()

    def stalled(self, late: float) -> None:
        """Log that this host was behind, once per episode."""
        now = self._loop.time()
        if now - self._stalled_at > STALL_EPISODE_SECS:
            log.warning("this host or process stood still (a timer %.1f s late); no miss", late)
        self._stalled_at = now

    def _provision(self, message: MtcMessage, stamp: Stamp | None) -> None:
        """ADD_INST and MOD_INST: known from now on, with this reporting; connect if it can.

        A new agent is told in return what the instance is.
        """
        uuid, reporting = InstanceState.of(message)
        self._ignored.discard(uuid)
        channel = self._channel(uuid)
        if channel.instance.reports.reporting != reporting:
            log.info("instance %s: reporting %s", uuid, "on" if reporting else "off")
        channel.instance.provision(reporting)
        if not reporting:
            self._faults_are_void(uuid)
        if not channel.instance.connection.connected and self._directory.knows(uuid):
            channel.file_found()
        if stamp is not None:
            self._telling.say_state(uuid)

    def _faults_are_void(self, uuid: str) -> None:
        """Reporting is off: neither a loss nor an illness of it is to be told."""
        self.link.void(uuid, Topic.LOSS, Topic.ILLNESS)
        self._losses.void(uuid)

    def _delete_instance(self, message: MtcMessage, _stamp: Stamp | None) -> None:
        """DEL_INST: forget; the file, if it is still there, is passed over (decision 11)."""
        uuid = message.uuid()
        self.forget(uuid)
        if self._directory.knows(uuid):
            self._ignored.add(uuid)

    def _set_host_reporting(self, message: MtcMessage, _stamp: Stamp | None) -> None:
        reporting = HostState.of(message).reporting
        if reporting != self.worker.reporting:
            log.info("host reporting %s", "on" if reporting else "off")
            self.worker.reporting = reporting
        if not reporting:
            self._losses.void_all()
            for uuid in self.channels:
                self._faults_are_void(uuid)

    def _ask(self, notification: Notification, message: MtcMessage, _stamp: Stamp | None) -> None:
        uuid, event = Ask.of(message)
        channel = self.channels.get(uuid)
        if channel is None:
            raise PeerError("unknown_instance", f"{notification} {event}: no instance {uuid}")
        asked = notification, event
        log.info("%s: asked, %s %s", channel.who, *asked, extra=logs.why(uuid))
        self.link.void(uuid, Topic.ANSWER)
        channel.instance.ask(event, notification)

    def problems(self) -> vitals.Problems:
        """Return what makes this daemon degraded, by kind."""
        starved = self._loop.time() - self._starved_at < STARVED_SECS
        return {
            "address": self.link.problems,
            **self._directory.problems,
            "platform": self._platform.problems,
            "descriptors": [_STARVED] if starved else [],
            "flood": status.floods(self.channels.values()),
            **vitals.own_problems(
                self._loop, self._losses.problem, self._events.problem, self._metrics_file.problem
            ),
        }

    def summary(self) -> dict[str, object]:
        """Return the numbers that an operator wants first."""
        return {
            **status.summary(self.worker, self.channels, self.link),
            "ignored": sorted(self._ignored),
            "inotify_overflows": self._directory.overflows,
        }

    def dump(self) -> dict[str, object]:
        """Return the full state."""
        return {
            "summary": self.summary(),
            "instances": self._instances(),
        }

    def commands(self) -> Mapping[str, Handler]:
        """Return the control commands of guestctl that only a guestServer answers."""
        return {
            "instances": lambda _request: {"instances": self._instances()},
            "show": self._show,
            "events": lambda _request: self._events.answer(),
            "past": lambda _request: {"past": self._past.instances()},
        }

    def _instances(self) -> list[dict[str, object]]:
        return [channel.for_operator() for channel in self.channels.values()]

    def _show(self, request: dict[str, object]) -> dict[str, object]:
        """Answer with all of an instance; of one that is gone, with what is remembered."""
        uuid = canonical_uuid(str(request.get("uuid"))) or ""
        channel = self.channels.get(uuid)
        if channel is None:
            history = self._past.for_operator(uuid)
            if not history:
                return {"error": "no such instance"}
            gone = {"uuid": uuid, "host": self.hostname, "name": self._past.name(uuid)}
            return {"instance": {**gone, "history": history}}
        return {"instance": channel.for_operator(whole=True)}

    def _note_acknowledged(self, order: Debt, queued: bool) -> None:
        """Remember what became of what was reported of an instance."""
        uuid, topic = order.key
        channel = self.channels.get(uuid)
        if channel is not None:
            became = "held for the VIM by" if queued else "settled by"
            where = self.link.destination
            channel.instance.memory.add(What.ACKNOWLEDGED, f"{topic.value} {became} {where}")

    def _note_entry(self, uuid: str, entry: Entry) -> None:
        """Pass what an instance remembers on to the file, and to whoever follows."""
        channel = self.channels.get(uuid)
        name = channel.instance.name if channel else self._past.name(uuid)
        self._events.add({"uuid": uuid, "name": name, **entry.for_operator()})
