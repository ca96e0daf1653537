"""What comes in and goes out at one link between programs, counted; what is refused, logged.

Both daemons' links use it, so that a datagram that is dropped is counted and logged alike
wherever it came from. Knows nothing of what the messages mean.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from guestmtce.core.shared.errors import PeerError, Unneeded
from guestmtce.core.shared.limits import EveryNth
from guestmtce.runtime.metrics import Histogram, LabelValues, Registry

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


# Why datagrams of the other daemons are not taken, or ours not sent: what both links count.
_REASONS = (
    "again",
    "bad_length",
    "bad_member",
    "bad_stamp",
    "behind",
    "not_json",
    "not_object",
    "not_sent",
    "stranger",
    "unknown_instance",
    "unproven",
)


class Traffic(NamedTuple):
    """What a daemon's links may count: the messages that come and go, reasons of its own."""

    incoming: Sequence[str]
    outgoing: Sequence[str]
    reasons: Sequence[str]


def register(
    registry: Registry, intakes: Sequence[Intake], traffic: Traffic, overruns: Callable[[], int]
) -> None:
    """Show the counts of a daemon's links, and how many datagrams the kernel dropped."""

    def counts() -> dict[LabelValues, int]:
        found: Counter[LabelValues] = Counter()
        for intake in intakes:
            found.update({("in", name): count for name, count in intake.received.items()})
            found.update({("out", name): count for name, count in intake.sent.items()})
        return found

    registry.collect(
        "counter",
        "guestmtce_datagrams_total",
        "Datagrams taken, and sent.",
        counts,
        ("direction", "cmd"),
        keys=[
            *(("in", name) for name in traffic.incoming),
            *(("out", name) for name in traffic.outgoing),
        ],
        shared=True,
    )
    registry.count(
        "guestmtce_datagrams_dropped_total",
        "Datagrams not taken, or not sent.",
        "reason",
        *(intake.dropped for intake in intakes),
        keys=(*_REASONS, *traffic.reasons),
        shared=True,
    )
    registry.collect(
        "counter",
        "guestmtce_datagram_overruns_total",
        "Datagrams lost in the kernel, as the daemon was too slow.",
        overruns,
        shared=True,
    )


# A local network's round trip, the first repeats (datagrams.md), and what is worth a look.
_ROUND_TRIP_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 30.0, 300.0)


def register_delivery(
    registry: Registry,
    owed: Callable[[], Mapping[str, int]],
    voided: Counter[str],
    counts: Counter[str],
) -> Histogram:
    """Show what is owed to the other side of the link, by kind, and what became of the rest.

    `voided` and `counts` have each of their keys from the start. Returns the histogram of how
    long acknowledgements take.
    """
    registry.collect(
        "gauge",
        "guestmtce_delivery_owed",
        "Messages not acknowledged for good; held: orders among them that the peer holds.",
        lambda: {(kind,): count for kind, count in owed().items()},
        ("kind",),
        shared=True,
    )
    text = "Orders not acknowledged for good, by why they are void."
    registry.count("guestmtce_delivery_voided_total", text, "reason", voided, shared=True)
    text = "Repeats, probes, new processes at the other end, and messages not taken."
    registry.count("guestmtce_delivery_events_total", text, "what", counts, shared=True)
    return registry.histogram(
        "guestmtce_acknowledgement_seconds",
        "From the first saying of a message to its first acknowledgement.",
        _ROUND_TRIP_BUCKETS,
        shared=True,
    )
