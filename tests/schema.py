"""Whether a JSON value is what a schema of `docs/schemas/` says, as far as they use JSON Schema.

The validators on PyPI need compiled parts, or do not run on Python 3.9 to 3.13 alike. A keyword
that is not known here is an error, so that no rule of a schema is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.documents import DOCS

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": int,
    "null": type(None),
}
_ABOUT = {"$schema", "title", "description", "definitions"}


class Schema:
    """The schema in a file of `docs/schemas/`, or one of its definitions."""

    def __init__(self, name: str, definition: str = "") -> None:
        whole = json.loads((DOCS / "schemas" / f"{name}.json").read_text("ascii"))
        self._definitions: Mapping[str, Any] = whole.get("definitions", {})
        self._schema = self._definitions[definition] if definition else whole

    def faults(self, value: object) -> list[str]:
        """Return what is wrong with a value, a sentence each."""
        return list(self._check(self._schema, value, "it"))

    def _check(self, schema: Mapping[str, Any], value: object, where: str) -> Iterator[str]:
        for keyword, rule in schema.items():
            if keyword not in _ABOUT:
                yield from _KEYWORDS[keyword](self, rule, value, where, schema)

    def _ref(self, rule: str, value: object, where: str, _schema: object) -> Iterator[str]:
        yield from self._check(self._definitions[rule.rpartition("/")[2]], value, where)

    def _any_of(self, rule: list[Any], value: object, where: str, _schema: object) -> Iterator[str]:
        found = [list(self._check(each, value, where)) for each in rule]
        if all(found):
            yield f"{where} is none of {len(rule)} kinds: {min(found, key=len)}"

    def _type(self, rule: str | list[str], value: object, where: str, _s: object) -> Iterator[str]:
        kinds = [rule] if isinstance(rule, str) else rule
        is_one = any(isinstance(value, _TYPES[kind]) for kind in kinds)
        if not is_one or (isinstance(value, bool) and "boolean" not in kinds):
            yield f"{where} is {value!r}, not {' or '.join(kinds)}"

    def _enum(self, rule: list[Any], value: object, where: str, _schema: object) -> Iterator[str]:
        if value not in rule:
            yield f"{where} is {value!r}, none of {rule}"

    def _required(self, rule: list[str], value: object, where: str, _s: object) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (f"{where} lacks {key}" for key in rule if key not in value)

    def _properties(
        self, rule: Mapping[str, Any], value: object, where: str, _schema: object
    ) -> Iterator[str]:
        if isinstance(value, dict):
            for key in rule.keys() & value.keys():
                yield from self._check(rule[key], value[key], f"{where}.{key}")

    def _additional(
        self, rule: bool, value: object, where: str, schema: Mapping[str, Any]
    ) -> Iterator[str]:
        if isinstance(value, dict) and not rule:
            yield from (f"{where} has {key}" for key in value.keys() - schema["properties"].keys())

    def _items(
        self, rule: Mapping[str, Any], value: object, where: str, _schema: object
    ) -> Iterator[str]:
        if isinstance(value, list):
            for number, each in enumerate(value):
                yield from self._check(rule, each, f"{where}[{number}]")

    def _max_items(self, rule: int, value: object, where: str, _schema: object) -> Iterator[str]:
        if isinstance(value, list) and len(value) > rule:
            yield f"{where} has {len(value)} parts"

    def _pattern(self, rule: str, value: object, where: str, _schema: object) -> Iterator[str]:
        if isinstance(value, str) and not re.search(rule, value):
            yield f"{where} is {value!r}"

    def _minimum(self, rule: float, value: object, where: str, _schema: object) -> Iterator[str]:
        if isinstance(value, (int, float)) and value < rule:
            yield f"{where} is below {rule}"

    def _maximum(self, rule: float, value: object, where: str, _schema: object) -> Iterator[str]:
        if isinstance(value, (int, float)) and value > rule:
            yield f"{where} is above {rule}"


_KEYWORDS: dict[str, Any] = {
    "$ref": Schema._ref,
    "anyOf": Schema._any_of,
    "type": Schema._type,
    "enum": Schema._enum,
    "required": Schema._required,
    "properties": Schema._properties,
    "additionalProperties": Schema._additional,
    "items": Schema._items,
    "maxItems": Schema._max_items,
    "pattern": Schema._pattern,
    "minimum": Schema._minimum,
    "maximum": Schema._maximum,
}
