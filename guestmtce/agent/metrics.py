"""guestAgent's metrics (operations.md, Metrics): served at /metrics and by the control socket.

Every value is read when rendered, from the counters of whoever counts it.
"""

from __future__ import annotations

from collections import Counter

from guestmtce.agent.http_api import HttpApi
from guestmtce.agent.vim_api import VimApi
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Inventory, count_heartbeating
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.metrics import Registry


def register(registry: Registry, loop: Loop, core: Agent) -> None:
    """Show the inventory, and how the loop does."""
    add, inventory = registry.collect, core.inventory
    states = "Instances by state."
    add("gauge", "guestmtce_instances", states, lambda: _states(inventory), ("state",))
    add("gauge", "guestmtce_hosts", "Hosts in the inventory.", lambda: len(inventory.hosts))
    silent = "Hosts that answer no audit: the state of their instances is unknown."
    add("gauge", "guestmtce_hosts_silent", silent, lambda: _silent(inventory))
    add("gauge", "guestmtce_loop_lag_seconds", "Lateness of the last timer.", lambda: loop.lag)
    add("counter", "guestmtce_loop_errors_total", "Callbacks that failed.", lambda: loop.errors)


def register_vim(registry: Registry, core: Agent, vim_api: VimApi) -> None:
    """Show what the VIM is told, and what becomes of it."""
    add, queue = registry.collect, core.queue
    for name, text, label, counter in (
        ("requests", "Requests to the VIM.", "result", vim_api.results),
        ("events", "Events queued for the VIM.", "kind", core.events),
        ("events_dropped", "Events never delivered.", "reason", queue.dropped),
    ):
        registry.count(f"guestmtce_vim_{name}_total", text, label, counter)
    add("gauge", "guestmtce_vim_queue_length", "Events that wait.", lambda: len(queue))
    add("gauge", "guestmtce_vim_suspect", "1 while the VIM fails.", lambda: int(queue.suspect))


def register_http(registry: Registry, http_api: HttpApi, connections: Counter[str]) -> None:
    """Show the commands, and how the server does that takes them."""
    text = "The command server's connections."
    registry.count("guestmtce_http_server_total", text, "what", connections)
    registry.collect(
        "counter",
        "guestmtce_vim_commands_total",
        "Requests answered.",
        lambda: dict(http_api.results.items()),
        ("command", "status"),
    )


def _states(inventory: Inventory) -> dict[tuple[str, ...], int]:
    heartbeating = count_heartbeating(inventory.instances.values())
    return {
        ("heartbeating",): heartbeating,
        ("not_heartbeating",): len(inventory.instances) - heartbeating,
    }


def _silent(inventory: Inventory) -> int:
    return sum(1 for host in inventory.hosts.values() if host.silent)
