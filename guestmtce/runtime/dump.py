"""A state as JSON that grep finds things in: a line for each item of each member."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

encode = json.JSONEncoder(default=str).encode


def lines(members: Mapping[str, Any]) -> Iterator[str]:
    """Yield a JSON object, line by line."""
    yield "{"
    for key, comma in _with_commas(members):
        value = members[key]
        if isinstance(value, Mapping):
            yield f"{encode(key)}: {{"
            for name, inner in _with_commas(value):
                yield f"  {encode(str(name))}: {encode(value[name])}{inner}"
            yield f"}}{comma}"
        elif isinstance(value, (list, tuple)):
            yield f"{encode(key)}: ["
            for index, inner in _with_commas(range(len(value))):
                yield f"  {encode(value[index])}{inner}"
            yield f"]{comma}"
        else:
            yield f"{encode(key)}: {encode(value)}{comma}"
    yield "}"


def _with_commas(items: Collection[T]) -> Iterator[tuple[T, str]]:
    """Yield each item with the comma that follows it, the last one without."""
    last = len(items) - 1
    for index, item in enumerate(items):
        yield item, "," if index < last else ""
