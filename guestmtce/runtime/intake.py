"""What comes in and goes out at one link between programs, counted; what is refused, logged.

Both daemons' links use it, so that a datagram that is dropped is counted and logged alike
wherever it came from. Knows nothing of what the messages mean.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from guestmtce.core.shared.errors import PeerError, Unneeded
from guestmtce.core.shared.limits import EveryNth
from guestmtce.runtime.metrics import Registry

_LOG_EVERY = 100


class Intake:
    """The counts of one link: `received` and `sent` by message, `dropped` by reason.

    `what` names in the log what comes in, such as "event"; `log` is the link's own logger.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._log = log
        self._what = what
        self._told = EveryNth(_LOG_EVERY)

    @contextlib.contextmanager
    def guard(self, source: str) -> Iterator[None]:
        """Take what `source` sent within this: a PeerError raised there costs that message only.

        It is counted, and of each source and reason the first and every hundredth is logged.
        """
        try:
            yield
        except Unneeded as unneeded:
            self.dropped[unneeded.reason] += 1
            self._log.debug("%s from %s: %s", self._what, source, unneeded)
        except PeerError as error:
            count = self.drop(error.reason, source)
            if count is not None:
                self._log.warning(
                    "%s from %s dropped: %s (%d so far)", self._what, source, error, count
                )

    def drop(self, reason: str, peer: str) -> int | None:
        """Count something as dropped; return how many so far if it is time to log it."""
        self.dropped[reason] += 1
        return self._told.hit((reason, peer))

    def count_sent(self, name: str, taken: bool) -> None:
        """Count a message that the kernel took or refused; an `on_end` of `DatagramSocket.send`."""
        if taken:
            self.sent[name] += 1
        else:
            self.dropped["not_sent"] += 1


def register(registry: Registry, intakes: Sequence[Intake], overruns: Callable[[], int]) -> None:
    """Show the counts of a daemon's links, and how many datagrams the kernel dropped."""

    def counts() -> dict[tuple[str, ...], int]:
        found: Counter[tuple[str, ...]] = Counter()
        for intake in intakes:
            found.update({("in", name): count for name, count in intake.received.items()})
            found.update({("out", name): count for name, count in intake.sent.items()})
        return found

    registry.collect(
        "counter",
        "guestmtce_datagrams_total",
        "Datagrams taken and sent.",
        counts,
        ("direction", "cmd"),
    )
    registry.count(
        "guestmtce_datagrams_dropped_total",
        "Datagrams not taken or not sent.",
        "reason",
        *(intake.dropped for intake in intakes),
    )
    registry.collect(
        "counter", "guestmtce_datagram_overruns_total", "Lost in the kernel.", overruns
    )
