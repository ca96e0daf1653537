"""Reliable delivery between guestServer and guestAgent over UDP, invisible to old peers.

Sans-I/O: times are arguments in seconds of one monotonic clock, datagrams come out of `poll`.

**Roles.** The other side is a role, not an address: for a guestServer the agent at `controller`,
for a guestAgent the guestServer of a host name. One `Role` here holds all that is known of one.
It has a table of `Debts` (what we owe to it) and an `Inbox` (what we took of what it said).

**Lives.** Which process plays the role is `lives`' to tell: its epoch, whether it is taken, and
whether it is *proven* that somebody is there who drops repeats. Everybody gets each message once.
Only a proven role gets repeats; another gets a probe at those times instead, and when it answers,
all that is owed follows, 100 messages per 10 ms. An old peer never answers, so it never gets
anything twice; what the kernel refused to send it has not got at all, and is said again each 2 s.
A message without an epoch comes from an old peer: its proof is over, and its states are left to
the audit.

**States and orders.** A state (RUNNING, ADD_INST, MOD_HOST, ...) is owed until acknowledged or
until there is a newer one of its instance; the receiver ignores one that is behind. An order
(LOSS, ILLHEALTH, a vote's answer, a vote) is owed until acknowledged or void: the owner says
`void`, it expires, a newer one of its instance and topic takes its place, or a state revokes it
(RUNNING does that to LOSS and ILLHEALTH, DEL_INST to a vote). An order has an id that outlives
restarts of its sender, by which the receiver takes it once.

**End to end.** The receiver of an order *holds* it (acknowledged as queued: said again each
10 s, in case that the holder dies) or *settles* it (done or void: acknowledged for good, three
times, for no later repeat would ask). One that cannot be judged yet is *deferred*: acknowledged
as queued, but taken only once it can be judged: when its owner judges it again, or a repeat comes.

**Why it converges.** While both live, each owed message is repeated until one copy and one
acknowledgement get through. When the receiver restarts, its new epoch makes all that is owed due
at once, and the owner is told (`renewed`) to say its states again. When the sender restarts, its
owner says its states again, and orders that it saved keep their ids.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from guestmtce.core.shared.inbox import Inbox, Receipt, Verdict
from guestmtce.core.shared.lives import Lives
from guestmtce.core.shared.mtc_message import Record
from guestmtce.core.shared.owed import (
    ORDERS,
    REPEATS_AFTER,
    REVOKES,
    TOPICS,
    Debt,
    Debts,
    DeliveryStats,
    Owed,
    Topic,
    Voided,
)
from guestmtce.core.shared.stamp import Acknowledgement, Loopback, Probe, Stamp
from guestmtce.core.shared.vocabulary import Command

BURST = 100
BURST_SECS = 0.01
# What the kernel refused, for want of a route say, is tried again so often.
UNSENT_SECS = 2.0
FINAL_AFTER = (0.0, 0.3, 1.0)
# Final acknowledgements that still have to be repeated; beyond this no more are.
FINALS_LIMIT = 4096
# Orders that the receiver may hold for long: their final acknowledgement comes by itself.
_HELD = frozenset({Topic.LOSS, Topic.ILLNESS, Topic.ANSWER})


class Post(NamedTuple):
    """A datagram to send: to `address`, or None for the role's own."""

    command: Command
    content: Record
    stamp: Stamp | None = None
    address: str | None = None


class Role:
    """One peer, whatever process plays it. `epoch` is ours (1 ... 2**31 - 1, random).

    `poll` returns what to send: call it at `wake_at`, and after each input or when `on_output`
    is called, whenever there is something new. `on_order(order, queued)` is called when an order
    of ours is acknowledged: as held, or for good. `stats` counts for all roles of a daemon;
    `version` is ours, which the peer is told. `acknowledges` is whether the peer does, None while
    nothing was heard of it, and `peer_version` what it says of itself, "" if it does not.
    """

    def __init__(
        self,
        epoch: int,
        on_output: Callable[[], object] = lambda: None,
        on_order: Callable[[Debt, bool], object] = lambda _order, _queued: None,
        *,
        stats: DeliveryStats | None = None,
        version: str = "",
    ) -> None:
        self.stats = stats or DeliveryStats()
        self.acknowledges: bool | None = None
        self.peer_version = ""
        self._version = version
        self.epoch = epoch
        self._on_output = on_output
        self._on_order = on_order
        self._lives = Lives(self.stats.counts, on_output)
        self._seq = 0
        self._debts = Debts(self.stats)
        self._inbox = Inbox()
        self._out: deque[Post] = deque()
        self._settled: list[Post] = []
        self._finals: list[tuple[float, int, Post]] = []
        self._final_count = 0
        self._burst_at = float("-inf")
        self._unsent_at: float | None = None

    @property
    def peer_epoch(self) -> int | None:
        """The epoch of the process that plays the role, None if it is an old one, or unknown."""
        return self._lives.epoch

    # What we say.

    def say(self, command: Command, record: Record) -> int:
        """Say what is not owed (READY, QRY_INST); return its number."""
        self._seq += 1
        self._emit(Post(command, record, Stamp(self.epoch, self._seq)))
        return self._seq

    def answer(self, record: Record, re: int | None, of: int | None) -> None:
        """Answer query `re` with one of `of` records, which tells the state as of now."""
        stamp = Stamp(self.epoch, self._seq, re=re, of=of)
        self._emit(Post(Command.QRY_INST, record, stamp))

    def put(
        self,
        command: Command,
        uuid: str,
        record: Record,
        now: float,
        *,
        expires: float | None = None,
        order_id: str = "",
    ) -> None:
        """Say a state or order of instance `uuid` ("" for the host's), and owe it.

        `expires` is when nobody wants to hear it any more; `order_id` the name that an order
        had before a restart of ours.
        """
        topic = TOPICS[command]
        for revoked in REVOKES.get(command, ()):
            self._debts.drop((uuid, revoked), Voided.REVOKED)
        self._seq += 1
        name = (order_id or f"{self.epoch}.{self._seq}") if topic in ORDERS else ""
        due = now + REPEATS_AFTER[0]
        debt = Debt(command, record, (uuid, topic), self._seq, name, now, due, expires)
        self._debts.put(debt)
        self._emit(self._post(debt))
        if not self._lives.is_proven(now):
            self._lives.probe_from(now, now + REPEATS_AFTER[0])

    def void(self, uuid: str, *topics: Topic) -> None:
        """Owe nothing of these topics (of all, if none is named) of an instance any more."""
        for topic in topics or Topic:
            self._debts.drop((uuid, topic), Voided.VOID)

    def unsent(self, post: Post, now: float) -> None:
        """That did not leave this host: if it is owed, say it again soon, to whomever."""
        stamp = post.stamp if post.command in TOPICS else None
        if stamp is not None and self._debts.not_sent(stamp.seq):
            # What goes on in a burst waits as well: the way is not free.
            if self._unsent_at is None or self._unsent_at <= now + BURST_SECS:
                self._unsent_at = now + UNSENT_SECS
            self._on_output()

    def owed(self, uuid: str, topic: Topic) -> bool:
        """Whether something of that is not finally acknowledged."""
        return self._debts.get((uuid, topic)) is not None

    def orders(self, topic: Topic) -> list[tuple[str, str]]:
        """Return instance and id of each order of a topic that is owed: what to save."""
        return [(each.key[0], each.id) for each in self._debts.entries() if each.key[1] is topic]

    def changes(self, topic: Topic) -> int:
        """Return a number that differs whenever `orders` does."""
        return self._debts.changes[topic]

    @property
    def owed_count(self) -> int:
        """How many messages are owed."""
        return len(self._debts)

    def how_much(self) -> Owed:
        """Return how many messages are owed, of each kind."""
        return self._debts.owed()

    # What we hear.

    def heard(
        self, command: int, uuid: str, stamp: Stamp, address: str, now: float
    ) -> tuple[Verdict, Receipt | None]:
        """Judge a message of the role; the receipt of an order has to be held, deferred or settled.

        `uuid` is its instance's, "" where it is about the host. What was taken before is
        acknowledged again, and so is what is behind.
        """
        if not self._lives.is_present(stamp.epoch, now):
            self._count(Verdict.UNPROVEN)
            return Verdict.UNPROVEN, None
        topic = TOPICS.get(command)
        if topic is None:
            return Verdict.TAKE, None
        key = (uuid, topic)
        name = stamp.id or f"{stamp.epoch}.{stamp.seq}"
        receipt = Receipt(key, stamp.epoch, stamp.seq, name, address)
        if topic in ORDERS:
            verdict = self._inbox.judge_order(receipt)
        else:
            verdict = self._inbox.judge_state(command, key, stamp.epoch, stamp.seq)
        self._count(verdict)
        if topic in ORDERS and verdict is Verdict.TAKE:
            return verdict, receipt
        self._acknowledge(receipt, queued=self._inbox.is_held(receipt))
        return verdict, None

    def heard_answer(self, uuid: str, stamp: Stamp, now: float, *, running: bool) -> Verdict:
        """Judge an answer to a query of ours."""
        verdict = Verdict.UNPROVEN
        if self._lives.is_present(stamp.epoch, now):
            key = (uuid, Topic.STATUS)
            verdict = self._inbox.judge_answer(key, stamp.epoch, stamp.seq, running=running)
        self._count(verdict)
        return verdict

    def overtaken(self, uuid: str, topic: Topic, stamp: Stamp) -> bool:
        """Whether an order of that topic was taken that was said after what has this stamp."""
        return self._inbox.overtaken((uuid, topic), stamp.epoch, stamp.seq)

    def heard_old(self) -> None:
        """A message without a stamp: an old peer plays the role now."""
        self.acknowledges, self.peer_version = False, ""
        self._lives.end()
        self._debts.drop_states()
        if not len(self._debts):
            self._lives.probe_at = None

    def loopback(self, said: Loopback, address: str, now: float) -> bool:
        """Take a probe or an acknowledgement; True if the role has a new life with that.

        Then all that is owed follows, and the owner should say its states again.
        """
        if isinstance(said, Probe):
            # Whoever asks is told that we are here; whether we believe its epoch is our matter.
            self._lives.is_present(said.epoch, now)
            answer = Acknowledgement(self.epoch, said.epoch, 0, version=self._version)
            self._emit(Post(Command.LOOPBACK, answer, None, address))
            return False
        if said.of != self.epoch:
            return False  # it answers an earlier life of ours
        renewed = False
        if said.epoch != self._lives.epoch:
            if said.ack or self._lives.is_given_up(said.epoch, now):
                self._acknowledged_by_another_life(said, now)
                return False
            self._lives.take(said.epoch)
            self.acknowledges, self.peer_version = True, said.version
            renewed = True
        self._acknowledged(said, now, renewed=renewed)
        return renewed

    def hold(self, receipt: Receipt) -> None:
        """The order is ours, but not done: acknowledge it as queued."""
        self._inbox.hold(receipt)
        self._acknowledge(receipt, queued=True)

    def defer(self, receipt: Receipt) -> None:
        """The order cannot be judged yet: have it said again later, as if we held it."""
        self._acknowledge(receipt, queued=True)

    def judge_again(self, receipt: Receipt) -> Verdict:
        """Judge an order that was deferred: something newer may have been taken meanwhile."""
        if receipt.epoch != self._lives.epoch:
            return Verdict.UNPROVEN
        return self._inbox.judge_order(receipt)

    def settle(self, receipt: Receipt) -> None:
        """The order is done, or void: acknowledge it for good."""
        last = self._inbox.settle(receipt)
        if last.key[1] in _HELD:
            self._settled.append(self._acknowledgement(last, queued=False))
            self._on_output()
        else:
            self._acknowledge(last)

    def last_words(self) -> list[Post]:
        """Return the final acknowledgements that were still to be repeated: we end now."""
        posts = [*self._out, *self._settled, *self._settled, *(each[2] for each in self._finals)]
        self._out.clear()
        self._settled.clear()
        self._finals.clear()
        return posts

    # What goes out, and when.

    def poll(self, now: float) -> list[Post]:
        """Return what to send now."""
        lives = self._lives
        out = list(self._out)
        self._out.clear()
        if self._settled:
            self._plan_finals(now)
        while self._finals and self._finals[0][0] <= now:
            out.append(heapq.heappop(self._finals)[2])
        if self._unsent_at is not None and self._unsent_at <= now:
            unsent = self._debts.take_unsent(now, BURST)
            self._unsent_at = now + BURST_SECS if len(unsent) == BURST else None
            out.extend(self._post(debt) for debt in unsent)
        if lives.is_proven(now):
            if now >= self._burst_at + BURST_SECS:
                out.extend(self._repeats(now))
        elif lives.probe_at is None and (due := self._debts.due_at()) is not None:
            lives.probe_from(now, max(due, now))
        if lives.probe_at is not None and lives.probe_at <= now:
            out.extend(self._probe(now))
        return out

    def wake_at(self, now: float) -> float | None:
        """Return when `poll` has something to do though nothing else happens."""
        if self._out or self._settled:
            return now
        due, probe_at = self._debts.due_at(), self._lives.probe_at
        times = [self._finals[0][0]] if self._finals else []
        if due is not None and (probe_at is None or self._lives.is_proven(now)):
            times.append(max(due, self._burst_at + BURST_SECS))
        if probe_at is not None:
            times.append(probe_at)
        if self._unsent_at is not None:
            times.append(self._unsent_at)
        return min(times, default=None)

    def _plan_finals(self, now: float) -> None:
        """Plan the final acknowledgements; beyond the limit each is said once only."""
        for post in self._settled:
            for delay in FINAL_AFTER if len(self._finals) < FINALS_LIMIT else FINAL_AFTER[:1]:
                self._final_count += 1
                heapq.heappush(self._finals, (now + delay, self._final_count, post))
        self._settled.clear()

    def _emit(self, post: Post) -> None:
        self._out.append(post)
        self._on_output()

    def _repeats(self, now: float) -> list[Post]:
        found: list[Post] = []
        while len(found) < BURST and (debt := self._debts.pop_due(now)) is not None:
            found.append(self._post(debt))
        if found:
            self._burst_at = now
            self.stats.counts["repeats"] += len(found)
        return found

    def _count(self, verdict: Verdict) -> None:
        if verdict is not Verdict.TAKE:
            self.stats.counts[verdict.name.lower()] += 1

    def _post(self, debt: Debt) -> Post:
        return Post(debt.command, debt.record, Stamp(self.epoch, debt.seq, debt.id))

    def _acknowledge(self, receipt: Receipt, *, queued: bool = False) -> None:
        self._emit(self._acknowledgement(receipt, queued=queued))

    def _acknowledgement(self, receipt: Receipt, *, queued: bool) -> Post:
        answer = Acknowledgement(self.epoch, receipt.epoch, receipt.seq, queued)
        return Post(Command.LOOPBACK, answer, None, receipt.address)

    def _acknowledged(self, said: Acknowledgement, now: float, *, renewed: bool) -> None:
        is_news = self._lives.prove(now, by_probe=not said.ack)
        if said.ack:
            self._settle_debt(said.ack, now, queued=said.queued)
        if renewed or is_news:
            self._debts.all_due(now, other_life=renewed)

    def _settle_debt(self, seq: int, now: float, *, queued: bool) -> None:
        debt = self._debts.acknowledged(seq, now, queued=queued)
        if debt is not None and debt.is_order:
            self._on_order(debt, queued)

    def _acknowledged_by_another_life(self, said: Acknowledgement, now: float) -> None:
        """What an earlier life has done for good is done; whatever else it said died with it."""
        if said.ack and not said.queued and self._debts.orders_at(said.ack):
            self._settle_debt(said.ack, now, queued=False)
        self._lives.is_present(said.epoch, now)

    def _probe(self, now: float) -> list[Post]:
        """Send one, if there is still a reason to."""
        self._debts.purge(now)
        if not self._lives.probe(now, owing=bool(len(self._debts))):
            return []
        return [Post(Command.LOOPBACK, Probe(self.epoch))]
