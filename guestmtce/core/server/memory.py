"""What guestServer remembers of one instance, so that "why?" has an answer afterwards.

The state machines write here what happened; nothing that they do depends on it.
"""

from __future__ import annotations

from functools import partial

from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.history import Exchanges, History, What


class Memory:
    """The history of one instance, and the last messages on its channel.

    `last_answer` is when it last answered a challenge in time, by the wall clock; None before
    the first.
    """

    __slots__ = ("_wall", "exchanges", "history", "last_answer")

    def __init__(self, uuid: str, worker: Worker) -> None:
        self.history = History(worker.wall, partial(worker.on_entry, uuid))
        self.exchanges = Exchanges()
        self.last_answer: float | None = None
        self._wall = worker.wall

    def add(self, what: What, detail: str = "") -> None:
        """Remember that `what` happened now; `detail` may hold guest text."""
        self.history.add(what, detail)

    def message(self, what: str, secs: float | None = None) -> None:
        """Remember a message: `> challenge`, `< init`; see `history.Exchange`."""
        self.exchanges.add(self._wall(), what, secs)

    def answered(self, what: str, secs: float) -> None:
        """Remember an answer in time, `secs` after its challenge."""
        self.last_answer = self._wall()
        self.exchanges.add(self.last_answer, what, secs)
