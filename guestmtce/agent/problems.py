"""What makes guestAgent degraded, a sentence each with its remedy (operations.md, Degraded)."""

from __future__ import annotations

from collections.abc import Iterator

from guestmtce.core.agent.agent import Agent
from guestmtce.core.shared.condition import duration
from guestmtce.core.shared.text import printable

# A site that lost a rack need not read a thousand sentences.
_NAMED = 5

_INACTIVE = (
    "the floating address {} is not on this host: not the active guestAgent, "
    "nothing is audited or told; if this is the active controller, look at its interfaces"
)
_VIM_FAILS = (
    "the VIM does not take requests, alarms wait until it does: start it, and see that its guest "
    "plugin is enabled"
)


def problems(agent: Agent, floating: str | None, now: float) -> dict[str, list[str]]:
    """Return the problems that the core knows of, by kind; `now` is the loop's clock."""
    return {
        "inactive": [] if agent.presence.active else [_INACTIVE.format(floating)],
        "silent_hosts": [*_silent_hosts(agent)],
        "unknown_hosts": agent.unknown_hosts.problems(agent.inventory, now),
        "many_hosts": [*_too_many_hosts(agent)],
        "vim": [_VIM_FAILS] if agent.queue.suspect else [],
    }


def _too_many_hosts(agent: Agent) -> Iterator[str]:
    if agent.refused_hosts and len(agent.inventory.hosts) >= agent.max_hosts:
        yield (
            f"mtcAgent names more hosts than [agent] max_hosts = {agent.max_hosts}: "
            f"{agent.refused_hosts} times one was refused; raise it and restart guestAgent"
        )


def _silent_hosts(agent: Agent) -> Iterator[str]:
    silent = [host for host in agent.inventory.hosts.values() if host.silent]
    for host in silent[:_NAMED]:
        heard = host.last_heard
        last = f"last heard {duration(agent.wall() - heard)} ago" if heard else "never heard"
        yield (
            f"{printable(host.hostname)} answers no audit ({last}): how its instances are "
            f"({len(host.instances)}) is unknown; look at its guestServer and its network"
        )
    if len(silent) > _NAMED:
        yield f"{len(silent) - _NAMED} more hosts answer no audit"
