"""The fixed parts of the status page: its style, its script, and what is around them.

The script needs no more than the page that it is on: it fetches that again and takes over what
has changed, so that a screen reader hears new events only, and the focus stays where it is.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1f2328; --faint: #59636e;
  --line: #d1d9e0; --good: #116329; --unclear: #7d4e00; --bad: #b3151e; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --faint: #9da7b3;
  --line: #3d444d; --good: #56d364; --unclear: #e3b341; --bad: #ff8880; --link: #79b8ff; } }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 96rem; padding: 1rem;
  background: var(--back); color: var(--text); }
h1 { font-size: 1rem; font-weight: 400; color: var(--faint); margin: 0; }
h2, caption { font-size: 1.1rem; font-weight: 600; margin: 0; }
#status h2 { font-size: 1.4rem; }
section { margin: 0 0 1.5rem; }
p { margin: .4rem 0; }
a { color: var(--link); }
a:focus-visible, .wide:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap; }
thead th { font-weight: 600; color: var(--faint); }
tbody th, #instances td:first-child { white-space: normal; overflow-wrap: anywhere; }
tbody th { min-width: 7.5rem; }
#instances td:first-child { min-width: 8rem; }
small { display: block; font: 12px/1.4 ui-monospace, monospace; color: var(--faint); }
.good { color: var(--good); }
.unclear { color: var(--unclear); }
.bad { color: var(--bad); font-weight: 600; }
.problems { border-left: 4px solid var(--bad); margin: .5rem 0; padding: .1rem 0 .1rem 2rem; }
#stale { background: var(--bad); color: var(--back); padding: .5rem 1rem; font-weight: 600; }
#events { list-style: none; margin: .3rem 0; padding: 0; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, monospace; }
#events:empty::before { content: "none since guestAgent started"; }
#events li { padding: .15rem 0; border-bottom: 1px solid var(--line); }
footer { color: var(--faint); }
@media (min-width: 75rem) {
  main { display: grid; grid-template-columns: minmax(0, 4fr) minmax(0, 3fr); gap: 0 2.5rem;
    grid-template-rows: auto auto auto 1fr; }
  main > * { grid-column: 2; }
  #status { grid-column: 1 / 3; }
  #instances { grid-column: 1; grid-row: 2 / 5; }
}
"""

SCRIPT = """
"use strict";
const EVERY = 10000, SOON = 500, GAP = 2000, SHOWN = 50;
const at = (id) => document.getElementById(id);
let busy = false, last = 0, timer = 0;
const plan = (delay) => { clearTimeout(timer); timer = setTimeout(renew, delay); };
// Of thousands of rows, those that differ: to lay out the others again takes seconds.
const takeRows = (now, next) => {
  const rows = now.querySelectorAll("tbody tr"), fresh = next.querySelectorAll("tbody tr");
  if (rows.length === fresh.length) rows.forEach((row, index) => {
    if (!row.isEqualNode(fresh[index])) row.replaceWith(fresh[index].cloneNode(true));
  });
};
const take = (page) => {
  const focused = document.activeElement && document.activeElement.id;
  for (const id of ["status", "instances", "hosts", "vim"]) {
    const now = at(id), next = page.getElementById(id);
    if (!next) throw new Error("cut off");
    takeRows(now, next);
    if (!now.isEqualNode(next)) now.replaceWith(next);
  }
  if (focused && document.activeElement.id !== focused && at(focused)) at(focused).focus();
  const list = at("events");
  const seen = new Set(Array.from(list.children, (item) => item.dataset.id));
  for (const item of [...page.querySelectorAll("#events li")].reverse())
    if (!seen.has(item.dataset.id)) list.prepend(item);
  while (list.children.length > SHOWN) list.lastChild.remove();
};
const renew = async () => {
  plan(EVERY);
  if (busy || document.hidden) return;
  busy = true;
  last = Date.now();
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    at("stale").hidden = true;
  } catch (error) {
    if (at("stale").hidden) {
      at("stale").textContent = "No answer from guestAgent since " +
        new Date().toLocaleTimeString() + ": what is below is old.";
      at("stale").hidden = false;
    }
  }
  busy = false;
};
at("renewal").textContent = "This page renews itself every 10 s, and soon after each event.";
new EventSource("/v1/events").onmessage = () => {
  plan(Math.max(SOON, last + GAP - Date.now()));
};
document.addEventListener("visibilitychange", () => { if (!document.hidden) plan(0); });
plan(EVERY);
"""

HEAD = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Guest heartbeat</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>
<header><h1>Guest heartbeat</h1></header>
<p id="stale" role="alert" hidden></p>
<main>
"""

TAIL = f"""</main>
<footer><p id="renewal">Reload this page to renew it.</p></footer>
<script>{SCRIPT}</script></body></html>
"""
