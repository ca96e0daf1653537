"""How often something may happen: all that limits guests, peers, logs and answers in time.

Times are arguments, in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable

_MAX_KEYS = 1024


class RateLimit:
    """At most `limit` of something in each `period` seconds."""

    __slots__ = ("_count", "_limit", "_period", "_since")

    def __init__(self, limit: int, period: float = 1.0) -> None:
        self._limit = limit
        self._period = period
        self._since = float("-inf")
        self._count = 0

    @property
    def excess(self) -> int:
        """How many were over the limit in the present period, as far as it has come."""
        return max(0, self._count - self._limit)

    def allows(self, now: float) -> bool:
        """Count one at `now` (seconds); False when it is over the limit."""
        if now - self._since >= self._period:
            self._since = now
            self._count = 0
        self._count += 1
        return self._count <= self._limit


class Gap:
    """Not within `secs` of the last time: each key has its own last time.

    Where there is only one thing to limit, the key is left out. Keys come from our own
    vocabulary, or are forgotten by `forget`: they are not bounded here.
    """

    __slots__ = ("_last", "_secs")

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self._last: dict[Hashable, float] = {}

    def is_over(self, now: float, key: Hashable = None) -> bool:
        """Return whether the last time was at least `secs` ago, or never."""
        return now >= self.over_at(key)

    def over_at(self, key: Hashable = None) -> float:
        """Return when the gap after the last time is over; -inf if there was none."""
        return self._last.get(key, float("-inf")) + self._secs

    def note(self, now: float, key: Hashable = None) -> None:
        """It happens at `now`, whether or not it was too early."""
        self._last[key] = now

    def allows(self, now: float, key: Hashable = None) -> bool:
        """Return whether it may happen at `now`; if so, note that it does."""
        over = self.is_over(now, key)
        if over:
            self.note(now, key)
        return over

    def forget(self, key: Hashable = None) -> None:
        """As if it had never happened."""
        self._last.pop(key, None)


class EveryNth:
    """Which occurrences of a repeating condition to tell: the first, then every `every`th.

    Remembers at most `max_keys` conditions; the one that was hit longest ago is forgotten.
    """

    def __init__(self, every: int, max_keys: int = _MAX_KEYS) -> None:
        self._every = every
        self._max_keys = max_keys
        self._counts: dict[Hashable, int] = {}

    def __len__(self) -> int:
        """How many conditions are remembered."""
        return len(self._counts)

    def hit(self, key: Hashable) -> int | None:
        """Count an occurrence; return the count if this one is to be told, else None."""
        # Taken out and put in again: the dict's order is that of the latest hits.
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > self._max_keys:
            del self._counts[next(iter(self._counts))]
        return count if count == 1 or count % self._every == 0 else None
