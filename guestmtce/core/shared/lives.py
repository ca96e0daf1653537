"""Which process plays a role, and whether it is there: epochs, proof and probes.

Sans-I/O, a part of `delivery`: times are seconds of its clock.

**Epochs.** A process chooses a random number when it starts, its epoch, and numbers what it
says to a role from 1. So a message is known by (epoch, seq), and a restart by a new epoch. A
datagram can be late by any time, and a stale second agent can run elsewhere: so a new epoch is
*taken* only when a probe that we send to the role's address comes back acknowledged under it.
Until then it is a *candidate*, and nothing of it is applied or acknowledged; its sender will say
it again. An epoch that was given up is taken again only when the present one has been silent for
5 s.

**Proof.** An acknowledgement that names our epoch proves the role for 15 s: somebody is there
who drops repeats. A role that is not proven is probed at the times of the repeats that it does
not get, counted from the newest message that is owed to it; a candidate at the first four.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from guestmtce.core.shared.owed import REPEATS_AFTER, repeat_after

PROVEN_SECS = 15.0
# How long the present life of a role must be silent before an earlier one is taken again.
SILENT_SECS = 5.0
RETIRED_KEPT = 8


class Lives:
    """The lives of one role, one after the other; `epoch` is that of the present one, if any.

    `probe_at` is when the next probe is due, None for never. `on_output` is called when there is
    one that was not planned before; `counts` has how many probes and epochs there were.
    """

    __slots__ = (
        "_candidate",
        "_counts",
        "_heard_at",
        "_on_output",
        "_probes",
        "_probes_since",
        "_proven_until",
        "_retired",
        "epoch",
        "probe_at",
    )

    def __init__(self, counts: Counter[str], on_output: Callable[[], object]) -> None:
        self.epoch: int | None = None
        self.probe_at: float | None = None
        self._counts = counts
        self._on_output = on_output
        self._retired: deque[int] = deque(maxlen=RETIRED_KEPT)
        self._candidate: int | None = None
        self._proven_until = float("-inf")
        self._heard_at = float("-inf")
        self._probes_since = float("-inf")
        self._probes = 0

    def is_proven(self, now: float) -> bool:
        """Whether somebody is there who drops repeats."""
        return now < self._proven_until

    def is_present(self, epoch: int, now: float) -> bool:
        """Take that something of that epoch came; return whether it is taken.

        If it is not, it is probed for.
        """
        if epoch == self.epoch:
            self._heard_at = now
            return True
        is_asked_for = self._candidate == epoch and self.probe_at is not None
        if not is_asked_for and not self.is_given_up(epoch, now):
            self._candidate = epoch
            self.probe_from(now, now)
        return False

    def is_given_up(self, epoch: int, now: float) -> bool:
        """Whether that life was followed by the present one, which is not silent."""
        return (
            self.epoch is not None and epoch in self._retired and now - self._heard_at < SILENT_SECS
        )

    def take(self, epoch: int) -> None:
        """A probe was acknowledged under this epoch: it is the present one."""
        self._retire()
        self.epoch = epoch
        self._candidate = None
        self._counts["epochs"] += 1

    def prove(self, now: float, *, by_probe: bool) -> bool:
        """The present life has acknowledged; return whether that was not known to be there."""
        is_news = not self.is_proven(now)
        self._proven_until = now + PROVEN_SECS
        self._heard_at = now
        if by_probe:
            self._candidate = None
        if self._candidate is None:
            self.probe_at = None
        return is_news

    def end(self) -> None:
        """An old peer, which has no epoch, plays the role."""
        self._proven_until = float("-inf")
        self._candidate = None
        self._retire()

    def _retire(self) -> None:
        if self.epoch is not None:
            if self.epoch in self._retired:
                self._retired.remove(self.epoch)
            self._retired.append(self.epoch)
            self.epoch = None

    def probe_from(self, now: float, first: float) -> None:
        """Begin a series of probes; the next one of the series that runs is sent all the same."""
        self._probes_since, self._probes = now, 0
        if self.probe_at is None or first < self.probe_at:
            self.probe_at = first
            self._on_output()

    def probe(self, now: float, *, owing: bool) -> bool:
        """A probe is due: return whether there is a reason for it, and set when the next one is.

        `owing`: something is owed to the role.
        """
        fast = self._probes < len(REPEATS_AFTER)
        for_proof = owing and not self.is_proven(now)
        if not for_proof and not (self._candidate is not None and fast):
            self._candidate = self.probe_at = None
            return False
        while (at := self._probes_since + repeat_after(self._probes)) <= now:
            self._probes += 1
        self.probe_at = at
        self._counts["probes"] += 1
        return True
