"""guestAgent's metrics (operations.md, Metrics): served at /metrics and by the control socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from guestmtce.core.inventory import count_heartbeating
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.metrics import Registry

if TYPE_CHECKING:
    from guestmtce.agent.app import GuestAgent


def build_registry(loop: Loop, agent: GuestAgent) -> Registry:
    """Return the registry; every value is read from the agent's own counters when rendered."""
    registry = Registry()
    rules, queue, inventory = agent.rules, agent.rules.queue, agent.rules.inventory
    add = registry.collect

    def add_counter(name: str, text: str, label: str, *counters: Counter[str]) -> None:
        def read() -> Mapping[tuple[str, ...], int]:
            total: Counter[str] = sum(counters, Counter())
            return {(key,): count for key, count in total.items()}

        add("counter", f"guestmtce_{name}_total", text, read, (label,))

    def states() -> dict[tuple[str, ...], int]:
        heartbeating = count_heartbeating(inventory.instances.values())
        return {
            ("heartbeating",): heartbeating,
            ("not_heartbeating",): len(inventory.instances) - heartbeating,
        }

    def datagrams() -> dict[tuple[str, ...], int]:
        links = (agent.server_link, agent.mtc_link)
        received = sum((link.received for link in links), Counter())
        sent = sum((link.sent for link in links), Counter())
        return {
            **{("in", name): count for name, count in received.items()},
            **{("out", name): count for name, count in sent.items()},
        }

    add("gauge", "guestmtce_instances", "Instances by state.", states, ("state",))
    add("gauge", "guestmtce_hosts", "Hosts in the inventory.", lambda: len(inventory.hosts))
    add("counter", "guestmtce_datagrams_total", "Datagrams.", datagrams, ("direction", "cmd"))
    add_counter(
        "datagrams_dropped",
        "Datagrams not taken or not sent.",
        "reason",
        agent.server_link.dropped,
        agent.mtc_link.dropped,
    )
    add("counter", "guestmtce_datagram_overruns_total", "Lost in the kernel.", agent.overruns)
    add_counter("vim_requests", "Requests to the VIM.", "result", agent.vim_api.results)
    add_counter("vim_events", "Events queued for the VIM.", "kind", rules.events)
    add_counter("vim_events_dropped", "Events never delivered.", "reason", queue.dropped)
    add("gauge", "guestmtce_vim_queue_length", "Events that wait.", lambda: len(queue))
    add("gauge", "guestmtce_vim_suspect", "1 while the VIM fails.", lambda: int(queue.suspect))
    add(
        "counter",
        "guestmtce_vim_commands_total",
        "Requests answered.",
        lambda: dict(agent.http_api.results.items()),
        ("command", "status"),
    )
    add_counter("http_server", "The command server's connections.", "what", agent.http_counts)
    add("gauge", "guestmtce_loop_lag_seconds", "Lateness of the last timer.", lambda: loop.lag)
    add("counter", "guestmtce_loop_errors_total", "Callbacks that failed.", lambda: loop.errors)
    return registry
