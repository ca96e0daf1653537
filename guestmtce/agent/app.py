"""guestAgent: on the active controller; commands, events, audit (architecture.md).

Replaces guestAgent.cpp. It owns the core and joins it with the links to the guestServers,
mtcAgent and the VIM, none of which know one another.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from guestmtce.agent import metrics
from guestmtce.agent.addresses import OwnAddresses, missing
from guestmtce.agent.http_api import HttpApi
from guestmtce.agent.mtc_link import MtcLink
from guestmtce.agent.page import Snapshot
from guestmtce.agent.permission import warn_of_strangers
from guestmtce.agent.problems import problems
from guestmtce.agent.server_link import ServerLink
from guestmtce.agent.stream import EventStream
from guestmtce.agent.vim_api import VimApi
from guestmtce.core.agent import audit, events, mtc_commands
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.bursts import BURST_SECS
from guestmtce.core.agent.inventory import Host, count_heartbeating
from guestmtce.core.agent.schedule import Schedule
from guestmtce.core.shared.errors import StartError
from guestmtce.core.shared.history import Entry, Past, What
from guestmtce.core.shared.limits import EveryNth
from guestmtce.core.shared.mtc_message import MtcMessage
from guestmtce.core.shared.settings import AgentSettings, management_interface
from guestmtce.core.shared.stamp import new_epoch
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import canonical_uuid
from guestmtce.runtime import files, vitals
from guestmtce.runtime import log as logs
from guestmtce.runtime.address import cannot_bind, is_loopback
from guestmtce.runtime.control import Handler
from guestmtce.runtime.event_log import Event, EventLog
from guestmtce.runtime.hosts import HostsFile
from guestmtce.runtime.http_server import HttpServer
from guestmtce.runtime.interfaces import is_here
from guestmtce.runtime.local_user import USERS_FILE, LocalUsers
from guestmtce.runtime.loop import Loop, Timers
from guestmtce.runtime.metrics import Registry
from guestmtce.runtime.metrics_file import MetricsFile
from guestmtce.runtime.outside import OUTSIDE, Outside

log = logging.getLogger(__name__)

RESOLVE_SECS = 3.0
RESOLVED_SECS = 60.0
# How often is looked whether the floating address is on this host, and while it is not.
LOOK_SECS = 3.0
ABSENT_LOOK_SECS = 1.0
EVENTS_FILE = "/var/log/mtce-guest/guestAgent.events.jsonl"
_LOG_EVERY = 20


class GuestAgent:
    """The daemon on its loop. `root` prefixes every absolute path; `core` decides everything.

    `is_here` returns whether an address is on one of this host's interfaces.
    """

    def __init__(
        self,
        loop: Loop,
        settings: AgentSettings,
        hostname: str,
        root: str,
        *,
        is_here: Callable[[str], bool] = is_here,
        outside: Outside = OUTSIDE,
    ) -> None:
        self.settings = settings
        self.hostname = hostname
        self._loop = loop
        self._outside = outside
        self._is_here = is_here
        self._hosts = HostsFile(files.under(root, "/etc/hosts"), loop.time)
        interface = management_interface(files.reader(root))
        self.own = OwnAddresses(settings, hostname, self._hosts, interface)
        self._events = EventLog(files.under(root, EVENTS_FILE), loop.call_later)
        restarted = Entry(outside.wall(), What.RESTARTED, "guestAgent")
        past = Past(self._events.remembered(), restarted)
        self.core = Agent(self, outside.wall, settings.max_hosts, past)
        self.schedule = Schedule(loop.time())
        self.server_link = ServerLink(
            loop,
            settings,
            self.own,
            self.core,
            on_event=self._take_event,
            on_start=self._server_started,
            new_epoch=partial(new_epoch, outside.number_below) if settings.acknowledge else None,
        )
        self.mtc_link = MtcLink(
            loop, settings, self.own, self._take_mtc_command, self._send_from_local
        )
        # What the core sends, the links deliver (ports of the core).
        self.send = self.server_link.send
        self.ask_mtc_agent = self.mtc_link.ask_for_hosts
        self.vim_api = VimApi(loop, self.core, self._vim_address, self._settle)
        self.registry = Registry("guestAgent")
        self._stream = EventStream(self._events, f"{int(outside.wall()):x}")
        self._users = LocalUsers(files.under(root, USERS_FILE))
        self.http_api = self._make_http_api()
        self.http_counts: Counter[str] = Counter()
        self._server: HttpServer | None = None
        self._register_metrics()
        self._metrics_file = MetricsFile(loop, self.registry.render, root)
        self._timers = Timers(loop)
        self._missing = EveryNth(_LOG_EVERY)
        self._stopping = False

    def _make_http_api(self) -> HttpApi:
        return HttpApi(
            self._loop,
            self.core,
            self.registry.render,
            self._snapshot,
            self._settle,
            begin_stream=self._stream.begin,
            allowed=lambda: self.settings.vim_cmd_users,
        )

    def _register_metrics(self) -> None:
        registry = self.registry
        metrics.register(registry, self.core)
        metrics.register_links(registry, self.core, self.server_link, self.mtc_link)
        metrics.register_vim(registry, self.core, self.vim_api)
        metrics.register_http(registry, self.http_api, self.http_counts)

    def start(self) -> None:
        """Bind, ask mtcAgent for the hosts, begin the audit. Raises StartError."""
        warn_of_strangers(self.settings.vim_cmd_users, self._users)
        self._listen()
        self._events.open()
        self._metrics_file.start(self.settings.metrics_file)
        self.server_link.receiver.open()
        self.mtc_link.receiver.open()
        self.core.ask_mtc_agent(self._loop.time())
        self._resolve()
        self._look()
        self._settle()

    def stop(self, done: Callable[[], None]) -> None:
        """Stop receiving. Deliver what is queued if the VIM accepts it, then call `done()`."""
        self._stopping = True
        self._timers.cancel_all()
        self._metrics_file.stop()
        if self._server is not None:
            self._server.close()
        self.server_link.stop_listening()
        self.mtc_link.receiver.close()
        self.vim_api.finish(partial(self._stopped, done))

    def _stopped(self, done: Callable[[], None]) -> None:
        self.server_link.close()
        self._events.close()
        done()

    def reload(self, settings: AgentSettings) -> None:
        """Go by these settings from now on (SIGHUP)."""
        self.settings = settings
        warn_of_strangers(settings.vim_cmd_users, self._users)
        self._metrics_file.start(self.settings.metrics_file)
        self._resolve()

    def warn(self, text: str, *args: object) -> None:
        """Tell the operator (a port of the core)."""
        safe = (printable(arg) if isinstance(arg, str) else arg for arg in args)
        log.warning(text, *safe)

    def why(self, uuid: str, text: str) -> None:
        """Log what answers "why?" of an instance (a port of the core)."""
        log.info("%s", printable(text), extra=logs.why(uuid))

    def remember(self, uuid: str, entry: Entry) -> None:
        """Pass on what an instance's history remembers (a port of the core)."""
        instance = self.core.inventory.instances.get(uuid)
        name = printable(instance.name) if instance is not None else ""
        self._events.add({"uuid": uuid, "name": name, **entry.for_operator()})

    def _listen(self) -> None:
        name, port = self.settings.vim_cmd_address, self.settings.vim_cmd_port
        found = self._hosts.lookup(name)
        if not found or not is_loopback(found[0]):
            raise StartError(f"[agent] vim_cmd_address = {name}: not a loopback address")
        try:
            self._server = HttpServer(
                self._loop,
                (found[0], port),
                self.http_api.answer,
                self.http_api.not_a_request,
                counts=self.http_counts,
                users=self._users,
            )
        except OSError as error:
            raise cannot_bind("TCP", found[0], port, error) from error
        self._events.follow(partial(_publish, self._server, self._stream))
        log.info("commands on %s port %d", found[0], port)

    def _resolve(self) -> None:
        """Follow the hosts file: often until every address is there, then now and then."""
        self.own.refresh()
        self.server_link.receiver.refresh()
        self.mtc_link.refresh()
        missing = self._missing_addresses()
        for problem in missing:
            if self._missing.hit(problem) is not None:
                log.warning("%s; trying again every %d s", problem, RESOLVE_SECS)
        often = missing or self._hosts.look_again_soon
        self._timers.start("resolve", RESOLVE_SECS if often else RESOLVED_SECS, self._resolve)

    def _look(self) -> None:
        """Look whether the floating address is on this host, which makes us the active agent."""
        floating = self.own.floating
        there = self._is_there(floating)
        was_active = self.core.presence.active
        self.core.note_presence(there, self._loop.time())
        if self.core.presence.active and not was_active:
            self.schedule = Schedule(self._loop.time())
            log.warning("the floating address %s is here again: active", floating)
        elif was_active and not self.core.presence.active:
            log.error("the floating address %s is not here: no longer active", floating)
        self._timers.start("look", LOOK_SECS if there else ABSENT_LOOK_SECS, self._look)
        self._settle()

    def _is_there(self, floating: str | None) -> bool:
        try:
            return floating is None or self._is_here(floating)
        except OSError as error:
            # Out of descriptors, say. What was found the last time stands.
            if self._missing.hit("interfaces") is not None:
                log.warning("cannot look for %s: %s", floating, error)
            return self.core.presence.absent_since is None

    def _missing_addresses(self) -> list[str]:
        return missing(self.own, self.server_link.receiver, self.mtc_link.receiver)

    def _vim_address(self) -> tuple[str, int] | None:
        found = self._hosts.lookup(self.settings.vim_address)
        return (found[0], self.settings.vim_port) if found else None

    def _send_from_local(
        self, data: bytes, destination: tuple[str, int], on_end: Callable[[bool], object]
    ) -> bool:
        return self.server_link.receiver.send(data, destination, self.own.local, on_end)

    def _take_event(self, host: Host, message: MtcMessage, source: str) -> None:
        try:
            events.take_event(self.core, host, message, self._loop.time(), source)
        finally:
            self._settle()

    def _server_started(self, host: Host) -> None:
        events.server_started(self.core, host, self._loop.time())
        self._settle()

    def _take_mtc_command(self, message: MtcMessage) -> None:
        now = self._loop.time()
        news = mtc_commands.take_mtc_command(self.core, message, now)
        for hostname in news.went:
            log.info("host %s is gone", printable(hostname))
            self.schedule.remove(hostname)
        for hostname in news.came:
            log.info("host %s is known", printable(hostname))
            self.schedule.add(hostname, now)
        self._settle()

    def _settle(self) -> None:
        """Call after every input: send the next burst, start what is due, set the audit timer."""
        if self._stopping:
            self.vim_api.pump()
            return
        if self.core.bursts and not self._timers.active("burst"):
            self._burst()
        self.vim_api.pump()
        self._timers.start_at("audit", self.schedule.next_at(), self._audit)

    def _burst(self) -> None:
        self.core.bursts.send_burst()
        if self.core.bursts:
            self._timers.start("burst", BURST_SECS, self._burst)

    def _audit(self) -> None:
        now = self._loop.time()
        for hostname in self.schedule.due(now):
            host = self.core.inventory.host_named(hostname)
            if host is not None:
                audit.audit(self.core, host, now)
        self._settle()

    def problems(self) -> vitals.Problems:
        """Return what makes this daemon degraded, by kind."""
        return {
            "address": self._missing_addresses(),
            **problems(self.core, self.own.floating, self._loop.time()),
            **vitals.own_problems(self._loop, self._events.problem, self._metrics_file.problem),
        }

    def summary(self) -> dict[str, object]:
        """Return the numbers that an operator wants first."""
        inventory = self.core.inventory
        return {
            "hostname": self.hostname,
            "floating": self.own.floating,
            "local": self.own.local,
            "active": self.core.presence.active,
            "hosts": len(inventory.hosts),
            "instances": len(inventory.instances),
            "heartbeating": count_heartbeating(inventory.instances.values()),
            "vim_queue": len(self.core.queue),
        }

    def dump(self) -> dict[str, object]:
        """Return the full state."""
        return {
            "summary": self.summary(),
            "hosts": self._list_hosts(),
            "instances": self._list_instances(),
            "vim": self.core.queue.for_operator(),
            "vim_requests": dict(self.vim_api.results),
            "received": dict(self.server_link.intake.received + self.mtc_link.intake.received),
            "sent": dict(self.server_link.intake.sent + self.mtc_link.intake.sent),
            "dropped": dict(
                self.server_link.intake.dropped + self.mtc_link.intake.dropped + self.core.dropped
            ),
        }

    def commands(self) -> Mapping[str, Handler]:
        """Return the control commands of guestctl beyond those of both daemons."""
        return {
            "instances": lambda _request: {"instances": self._list_instances()},
            "hosts": lambda _request: {"hosts": self._list_hosts()},
            "show": self._show,
            "events": lambda _request: self._events.answer(),
            "past": lambda _request: {"past": self.core.past.instances()},
        }

    def _snapshot(self) -> Snapshot:
        """Return what the status page shows."""
        status = {"problems": vitals.sentences(self.problems()), "summary": self.summary()}
        return Snapshot(
            status,
            self.core.queue.for_operator(),
            self._list_hosts(),
            (each.for_operator() for each in [*self.core.inventory.instances.values()]),
            self._events.since(0),
            self._stream.run,
            self._outside.wall(),
        )

    def _list_hosts(self) -> list[dict[str, object]]:
        return [host.for_operator() for host in self.core.inventory.hosts.values()]

    def _list_instances(self) -> list[dict[str, object]]:
        return [instance.for_operator() for instance in self.core.inventory.instances.values()]

    def _show(self, request: dict[str, object]) -> dict[str, object]:
        uuid = canonical_uuid(str(request.get("uuid"))) or ""
        instance = self.core.inventory.instances.get(uuid)
        if instance is not None:
            history = instance.history.for_operator()
            return {"instance": {**instance.for_operator(), "history": history}}
        history = self.core.past.for_operator(uuid)
        if not history:
            return {"error": "no such instance"}
        return {"instance": {"uuid": uuid, "history": history}}


def _publish(server: HttpServer, stream: EventStream, event: Event) -> None:
    """Pass an event on to those who follow `/v1/events`; nothing is made where nobody does."""
    if server.followers:
        server.publish(stream.encode(event))
