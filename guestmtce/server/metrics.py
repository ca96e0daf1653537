"""guestServer's metrics (monitoring.md): by the control socket, and as a file.

Most values are read when rendered, from the counters of whoever counts them.
"""

from __future__ import annotations

from collections.abc import Mapping

from guestmtce.core.server.guest_protocol import BAD_MESSAGES
from guestmtce.core.server.vote import ENDINGS
from guestmtce.core.server.worker import Stats, Worker
from guestmtce.core.shared.condition import CONDITIONS
from guestmtce.core.shared.owed import Owed
from guestmtce.core.shared.vocabulary import TO_AGENT, TO_SERVER
from guestmtce.runtime import files, intake
from guestmtce.runtime.metrics import Registry
from guestmtce.server.agent_link import AgentLink
from guestmtce.server.channel import Channel
from guestmtce.server.virtio import ChannelDirectory

# Answers may take as long as a guest's interval, so the buckets go on to a minute.
_RESPONSE_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_TRAFFIC = intake.Traffic(
    incoming=[command.name for command in TO_SERVER],
    outgoing=[command.name for command in TO_AGENT],
    reasons=("command", "no_destination", "service", "too_long"),
)
_WATCHES_LIMIT = "/proc/sys/fs/inotify/max_user_watches"


def register(
    registry: Registry,
    worker: Worker,
    channels: Mapping[str, Channel],
    directory: ChannelDirectory,
) -> None:
    """Show the instances, what the worker counts, and how the channel directory is watched."""
    registry.tally(
        "guestmtce_instances",
        "Instances by how they are, in guestctl's words.",
        "state",
        lambda: (channel.instance.condition().value for channel in channels.values()),
        CONDITIONS,
        shared=True,
    )
    _register_heartbeat(registry, worker.stats)
    _register_votes_and_messages(registry, worker.stats)
    _register_host(registry, worker, directory)


def _register_heartbeat(registry: Registry, stats: Stats) -> None:
    registry.collect_all(
        "counter",
        ("guestmtce_heartbeats_total", "Healthy answers in time.", lambda: stats.heartbeats),
        ("guestmtce_heartbeat_misses_total", "Challenges unanswered.", lambda: stats.misses),
        ("guestmtce_heartbeat_losses_total", "Instances lost.", lambda: stats.losses),
        ("guestmtce_unhealthy_total", "Unhealthy answers.", lambda: stats.unhealthy),
        ("guestmtce_late_responses_total", "Late answers.", lambda: stats.late_responses),
        (
            "guestmtce_wrong_responses_total",
            "Answers to no challenge of ours.",
            lambda: stats.wrong_responses,
        ),
        (
            "guestmtce_unexpected_responses_total",
            "Answers when none was due.",
            lambda: stats.unexpected_responses,
        ),
        (
            "guestmtce_host_stalls_total",
            "Intervals forgiven, as this host stood still.",
            lambda: stats.host_stalls,
        ),
    )
    stats.on_lateness = registry.histogram(
        "guestmtce_challenge_lateness_seconds", "How late interval timers rang."
    ).observe
    stats.on_response = registry.histogram(
        "guestmtce_response_seconds", "From challenge to answer.", _RESPONSE_BUCKETS
    ).observe


def _register_votes_and_messages(registry: Registry, stats: Stats) -> None:
    votes = "Votes and notifications by how they ended."
    registry.count("guestmtce_votes_total", votes, "result", stats.votes, keys=ENDINGS)
    refused = "Guest messages refused."
    registry.count(
        "guestmtce_bad_messages_total", refused, "reason", stats.bad_messages, keys=BAD_MESSAGES
    )


def _register_host(registry: Registry, worker: Worker, directory: ChannelDirectory) -> None:
    registry.collect(
        "counter",
        "guestmtce_inotify_overflows_total",
        "Overflows of inotify's queue.",
        lambda: directory.overflows,
    )
    registry.collect_all(
        "gauge",
        (
            "guestmtce_host_reporting",
            "1 while host-level reporting is on.",
            lambda: int(worker.reporting),
        ),
        (
            "guestmtce_channels_watched",
            "1 while inotify tells of channels.",
            lambda: int(directory.watched),
        ),
        ("guestmtce_inotify_max_watches", "Watches that a user may have.", _watches_limit),
    )


def register_link(registry: Registry, link: AgentLink) -> None:
    """Show what goes to guestAgent and comes from it."""
    intake.register(registry, [link.intake], _TRAFFIC, lambda: link.overruns)
    stats = link.delivery
    stats.on_round_trip = intake.register_delivery(
        registry, lambda: _owed(link)._asdict(), stats.voided, stats.counts
    ).observe
    registry.collect_all(
        "gauge",
        ("guestmtce_agent_silence_seconds", "Since guestAgent's last word.", link.silence),
        (
            "guestmtce_agent_acknowledges",
            "1 if guestAgent acknowledges: it is no old one.",
            lambda: int(link.agent_acknowledges is True),
        ),
    )


def _owed(link: AgentLink) -> Owed:
    return link.role.how_much() if link.role is not None else Owed()


def _watches_limit() -> float:
    """Return fs.inotify.max_user_watches; NaN where the kernel does not say."""
    try:
        return int(files.read_text(_WATCHES_LIMIT))
    except (OSError, ValueError):
        return float("nan")
