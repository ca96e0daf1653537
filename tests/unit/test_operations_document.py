"""operations.md, "Metrics" and "guestctl": what there is, and nothing that there is not."""

from __future__ import annotations

import re

import pytest

from guestmtce.core.shared.condition import Condition
from guestmtce.core.shared.history import What
from guestmtce.ctl.commands import COMMANDS
from tests.documents import DOCS
from tests.unit.agent_rig import AgentRig
from tests.unit.server_support import Server

TEXT = (DOCS / "operations.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(guestmtce_\w+)(?:\{[\w,]+\})?` \| (\w+) \|", TEXT, re.MULTILINE)


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


def part(heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    return re.split(rf"^##+ {re.escape(heading)}$", TEXT, flags=re.MULTILINE)[1].split("\n#")[0]


def test_each_command_of_guestctl_has_a_row() -> None:
    """In the order of its help."""
    assert re.findall(r"^\| `([a-z-]+)[ `]", part("guestctl"), re.MULTILINE) == list(COMMANDS)


def test_each_condition_has_a_row() -> None:
    """The worst first, as in the table of instances."""
    shown = re.findall(r"^\| `([a-z ]+)`", part("How an instance is"), re.MULTILINE)
    assert shown == [condition.value for condition in Condition]


def test_each_entry_is_named() -> None:
    """Of both daemons."""
    shown = re.findall(r"`([a-z]+)`", part("What is remembered").split("---")[-1])
    assert shown == [what.value for what in What]
