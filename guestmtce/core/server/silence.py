"""The silences of a guest: five that must not be confused.

  * the guest's: it had its time and did not answer. Miss, miss, loss.
  * ours: the timer rang late by half an interval, so this host or process stood still. What the
    guest said meanwhile may be lost; nothing is counted, the challenge is sent anew.
  * one that we chose: a guest that floods is not read for a while (`flow`), and its answer may be
    in what is left. Nothing is counted, so a hang would not be noticed: the operator has to know.
  * an expected one: a pause or suspend has ended, so the guest cannot answer until a post-event
    notification says that it is back, or reporting is switched on again, or it has answered for
    a minute after all. Heartbeating stands for a grace period, then STOPPED; never a loss.
  * an unreported one: reporting of the instance is off. STOPPED, never a loss.

`heartbeat` tells them apart; what an expected and a chosen one are remembered by is here.
"""

from __future__ import annotations

# How long heartbeating stands after a pause, and after a post-event notification: in seconds,
# and at least so many heartbeat intervals.
PAUSED_GRACE_SECS = 60.0
_BACK_GRACE_SECS = 10.0
_BACK_GRACE_INTERVALS = 3
# A guest that has answered each challenge for so long is not silent.
_ANSWERED_SECS = 60.0
# What waited in the socket is read within so long after we began to read again.
_CAUGHT_UP_SECS = 0.25
# A guest whose silence could not be judged for so long is a problem (decision 30).
UNJUDGED_SECS = 10.0


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


class ChosenSilence:
    """A silence that we chose: the guest's answer may be in what we have not read (decision 30).

    `until` is until when it is not read, a time of the worker's clock.
    """

    __slots__ = ("_excused_at", "until")

    def __init__(self) -> None:
        self.until = float("-inf")
        # Of the first and the last challenge in a row that was excused: when.
        self._excused_at: tuple[float, float] | None = None

    def may_hide_answer(self, now: float) -> bool:
        """Return whether something of what the guest said may be unread: now, or just before."""
        return now < self.until + _CAUGHT_UP_SECS

    def excuse(self, now: float) -> bool:
        """Excuse a challenge; True if it is the one that makes it UNJUDGED_SECS of them."""
        before = self._excused_secs()
        self._excused_at = (self._excused_at or (now, now))[0], now
        return before < UNJUDGED_SECS <= self._excused_secs()

    def judged(self) -> None:
        """The guest answered, or we know that it did not."""
        self._excused_at = None

    @property
    def is_unjudged(self) -> bool:
        """Whether challenges were excused for UNJUDGED_SECS, and none was answered or missed."""
        return self._excused_secs() >= UNJUDGED_SECS

    def _excused_secs(self) -> float:
        first, last = self._excused_at or (0.0, 0.0)
        return last - first
