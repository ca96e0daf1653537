"""The silences of a guest: five that must not be confused.

  * the guest's: it had its time and did not answer. Miss, miss, loss.
  * ours: the timer rang late by half an interval, so this host or process stood still. What the
    guest said meanwhile may be lost; nothing is counted, the challenge is sent anew.
  * one that we chose: a guest that floods is not read for a while (`flow`). Nothing is counted.
  * an expected one: a pause or suspend has ended, so the guest cannot answer until a post-event
    notification says that it is back, or reporting is switched on again, or it has answered for
    a minute after all. Heartbeating stands for a grace period, then STOPPED; never a loss.
  * an unreported one: reporting of the instance is off. STOPPED, never a loss.

`heartbeat` tells them apart; what an expected one is remembered by is here.
"""

from __future__ import annotations

# How long heartbeating stands after a pause, and after a post-event notification: in seconds,
# and at least so many heartbeat intervals.
PAUSED_GRACE_SECS = 60.0
_BACK_GRACE_SECS = 10.0
_BACK_GRACE_INTERVALS = 3
# A guest that has answered each challenge for so long is not silent.
_ANSWERED_SECS = 60.0


def grace_secs(interval: float) -> float:
    """Return how long a guest that is back has to say init, by its heartbeat interval."""
    return max(_BACK_GRACE_SECS, _BACK_GRACE_INTERVALS * interval)


class ExpectedSilence:
    """Whether an instance's silence is `expected`; times are of the worker's clock."""

    __slots__ = ("_answered_since", "expected")

    def __init__(self) -> None:
        self.expected = False
        # Since when each challenge was answered, while silence is expected.
        self._answered_since: float | None = None

    def begin(self) -> None:
        """From now on no silence is the guest's fault."""
        self.expected = True
        self._answered_since = None

    def answered(self, now: float) -> None:
        """The newest challenge was answered: long enough, and the silence is over."""
        if self._answered_since is None:
            self._answered_since = now
        elif now - self._answered_since >= _ANSWERED_SECS:
            self.expected = False

    def unanswered(self) -> None:
        """A challenge was not, or none was sent: the answers begin anew."""
        self._answered_since = None
