"""guestctl: which instances are meant, in which order, in which columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared.condition import Condition
from guestmtce.ctl import instances, story
from guestmtce.ctl.table import Style, width

NOW = 1_700_000_000.0
PLAIN = Style(colour=False)
ROWS = [
    {"uuid": f"{number}1b2c3d-0000-4000-8000-00000000000{number}", "name": name, "host": host,
     "condition": condition, "since": NOW - 30, "detail": detail}
    for number, (name, host, condition, detail) in enumerate(
        [("web-1", "compute-0", "ok", ""), ("web-2", "compute-1", "ill", "fan broken"),
         ("db", "compute-0", "lost", ""), ("db-standby", "compute-1", "ok", "")])
]  # fmt: skip


def names(rows) -> list[str]:
    return [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("web-1", ["web-1"]),
        ("db", ["db"]),
        ("db-", ["db-standby"]),
        ("web", ["web-1", "web-2"]),
        ("21b2", ["db"]),
        ("11B2C3D-0000-4000-8000-000000000001", ["web-2"]),
        ("", []),
        ("nobody", []),
    ],
)
def test_found_by_uuid_name_or_prefix(asked, found):
    """The whole UUID or name goes before a prefix, so that `db` is not `db-standby`."""
    assert names(instances.matching(ROWS, asked)) == found


def test_what_is_wrong_comes_first():
    assert names(instances.worst_first(ROWS)) == ["db", "web-2", "db-standby", "web-1"]


def test_what_the_daemon_has_made_safe_is_not_escaped_again():
    """A guest's backslash comes doubled from there; another daemon may make nothing safe."""
    ill = {"condition": "ill", "since": NOW - 30, "detail": "C:\\\\fan \x1b[2J"}
    assert instances.health(ill, NOW) == "ill: C:\\\\fan \\x1b[2J"


def test_selected_by_condition_and_host():
    assert names(instances.selected(ROWS, conditions=[Condition.LOST])) == ["db"]
    assert names(instances.selected(ROWS, host="compute-1")) == ["web-2", "db-standby"]
    assert instances.selected(ROWS) == ROWS


def test_the_usual_table_fits_80_columns():
    row = {**ROWS[1], "name": "a-name-of-16-cha", "last_answer": NOW - 0.4, "reporting": True}
    lines = instances.lines([row], None, NOW, PLAIN, None)
    assert max(map(width, lines)) <= 80
    assert "ill: fan broken" in lines[1]
    assert "0.4 s" in lines[1]


def test_columns_of_choice():
    assert instances.columns("wide") == instances.WIDE
    assert instances.columns("name,Health") == ("name", "health")
    with pytest.raises(ValueError, match="no column colour; there are name"):
        instances.columns("name,colour")


@given(
    st.dictionaries(
        st.sampled_from(
            ["uuid", "name", "host", "condition", "since", "detail", "interval_ms", "last_answer"]
        ),
        st.none() | st.text(max_size=20) | st.integers(0, 10**9) | st.sampled_from(list(Condition)),
    )
)
def test_any_row_is_printable(row):
    """Whatever a daemon of another version says, a table is what comes of it."""
    for line in instances.lines([row], ",".join(instances.COLUMNS), NOW, PLAIN, None):
        assert line.isprintable()


# The story


def entries(*kinds: str) -> list[dict[str, object]]:
    return [{"at": NOW + index, "what": kind, "detail": ""} for index, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("kinds", "first"),
    [
        (["found", "connected", "init", "heartbeating"], "found"),
        (["init", "heartbeating", "miss", "loss", "stopped"], "init"),
        (["found", "connected", "init", "heartbeating", "miss", "loss", "init", "heartbeating"],
         "connected"),
        (["closed"], "closed"),
    ],
)  # fmt: skip
def test_a_story_begins_shortly_before_the_latest_trouble(kinds, first):
    chosen = story.choose(entries(*kinds))
    assert chosen[0]["what"] == first
    assert chosen[-1]["what"] == kinds[-1]


def test_a_story_says_times_words_and_details():
    told = story.timeline(
        [
            {"at": NOW + 0.44, "what": "miss", "detail": "1 of 2"},
            {"at": NOW + 1.5, "what": "loss", "detail": "no answer for 2.0 s"},
            {"at": NOW + 90_000, "what": "something new", "detail": ""},
        ]
    )
    assert told[1].endswith(".4  challenge unanswered: 1 of 2")
    assert told[2].endswith(".5  LOST: no answer for 2.0 s")
    assert told[4].endswith("something new")
    assert len(told[0]) == len(told[3]) == len("2023-11-14")


def test_why_says_who_where_and_how_it_is_now():
    row = {**ROWS[2], "history": [{"at": NOW, "what": "loss", "detail": "no answer for 2.0 s"}]}
    lines = story.why({"guestServer": row}, NOW + 40, PLAIN)
    assert lines[0] == f"db ({row['uuid']}) on compute-0, as guestServer saw it"
    assert lines[1] == "now: lost 1 min ago"
    assert lines[-1].endswith("LOST: no answer for 2.0 s")
    assert story.why({"guestServer": {}}, NOW, PLAIN)[-1] == "nothing is remembered of it"
