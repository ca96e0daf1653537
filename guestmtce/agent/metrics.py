"""guestAgent's metrics (operations.md, Metrics): served at /metrics and by the control socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from guestmtce.core.agent.inventory import count_heartbeating
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.metrics import Registry

if TYPE_CHECKING:
    from guestmtce.agent.app import GuestAgent


def build_registry(loop: Loop, agent: GuestAgent) -> Registry:
    """Return the registry; every value is read from the agent's own counters when rendered."""
    registry = Registry()
    add = registry.collect
    inventory = agent.core.inventory
    states = partial(_states, agent)
    add("gauge", "guestmtce_instances", "Instances by state.", states, ("state",))
    add("gauge", "guestmtce_hosts", "Hosts in the inventory.", lambda: len(inventory.hosts))
    silent = "Hosts that answer no audit: the state of their instances is unknown."
    add("gauge", "guestmtce_hosts_silent", silent, partial(_silent, agent))
    _add_datagrams(registry, agent)
    _add_vim(registry, agent)
    add("gauge", "guestmtce_loop_lag_seconds", "Lateness of the last timer.", lambda: loop.lag)
    add("counter", "guestmtce_loop_errors_total", "Callbacks that failed.", lambda: loop.errors)
    return registry


def _add_datagrams(registry: Registry, agent: GuestAgent) -> None:
    add, links = registry.collect, (agent.server_link, agent.mtc_link)
    counts = partial(_datagrams, agent)
    add("counter", "guestmtce_datagrams_total", "Datagrams.", counts, ("direction", "cmd"))
    dropped = [link.intake.dropped for link in links]
    text = "Datagrams not taken or not sent."
    _add_counter(registry, "datagrams_dropped", text, "reason", *dropped)
    add("counter", "guestmtce_datagram_overruns_total", "Lost in the kernel.", agent.overruns)


def _add_vim(registry: Registry, agent: GuestAgent) -> None:
    add, queue = registry.collect, agent.core.queue
    for name, text, label, counter in (
        ("vim_requests", "Requests to the VIM.", "result", agent.vim_api.results),
        ("vim_events", "Events queued for the VIM.", "kind", agent.core.events),
        ("vim_events_dropped", "Events never delivered.", "reason", queue.dropped),
        ("http_server", "The command server's connections.", "what", agent.http_counts),
    ):
        _add_counter(registry, name, text, label, counter)
    add("gauge", "guestmtce_vim_queue_length", "Events that wait.", lambda: len(queue))
    add("gauge", "guestmtce_vim_suspect", "1 while the VIM fails.", lambda: int(queue.suspect))
    add(
        "counter",
        "guestmtce_vim_commands_total",
        "Requests answered.",
        lambda: dict(agent.http_api.results.items()),
        ("command", "status"),
    )


def _add_counter(
    registry: Registry, name: str, text: str, label: str, *counters: Counter[str]
) -> None:
    def read() -> Mapping[tuple[str, ...], int]:
        total: Counter[str] = sum(counters, Counter())
        return {(key,): count for key, count in total.items()}

    registry.collect("counter", f"guestmtce_{name}_total", text, read, (label,))


def _states(agent: GuestAgent) -> dict[tuple[str, ...], int]:
    instances = agent.core.inventory.instances
    heartbeating = count_heartbeating(instances.values())
    return {
        ("heartbeating",): heartbeating,
        ("not_heartbeating",): len(instances) - heartbeating,
    }


def _silent(agent: GuestAgent) -> int:
    return sum(1 for host in agent.core.inventory.hosts.values() if host.silent)


def _datagrams(agent: GuestAgent) -> dict[tuple[str, ...], int]:
    received = agent.server_link.intake.received + agent.mtc_link.intake.received
    sent = agent.server_link.intake.sent + agent.mtc_link.intake.sent
    return {
        **{("in", name): count for name, count in received.items()},
        **{("out", name): count for name, count in sent.items()},
    }
