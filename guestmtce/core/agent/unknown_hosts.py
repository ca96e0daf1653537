"""Hosts that send events though the inventory does not know them, by name (decision 31).

Just after a start that is usual, as mtcAgent has not named the hosts yet; a name that goes on
for half a minute is a mistake that an operator has to mend. Anybody can send us names, so few
are kept, and those that fell silent are forgotten.
"""

from __future__ import annotations

from guestmtce.core.agent.inventory import Inventory
from guestmtce.core.shared.text import printable

PATIENCE_SECS = 30.0
FORGET_SECS = 120.0
MAX_NAMES = 8


class UnknownHosts:
    """When each name was first and last seen, in seconds of the loop's clock."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def note(self, hostname: str, now: float) -> None:
        """An event came from a host of that name, which is not in the inventory."""
        self._forget(now)
        if hostname in self._seen or len(self._seen) < MAX_NAMES:
            first, _last = self._seen.get(hostname, (now, now))
            self._seen[hostname] = (first, now)

    def problems(self, inventory: Inventory, now: float) -> list[str]:
        """Return a sentence for each name that goes on, with its remedy."""
        self._forget(now)
        return [
            _sentence(hostname, inventory)
            for hostname, (first, last) in self._seen.items()
            if last - first >= PATIENCE_SECS and inventory.host_named(hostname) is None
        ]

    def _forget(self, now: float) -> None:
        old = [name for name, (_first, last) in self._seen.items() if now - last > FORGET_SECS]
        for name in old:
            del self._seen[name]


def _sentence(hostname: str, inventory: Inventory) -> str:
    """Name the host, and the one of the inventory that is probably meant."""
    name, short = printable(hostname), hostname.partition(".")[0]
    meant = next(
        (host.hostname for host in inventory.hosts.values() if host.short_name == short), None
    )
    dropped = f"events of {name} are dropped: {name} is not in the inventory"
    if meant is None:
        return f"{dropped}: let mtcAgent add it, or stop its guestServer"
    return f"{dropped}; {printable(meant)} is: set [host] name there"
