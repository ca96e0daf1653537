"""What the VIM's answers to our queries do: the state of a host, and its instances."""

from __future__ import annotations

from guestmtce.core.agent import audit
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.lanes import Kind
from guestmtce.core.agent.vim_messages import parse_host_state, parse_instances
from guestmtce.core.agent.vim_queue import Delivery
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.vocabulary import Command


def learn(agent: Agent, delivery: Delivery, body: bytes, now: float) -> None:
    """Apply the answer to a query; the answer to an event has no content that we use.

    Raises PeerError for an answer that is none, and then nothing changed. An agent that is no
    longer the active one learns nothing (decision 32).
    """
    if not agent.presence.active:
        return
    kind, host_uuid = delivery.message.kind, str(delivery.message.detail)
    if kind is Kind.HOST_STATE:
        learn_host_state(agent, host_uuid, body, now)
    elif kind is Kind.INSTANCES:
        learn_instances(agent, host_uuid, body, delivery.started, now)


def learn_host_state(agent: Agent, host_uuid: str, body: bytes, now: float) -> None:
    """Take the VIM's answer to the host state query, unless a command came before it."""
    host = agent.inventory.hosts.get(host_uuid)
    if host is None or host.reporting is not None:
        return
    agent.set_host_reporting(host, parse_host_state(body, host_uuid), now)
    audit.query_later(agent, host)


def learn_instances(agent: Agent, host_uuid: str, body: bytes, asked_at: float, now: float) -> None:
    """Take the VIM's answer to the instances query that was written at `asked_at`.

    A command that came after the question is newer than the answer. Entries that cannot be
    used are left out and counted. An answer without one that can be used is none, and neither is
    an empty one while the VIM does not tell the host's state: it starts (decision 44).
    """
    host = agent.inventory.hosts.get(host_uuid)
    if host is None:
        return
    states, useless = parse_instances(body)
    agent.dropped["bad_instance"] += useless
    if not states and (useless or host.reporting is None):
        raise PeerError("no_instances")
    for state in states:
        known = agent.inventory.instances.get(state.uuid)
        if known is not None and known.told_at >= asked_at:
            continue
        instance = agent.place(state.uuid, host, state.reporting, now, later=True)
        if instance is not None:
            agent.set_reporting(instance, state.reporting, now)
            agent.send_later(Command.MOD_INST, instance)
    host.got_instances = True
    agent.judge_deferred(host, now)
    audit.query_later(agent, host)
