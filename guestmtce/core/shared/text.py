"""Peer text made safe: for logs and terminals, and for JSON on its way to other peers.

Replaces the old daemons' habit of pasting guest text wherever it went.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, NoReturn

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)

LOG_TEXT_LIMIT = 120


def encode_json(value: object) -> str:
    """Return `value` as JSON in ASCII without spaces, keys in the order given."""
    return _compact.encode(value)


def plural(noun: str, count: int) -> str:
    """Return the noun as it stands after that count."""
    return noun if count == 1 else f"{noun}s"


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_strict = json.JSONDecoder(parse_constant=_refuse_constant)


def decode_json(text: str) -> Any:
    """Return the value of JSON text; raises ValueError for all else, NaN and Infinity too."""
    try:
        return _strict.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _first_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object's members in their order; of a repeated key the first one counts."""
    members = dict(pairs)
    return members if len(members) == len(pairs) else {**members, **dict(reversed(pairs))}


# A peer that pastes text into its JSON leaves control characters in it: not strict.
_rough = json.JSONDecoder(parse_constant=_refuse_constant, strict=False)
_rough_first = json.JSONDecoder(
    parse_constant=_refuse_constant, strict=False, object_pairs_hook=_first_wins
)


def decode_rough_json(data: bytes, free_text: str, *, first_wins: bool = False) -> Any:
    """Return the JSON value in `data`, from a peer that pastes raw text into it (decision 21).

    Bytes that are no UTF-8 become U+FFFD, and control characters in strings are taken. What is
    still no JSON but has the member `free_text` is read as if all between its opening quote and
    the last quote before the closing brace were its text. `first_wins`: of a repeated key the
    first one counts, so that pasted text cannot replace what stands before it. Raises ValueError.
    """
    decoder = _rough_first if first_wins else _rough
    text = data.decode("utf-8", "replace")
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError:
        opening = re.search(rf'"{free_text}"\s*:\s*"', text)
        end = text.rfind('"', opening.end()) if opening else -1
        if opening is None or end < 0 or text[end + 1 :].strip() != "}":
            raise
    members = decoder.decode(text[: opening.end()] + '"}')
    members[free_text] = text[opening.end() : end]
    return members


def usual_address(text: object) -> str | None:
    """Return a numeric address in its usual spelling (mapped IPv4 as IPv4), else None."""
    if not isinstance(text, str):
        return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def printable(text: object, limit: int = LOG_TEXT_LIMIT) -> str:
    """Return `text` in printable characters only, cut at `limit`: for a log or a terminal.

    Control characters, line separators, bidirectional marks, surrogates and the backslash
    come out as backslash escapes, so that nothing can forge a line or move a cursor.
    """
    source = str(text)
    cut = source[:limit]
    if cut.isascii() and cut.isprintable() and "\\" not in cut:
        safe = cut
    else:
        safe = "".join(
            char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
            for char in cut
        )
    return safe + "..." if len(source) > limit else safe


def clean(text: str, limit: int) -> str:
    """Return guest text fit to pass on: nothing that controls a line or its direction, cut.

    `limit` is in bytes of UTF-8, and the cut is between characters; a lone surrogate becomes
    U+FFFD (decision 16).
    """
    if text.isascii() and text.isprintable():
        return text[:limit]
    kept = "".join(
        "\N{REPLACEMENT CHARACTER}" if "\ud800" <= char <= "\udfff" else char
        for char in text
        if not (_is_control(char) or char in _INVISIBLE)
    )
    return kept.encode("utf-8")[:limit].decode("utf-8", "ignore")


# Line and paragraph separators, and the marks that change the direction of what follows.
_INVISIBLE = frozenset(
    "\u2028\u2029\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"


def shorten_to_fit(members: dict[str, object], key: str, limit: int) -> str:
    """Return `members` as JSON of at most `limit` bytes, cutting the text under `key` to fit.

    The cut is between characters and never inside an escape, so the result is always JSON.
    If it would not fit even without that text, the text comes out empty.
    """
    encoded = encode_json(members)
    if len(encoded) <= limit:
        return encoded
    room = limit - len(encode_json({**members, key: ""}))
    return encode_json({**members, key: shorten(str(members.get(key, "")), room)})


def shorten(text: str, room: int) -> str:
    """Return as much of `text` as takes at most `room` bytes inside a JSON string.

    The cut is between characters.
    """
    if text.isascii() and text.isalnum():
        return text[: max(0, room)]
    used = 0
    for kept, char in enumerate(text):
        used += len(encode_json(char)) - 2
        if used > room:
            return text[:kept]
    return text
