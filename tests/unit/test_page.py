"""The status page: well-formed, safe, what is wrong first, in pieces."""

from __future__ import annotations

import base64
import hashlib
import re
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


def snapshot(instances=()) -> page.Snapshot:
    return page.Snapshot(STATUS, {}, [], instances, [], "1", NOW)


def read(*, instances=(), hosts=(), events=(), status=None, vim=None, everything=False) -> Reader:
    shown = page.Snapshot(status or STATUS, vim or {}, hosts, instances, events, "1", NOW)
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
    assert [row[0] for row in rows[1:4]] == ["lost 3 min ago", "ill: fan broken", "ok"]


def test_only_the_worst_are_shown_unless_all_are_asked_for():
    instances = [instance(number) for number in range(page.WORST + 50)]
    worst = read(instances=instances)
    assert f"Show all {page.WORST + 50} instances" in worst.text
    assert worst.text.count("-0000-4000-8000-") == page.WORST
    shown = read(instances=instances, everything=True)
    assert shown.text.count("-0000-4000-8000-") == page.WORST + 50
    assert "worst." not in shown.text


def test_a_lost_one_is_shown_wherever_it_stands():
    """Rows are thrown away while they are made; the worst are never among those."""
    instances = [instance(number) for number in range(5 * page.WORST)]
    instances[123] = instance(123, "lost")
    instances[-1] = instance(5 * page.WORST, "ill", detail="x")
    assert [row[0] for row in read(instances=instances).rows[1:4]] == [
        "lost 3 min ago",
        "ill: x",
        "ok",
    ]


def test_how_many_there_are_and_how_they_are():
    instances = [instance(1), instance(2), instance(3, "lost"), instance(4, "new word")]
    assert "4 instances (1 lost, 2 ok, 1 ?)" in read(instances=instances).text
    assert "0 hosts, 0 instances; 3 waiting" in read().text


def test_5000_instances_come_in_pieces():
    """No piece takes the loop for long: a piece has 100 rows at most."""
    shown = snapshot([instance(number) for number in range(5000)])
    pieces = list(page.render(shown, everything=True))
    assert max(piece.count(b"<tr>") for piece in pieces) == 100
    assert len(pieces) >= 2 * 5000 / 100, "and they are looked at in pieces too"
    assert sum(piece.count(b"-0000-4000-8000-") for piece in pieces) == 5000


def test_silent_hosts_come_first_and_all_say_when_they_were_heard():
    common = {"instances": 3, "lost": 0, "ill": 1}
    hosts = [
        {"hostname": "compute-0", "ip": "10.0.0.5", "reporting": "unknown", "last_heard": None},
        {"hostname": "compute-1", "ip": "", "reporting": "enabled", "last_heard": NOW - 7},
        {"hostname": "compute-2", "silent": True, "last_heard": NOW - 90, "version": "1.1.0"},
    ]
    rows = read(hosts=[{**common, **host} for host in hosts]).rows
    at = next(n for n, row in enumerate(rows) if row[:2] == ["Last heard", "Host"])
    assert rows[at + 1 : at + 4] == [
        ["silent, 1 min ago", "compute-2 ", "3", "0", "1", "-"],
        ["never", "compute-0 ", "3", "0", "1", "unknown"],
        ["7 s ago", "compute-1 ", "3", "0", "1", "enabled"],
    ]


def test_the_queue_to_the_vim():
    vim = {
        "suspect": True,
        "in_flight": 1,
        "waiting": {"alarm": 2},
        "ended": {"taken": 9},
        "dropped": {"reporting_off": 1},
    }
    assert read(vim=vim).rows[-5:] == [
        ["the VIM is", "not taking requests"],
        ["being told now", "1"],
        ["waiting: alarm", "2"],
        ["since the start: taken", "9"],
        ["never told: reporting off", "1"],
    ]


def test_problems_are_in_the_first_lines():
    text = read(status={"problems": ["the VIM does not take requests"], "summary": {}}).text
    assert "degraded" in text
    assert "the VIM does not take requests" in text


def test_a_screen_reader_finds_its_way():
    """A language, a title, captions, headings with their scope, a live region for events."""
    tags = read(instances=[instance(1)]).tags
    names = [name for name, _attributes in tags]
    assert dict(tags)["html"]["lang"] == "en"
    assert names.count("caption") == names.count("table") == 3
    assert names.count("h1") == names.count("main") == names.count("header") == 1
    assert all(attributes.get("scope") for name, attributes in tags if name == "th")
    assert ("ol", {"id": "events", "aria-live": "polite"}) in tags
    ids = [attributes["id"] for _name, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {attributes.get("aria-labelledby") for _name, attributes in tags} - {None}
    assert named <= set(ids)


def test_the_policy_lets_this_style_and_this_script_through_and_nothing_else():
    """And no attribute needs more than that: no handler, no style of its own."""
    policy = page.HEADERS["Content-Security-Policy"]
    html = b"".join(page.render(snapshot([instance(1)]), everything=False)).decode()
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    names = {name for _tag, attributes in read(instances=[instance(1)]).tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]


def test_nothing_comes_from_outside():
    html = b"".join(page.render(snapshot(), everything=False))
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
    assert read(instances=[row]).rows[1][0] == "?"
