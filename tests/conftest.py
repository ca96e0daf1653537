"""What every test is run under."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Each daemon that a test starts would be compiled anew where the environment forbids bytecode, and
# so would the tests themselves. It is kept in build/, unless someone said where.
if "PYTHONPYCACHEPREFIX" not in os.environ:
    sys.pycache_prefix = str(Path(__file__).parents[1] / "build/bytecode")
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Whoever starts the tests may leave it ignored (nohup does not, but many a CI's agent): then no
# child can be waited for, and `subprocess` takes each for one that ended well.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)

# A slow or busy machine must not fail a property: what it says is about the code, not the clock.
# Each run draws other examples: few in each, many in all. CI draws the same in each, so that what
# it refuses is the change's own fault. `make fuzz` searches for longer.
settings.register_profile(
    "project",
    max_examples=40,
    derandomize="CI" in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.load_profile("project")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` means: most tests wait, for a daemon or for its clock."""
    return 3 * (os.cpu_count() or 1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped and why, and the command that brings what was missing."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if not reasons:
        return
    terminalreporter.section("skipped", "-")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count:4} {'test' if count == 1 else 'tests'}: {reason}")
    for line in _what_brings_them(reasons):
        terminalreporter.write_line(line)


def _what_brings_them(reasons: Iterable[str]) -> Iterator[str]:
    """Yield the commands after which fewer tests are skipped."""
    texts = " ".join(reasons)
    packages = sorted(set(re.findall(r"(?:\(package |apt-get install )([\w.-]+)", texts)))
    if packages:
        yield "To run them too: apt-get install " + " ".join(packages)
    switches = sorted(set(re.findall(r"\b([A-Z]+=1) make test", texts)))
    if re.search(r"needs root|as root", texts):
        yield f"To run them too: sudo {' '.join([*switches, 'make test'])}"
    elif switches:
        yield f"To run them too: {' '.join(switches)} make test"
