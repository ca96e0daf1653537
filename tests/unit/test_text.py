"""Peer text made safe: logs and terminals, JSON, and the limits of decision 16."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared.text import clean, encode_json, printable, shorten_to_fit
from guestmtce.core.shared.vocabulary import CorrectiveAction, Event, Switch, canonical_uuid

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=60)
UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"


# JSON


def test_json_has_no_spaces_and_keeps_the_order():
    """The JSON that we send has no spaces, keys in the order given."""
    assert encode_json({"b": 1, "a": ["x", None]}) == '{"b":1,"a":["x",null]}'


@given(ANY_TEXT)
def test_json_text_cannot_be_broken_out_of(text):
    """Guest text is JSON-escaped by the encoder: ASCII, one line, the same when read."""
    encoded = encode_json({"k": text})
    assert encoded.isascii()
    assert encoded.isprintable()
    assert json.loads(encoded)["k"].encode("utf-16", "surrogatepass") == text.encode(
        "utf-16", "surrogatepass"
    )


def test_json_refuses_what_is_no_json():
    """NaN is no JSON, on the way out neither."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json(float("nan"))


# Logs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("two\nlines", "two\\nlines"),
        ("\r\t\x00\x1b[2J", "\\r\\t\\x00\\x1b[2J"),
        ("a\\nb", "a\\\\nb"),
        ("\u2028\u202e\u200b\x85", "\\u2028\\u202e\\u200b\\x85"),
        ("é", "é"),
        ("\ud800", "\\ud800"),
        (b"bytes\n", "b'bytes\\\\n'"),
        (None, "None"),
        ("", ""),
    ],
)
def test_printable(text, shown):
    """Guest text in a log is always escaped."""
    assert printable(text) == shown


def test_printable_is_cut():
    """... and cut, visibly."""
    assert printable("x" * 120) == "x" * 120
    assert printable("x" * 121) == "x" * 120 + "..."
    assert printable("\n\n\n", limit=2) == "\\n\\n..."


@given(ANY_TEXT)
def test_printable_is_one_line_that_any_terminal_shows(text):
    """No control, no line separator, no bidirectional mark, no surrogate comes through."""
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


@given(ANY_TEXT, ANY_TEXT)
def test_printable_is_not_ambiguous(one, other):
    """Two texts do not look the same: the backslash is escaped, too."""
    assert (printable(one) == printable(other)) == (one == other)


# Guest text on its way to guestAgent


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("busy", 224, "busy"),
        ("busy", 4, "busy"),
        ("busy", 3, "bus"),
        ("a\x00\x01\x1f\x7f\x80\x9fb", 9, "ab"),
        ("line\r\nline", 224, "lineline"),
        ("a\u2028b\u202ec\u2066d\u061ce\u200ff", 224, "abcdef"),
        ("éé", 3, "é"),
        ("éé", 1, ""),
        ("\ud800\udc00x", 7, "\ufffd\ufffdx"),
        ("\x00" * 300 + "late", 4, "late"),
    ],
)
def test_clean(text, limit, kept):
    """Control characters and marks removed, U+FFFD for lone surrogates, cut at a character."""
    assert clean(text, limit) == kept


@given(ANY_TEXT, st.integers(0, 100))
def test_clean_keeps_its_word(text, limit):
    """In bytes of UTF-8 at most `limit`, and clean stays clean."""
    kept = clean(text, limit)
    assert len(kept.encode("utf-8")) <= limit
    assert clean(kept, limit) == kept


# Payloads that do not fit


def test_what_fits_is_left_alone():
    """Only a payload that would not fit is shortened."""
    members = {"uuid": "U", "reason": "because"}
    assert shorten_to_fit(members, "reason", 100) == encode_json(members)
    assert shorten_to_fit(members, "reason", len(encode_json(members))) == encode_json(members)


@pytest.mark.parametrize("char", ["x", '"', "é", "\ufffd", "\U0001f600"])
def test_free_text_is_cut_between_characters(char):
    """Shortened in its free-text member, never cut mid-JSON, and no more than needed."""
    members = {"a": 1, "reason": char * 300, "z": 2}
    encoded = shorten_to_fit(members, "reason", 120)
    kept = json.loads(encoded)
    assert kept == {**members, "reason": char * len(kept["reason"])}
    assert len(encoded) <= 120 < len(encoded) + len(encode_json(char)) - 2


def test_what_cannot_fit_loses_its_text():
    """If it would not fit even so, the text is empty; the caller sees the length."""
    encoded = shorten_to_fit({"a": "x" * 50, "reason": "y"}, "reason", 20)
    assert json.loads(encoded) == {"a": "x" * 50, "reason": ""}


# Words


@pytest.mark.parametrize(
    ("text", "uuid"),
    [
        (UUID, UUID),
        (UUID.upper(), UUID),
        ("", None),
        (UUID[:-1], None),
        (UUID + "\n", None),
        (UUID + "0", None),
        (UUID.replace("-", ""), None),
        (UUID.replace("-", ".", 1), None),
        ("g" + UUID[1:], None),
        ("{" + UUID[1:-1] + "}", None),
        (UUID.replace("8", "٨"), None),
        ("8d80875bf-a73-4ccb-bce3-1cd4df104401", None),
    ],
)
def test_canonical_uuid(text, uuid):
    """Only 8-4-4-4-12 hexadecimal; UUIDs are lower-cased."""
    assert canonical_uuid(text) == uuid


def test_words_are_their_text():
    """A word as it stands on a wire."""
    assert str(Event.LIVE_MIGRATE_BEGIN) == "live_migrate_begin"
    assert "%s" % Switch.of(True) + f"{Switch.of(False)}" == "enableddisabled"  # noqa: UP031
    assert CorrectiveAction.parse("stop") is CorrectiveAction.STOP
    assert CorrectiveAction.parse("STOP") is CorrectiveAction.UNKNOWN
