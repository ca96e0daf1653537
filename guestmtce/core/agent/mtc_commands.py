"""What mtcAgent's commands do: they are the inventory of hosts (datagrams.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from guestmtce.core.agent import audit
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Host
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.mtc_message import HostEntry, MtcMessage
from guestmtce.core.shared.vocabulary import Command


class HostNews(NamedTuple):
    """What a command did to the hosts: names that came, and names that went."""

    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()


def take_mtc_command(agent: Agent, message: MtcMessage, now: float) -> HostNews:
    """Act upon a command of mtcAgent; raises PeerError or Unneeded, and then nothing changed."""
    agent.check_active()
    handler = _HANDLERS.get(message.command)
    if handler is None:
        raise PeerError("unknown_command")
    return handler(agent, message, now)


def _put_host(agent: Agent, message: MtcMessage, now: float) -> HostNews:
    """ADD_HOST or MOD_HOST: add the host, or update it; name and UUID may each have changed."""
    entry = HostEntry.of(message)
    named = agent.inventory.host_named(entry.hostname)
    holder = agent.inventory.hosts.get(entry.uuid)
    news = HostNews()
    if named is not None and holder is not None and named is not holder:
        # Two hosts become one: the name decides, the other holder of the UUID is gone.
        agent.remove_host(holder)
        news = HostNews(went=(holder.hostname,))
    host = named or holder
    if host is None and len(agent.inventory.hosts) >= agent.max_hosts:
        agent.refused_hosts += 1
        raise PeerError("too_many_hosts")
    if host is None:
        host = Host(entry.hostname, entry.uuid, known_since=agent.wall())
        agent.inventory.add_host(host)
        news = HostNews(came=(entry.hostname,))
    elif (host.hostname, host.uuid) != (entry.hostname, entry.uuid):
        news = HostNews(came=(entry.hostname,), went=(*news.went, host.hostname))
        _rename(agent, host, entry)
    host.ip, host.personality = entry.ip, entry.personality
    if host.runs_instances:
        audit.ask_vim(agent, host, now)
    return news


def _rename(agent: Agent, host: Host, entry: HostEntry) -> None:
    """Rename a host. If its UUID changed, what the VIM said of the old one is void: ask again."""
    if host.uuid != entry.uuid:
        agent.queue.forget(host.key)
        host.reporting = None
        host.got_instances = False
    agent.inventory.rename_host(host, entry.hostname, entry.uuid)


def _delete_host(agent: Agent, message: MtcMessage, _now: float) -> HostNews:
    host = agent.inventory.hosts.get(message.uuid())
    if host is None:
        raise PeerError("unknown_host")
    agent.remove_host(host)
    return HostNews(went=(host.hostname,))


_HANDLERS: dict[int, Callable[[Agent, MtcMessage, float], HostNews]] = {
    Command.ADD_HOST: _put_host,
    Command.MOD_HOST: _put_host,
    Command.DEL_HOST: _delete_host,
}
