"""The status page: well-formed, safe, what is wrong first, in pieces."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.agent import page
from guestmtce.core.shared.condition import Condition

NOW = 1_700_000_000.0
STATUS = {"problems": [], "summary": {"hostname": "controller-0", "vim_queue": 3}}
VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects the text and the tables' rows."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def read(*, instances=(), hosts=(), events=(), status=None, everything=False) -> Reader:
    shown = page.Snapshot(status or STATUS, hosts, instances, events, NOW)
    reader = Reader()
    reader.feed(b"".join(page.render(shown, everything=everything)).decode("utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def instance(number: int, condition: str = "ok", **more):
    return {
        "uuid": f"{number:08}-0000-4000-8000-000000000000",
        "host": "compute-0",
        "condition": condition,
        "since": NOW - 200,
        "reporting": True,
        "corrective_action": "reboot",
        **more,
    }


def test_what_is_wrong_comes_first():
    rows = read(
        instances=[instance(1), instance(2, "lost"), instance(3, "ill", detail="fan broken")]
    ).rows
    assert [row[0] for row in rows[-3:]] == ["lost 3 min ago", "ill: fan broken", "ok"]


def test_only_the_worst_are_shown_unless_all_are_asked_for():
    instances = [instance(number) for number in range(page.WORST + 50)]
    assert f"All {page.WORST + 50} instances" in read(instances=instances).text
    shown = read(instances=instances, everything=True)
    assert len(shown.rows) == page.WORST + 50 + 2
    assert "worst." not in shown.text


def test_5000_instances_come_in_pieces():
    """No piece takes the loop for long: a piece has 100 rows at most."""
    shown = page.Snapshot(STATUS, [], [instance(number) for number in range(5000)], [], NOW)
    pieces = list(page.render(shown, everything=True))
    assert max(piece.count(b"<tr>") for piece in pieces) == 100
    assert sum(piece.count(b"<tr>") for piece in pieces) == 5002


def test_hosts_say_when_they_were_last_heard():
    hosts = [
        {"hostname": "compute-1", "ip": "", "reporting": "enabled", "last_heard": NOW - 7},
        {"hostname": "compute-0", "ip": "10.0.0.5", "reporting": "unknown", "last_heard": None},
    ]
    rows = read(hosts=hosts).rows
    assert rows[1] == ["compute-0", "10.0.0.5", "unknown", "-", "never"]
    assert rows[2] == ["compute-1", "-", "enabled", "-", "7 s ago"]


def test_problems_are_in_the_first_lines():
    text = read(status={"problems": ["the VIM does not take requests"], "summary": {}}).text
    assert "degraded" in text
    assert "the VIM does not take requests" in text


def test_a_screen_reader_finds_its_way():
    """A language, a title, captions, headings with their scope, a live region for events."""
    tags = read(instances=[instance(1)]).tags
    names = [name for name, _attributes in tags]
    assert dict(tags)["html"]["lang"] == "en"
    assert names.count("caption") == names.count("table") == 2
    assert all(attributes.get("scope") for name, attributes in tags if name == "th")
    assert ("ol", {"id": "events", "aria-live": "polite"}) in tags


def test_nothing_comes_from_outside():
    html = b"".join(page.render(page.Snapshot(STATUS, [], [], [], NOW), everything=False))
    for forbidden in (b"http://", b"https://", b"src=", b"@import", b"url("):
        assert forbidden not in html


@given(st.text(), st.text(), st.sampled_from([condition.value for condition in Condition]))
def test_no_text_of_a_peer_becomes_markup(name, detail, condition):
    row = instance(1, condition, name=name + "<b>", detail=detail + "</td>", host="&<script>")
    event = {"at": NOW, "what": "ill", "name": name + "<i>", "detail": detail + "<img>"}
    tags = [tag for tag, _ in read(instances=[row], events=[event]).tags]
    assert not {"b", "i", "img"} & set(tags)
    assert tags.count("script") == 1


@pytest.mark.parametrize("row", [{}, {"condition": "new word"}, {"condition": None, "since": "x"}])
def test_a_row_of_another_version_is_shown_all_the_same(row):
    assert read(instances=[row]).rows[-1][0] == "?"
