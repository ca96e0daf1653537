"""The status page, `GET /`: what is wrong first, the queue to the VIM, hosts, events as they come.

One self-contained HTML document: nothing from outside, light and dark, readable without
JavaScript and by a screen reader. It is made in pieces, so that 5,000 instances do not hold up a
command. With JavaScript it renews itself, soon after each event on `/v1/events` and every 10 s.

Rows are what `for_operator` returns; every text goes through `escape`, and the browser is told to
run and to style by nothing but what is below (`HEADERS`).
"""

from __future__ import annotations

import base64
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from guestmtce.agent.page_source import HEAD, SCRIPT, STYLE, TAIL
from guestmtce.core.shared.condition import CONDITIONS, Condition, Diagnosis, duration, in_words
from guestmtce.core.shared.text import plural
from guestmtce.runtime.wall import moment

CONTENT_TYPE = "text/html; charset=utf-8"
# Without `?all`, so many instances are shown, the worst ones.
WORST = 200
_ROWS_A_PIECE = 100
_EVENTS_SHOWN = 50

Row = Mapping[str, Any]

_BAD = frozenset({Condition.LOST, Condition.ILL, Condition.FLOODING, Condition.SILENT})
_UNCLEAR = frozenset({Condition.UNKNOWN, Condition.STOPPED, Condition.NO_CHANNEL})
_GOOD = frozenset({Condition.OK})
_KINDS = (("bad", _BAD), ("unclear", _UNCLEAR), ("good", _GOOD))


def _only(text: str) -> str:
    """Return the source expression of a policy that lets nothing but `text` pass."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_only(SCRIPT)}; style-src {_only(STYLE)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Snapshot(NamedTuple):
    """What the page shows.

    `status` is what guestctl's `status` shows, `vim` the queue to the VIM. `instances` are made
    while the page is. The `events` are numbered, anew in each `run` of the daemon. `now` is the
    wall clock's.
    """

    status: Row
    vim: Row
    hosts: Sequence[Row]
    instances: Iterable[Row]
    events: Sequence[Row]
    run: str
    now: float


class _Ranked(NamedTuple):
    """An instance, and how it is; its place in the table is by `place`, the worst first."""

    row: Row
    diagnosis: Diagnosis | None

    @property
    def place(self) -> tuple[int, str]:
        """Sorts as the table does."""
        rank = -1 if self.diagnosis is None else self.diagnosis.rank
        return rank, str(self.row.get("uuid", ""))


def render(shown: Snapshot, *, everything: bool) -> Iterator[bytes]:
    """Yield the page in pieces; `everything`: all instances, not the worst alone."""
    for piece in _pieces(shown, everything):
        yield piece.encode("utf-8")


def _pieces(shown: Snapshot, everything: bool) -> Iterator[str]:
    yield HEAD
    counts: Counter[str] = Counter()
    rows = yield from _rank_instances(shown, counts, everything)
    yield _summary(shown, counts)
    yield from _instance_table(rows, sum(counts.values()), shown.now)
    yield from _host_table(shown)
    yield _vim_table(shown.vim)
    yield _event_list(shown)
    yield TAIL


def _rank_instances(
    shown: Snapshot, counts: Counter[str], everything: bool
) -> Generator[str, None, list[_Ranked]]:
    """Return the instances that are shown, the worst first; count all by their condition.

    It yields line ends meanwhile, each of which gives way to what else the loop has to do.
    """
    most = sys.maxsize if everything else WORST
    rows: list[_Ranked] = []
    for number, row in enumerate(shown.instances, 1):
        diagnosis = _diagnosis(row)
        counts["?" if diagnosis is None else diagnosis.condition.value] += 1
        rows.append(_Ranked(row, diagnosis))
        if number % _ROWS_A_PIECE == 0:
            yield "\n"
            if len(rows) > 2 * most:
                rows = _worst(rows, most)
    return _worst(rows, most)


def _worst(rows: Iterable[_Ranked], most: int) -> list[_Ranked]:
    return sorted(rows, key=lambda ranked: ranked.place)[:most]


def _diagnosis(row: Row) -> Diagnosis | None:
    condition = CONDITIONS.get(str(row.get("condition")))
    if condition is None:
        return None
    return Diagnosis(condition, row.get("since"), str(row.get("detail") or ""))


def _kind(diagnosis: Diagnosis | None) -> str:
    found = (kind for kind, those in _KINDS if diagnosis and diagnosis.condition in those)
    return next(found, "")


def _summary(shown: Snapshot, counts: Counter[str]) -> str:
    problems = shown.status.get("problems", ())
    summary = shown.status.get("summary", {})
    word, kind = ("degraded", "bad") if problems else ("healthy", "good")
    items = "".join(f"<li>{escape(str(problem))}</li>" for problem in problems)
    trouble = f'<ul class="problems">{items}</ul>' if items else ""
    return (
        f'<section id="status" aria-labelledby="h-status"><h2 id="h-status">guestAgent on '
        f'{escape(str(summary.get("hostname") or "?"))}: <span class="{kind}">{word}</span></h2>'
        f"{trouble}<p>{_many(len(shown.hosts), 'host')}, {_conditions(counts)}; "
        f"{escape(str(summary.get('vim_queue', 0)))} waiting for the VIM. "
        f"As of {_moment(shown.now, '%Y-%m-%d %H:%M:%S')}.</p></section>"
    )


def _conditions(counts: Counter[str]) -> str:
    """Return how many instances there are and how they are, the worst first."""
    order = [*CONDITIONS, "?"]
    parts = [f"{counts[word]:,} {word}" for word in order if counts[word]]
    return _many(sum(counts.values()), "instance") + (f" ({', '.join(parts)})" if parts else "")


def _many(count: int, what: str) -> str:
    return f"{count:,} {plural(what, count)}"


def _instance_table(rows: Sequence[_Ranked], count: int, now: float) -> Iterator[str]:
    headings = ("Health", "Instance", "Host", "Reporting", "If lost")
    yield _table("instances", "Instances, what is wrong first", headings)
    for start in range(0, len(rows), _ROWS_A_PIECE):
        yield "".join(_instance_row(*each, now) for each in rows[start : start + _ROWS_A_PIECE])
    if not rows:
        yield _nothing(headings, "none: the VIM has created none")
    yield "</tbody></table></div>"
    if len(rows) < count:
        yield (
            f'<p>These are the {len(rows)} worst. <a id="all" href="/?all">'
            f"Show all {count:,} instances</a></p>"
        )
    yield "</section>"


def _instance_row(row: Row, diagnosis: Diagnosis | None, now: float) -> str:
    words = "?" if diagnosis is None else in_words(diagnosis, now, moment)
    uuid = escape(str(row.get("uuid") or ""))
    name = escape(str(row.get("name") or ""))
    title = f"{name} <small>{uuid}</small>" if name else f"<small>{uuid}</small>"
    reporting = "on" if row.get("reporting") else "off"
    cells = _cells((row.get("host"), reporting, row.get("corrective_action")))
    return (
        f'<tr><td class="{_kind(diagnosis)}">{escape(words)}</td>'
        f'<th scope="row">{title}</th>{cells}</tr>'
    )


def _host_table(shown: Snapshot) -> Iterator[str]:
    headings = ("Last heard", "Host", "Instances", "Lost", "Ill", "Reporting")
    yield _table("hosts", "Hosts, silent ones first", headings)
    hosts = sorted(shown.hosts, key=lambda row: (not row.get("silent"), str(row.get("hostname"))))
    for start in range(0, len(hosts), _ROWS_A_PIECE):
        piece = hosts[start : start + _ROWS_A_PIECE]
        yield "".join(_host_row(host, shown.now) for host in piece)
    if not hosts:
        yield _nothing(headings, "none: mtcAgent has named none")
    yield "</tbody></table></div></section>"


def _host_row(host: Row, now: float) -> str:
    heard = host.get("last_heard")
    last = f"{duration(now - heard)} ago" if isinstance(heard, (int, float)) else "never"
    kind = ' class="bad"' if host.get("silent") else ""
    silent = "silent, " if host.get("silent") else ""
    name = escape(str(host.get("hostname") or "-"))
    about = " ".join(str(host[key]) for key in ("ip", "version") if host.get(key))
    cells = _cells(host.get(key) for key in ("instances", "lost", "ill", "reporting"))
    return (
        f"<tr><td{kind}>{silent}{last}</td>"
        f'<th scope="row">{name} <small>{escape(about)}</small></th>{cells}</tr>'
    )


def _vim_table(vim: Row) -> str:
    headings = ("What", "How many")
    state = "not taking requests" if vim.get("suspect") else "taking requests"
    rows = [("the VIM is", state), ("being told now", vim.get("in_flight", 0))]
    for members, words in (("waiting", "waiting: {}"), ("ended", "since the start: {}")):
        counts = vim.get(members) or {}
        rows += [(words.format(name), count) for name, count in sorted(counts.items())]
    for name, count in sorted((vim.get("dropped") or {}).items()):
        rows.append((f"never told: {name}", count))
    lines = "".join(
        f'<tr><th scope="row">{escape(str(what).replace("_", " "))}</th>{_cells([count])}</tr>'
        for what, count in rows
    )
    return f"{_table('vim', 'Queue to the VIM', headings)}{lines}</tbody></table></div></section>"


def _event_list(shown: Snapshot) -> str:
    latest = list(shown.events)[-_EVENTS_SHOWN:]
    items = "".join(_event_item(event, shown.run) for event in reversed(latest))
    return (
        '<section aria-labelledby="h-events"><h2 id="h-events">Events, the latest first</h2>'
        f'<ol id="events" aria-live="polite">{items}</ol></section>'
    )


def _event_item(event: Row, run: str) -> str:
    who = event.get("name") or event.get("uuid") or "-"
    detail = event.get("detail")
    text = f" {who} {event.get('what')}" + (f": {detail}" if detail else "")
    at = _moment(float(event.get("at") or 0.0), "%H:%M:%S")
    return f'<li data-id="{escape(run)}-{escape(str(event.get("number")))}">{at}{escape(text)}</li>'


def _moment(at: float, form: str) -> str:
    exact = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    return f'<time datetime="{exact}">{time.strftime(form, time.localtime(at))}</time>'


def _table(name: str, title: str, headings: Iterable[str]) -> str:
    """Begin a section with one table, which can be scrolled by keyboard where it is too wide."""
    cells = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return (
        f'<section id="{name}" aria-labelledby="h-{name}"><div class="wide" id="w-{name}" '
        f'tabindex="0" role="region" aria-labelledby="h-{name}"><table>'
        f'<caption id="h-{name}">{escape(title)}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>"
    )


def _nothing(headings: Sequence[str], text: str) -> str:
    return f'<tr><td colspan="{len(headings)}">{escape(text)}</td></tr>'


def _cells(values: Iterable[object]) -> str:
    texts = (escape(str(value)) if value not in (None, "") else "-" for value in values)
    return "".join(f"<td>{text}</td>" for text in texts)
