"""An order that a guestAgent cannot judge yet is judged as soon as it can (datagrams.md)."""

from __future__ import annotations

import contextlib

import pytest

from guestmtce.core.agent import vim_answers
from guestmtce.core.agent.events import DEFERRED_LIMIT
from guestmtce.core.agent.inventory import DEFERRED_SECS
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.vim_messages import FAILED, UNHEALTHY
from guestmtce.core.shared.delivery import Role
from guestmtce.core.shared.errors import NotYet, Unneeded
from guestmtce.core.shared.stamp import Acknowledgement
from guestmtce.core.shared.vocabulary import Command
from tests.unit.agent_support import (
    HOST_0,
    HOST_1,
    INFO,
    UUID,
    UUID_2,
    CoreRig,
    host_state,
    instances,
)

OURS, THEIRS, LATER = 11, 22, 33
LOSS, ILLNESS = Command.HEARTBEAT_LOSS, Command.HEARTBEAT_ILLHEALTH


class FreshAgent(CoreRig):
    """An agent that has just started: it knows a host, and nothing else of it yet."""

    def __init__(self, *, new_server: bool) -> None:
        super().__init__()
        self.add_host()
        self._number = 0
        self._new = new_server
        if new_server:
            self.renew("compute-0", THEIRS)

    def renew(self, hostname: str, epoch: int) -> None:
        """A guestServer that numbers what it says plays the role of that host's."""
        host = self.host(hostname)
        host.role = host.role or Role(OURS)
        host.role.loopback(Acknowledgement(epoch, OURS, 0), "127.0.0.2", self.now)
        host.role.poll(self.now)

    def stamped(self, number: int | None = None) -> dict[str, int]:
        self._number += 1
        return {"epoch": THEIRS, "seq": number or self._number} if self._new else {}

    def too_early(self, command: Command = LOSS, uuid: str = UUID, **more) -> None:
        """Say an order that cannot be judged yet."""
        with pytest.raises(NotYet):
            self.info(command, uuid=uuid, **{**self.stamped(), **more})

    def learn(self, *uuids: str, state: str = "enabled") -> None:
        """The VIM answers both questions, and guestServer says how these instances are."""
        self.vim_answers(*uuids, state=state)
        for uuid in uuids or (UUID,):
            with contextlib.suppress(Unneeded):
                self.stopped(uuid=uuid, **self.stamped())

    def vim_answers(self, *uuids: str, state: str = "enabled") -> None:
        asked, self.now = self.now, self.now + 0.1
        vim_answers.learn_host_state(self.agent, HOST_0, host_state(state), self.now)
        body = instances(*((uuid, "enabled") for uuid in uuids or (UUID,)))
        vim_answers.learn_instances(self.agent, HOST_0, body, asked, self.now)

    def alarms(self) -> list[tuple[str, str]]:
        """Let the VIM have what is due, and return whose alarms that were, and what they say."""
        return [(key, what.state) for key, kind, what in self.deliver() if kind is Kind.ALARM]

    def acknowledged(self) -> list[object]:
        """What was said to the guestServer of compute-0 about the orders that it gave."""
        role = self.host().role
        assert role is not None
        said = [post.content for post in role.poll(self.now)]
        return [(each.ack, each.queued) for each in said if isinstance(each, Acknowledgement)]


@pytest.fixture
def new() -> FreshAgent:
    return FreshAgent(new_server=True)


@pytest.fixture
def old() -> FreshAgent:
    return FreshAgent(new_server=False)


@pytest.fixture(params=["new", "old"])
def either(request) -> FreshAgent:
    return FreshAgent(new_server=request.param == "new")


@pytest.mark.parametrize(("order", "state"), [(LOSS, FAILED), (ILLNESS, UNHEALTHY)])
def test_an_order_is_judged_when_the_vim_has_answered(either, order, state):
    either.too_early(order)
    assert either.alarms() == []
    either.learn()
    assert either.alarms() == [(UUID, state)]
    assert either.host().deferred == {}


def test_it_waits_for_both_answers_in_either_order(either):
    either.too_early()
    vim_answers.learn_instances(
        either.agent, HOST_0, instances((UUID, "enabled")), either.now, either.now + 0.1
    )
    either.stopped(**either.stamped())
    assert either.alarms() == []
    vim_answers.learn_host_state(either.agent, HOST_0, host_state("enabled"), either.now)
    assert either.alarms() == [(UUID, FAILED)]


def test_it_waits_for_the_state_of_a_host_whose_instances_are_known(either):
    """A command of the VIM may have named the instance before the VIM answers."""
    vim_answers.learn_instances(
        either.agent, HOST_0, instances((UUID, "enabled")), either.now, either.now + 0.1
    )
    either.too_early(ILLNESS)
    assert either.alarms() == []
    vim_answers.learn_host_state(either.agent, HOST_0, host_state("enabled"), either.now)
    assert either.alarms() == [(UUID, UNHEALTHY)]


def test_what_comes_of_it_is_acknowledged(new):
    new.too_early()
    assert new.acknowledged() == [(1, True)]
    new.vim_answers()
    assert new.acknowledged() == [(1, True)]
    new.stopped(**new.stamped())
    assert new.acknowledged() == [(2, False), (1, True)]
    assert new.alarms() == [(UUID, FAILED)]
    assert new.acknowledged() == [(1, False)]


@pytest.mark.parametrize("said", ["status", "answer"])
def test_a_loss_waits_for_what_its_guest_wants(either, said):
    """The VIM would do nothing for the action `unknown`; LOSS itself does not name it."""
    either.too_early()
    either.vim_answers()
    assert either.alarms() == []
    if said == "status":
        either.stopped(action="stop", **either.stamped())
    else:
        either.info(Command.QRY_INST, action="stop", heartbeating="disabled", **either.stamped())
    actions = [what.action for _key, kind, what in either.deliver() if kind is Kind.ALARM]
    assert actions == ["stop"]


def test_a_running_that_was_said_before_the_loss_does_not_withdraw_it(new):
    """It comes late, and tells what the guest wants."""
    new.too_early(**new.stamped(2))
    new.vim_answers()
    new.running(**new.stamped(1))
    assert new.alarms() == [(UUID, FAILED)]


def test_a_loss_after_a_move_waits_for_what_the_guest_wants_there(new):
    other = new.add_host("compute-1", HOST_1)
    new.agent.set_host_reporting(other, True, new.now)
    other.got_instances = True
    instance = new.agent.add_instance(UUID, other, True, new.now)
    new.learn(UUID_2)
    new.agent.move_instance(instance, new.host(), True, new.now)
    new.too_early()
    assert new.alarms() == []
    new.stopped(**new.stamped())
    assert new.alarms() == [(UUID, FAILED)]


def test_a_repeat_after_that_is_not_told_again(new):
    new.too_early()
    new.learn()
    assert new.alarms() == [(UUID, FAILED)]
    with pytest.raises(Unneeded, match="again"):
        new.info(LOSS, **new.stamped(1))
    new.now += 20
    assert new.alarms() == []


def test_a_guest_that_runs_again_before_it_can_be_judged_was_not_lost(either):
    for order in (LOSS, ILLNESS):
        either.too_early(order)
    either.too_early(Command.HEARTBEAT_RUNNING)
    either.learn()
    assert either.alarms() == []


def test_that_another_guest_runs_changes_nothing(either):
    either.too_early()
    either.too_early(Command.HEARTBEAT_RUNNING, UUID_2)
    either.learn(UUID, UUID_2)
    assert either.alarms() == [(UUID, FAILED)]


@pytest.mark.parametrize("order", [LOSS, ILLNESS])
def test_an_order_not_said_again_for_long_may_be_void(either, order):
    """Its guestServer says it each 10 s as long as it is true."""
    either.too_early(order)
    either.now += DEFERRED_SECS
    either.learn()
    assert either.alarms() == []


def test_a_repeat_keeps_it_fresh(new):
    new.too_early()
    new.now += DEFERRED_SECS - 1
    new.too_early(**new.stamped(1))
    new.now += 2
    new.learn()
    assert new.alarms() == [(UUID, FAILED)]


@pytest.mark.parametrize(
    ("listed", "state", "reason"),
    [(UUID, "disabled", "not_reporting"), (UUID_2, "enabled", "unknown_instance")],
)
def test_what_the_vim_says_decides(either, listed, state, reason):
    """The host does not report; or the instance is none of its own."""
    either.too_early()
    either.learn(listed, state=state)
    assert either.alarms() == []
    assert either.agent.dropped[reason] == 1


def test_a_refused_one_is_acknowledged_for_good(new):
    new.too_early()
    new.acknowledged()
    new.learn(UUID_2)
    assert (1, False) in new.acknowledged()


def test_an_order_of_an_earlier_life_is_not_judged(new):
    """The new guestServer says its own, if it is still true."""
    new.too_early()
    new.renew("compute-0", LATER)
    new.learn()
    assert new.alarms() == []


@pytest.mark.parametrize(("order", "state"), [(LOSS, FAILED), (ILLNESS, UNHEALTHY)])
def test_an_instance_that_moves_here_is_judged_once_it_is_here(new, order, state):
    """It was on compute-1, as far as we knew, when compute-0 said that it was lost, or ill."""
    other = new.add_host("compute-1", HOST_1)
    new.agent.set_host_reporting(other, True, new.now)
    other.got_instances = True
    instance = new.agent.add_instance(UUID, other, True, new.now)
    new.learn(UUID_2)
    new.too_early(order)
    assert new.alarms() == []
    new.agent.move_instance(instance, new.host(), True, new.now)
    if order is LOSS:
        new.stopped(**new.stamped())
    assert new.alarms() == [(UUID, state)]


def test_an_answer_that_moves_one_instance_does_not_judge_the_others_too_early(new):
    """They are learned from the same answer, a little later."""
    other = new.add_host("compute-1", HOST_1)
    new.agent.set_host_reporting(other, True, new.now)
    new.agent.add_instance(UUID_2, other, True, new.now)
    new.now += 1
    new.too_early()
    new.learn(UUID_2, UUID)
    assert new.alarms() == [(UUID, FAILED)]


def test_one_order_of_each_kind_and_instance_waits_and_not_too_many(either):
    for number in range(DEFERRED_LIMIT + 10):
        either.too_early(uuid=f"8d80875b-fa73-4ccb-bce3-{number:012d}")
    either.too_early(uuid=f"8d80875b-fa73-4ccb-bce3-{0:012d}")
    assert len(either.host().deferred) == DEFERRED_LIMIT


def test_what_waits_goes_with_its_host(either):
    either.too_early()
    either.mtc(Command.DEL_HOST, uuid=HOST_0)
    either.add_host()
    either.learn()
    assert either.alarms() == []


def test_an_answer_to_a_vote_that_this_agent_did_not_ask_is_none(new):
    new.too_early(
        Command.VOTE_NOTIFY,
        **{**INFO, "event-type": "pause", "notification_type": "revocable", "vote": "accept"},
    )
    new.learn()
    assert Kind.ACTION not in {kind for _key, kind, _what in new.deliver()}
    assert new.agent.dropped["no_vote"] == 1
