"""security.md, "Bounds": every row that names a constant has its value."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.documents import DOCS

_ROW = re.compile(r"^\| ([^|]+) \| (\d+)([^|]*) \| `([\w.]+)` \| ([^|]+) \|$", re.MULTILINE)
ROWS = _ROW.findall((DOCS / "security.md").read_text("utf-8"))


def test_there_is_something_to_look_at():
    assert len(ROWS) >= 50


def constant(path: str) -> float:
    """Return what a row names: of a module, or the default of a class in one; a share's number."""
    module, *names = re.split(r"\.(?=[A-Z])", path)
    root = "" if module.startswith("guest.") else "guestmtce."
    value = importlib.import_module(root + module)
    for name in names[0].split("."):
        value = getattr(value() if isinstance(value, type) else value, name)
    return float(value[0] if isinstance(value, tuple) else value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3])
def test_a_bound_is_that_of_the_code(row):
    """The number in the second column, whatever its unit."""
    _what, number, _unit, path, over = row
    assert float(number) == constant(path)
    assert over.strip()
