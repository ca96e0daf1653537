"""What guestServer remembers of one instance, so that "why?" has an answer afterwards.

The state machines write here what happened; nothing that they do depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.history import Exchange, Exchanges, History, What

RESPONSE = "< challenge_response"
_ANSWERS = {True: RESPONSE, False: f"{RESPONSE}, unhealthy"}
LATE = f"{RESPONSE}, late"
WRONG = f"{RESPONSE}, wrong number"
UNEXPECTED = f"{RESPONSE}, unexpected"
# Of the last messages so many go into the log when the instance is lost.
LOGGED = 8


class Memory:
    """The history of one instance, and the last messages on its channel.

    `challenged(at)` remembers a challenge, `answered(at, secs, healthy)` its answer in time, by
    the monotonic clock: these two are called for each heartbeat. `last_answer` is when it last
    answered in time, by the wall clock; None before the first. `name` is what the guest called
    itself before we were started.
    """

    __slots__ = ("_exchanges", "_keep", "_worker", "challenged", "history", "last_answer", "name")

    def __init__(self, uuid: str, worker: Worker) -> None:
        self.history = History(worker.wall, partial(worker.on_entry, uuid))
        self._exchanges = Exchanges()
        self.challenged: Callable[[float], None] = self._exchanges.keep
        self._keep = self._exchanges.keep
        self.last_answer: float | None = None
        self.name = ""
        self._worker = worker

    def add(self, what: What, detail: str = "") -> None:
        """Remember that `what` happened now; `detail` may hold guest text."""
        self.history.add(what, detail)

    def message(self, what: str) -> None:
        """Remember a message: `> init_ack`, `< init`; see `history.Exchange`."""
        self._keep((self._worker.clock(), what, None))

    def answered(self, at: float, secs: float, healthy: bool) -> None:
        """Remember an answer in time, `secs` after its challenge."""
        self.last_answer = self._worker.wall()
        self._keep((at, _ANSWERS[healthy], secs))

    @property
    def exchanges(self) -> list[Exchange]:
        """The last messages on the channel, oldest first."""
        return self._exchanges.told(self._ahead)

    @property
    def _ahead(self) -> float:
        """How far the wall clock is ahead of the monotonic one, at present."""
        return self._worker.wall() - self._worker.clock()

    def silence(self) -> str:
        """Return what has come in place of a good answer since the last one, in words."""
        odd = ""
        for exchange in self.exchanges:
            if exchange.secs is not None:
                odd = ""
            elif exchange.what in _INSTEAD:
                odd = exchange.what
        return _INSTEAD.get(odd, "no answer")

    def last_good(self) -> str:
        """Return when the last answer in time came, in words; "" if none is remembered."""
        last = next((each for each in reversed(self.exchanges) if each.secs is not None), None)
        if last is None or last.secs is None:
            return ""
        ago = self._worker.wall() - last.at
        return f"; last good answer {ago:.1f} s ago ({last.secs * 1000:.0f} ms)"

    def last_messages(self) -> str:
        """Return the last messages on one line, each with how long ago it was."""
        now = self._worker.wall()
        return "; ".join(_ago(exchange, now) for exchange in self.exchanges[-LOGGED:])


_INSTEAD = {LATE: "late answers only", WRONG: "wrong answers only"}


def _ago(exchange: Exchange, now: float) -> str:
    took = "" if exchange.secs is None else f" ({exchange.secs * 1000:.1f} ms)"
    return f"{now - exchange.at:.1f} s ago {exchange.what}{took}"
