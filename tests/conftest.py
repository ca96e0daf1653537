"""What every test is run under."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# A slow or busy machine must not fail a property: what it says is about the code, not the clock.
settings.register_profile(
    "project", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.load_profile("project")


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
    packages = sorted(
        {name for text in reasons for name in re.findall(r"\(package ([^)]+)\)", text)}
    )
    if packages:
        terminalreporter.write_line("To run them too: apt-get install " + " ".join(packages))
