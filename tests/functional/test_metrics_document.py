"""operations.md, "Metrics": each metric that a daemon has, and none that it has not."""

from __future__ import annotations

import re

import pytest

from tests.documents import DOCS
from tests.functional.agent_rig import AgentRig
from tests.unit.server_support import Server

ROWS = re.findall(
    r"^\| `(guestmtce_\w+)(?:\{[\w,]+\})?` \| (\w+) \|",
    (DOCS / "operations.md").read_text("utf-8"),
    re.MULTILINE,
)


def shown(daemon: str) -> set[str]:
    return {name for name, owner in ROWS if owner in (daemon, "both")}


def kept(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


def test_a_metric_has_one_row() -> None:
    """None is told of twice."""
    assert ROWS
    assert len({name for name, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize("daemon", ["guestServer", "guestAgent"])
def test_the_table_is_what_the_daemon_has(daemon: str) -> None:
    """By name and owner."""
    if daemon == "guestServer":
        server = Server().start()
        text = server.app.metrics()
        server.close()
    else:
        rig = AgentRig()
        rig.start()
        text = rig.agent.metrics()
        rig.close()
    assert kept(text) == shown(daemon)
