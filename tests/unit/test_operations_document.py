"""operations.md, "guestctl": what there is, and nothing that there is not."""

from __future__ import annotations

import re

from guestmtce.core.shared.condition import Condition
from guestmtce.core.shared.history import What
from guestmtce.ctl.commands import COMMANDS
from tests.documents import DOCS

TEXT = (DOCS / "operations.md").read_text("utf-8")


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
