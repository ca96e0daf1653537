"""security.md, "Bounds": every row that names a constant has its value."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.documents import DOCS

_ROW = re.compile(
    r"^\| ([^|]+) \| (\d+)([^|]*) \| `([\w.]+)\.([A-Z_]+)` \| ([^|]+) \|$", re.MULTILINE
)
ROWS = _ROW.findall((DOCS / "security.md").read_text("utf-8"))


def test_there_is_something_to_look_at():
    assert len(ROWS) >= 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[4])
def test_a_bound_is_that_of_the_code(row):
    """The number in the second column, whatever its unit."""
    _what, number, _unit, module, name, over = row
    value = getattr(importlib.import_module(f"guestmtce.{module}"), name)
    assert float(number) == float(value)
    assert over.strip()
