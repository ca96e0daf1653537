"""Peer text made safe: for logs and terminals, and for JSON on its way to other peers.

Replaces the old daemons' habit of pasting guest text wherever it went.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)

LOG_TEXT_LIMIT = 120


def encode_json(value: Any) -> str:
    """Return `value` as JSON in ASCII without spaces, keys in the order given."""
    return _compact.encode(value)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_strict = json.JSONDecoder(parse_constant=_refuse_constant)


def decode_json(text: str) -> Any:
    """Return the value of JSON text; raises ValueError for all else, NaN and Infinity too."""
    try:
        return _strict.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


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
    """Return guest text fit to pass on: no control characters, no lone surrogates, cut.

    `limit` is in bytes of UTF-8, and the cut is between characters; a lone surrogate becomes
    U+FFFD (decision 16).
    """
    if text.isascii() and text.isprintable():
        return text[:limit]
    kept = "".join(
        "\N{REPLACEMENT CHARACTER}" if "\ud800" <= char <= "\udfff" else char
        for char in text
        if not _is_control(char)
    )
    return kept.encode("utf-8")[:limit].decode("utf-8", "ignore")


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"


def shorten_to_fit(members: dict[str, Any], key: str, limit: int) -> str:
    """Return `members` as JSON of at most `limit` bytes, cutting the text under `key` to fit.

    The cut is between characters and never inside an escape, so the result is always JSON.
    If it would not fit even without that text, the text comes out empty.
    """
    encoded = encode_json(members)
    if len(encoded) <= limit:
        return encoded
    text = str(members.get(key, ""))
    room = limit - len(encode_json({**members, key: ""}))
    used = 0
    kept = 0
    for char in text:
        used += len(encode_json(char)) - 2
        if used > room:
            break
        kept += 1
    return encode_json({**members, key: text[:kept]})
