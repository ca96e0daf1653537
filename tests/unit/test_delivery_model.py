"""Reliable delivery against a network that loses, repeats, delays and reorders at will.

A worker and an agent say states and orders to each other while either is restarted at any
moment. Everything follows from the seed. At the end the network is mended, and then:
every order was taken at least once unless it is void, no life of a receiver took one twice,
and what the receivers believe of the states is what was said last.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from guestmtce.core.shared.delivery import Post, Role
from guestmtce.core.shared.inbox import Receipt, Verdict
from guestmtce.core.shared.owed import Topic
from guestmtce.core.shared.stamp import Acknowledgement, Probe, Stamp
from guestmtce.core.shared.vocabulary import Command

LONGEST_DELAY = 4.0
TROUBLE_SECS = 120.0
# Longer than two audits: what a restart drops is said again with the next one.
MENDED_SECS = 60.0
AUDIT_SECS = 10.0
INSTANCES = [f"instance-{number}" for number in range(5)]


@dataclass(frozen=True)
class Saying:
    """What a message says: of an instance, a number that grows with each thing said."""

    uuid: str
    value: int

    def members(self) -> dict[str, Any]:
        return {}


@dataclass(order=True)
class Event:
    when: float
    number: int
    action: Any = field(compare=False)


class World:
    """The clock, the network and the two ends."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.loss, self.twice, self.delay = 0.3, 0.15, 0.5
        self.agenda: list[Event] = []
        self.number = 0
        self.value = 0
        self.datagrams = 0
        self.worker = Worker(self)
        self.agent = Agent(self)

    def later(self, delay: float, action: Any) -> None:
        self.number += 1
        heapq.heappush(self.agenda, Event(self.now + delay, self.number, action))

    def next_value(self) -> int:
        self.value += 1
        return self.value

    def carry(self, post: Post, receiver: str) -> None:
        """Some copies of a datagram arrive, some time, at whatever lives there then."""
        self.datagrams += 1
        copies = 0 if self.random.random() < self.loss else 1
        copies += self.random.random() < self.twice
        for _ in range(copies):
            delay = self.random.expovariate(1 / self.delay) if self.delay else 0.001
            self.later(min(delay, LONGEST_DELAY), lambda: getattr(self, receiver).receive(post))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.agenda and self.agenda[0].when <= end:
            event = heapq.heappop(self.agenda)
            self.now = max(self.now, event.when)
            event.action()
        self.now = end


class End:
    """A process that talks to the other: its lives, and what each of them took."""

    other: str

    def __init__(self, world: World) -> None:
        self.world = world
        self.wake_at: float | None = None
        self.taken: list[list[tuple[str, Saying]]] = []
        self.live()

    def live(self) -> None:
        """A new life: it knows nothing of what the one before took."""
        self.role = Role(self.world.random.randrange(1, 2**31))
        self.believes: dict[tuple[str, Topic], int] = {}
        self.held: list[tuple[Receipt, Saying]] = []
        self.taken.append([])

    def receive(self, post: Post) -> None:
        now = self.world.now
        if post.stamp is None:
            assert isinstance(post.content, (Probe, Acknowledgement))
            if self.role.loopback(post.content, "address", now):
                self.renewed()
        elif post.command is Command.QRY_INST:
            self.answered_or_asked(post.content, post.stamp)
        else:
            said = post.content
            verdict, receipt = self.role.heard(post.command, said.uuid, post.stamp, "address", now)
            if receipt is not None:
                self.order(post, receipt, said)
            elif verdict is Verdict.TAKE:
                self.state(post.command, said)
        self.pump()

    def answered_or_asked(self, said: Any, stamp: Stamp) -> None:
        raise NotImplementedError

    def renewed(self) -> None:
        raise NotImplementedError

    def state(self, command: Command, said: Saying) -> None:
        raise NotImplementedError

    def order(self, post: Post, receipt: Receipt, said: Saying) -> None:
        self.take(receipt, said)
        self.role.settle(receipt)

    def take(self, receipt: Receipt, said: Saying) -> None:
        self.taken[-1].append((receipt.id, said))

    def pump(self) -> None:
        for post in self.role.poll(self.world.now):
            self.world.carry(post, self.other)
        wake_at = self.role.wake_at(self.world.now)
        if wake_at is not None and wake_at != self.wake_at:
            self.wake_at = wake_at
            self.world.later(max(0.0, wake_at - self.world.now), self.wake)

    def wake(self) -> None:
        self.wake_at = None
        self.pump()


class Worker(End):
    """Says RUNNING, STOPPED, LOSS and answers; a LOSS that is owed outlives it in a file."""

    other = "agent"

    def __init__(self, world: World) -> None:
        self.status = {uuid: world.next_value() for uuid in INSTANCES}
        self.runs = dict.fromkeys(INSTANCES, False)
        self.owed: dict[str, Saying] = {}
        super().__init__(world)

    def live(self) -> None:
        saved = self.role.orders(Topic.LOSS) if hasattr(self, "role") else []
        super().live()
        for uuid, name in saved:
            self.put(Command.HEARTBEAT_LOSS, self.owed[uuid], order_id=name)
        self.wake_at = None
        self.pump()

    def put(self, command: Command, said: Saying, **more: Any) -> None:
        self.role.put(command, said.uuid, said, self.world.now, **more)

    def renewed(self) -> None:
        for uuid in INSTANCES:
            self.say_status(uuid)

    def say_status(self, uuid: str) -> None:
        command = Command.HEARTBEAT_RUNNING if self.runs[uuid] else Command.HEARTBEAT_STOPPED
        self.put(command, Saying(uuid, self.status[uuid]))

    def answered_or_asked(self, said: Any, stamp: Stamp) -> None:
        verdict, _ = self.role.heard(Command.QRY_INST, "", stamp, "address", self.world.now)
        if verdict is Verdict.TAKE:
            for uuid in INSTANCES:
                self.role.answer(Saying(uuid, self.status[uuid]), stamp.seq, len(INSTANCES))

    def state(self, command: Command, said: Saying) -> None:
        self.believes[said.uuid, Topic.PROVISION] = said.value
        self.say_status(said.uuid)

    def turn(self) -> None:
        """Something happens to a guest."""
        uuid = self.world.random.choice(INSTANCES)
        self.status[uuid] = self.world.next_value()
        if self.runs[uuid]:
            self.runs[uuid] = False
            self.say_status(uuid)
            self.owed[uuid] = Saying(uuid, self.world.next_value())
            self.put(Command.HEARTBEAT_LOSS, self.owed[uuid])
        else:
            self.runs[uuid] = True
            self.owed.pop(uuid, None)
            self.say_status(uuid)
        self.pump()


class Agent(End):
    """Holds each LOSS for a while, as if the VIM were slow; asks now and then; provisions."""

    other = "worker"

    def __init__(self, world: World) -> None:
        self.provision = {uuid: world.next_value() for uuid in INSTANCES}
        self.asked: dict[str, tuple[Saying, float]] = {}
        super().__init__(world)
        world.later(AUDIT_SECS, self.audit)

    def live(self) -> None:
        super().live()
        self.wake_at = None
        self.role.say(Command.QRY_INST, Saying("", 0))
        self.pump()

    def audit(self) -> None:
        self.role.say(Command.QRY_INST, Saying("", 0))
        self.pump()
        self.world.later(AUDIT_SECS, self.audit)

    def put(self, uuid: str) -> None:
        said = Saying(uuid, self.provision[uuid])
        self.role.put(Command.MOD_INST, uuid, said, self.world.now)

    def renewed(self) -> None:
        for uuid in INSTANCES:
            self.put(uuid)

    def state(self, command: Command, said: Saying) -> None:
        self.believes[said.uuid, Topic.STATUS] = said.value

    def answered_or_asked(self, said: Any, stamp: Stamp) -> None:
        verdict = self.role.heard_answer(said.uuid, stamp, self.world.now, running=False)
        if verdict is Verdict.TAKE:
            self.believes[said.uuid, Topic.STATUS] = said.value

    def order(self, post: Post, receipt: Receipt, said: Saying) -> None:
        if self.world.random.random() < 0.2:
            self.role.defer(receipt)
            return
        self.take(receipt, said)
        self.role.hold(receipt)
        role = self.role

        def done() -> None:
            if role is self.role:
                role.settle(receipt)
                self.pump()

        self.world.later(self.world.random.random() * 5, done)

    def turn(self) -> None:
        """The VIM says something."""
        uuid = self.world.random.choice(INSTANCES)
        if self.world.random.random() < 0.5:
            self.provision[uuid] = self.world.next_value()
            self.put(uuid)
        else:
            said = Saying(uuid, self.world.next_value())
            self.asked[uuid] = (said, self.world.now)
            self.role.put(Command.VOTE_INST, uuid, said, self.world.now)
        self.pump()


def trouble(world: World) -> None:
    """Things happen, the network changes its mood, processes die."""
    chance = world.random.random()
    if chance < 0.4:
        world.worker.turn()
    elif chance < 0.7:
        world.agent.turn()
    elif chance < 0.8:
        world.loss = world.random.choice([0.0, 0.3, 0.3, 0.6, 1.0])
        world.delay = world.random.choice([0.0, 0.05, 0.5, 2.0])
    elif chance < 0.84:
        world.worker.live()
    elif chance < 0.88:
        world.agent.live()
        world.agent.asked.clear()
    world.later(world.random.expovariate(1.0), lambda: trouble(world) if world.loss >= 0 else None)


def mend(world: World) -> None:
    """The network is well from now on; `later` of trouble() does no more."""
    world.agenda = [each for each in world.agenda if "trouble" not in each.action.__qualname__]
    heapq.heapify(world.agenda)
    world.loss = world.twice = world.delay = 0.0
    world.run(MENDED_SECS)


@pytest.mark.parametrize("seed", range(40))
def test_everything_arrives(seed):
    """The three promises of the delivery, whatever the network and the restarts do."""
    world = World(seed)
    trouble(world)
    world.run(TROUBLE_SECS)
    mend(world)
    worker, agent = world.worker, world.agent
    for end in (worker, agent):
        for life in end.taken:
            names = [name for name, _said in life]
            assert len(names) == len(set(names)), "an order was taken twice in one life"
    told = {said for life in agent.taken for _name, said in life}
    assert set(worker.owed.values()) <= told, "a loss that is no longer void was never taken"
    asked = {said for life in worker.taken for _name, said in life}
    assert {said for said, _when in agent.asked.values()} <= asked
    status = {uuid: agent.believes.get((uuid, Topic.STATUS)) for uuid in INSTANCES}
    assert status == worker.status
    provision = {uuid: worker.believes.get((uuid, Topic.PROVISION)) for uuid in INSTANCES}
    assert provision == agent.provision
    assert worker.role.owed_count == agent.role.owed_count == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_quiet_network_is_left_quiet(seed):
    """With nothing owed there are no datagrams beside the audit's, and no wake-ups."""
    world = World(seed)
    world.loss = world.twice = world.delay = 0.0
    for _ in range(20):
        world.worker.turn()
        world.agent.turn()
    world.run(30.0)
    assert world.worker.role.wake_at(world.now) is world.agent.role.wake_at(world.now) is None
    before = world.datagrams
    world.run(10 * AUDIT_SECS)
    assert world.datagrams - before <= 11 * (1 + len(INSTANCES))
