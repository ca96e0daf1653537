"""From exec of guestServer to ready (the parent has exited 0), and what it imports."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time

from bench._measure import Sample, show
from tests.peers.journal import wait_until
from tests.peers.root import REPOSITORY, Root

STARTS = 15
_COUNT = "import sys; before = set(sys.modules); import {}; print(len(set(sys.modules) - before))"


def run() -> None:
    with Root() as root:
        pidfile = root.path / "var/run/guestServer.pid"
        times = []
        for _ in range(STARTS):
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, str(REPOSITORY / "bin/guestServer"), "--root", str(root.path)],
                check=True,
            )
            times.append(time.perf_counter() - begun)
            pid = int(pidfile.read_text())
            rss = Sample.of(pid).rss_mib
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not pidfile.exists())
    show("start, median", statistics.median(times) * 1000, "ms")
    show("start, worst", max(times) * 1000, "ms")
    show("resident memory, no instance", rss, "MiB")
    bare = [_time([sys.executable, "-c", "pass"]) for _ in range(STARTS)]
    show("for comparison: the interpreter alone", statistics.median(bare) * 1000, "ms")
    for module in ("guestmtce.server.main",):
        counted = subprocess.run(
            [sys.executable, "-c", _COUNT.format(module)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        show(f"modules that {module} imports", int(counted.stdout))


def _time(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begun
