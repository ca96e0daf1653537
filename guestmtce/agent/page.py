"""The status page, `GET /`: hosts and instances, what is wrong first, events as they come.

One self-contained HTML document: nothing from outside, light and dark, readable without
JavaScript and by a screen reader. It is made in pieces, so that 5,000 instances do not hold up a
command. With JavaScript it renews itself and follows `/v1/events`.

Rows are what `for_operator` returns; every text goes through `escape`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from guestmtce.core.shared.condition import Condition, Diagnosis, duration, in_words
from guestmtce.runtime.wall import moment

CONTENT_TYPE = "text/html; charset=utf-8"
# Without `?all`, so many instances are shown, the worst ones.
WORST = 200
_ROWS_A_PIECE = 100
_EVENTS_SHOWN = 50

Row = Mapping[str, Any]

_CONDITIONS = {condition.value: condition for condition in Condition}
_BAD = frozenset({Condition.LOST, Condition.ILL, Condition.FLOODING})
_GOOD = frozenset({Condition.OK})


class Snapshot(NamedTuple):
    """What the page shows; `now` is the wall clock's, `status` what guestctl's `status` shows."""

    status: Row
    hosts: Sequence[Row]
    instances: Sequence[Row]
    events: Sequence[Row]
    now: float


def render(shown: Snapshot, *, everything: bool) -> Iterator[bytes]:
    """Yield the page in pieces; `everything`: all instances, not the worst alone."""
    for piece in _pieces(shown, everything):
        yield piece.encode("utf-8")


def _pieces(shown: Snapshot, everything: bool) -> Iterator[str]:
    rows = sorted(shown.instances, key=_rank)
    yield _HEAD
    yield _summary(shown)
    yield from _host_table(shown)
    yield from _instance_table(rows if everything else rows[:WORST], len(rows), shown.now)
    yield _event_list(shown)
    yield _TAIL


def _rank(row: Row) -> tuple[int, str]:
    diagnosis = _diagnosis(row)
    return (-1 if diagnosis is None else diagnosis.rank), str(row.get("uuid", ""))


def _diagnosis(row: Row) -> Diagnosis | None:
    condition = _CONDITIONS.get(str(row.get("condition")))
    if condition is None:
        return None
    return Diagnosis(condition, row.get("since"), str(row.get("detail") or ""))


def _summary(shown: Snapshot) -> str:
    status = shown.status
    problems = status.get("problems", ())
    word = "healthy" if not problems else "degraded"
    items = "".join(f"<li>{escape(str(problem))}</li>" for problem in problems)
    trouble = f'<ul class="bad">{items}</ul>' if items else ""
    queue = status.get("summary", {}).get("vim_queue", 0)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(shown.now))
    return (
        f"<p>guestAgent on {escape(str(status.get('summary', {}).get('hostname', '')))}: "
        f'<strong class="{"good" if not problems else "bad"}">{word}</strong>, '
        f"{len(shown.hosts)} hosts, {len(shown.instances)} instances, "
        f"{escape(str(queue))} waiting for the VIM. As of <time>{at}</time>.</p>{trouble}"
    )


def _host_table(shown: Snapshot) -> Iterator[str]:
    yield _table("Hosts", ("Host", "Address", "Reporting", "Instances", "Last heard"))
    for host in sorted(shown.hosts, key=lambda row: str(row.get("hostname"))):
        heard = host.get("last_heard")
        last = f"{duration(shown.now - heard)} ago" if isinstance(heard, (int, float)) else "never"
        names = (host.get("hostname"), host.get("ip"), host.get("reporting"))
        yield _row((*names, host.get("instances"), last))
    yield "</tbody></table>"


def _instance_table(rows: Sequence[Row], count: int, now: float) -> Iterator[str]:
    headings = ("Health", "Name", "Instance", "Host", "Reporting", "Action")
    yield _table("Instances, what is wrong first", headings)
    for start in range(0, len(rows), _ROWS_A_PIECE):
        yield "".join(_instance_row(row, now) for row in rows[start : start + _ROWS_A_PIECE])
    yield "</tbody></table>"
    if len(rows) < count:
        yield f'<p><a href="/?all">All {count} instances</a>: these are the {len(rows)} worst.</p>'


def _instance_row(row: Row, now: float) -> str:
    diagnosis = _diagnosis(row)
    words, kind = "?", ""
    if diagnosis is not None:
        words = in_words(diagnosis, now, moment)
        kind = "bad" if diagnosis.condition in _BAD else ""
        kind = "good" if diagnosis.condition in _GOOD else kind
    reporting = "on" if row.get("reporting") else "off"
    cells = (row.get("name"), row.get("uuid"), row.get("host"), reporting)
    return _row((words, *cells, row.get("corrective_action")), kind)


def _event_list(shown: Snapshot) -> str:
    latest = list(shown.events)[-_EVENTS_SHOWN:]
    items = "".join(f"<li>{escape(_event(event))}</li>" for event in reversed(latest))
    return f'<h2 id="h-events">Events</h2><ol id="events" aria-live="polite">{items}</ol>'


def _event(event: Row) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(float(event.get("at") or 0.0)))
    who = event.get("name") or event.get("uuid")
    detail = event.get("detail")
    return f"{at} {who} {event.get('what')}" + (f": {detail}" if detail else "")


def _table(title: str, headings: Iterable[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{cells}</tr></thead><tbody>"


def _row(cells: Iterable[object], kind: str = "") -> str:
    texts = [escape(str(cell)) if cell not in (None, "") else "-" for cell in cells]
    first = f'<th scope="row" class="{kind}">{texts[0]}</th>'
    return f"<tr>{first}{''.join(f'<td>{text}</td>' for text in texts[1:])}</tr>"


_HEAD = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>guestAgent</title>
<meta name="viewport" content="width=device-width">
<style>
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --good: #56d364; --bad: #ff7b72; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 72rem;
       padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2, caption { font-size: 1.1rem; font-weight: 600; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
caption { text-align: left; padding: .3rem 0; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line);
         font-weight: 400; overflow-wrap: anywhere; }
thead th { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
#events { list-style: none; padding: 0; font: 13px/1.5 ui-monospace, monospace; }
</style></head><body><main><h1>Guest heartbeat</h1>
"""

# The stream ends when the page is left; a lost one is opened again by the browser.
_TAIL = """\
</main>
<script>
"use strict";
const renew = async () => {
  if (document.hidden) return;
  const answer = await fetch(location.href).catch(() => null);
  if (!answer || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.querySelector("main").replaceWith(page.querySelector("main"));
};
setInterval(renew, 10000);
let due = 0;
new EventSource("/v1/events").onmessage = () => {
  clearTimeout(due);
  due = setTimeout(renew, 500);
};
</script></body></html>
"""
