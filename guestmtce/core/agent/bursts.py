"""What guestAgent sends in bursts: as many datagrams as a guestServer's socket buffer takes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

BURST = 100
BURST_SECS = 0.01

Step = Callable[[], object]


class Bursts:
    """Steps that wait for the next burst; each sends a datagram, from what is known by then."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, Step] = OrderedDict()

    def __len__(self) -> int:
        """How many steps wait."""
        return len(self._steps)

    def put(self, key: str, step: Step) -> None:
        """Append `step`; a step that waits under the same `key` is dropped."""
        self._steps.pop(key, None)
        self._steps[key] = step

    def clear(self) -> None:
        """Drop every step."""
        self._steps.clear()

    def send_burst(self) -> None:
        """Take up to 100 of the waiting steps: call it every 10 ms (decision 18)."""
        for _ in range(min(BURST, len(self._steps))):
            _key, step = self._steps.popitem(last=False)
            step()
