"""How much of one guest is listened to, so that no flood costs another guest its answer.

A guest has MESSAGES_PER_SECOND and BYTES_PER_SECOND; once it is over either, its channel is
not read until that second is over (decision 30). What waits there costs nobody anything: QEMU
stops taking it from the guest. Of what was read at most MESSAGES_AT_ONCE are handled in a
wake-up, and after more than a few each costs the guest a short wait, which spreads the work of
many that flood at once.

How long a message takes to handle depends on what it is, and on the machine. So those that
flood at once also queue up: each waits for four times what those before it have taken. All of
them together take a quarter of a processor, however many they are, and a guest that does not
flood waits for one wake-up of one of them.
"""

from __future__ import annotations

MESSAGES_PER_SECOND = 500
BYTES_PER_SECOND = 128 * 1024
MESSAGES_AT_ONCE = 32
# Over so many seconds in a row it is no burst: the operator has to know.
FLOODING_SECS = 10

# An honest guest says one thing at a time, at most an answer to each of two challenges and init.
_AT_ONCE_FREE = 4
_WAIT_SECS = 1 / 640
# Of the time, floods get one part in so many.
_PARTS = 4
# A guest that waits so long for other floods would be over its share without them.
_KEPT_SECS = 0.1


class Pace:
    """The queue of those that flood, one for all guests of a worker. Times as those of `Flow`."""

    __slots__ = ("_free_at",)

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def take(self, began: float, ended: float) -> float:
        """Count a wake-up that took from `began` to `ended`; return how long its guest waits."""
        self._free_at = max(self._free_at, ended) + _PARTS * (ended - began)
        return self._free_at - ended


class Flow:
    """What a guest said in the present second. Times are of the worker's clock.

    `is_newly_over` says that the last `take` was what brought it over its share, and
    `seconds_over` how many seconds in a row were over.
    """

    __slots__ = (
        "_began",
        "_bytes",
        "_is_over",
        "_messages",
        "_over_at",
        "_pace",
        "_since",
        "is_newly_over",
        "seconds_over",
    )

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._began = float("-inf")
        self._since = float("-inf")
        self._messages = 0
        self._bytes = 0
        self._is_over = False
        self.is_newly_over = False
        # When the last second began that was over.
        self._over_at = float("-inf")
        self.seconds_over = 0

    def begin(self, now: float) -> None:
        """A wake-up begins."""
        self._began = now

    def take(self, now: float, handled: int, empty: int, size: int) -> float:
        """Count what the wake-up brought; return for how many seconds no more is to be read.

        That is `handled` messages, `empty` lines beyond theirs, and `size` bytes.
        """
        if now - self._since >= 1.0:
            self._since = now
            self._messages = self._bytes = 0
            self._is_over = False
        self._messages += handled + empty
        self._bytes += size
        kept, wait = 0.0, 0.0
        if handled + empty > _AT_ONCE_FREE:
            kept = self._pace.take(self._began, now)
            wait = max(kept, handled * _WAIT_SECS)
        is_over = self._messages > MESSAGES_PER_SECOND or self._bytes > BYTES_PER_SECOND
        if is_over:
            wait = max(wait, self._since + 1.0 - now)
        self.is_newly_over = (is_over or kept >= _KEPT_SECS) and not self._is_over
        if self.is_newly_over:
            self._note_over()
        return wait

    def _note_over(self) -> None:
        self._is_over = True
        self.seconds_over = self.seconds_over + 1 if self._is_recent(self._since) else 1
        self._over_at = self._since

    def is_flooding(self, now: float) -> bool:
        """Return whether it was over its share for FLOODING_SECS in a row, up to now."""
        return self.seconds_over >= FLOODING_SECS and self._is_recent(now)

    def _is_recent(self, now: float) -> bool:
        """Whether the second before `now`, or the one that it is in, was over."""
        return now - self._over_at < 2.0  # noqa: PLR2004 - this second and that
