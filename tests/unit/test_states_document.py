from __future__ import annotations

from pathlib import Path

from guestmtce.core import server
from tests.states import document


def test_the_document_shows_the_tables_as_they_are() -> None:
    """The documentation's table is printed from the state machine's."""
    assert (Path(server.__file__).parent / "STATES.md").read_text() == document()
