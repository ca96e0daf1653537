from __future__ import annotations

from pathlib import Path

from guestmtce import core
from tests.states import document


def test_the_document_shows_the_tables_as_they_are() -> None:
    """The documentation's table is printed from the state machine's."""
    assert (Path(core.__file__).parent / "STATES.md").read_text() == document()
