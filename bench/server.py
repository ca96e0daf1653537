"""guestServer with 100, 1,000, 5,000 and 10,000 guests at 1000 ms: CPU, memory, lateness."""

from __future__ import annotations

import resource
import time

from bench._measure import seconds, show
from bench._server import BenchServer, share

SIZES = (100, 1000, 5000, 10_000)
INTERVAL_MS = 1000
_SPARE_DESCRIPTORS = 100


def run() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for count in SIZES:
        print(f" {count:,} guests at {INTERVAL_MS} ms for {seconds():g} s")
        if count + _SPARE_DESCRIPTORS > hard:
            print(f"  left out: only {hard:,} descriptors are allowed")
            continue
        server = BenchServer(count, INTERVAL_MS)
        try:
            _measure(server, count)
        finally:
            server.close()


def _measure(server: BenchServer, count: int) -> None:
    histograms = ("guestmtce_challenge_lateness_seconds", "guestmtce_response_seconds")
    before, first = server.summary(), [server.buckets(name) for name in histograms]
    told = len(server.agent.told)
    begin = server.sample()
    time.sleep(seconds())
    end = server.sample()
    after, last = server.summary(), [server.buckets(name) for name in histograms]
    beats = after["heartbeats"] - before["heartbeats"]
    cpu_secs = end.cpu_secs - begin.cpu_secs
    show("from the first socket file to the last heartbeating", server.heartbeating_after, "s")
    show("CPU of one core", end.cpu_percent_since(begin), "%")
    show("CPU for one heartbeat, all in", cpu_secs / max(1, beats) * 1e6, "µs")
    show("resident memory", end.rss_mib, "MiB")
    grown = end.rss_mib - server.empty.rss_mib
    show("resident memory for one instance more", grown / count * 1024, "KiB")
    show("heartbeats", beats)
    for name in ("misses", "losses", "host_stalls", "late_responses"):
        show(name.replace("_", " "), after[name] - before[name])
    flaps = [event.name for event in server.agent.told.since(told)]
    show("events told to the agent", len(flaps))
    print(f"  lateness of challenges: {share(first[0], last[0])}")
    print(f"  from challenge to answer: {share(first[1], last[1])}")
