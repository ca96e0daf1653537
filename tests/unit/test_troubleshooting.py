"""docs/troubleshooting.md: each entry names a test that there is, and commands of guestctl."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from guestmtce.ctl.commands import COMMANDS

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "troubleshooting.md").read_text("utf-8")
ENTRIES = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("title", ENTRIES)
def test_each_entry_is_reproduced_by_a_test_that_is_there(title):
    named = re.findall(
        r"`(tests/[\w/]+\.py)(?:::(\w+))?`", ENTRIES[title].partition("Reproduced by:")[2]
    )
    assert named, "an entry without a test may not be true any more"
    for path, function in named:
        tree = ast.parse((REPOSITORY / path).read_text("utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in names, f"{path}: one test has to be named"
        assert function.startswith("test_")


@pytest.mark.parametrize("title", ENTRIES)
def test_it_has_a_command_that_shows_it(title):
    assert re.search(r"^    (sudo |ls |/etc/init.d/)?\S*guest", ENTRIES[title], re.MULTILINE)


def test_their_commands_are_there():
    named = re.findall(r"guestctl ([a-z][a-z-]+)", "".join(ENTRIES.values()))
    assert named
    assert set(named) <= set(COMMANDS)
