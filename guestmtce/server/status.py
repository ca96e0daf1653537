"""What guestServer says of itself as a whole: its numbers, and which guests flood it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from guestmtce.core.server.worker import Worker
from guestmtce.server.agent_link import AgentLink
from guestmtce.server.channel import Channel

# Of guests that flood so many are named; the others are counted.
_SHOWN_FLOODS = 3


def summary(worker: Worker, by_uuid: Mapping[str, Channel], link: AgentLink) -> dict[str, object]:
    """Return the numbers that an operator wants first."""
    channels, stats = by_uuid.values(), worker.stats
    return {
        "hostname": worker.hostname,
        "address": link.address,
        "agent": link.destination,
        "agent_has_spoken": link.spoken,
        "host_reporting": worker.reporting,
        "instances": len(channels),
        "connected": sum(channel.instance.connection.connected for channel in channels),
        "heartbeating": sum(channel.instance.heartbeat.heartbeating for channel in channels),
        "heartbeats": stats.heartbeats,
        "misses": stats.misses,
        "losses": stats.losses,
        "unhealthy": stats.unhealthy,
        "late_responses": stats.late_responses,
        "wrong_responses": stats.wrong_responses,
        "unexpected_responses": stats.unexpected_responses,
        "host_stalls": stats.host_stalls,
        "votes": dict(stats.votes),
        "bad_messages": dict(stats.bad_messages),
        "datagrams_received": dict(link.intake.received),
        "datagrams_sent": dict(link.intake.sent),
        "datagrams_dropped": dict(link.intake.dropped),
        "agent_silent_secs": round(link.silence()),
        "agent_acknowledges": link.agent_acknowledges,
        "agent_version": link.agent_version,
        "datagrams_owed": link.role.owed_count if link.role else 0,
        "datagram_overruns": link.overruns,
    }


def floods(channels: Iterable[Channel]) -> list[str]:
    """Return a sentence for each guest that floods its channel, and one for what is left out."""
    flooding = [channel for channel in channels if channel.instance.flooding]
    found = [
        f"{channel.who} floods its channel and is read in part only, so a hang of it may go "
        "unnoticed: tell the VM's owner to find what writes to its heartbeat port, and stop it"
        for channel in flooding[:_SHOWN_FLOODS]
    ]
    if flooding[_SHOWN_FLOODS:]:
        found.append(f"{len(flooding) - _SHOWN_FLOODS} more instances flood their channels")
    return found
