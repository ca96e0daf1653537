"""How an instance is, in a word that an operator knows: `ok`, `ill`, `lost`, `no channel`.

The state machines have states of their own (`waiting_challenge` is the good one); these words
are for tables, the status page and metrics. The worst sorts first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from guestmtce.core.shared.vocabulary import Word


class Condition(Word):
    """The words, worst first: the order of the members is the order of a table."""

    LOST = "lost"
    ILL = "ill"
    FLOODING = "flooding"
    SILENT = "silent"  # misses are being counted
    UNKNOWN = "unknown"  # its worker does not answer the agent
    STOPPED = "stopped"  # its client said exit, or its heartbeat ended without a loss
    NO_CHANNEL = "no channel"
    BOOTING = "booting"  # connected, no init yet
    HELD = "held"  # silence is expected: paused, suspended, migrating
    OK = "ok"


# By its word, the worst first.
CONDITIONS = {condition.value: condition for condition in Condition}
_RANK = {condition: rank for rank, condition in enumerate(Condition)}


class Diagnosis(NamedTuple):
    """An instance's condition, since when (wall clock, None if not known), and why.

    `detail` is safe to print: a guest's reason has been cleaned before it comes here.
    """

    condition: Condition
    since: float | None = None
    detail: str = ""

    @property
    def rank(self) -> int:
        """0 for the worst; tables are sorted by it."""
        return _RANK[self.condition]

    def for_operator(self) -> dict[str, object]:
        """Return the members that guestctl and the page show."""
        since = None if self.since is None else round(self.since, 3)
        return {"condition": self.condition.value, "since": since, "detail": self.detail}


def duration(seconds: float) -> str:
    """Return a span of time as a person says it: `40 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def in_words(
    diagnosis: Diagnosis, now: float, moment: Callable[[float, float], str] | None = None
) -> str:
    """Return `lost 3 min ago`, `booting 40 s`, `ill: fan broken`, `unknown since 03:12`.

    `now` is the wall clock's, `moment(at, now)` says a time as people do.
    """
    span = "" if diagnosis.since is None else duration(now - diagnosis.since)
    word = diagnosis.condition.value
    if diagnosis.condition is Condition.LOST:
        return f"{word} {span} ago" if span else word
    if diagnosis.condition is Condition.UNKNOWN and diagnosis.since is not None:
        # The reason is the same for a whole worker; when it began says more.
        return f"{word} since {moment(diagnosis.since, now)}" if moment else f"{word} for {span}"
    if diagnosis.detail:
        return f"{word}: {diagnosis.detail}"
    if diagnosis.condition in (
        Condition.BOOTING,
        Condition.STOPPED,
        Condition.HELD,
        Condition.NO_CHANNEL,
    ):
        return f"{word} {span}".rstrip()
    return word
