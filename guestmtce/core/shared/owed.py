"""What is owed to one role: states and orders that it has not acknowledged.

Sans-I/O, a part of `delivery`, whose page of theory covers it. One entry per instance and
topic, so the room is bounded by the instances.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from guestmtce.core.shared.mtc_message import Record
from guestmtce.core.shared.vocabulary import Command

# When a message is said again, in seconds after the first time, and then how often.
REPEATS_AFTER = (0.25, 0.5, 1.0, 2.0)
REPEAT_SECS = 5.0
# An order that the other side holds is only kept from being forgotten.
QUEUED_SECS = 10.0


class Topic(Enum):
    """What a message is about; of one instance and topic only the newest counts."""

    STATUS = "status"
    LOSS = "loss"
    ILLNESS = "illness"
    ANSWER = "answer"
    PROVISION = "provision"
    HOST = "host"
    ASK = "ask"


# What is not here (READY, QRY_INST and its answers) is said once and never acknowledged.
TOPICS: dict[int, Topic] = {
    Command.HEARTBEAT_RUNNING: Topic.STATUS,
    Command.HEARTBEAT_STOPPED: Topic.STATUS,
    Command.HEARTBEAT_LOSS: Topic.LOSS,
    Command.HEARTBEAT_ILLHEALTH: Topic.ILLNESS,
    Command.VOTE_NOTIFY: Topic.ANSWER,
    Command.ADD_INST: Topic.PROVISION,
    Command.MOD_INST: Topic.PROVISION,
    Command.DEL_INST: Topic.PROVISION,
    Command.MOD_HOST: Topic.HOST,
    Command.VOTE_INST: Topic.ASK,
    Command.NOTIFY_INST: Topic.ASK,
}
ORDERS = frozenset({Topic.LOSS, Topic.ILLNESS, Topic.ANSWER, Topic.ASK})
# What a state makes void that was ordered before it: a guest that runs is neither lost nor ill.
REVOKES: dict[int, frozenset[Topic]] = {
    Command.HEARTBEAT_RUNNING: frozenset({Topic.LOSS, Topic.ILLNESS}),
    Command.DEL_INST: frozenset({Topic.ASK}),
}

Key = tuple[str, Topic]


class Voided(Enum):
    """Why an order is owed no longer though nobody acknowledged it for good."""

    EXPIRED = "expired"  # nobody wants to hear it any more
    REPLACED = "replaced"  # there is a newer one of its instance and topic
    REVOKED = "revoked"  # a state says the contrary
    VOID = "void"  # its owner took it back


_COUNTED = ("repeats", "probes", "epochs", "again", "behind", "unproven")


@dataclass
class DeliveryStats:
    """What all roles of a daemon count together, since its start.

    `counts` has repeats, probes, new lives of peers (`epochs`), and by verdict the messages that
    were not taken; `voided` the orders that were not acknowledged for good, by reason: all there
    from the start. `on_round_trip` takes the seconds from the first saying of a message to its
    first acknowledgement.
    """

    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_COUNTED, 0)))
    voided: Counter[str] = field(
        default_factory=lambda: Counter({reason.value: 0 for reason in Voided})
    )
    on_round_trip: Callable[[float], object] = lambda _seconds: None


class Owed(NamedTuple):
    """How much is owed: orders and states, and how many of the orders the other side holds."""

    order: int = 0
    state: int = 0
    held: int = 0

    @classmethod
    def total(cls, parts: Iterable[Owed]) -> Owed:
        """Return the sum of what is owed to several roles."""
        some = (part for part in parts if part is not _NOTHING)
        return cls(*map(sum, zip(_NOTHING, *some)))


def repeat_after(times: int) -> float:
    """Return how long after the first saying the next is due, `times` repeats being done."""
    if times < len(REPEATS_AFTER):
        return REPEATS_AFTER[times]
    return REPEATS_AFTER[-1] + REPEAT_SECS * (times - len(REPEATS_AFTER) + 1)


_NOTHING = Owed()


@dataclass(eq=False)
class Debt:
    """A message that has been said once and is not acknowledged.

    `expires` is when nobody wants to hear it any more; `queued` that the other side holds it.
    `said` is when it was said for the first time, `heard` that it was acknowledged before.
    """

    command: Command
    record: Record
    key: Key
    seq: int
    id: str
    first: float
    due: float
    expires: float | None
    repeats: int = 0
    queued: bool = False
    heard: bool = False
    said: float = field(init=False)

    def __post_init__(self) -> None:
        self.said = self.first

    @property
    def is_order(self) -> bool:
        """Whether it is an order: never dropped in favour of a later audit."""
        return self.key[1] in ORDERS


class Debts:
    """The entries, found by key, by number, and by when they are due.

    `changes` counts by topic how often something was added or dropped.
    """

    def __init__(self, stats: DeliveryStats) -> None:
        self._stats = stats
        self.changes: Counter[Topic] = Counter()
        self._by_key: dict[Key, Debt] = {}
        self._by_seq: dict[int, Debt] = {}
        # Some of these are out of date: what counts is when its debt says that it is due.
        self._due: list[tuple[float, int]] = []
        # What the kernel refused to send, by number, what it refused first at first.
        self._unsent: dict[int, Debt] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def owed(self) -> Owed:
        """Return how much is owed."""
        if not self._by_key:
            return _NOTHING
        orders = [debt for debt in self._by_key.values() if debt.is_order]
        held = sum(debt.queued for debt in orders)
        return Owed(len(orders), len(self._by_key) - len(orders), held)

    def get(self, key: Key) -> Debt | None:
        """Return what is owed under `key`, if anything is."""
        return self._by_key.get(key)

    def entries(self) -> list[Debt]:
        """Return all that is owed, oldest first."""
        return sorted(self._by_key.values(), key=lambda debt: debt.seq)

    def put(self, debt: Debt) -> None:
        """Owe a message, in place of an older one of its key."""
        self.drop(debt.key, Voided.REPLACED)
        self.changes[debt.key[1]] += 1
        self._by_key[debt.key] = debt
        self._by_seq[debt.seq] = debt
        self._schedule(debt, debt.due)

    def drop(self, key: Key, why: Voided | None) -> None:
        """Owe it no longer: `why` not, None if it was acknowledged for good."""
        debt = self._by_key.pop(key, None)
        if debt is not None:
            del self._by_seq[debt.seq]
            self._unsent.pop(debt.seq, None)
            self.changes[debt.key[1]] += 1
            if why is not None and debt.is_order:
                self._stats.voided[why.value] += 1

    def drop_states(self) -> None:
        """Keep the orders, and what was not even said."""
        for debt in list(self._by_key.values()):
            if not debt.is_order and debt.seq not in self._unsent:
                self.drop(debt.key, None)

    def acknowledged(self, seq: int, now: float, *, queued: bool) -> Debt | None:
        """Message `seq` arrived; if it is only held there, it is said again later.

        Returns the debt if that is news of it.
        """
        debt = self._by_seq.get(seq)
        if debt is None:
            return None
        if not debt.heard:
            debt.heard = True
            self._stats.on_round_trip(now - debt.said)
        is_news = not (queued and debt.queued)
        if queued:
            debt.queued = True
            self._schedule(debt, now + QUEUED_SECS)
        else:
            self.drop(debt.key, None)
        return debt if is_news else None

    def orders_at(self, seq: int) -> bool:
        """Whether message `seq` is an order that is owed."""
        debt = self._by_seq.get(seq)
        return debt is not None and debt.is_order

    def not_sent(self, seq: int) -> bool:
        """Message `seq` did not leave this host; return whether it is owed still."""
        debt = self._by_seq.get(seq)
        if debt is not None:
            self._unsent[seq] = debt
        return debt is not None

    def take_unsent(self, now: float, count: int) -> list[Debt]:
        """Return at most `count` that did not leave this host, to say them now, oldest first."""
        found: list[Debt] = []
        while self._unsent and len(found) < count:
            debt = self._unsent.pop(next(iter(self._unsent)))
            if debt.expires is not None and debt.expires <= now:
                self.drop(debt.key, Voided.EXPIRED)
            else:
                found.append(debt)
        return found

    def all_due(self, now: float, *, other_life: bool) -> None:
        """Say all of it again now, in the order in which it was said.

        What the other side holds, and what has only just been said, can wait: unless it was
        said to another life of it.
        """
        for debt in self.entries():
            if not other_life and (debt.queued or now < debt.first + REPEATS_AFTER[0]):
                continue
            debt.queued = False
            debt.first, debt.repeats = now, 0
            self._schedule(debt, now)

    def purge(self, now: float) -> None:
        """Drop what nobody wants to hear any more."""
        for debt in list(self._by_key.values()):
            if debt.expires is not None and debt.expires <= now:
                self.drop(debt.key, Voided.EXPIRED)

    def due_at(self) -> float | None:
        """Return when the next entry is due, None if there is none."""
        while self._due and not self._is_current(self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def pop_due(self, now: float) -> Debt | None:
        """Return an entry to say again now, with its next time set; None if none is due."""
        while (due := self.due_at()) is not None and due <= now:
            _due, seq = heapq.heappop(self._due)
            debt = self._by_seq[seq]
            if debt.expires is not None and debt.expires <= now:
                self.drop(debt.key, Voided.EXPIRED)
                continue
            self._repeat_later(debt, now)
            return debt
        return None

    def _repeat_later(self, debt: Debt, now: float) -> None:
        if debt.queued:
            self._schedule(debt, now + QUEUED_SECS)
            return
        while (due := debt.first + repeat_after(debt.repeats)) <= now:
            debt.repeats += 1
        self._schedule(debt, due)

    def _schedule(self, debt: Debt, due: float) -> None:
        debt.due = due
        heapq.heappush(self._due, (due, debt.seq))
        if len(self._due) > 4 * len(self._by_key) + 64:
            self._due = [(each.due, each.seq) for each in self._by_key.values()]
            heapq.heapify(self._due)

    def _is_current(self, entry: tuple[float, int]) -> bool:
        debt = self._by_seq.get(entry[1])
        return debt is not None and debt.due == entry[0]
