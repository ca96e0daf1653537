"""guestServer's metrics (operations.md, Metrics): by the control socket, and as a file.

Most values are read when rendered, from the counters of whoever counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from guestmtce.core.server.worker import Worker
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.metrics import Registry
from guestmtce.server.channel import Channel

# Answers may take as long as a guest's interval, so the buckets go on to a minute.
_RESPONSE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


def register(
    registry: Registry, loop: Loop, worker: Worker, channels: Mapping[str, Channel]
) -> None:
    """Show the instances, what the worker counts, and how the loop does."""
    add, stats = registry.collect, worker.stats
    states = "Instances by state."
    add("gauge", "guestmtce_instances", states, lambda: _states(channels), ("state",))
    for name, text, read in (
        ("heartbeats", "Healthy answers in time.", lambda: stats.heartbeats),
        ("heartbeat_misses", "Challenges without an answer.", lambda: stats.misses),
        ("heartbeat_losses", "Instances lost.", lambda: stats.losses),
        ("unhealthy", "Unhealthy answers.", lambda: stats.unhealthy),
        ("late_responses", "Answers after their window.", lambda: stats.late_responses),
        ("host_stalls", "Intervals forgiven as this host stood still.", lambda: stats.host_stalls),
        ("loop_errors", "Callbacks that failed.", lambda: loop.errors),
    ):
        add("counter", f"guestmtce_{name}_total", text, read)
    votes = "Votes and notifications ended."
    registry.count("guestmtce_votes_total", votes, "result", stats.votes)
    refused = "Guest messages refused."
    registry.count("guestmtce_bad_messages_total", refused, "reason", stats.bad_messages)
    stats.on_lateness = registry.histogram(
        "guestmtce_challenge_lateness_seconds", "How late interval timers rang."
    ).observe
    stats.on_response = registry.histogram(
        "guestmtce_response_seconds", "From challenge to answer.", _RESPONSE_BUCKETS
    ).observe
    add("gauge", "guestmtce_loop_lag_seconds", "Lateness of the last timer.", lambda: loop.lag)
    reporting = "Host-level reporting."
    add("gauge", "guestmtce_host_reporting", reporting, lambda: int(worker.reporting))


def _states(channels: Mapping[str, Channel]) -> dict[tuple[str, ...], int]:
    states = Counter(channel.instance.heartbeat.state.value for channel in channels.values())
    return {(state,): count for state, count in states.items()}
