"""What was taken of what one role says, so that nothing is done twice or too late.

Sans-I/O, a part of `delivery`, whose page of theory covers it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from guestmtce.core.shared.owed import REVOKES, Key, Topic

# How many of the last orders of one key are remembered by name; one would do without restarts.
IDS_KEPT = 4
# Two keys for each of 10,000 instances, and as many for what a peer may invent. The one that
# was heard of longest ago is forgotten first.
MARKS_LIMIT = 40_000


class Verdict(Enum):
    """What is to be done with a message."""

    TAKE = "apply it"
    AGAIN = "it was applied before"
    BEHIND = "something newer was applied"
    UNPROVEN = "from a life of the peer that is not proven"


class Receipt(NamedTuple):
    """An order in our hands: name it to say what became of it."""

    key: Key
    epoch: int
    seq: int
    id: str
    address: str


@dataclass(eq=False)
class _Mark:
    """The last that was taken of one key. `epoch` says of which life of the peer `seq` is.

    `answered` is the number of the last answer to a query, `running` what it said. It tells the
    state as of then, so a state of an earlier number is behind it; but not a RUNNING, if the
    answer says so too, for RUNNING says more than the answer does: it withdraws an illness.

    `revoked` is the number of the last RUNNING or DEL_INST, `beating` that of the last answer which
    said that the guest heartbeats: then it is not lost, but it may be ill.
    """

    epoch: int = 0
    seq: int = 0
    answered: int = 0
    running: bool = False
    revoked: int = 0
    beating: int = 0
    ids: tuple[str, ...] = ()
    held: Receipt | None = None


class Inbox:
    """A mark for each instance and topic."""

    def __init__(self) -> None:
        self._marks: OrderedDict[Key, _Mark] = OrderedDict()

    def __len__(self) -> int:
        return len(self._marks)

    def _find(self, key: Key, epoch: int) -> _Mark | None:
        """Return the mark; numbers of another life of the peer say nothing about this one's."""
        mark = self._marks.get(key)
        if mark is not None and mark.epoch != epoch:
            mark.epoch, mark.seq, mark.answered, mark.revoked = epoch, 0, 0, 0
            mark.beating, mark.running = 0, False
        return mark

    def _mark(self, key: Key, epoch: int) -> _Mark:
        mark = self._find(key, epoch)
        if mark is None:
            mark = self._marks[key] = _Mark(epoch)
            if len(self._marks) > MARKS_LIMIT:
                self._marks.popitem(last=False)
        self._marks.move_to_end(key)
        return mark

    def judge_state(self, command: int, key: Key, epoch: int, seq: int) -> Verdict:
        """A state is taken if it is newer than the last of its key.

        A LOSS tells a state as well: RUNNING that was said before it is behind it.
        """
        mark = self._mark(key, epoch)
        agrees = mark.running and command in REVOKES
        if seq <= mark.seq or (seq < mark.answered and not agrees):
            return Verdict.BEHIND
        if command in REVOKES and self.overtaken((key[0], Topic.LOSS), epoch, seq):
            return Verdict.BEHIND
        mark.seq = seq
        if command in REVOKES:
            mark.revoked = max(mark.revoked, seq)
        return Verdict.TAKE

    def judge_answer(self, key: Key, epoch: int, seq: int, *, running: bool) -> Verdict:
        """An answer to a query tells the state as of `seq`: it may repeat the last one."""
        mark = self._mark(key, epoch)
        if seq < max(mark.seq, mark.answered):
            return Verdict.BEHIND
        if running and self.overtaken((key[0], Topic.LOSS), epoch, seq):
            return Verdict.BEHIND
        mark.answered, mark.running = seq, running
        if running:
            mark.beating = seq
        return Verdict.TAKE

    def overtaken(self, key: Key, epoch: int, seq: int) -> bool:
        """Return whether an order of that key was taken that was said after message `seq`."""
        mark = self._find(key, epoch)
        return mark is not None and seq < mark.seq

    def judge_order(self, receipt: Receipt) -> Verdict:
        """An order is taken once, by its name, and not if something newer has made it void."""
        key, epoch, seq, name, _address = receipt
        mark = self._find(key, epoch)
        if mark is not None and name in mark.ids:
            if mark.held is not None and mark.held.id == name:
                mark.held = receipt
            return Verdict.AGAIN
        if (mark is not None and seq <= mark.seq) or seq < self._revoked(key, epoch):
            return Verdict.BEHIND
        return Verdict.TAKE

    def _revoked(self, key: Key, epoch: int) -> int:
        """Return the number of the last state that made orders of this key void."""
        uuid, topic = key
        source = Topic.PROVISION if topic is Topic.ASK else Topic.STATUS
        if not any(topic in revoked for revoked in REVOKES.values()):
            return 0
        mark = self._find((uuid, source), epoch)
        if mark is None:
            return 0
        return max(mark.revoked, mark.beating) if topic is Topic.LOSS else mark.revoked

    def is_held(self, receipt: Receipt) -> bool:
        """Whether that order is held, and what it wants not done yet."""
        mark = self._marks.get(receipt.key)
        return mark is not None and mark.held is not None and mark.held.id == receipt.id

    def hold(self, receipt: Receipt) -> None:
        """The order is taken; what it wants is not done yet."""
        self._take(receipt).held = receipt

    def settle(self, receipt: Receipt) -> Receipt:
        """The order is done with; return under which number it came last."""
        if self.is_held(receipt):
            mark = self._marks[receipt.key]
            last, mark.held = mark.held, None
            return last or receipt
        self._take(receipt)
        return receipt

    def _take(self, receipt: Receipt) -> _Mark:
        """Remember the order; one that was taken already may be of an earlier life of the peer."""
        mark = self._marks.get(receipt.key)
        if mark is None or receipt.id not in mark.ids:
            mark = self._mark(receipt.key, receipt.epoch)
            mark.seq = max(mark.seq, receipt.seq)
            mark.ids = (*mark.ids, receipt.id)[-IDS_KEPT:]
        return mark
