"""guestAgent's metrics (monitoring.md): at /metrics, by the control socket, and as a file.

Every value is read when rendered, from the counters of whoever counts it.
"""

from __future__ import annotations

import heapq
from collections import Counter

from guestmtce.agent.http_api import HttpApi
from guestmtce.agent.mtc_link import MtcLink
from guestmtce.agent.server_link import ServerLink
from guestmtce.agent.vim_api import RESULTS, VimApi
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Host, Inventory
from guestmtce.core.agent.lanes import VOID_REASONS, Kind
from guestmtce.core.agent.vim_commands import Operation
from guestmtce.core.agent.vim_messages import FAILED, UNHEALTHY
from guestmtce.core.shared.condition import CONDITIONS
from guestmtce.core.shared.owed import Owed
from guestmtce.core.shared.vocabulary import (
    FROM_MTC_AGENT,
    TO_AGENT,
    TO_SERVER,
    Command,
    CorrectiveAction,
)
from guestmtce.runtime import http_server, intake
from guestmtce.runtime.metrics import Registry

# Of a larger fleet, the hosts that are silent the longest have a series of their own.
MAX_HOST_SERIES = 1000

_TRAFFIC = intake.Traffic(
    incoming=sorted({command.name for command in (*TO_AGENT, *FROM_MTC_AGENT)}),
    outgoing=[command.name for command in (*TO_SERVER, Command.MONITOR_READY)],
    reasons=(
        "bad_signature",
        "ill_again",
        "late_vote",
        "loss_again",
        "no_address",
        "no_vote",
        "not_active",
        "not_reporting",
        "other_host",
        "overtaken",
        "ready_again",
        "too_many_hosts",
        "unknown_action",
        "unknown_command",
        "unknown_host",
    ),
)
# The statuses that an operation usually ends in; others come as they are.
_STATUSES = ("200", "204", "400", "404", "503")


def register(registry: Registry, core: Agent) -> None:
    """Show the hosts and the instances."""
    inventory = core.inventory
    registry.tally(
        "guestmtce_instances",
        "Instances by how they are, in guestctl's words.",
        "state",
        lambda: (each.now().condition.value for each in inventory.instances.values()),
        CONDITIONS,
        shared=True,
    )
    registry.collect_all(
        "gauge",
        (
            "guestmtce_active",
            "1 while this is the active guestAgent.",
            lambda: int(core.presence.active),
        ),
        ("guestmtce_hosts", "Hosts in the inventory.", lambda: len(inventory.hosts)),
        (
            "guestmtce_hosts_silent",
            "Hosts that answer no audit: the state of their instances is unknown.",
            lambda: sum(host.silent for host in inventory.hosts.values()),
        ),
        (
            "guestmtce_hosts_acknowledging",
            "Hosts whose guestServer acknowledges: it is no old one.",
            lambda: sum(host.acknowledges is True for host in inventory.hosts.values()),
        ),
    )
    registry.collect(
        "gauge",
        "guestmtce_host_silent",
        "1 for a host that answers no audit.",
        lambda: {(host.hostname,): int(host.silent) for host in _shown(core)},
        ("host",),
    )
    registry.collect(
        "gauge",
        "guestmtce_host_silence_seconds",
        "Since the last word of a host's guestServer; since the host is known, if it said none.",
        lambda: {(host.hostname,): host.silence(core.wall()) for host in _shown(core)},
        ("host",),
    )


def register_links(
    registry: Registry, core: Agent, server_link: ServerLink, mtc_link: MtcLink
) -> None:
    """Show what goes to the guestServers and mtcAgent, and comes from them."""

    def overruns() -> int:
        return server_link.receiver.overruns + mtc_link.receiver.overruns

    intake.register(registry, [server_link.intake, mtc_link.intake], _TRAFFIC, overruns)
    stats = server_link.delivery
    stats.on_round_trip = intake.register_delivery(
        registry, lambda: _owed(core.inventory)._asdict(), stats.voided, stats.counts
    ).observe


def register_vim(registry: Registry, core: Agent, vim_api: VimApi) -> None:
    """Show what the VIM is told, and what becomes of it."""
    queue = core.queue
    for name, text, label, counter, keys in (
        ("requests", "Requests to the VIM by how they ended.", "result", vim_api.results, RESULTS),
        ("events", "Events queued for the VIM.", "kind", core.events, _EVENT_KINDS),
        (
            "events_dropped",
            "Alarms and answers that the VIM is never told.",
            "reason",
            queue.dropped,
            VOID_REASONS,
        ),
    ):
        registry.count(f"guestmtce_vim_{name}_total", text, label, counter, keys=keys)
    registry.collect_all(
        "gauge",
        ("guestmtce_vim_queue_length", "Events that wait.", lambda: len(queue)),
        ("guestmtce_vim_suspect", "1 while the VIM fails.", lambda: int(queue.suspect)),
        (
            "guestmtce_alarms_waiting",
            "Alarms that wait for the VIM, or are on their way.",
            lambda: queue.waiting(Kind.ALARM),
        ),
    )
    registry.collect(
        "counter",
        "guestmtce_alarms_told_total",
        "Alarms that the VIM was told.",
        lambda: dict(core.alarms_told),
        ("state", "action"),
        keys=[(state, str(action)) for state in (FAILED, UNHEALTHY) for action in CorrectiveAction],
    )
    text = "Alarms that the VIM is never told, by why they are void."
    registry.count(
        "guestmtce_alarms_untold_total", text, "reason", core.alarms_untold, keys=VOID_REASONS
    )
    registry.count(
        "guestmtce_vim_passed_over_total",
        "The VIM's answers that cannot be used; states put off as a guest changes too often.",
        "reason",
        core.dropped,
        keys=("bad_answer", "bad_instance", "flapping"),
    )


_EVENT_KINDS = [kind.value for kind in (Kind.SERVICE, Kind.ALARM, Kind.ACTION)]


def register_http(registry: Registry, http_api: HttpApi, connections: Counter[str]) -> None:
    """Show the commands, and how the server does that takes them."""
    registry.count(
        "guestmtce_http_server_total",
        "Connections and requests of the command API.",
        "what",
        connections,
        keys=http_server.COUNTED,
    )
    registry.collect(
        "counter",
        "guestmtce_vim_commands_total",
        "Requests answered.",
        lambda: dict(http_api.results.items()),
        ("command", "status"),
        keys=[(operation.value, status) for operation in Operation for status in _STATUSES],
    )


def _shown(core: Agent) -> list[Host]:
    """Return the hosts that have series of their own."""
    hosts, now = list(core.inventory.hosts.values()), core.wall()
    if len(hosts) <= MAX_HOST_SERIES:
        return hosts
    return heapq.nlargest(MAX_HOST_SERIES, hosts, key=lambda host: host.silence(now))


def _owed(inventory: Inventory) -> Owed:
    roles = (host.role for host in inventory.hosts.values())
    return Owed.total(role.how_much() for role in roles if role is not None)
