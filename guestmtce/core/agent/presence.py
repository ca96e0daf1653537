"""Whether this agent is the active one: its floating address is on this host (decision 32).

The controllers move the floating address between them, and the agent that does not have it must
not act: two agents would audit the same workers, and the one without would take what the other
one needs. Moving it back and forth takes a moment, so its absence counts after 10 s only; that it
is there counts at once.
"""

from __future__ import annotations

ABSENT_SECS = 10.0


class Presence:
    """Whether this agent is `active`, by what is noted; times are of the loop's clock."""

    def __init__(self) -> None:
        self.active = True
        self.absent_since: float | None = None

    def note(self, there: bool, now: float) -> bool:
        """Take whether the address is on this host; return whether `active` has changed."""
        before = self.active
        if there:
            self.absent_since = None
        elif self.absent_since is None:
            self.absent_since = now
        since = self.absent_since
        self.active = since is None or (before and now - since < ABSENT_SECS)
        return self.active is not before
