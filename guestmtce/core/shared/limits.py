"""How often something may happen: the one room of limits, of guests, of logs, of answers.

Times are arguments, in seconds of one monotonic clock.
"""

from __future__ import annotations


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
