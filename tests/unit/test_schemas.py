"""docs/schemas: as strict as they can be, and with the words that the code has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from guestmtce.core.shared.condition import Condition
from guestmtce.core.shared.history import Entry, What
from guestmtce.ctl.commands import COMMANDS
from tests.documents import DOCS
from tests.schema import Schema

SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (DOCS / "schemas").glob("*.json")}


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each object of a schema."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from parts(each)
    elif isinstance(value, list):
        for each in value:
            yield from parts(each)


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_it_does_not_name_is_wrong(name: str) -> None:
    """Except the numbers of `status`, which are for people."""
    for part in parts(SCHEMAS[name]):
        if part.get("type") == "object" and not part.get("description", "").startswith("numbers"):
            assert part["additionalProperties"] is False
            assert part["properties"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_has_the_words_of_the_code(name: str) -> None:
    enums = [part["enum"] for part in parts(SCHEMAS[name]) if "enum" in part]
    assert [what.value for what in What] in enums
    for enum in enums:
        assert "lost" not in enum or enum == [condition.value for condition in Condition]


def test_each_command_has_one() -> None:
    """`why` prints what `show` does, `watch` what `instances` does, `events` an `event` a line."""
    also = {"why": "show", "watch": "instances", "events": "event"}
    defined = SCHEMAS["guestctl"]["definitions"]
    assert {also.get(command, command) for command in COMMANDS} <= defined.keys()


@pytest.mark.parametrize("what", What)
def test_an_entry_is_what_the_file_s_schema_says(what: What) -> None:
    uuid = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
    event = {"uuid": uuid, "name": "vm-1", **Entry(1.5, what, "why").for_operator()}
    assert Schema("event").faults(event) == []
    assert Schema("event").faults({**event, "what": "party"})
    assert Schema("event").faults({**event, "uuid": "x"})
