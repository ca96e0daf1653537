"""The tables that `docs/` takes from the code: `python3 -m tests.documents` writes them there.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. A test compares.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from docs import ini
from guestmtce.core.agent import vim_health
from guestmtce.core.server import connect, heartbeat, vote
from guestmtce.core.server.machine import Row
from guestmtce.core.shared.settings import AgentSettings, ServerSettings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_REGION = re.compile(r"(<!-- table: (\w+) -->\n).*?(?=<!-- end of table -->)", re.DOTALL)


def settings() -> str:
    """Return the table of every setting: what `etc/guest.ini` explains, in the code's order."""
    meanings = explained()
    owners: dict[tuple[str, str], list[str]] = {}
    rows: dict[tuple[str, str], dataclasses.Field[object]] = {}
    for name, kind in (("guestServer", ServerSettings), ("guestAgent", AgentSettings)):
        for row in dataclasses.fields(kind):
            key = row.metadata["at"]
            owners.setdefault(key, []).append(name)
            rows[key] = row
    lines = ["| setting | of | default | reload | meaning |", "| --- | --- | --- | --- | --- |"]
    for section, key in sorted(rows):
        row = rows[section, key]
        live = "yes" if row.metadata["live"] else ""
        lines.append(
            f"| `[{section}] {key}` | {', '.join(owners[section, key])} | {_default(row)} "
            f"| {live} | {meanings[section, key]} |"
        )
    return "\n".join(lines)


def explained() -> dict[tuple[str, str], str]:
    """Return the comment above each key of `etc/guest.ini`, as a table cell."""
    return {
        (block.section, setting.partition(" =")[0]): _cell(block.comment)
        for block in ini.blocks()
        for setting in block.settings
    }


def _cell(comment: str) -> str:
    return comment.replace(" (reload)", "").replace("<", "&lt;")


def _default(row: dataclasses.Field[object]) -> str:
    if row.metadata["required"]:
        return "must be given"
    if row.default in (None, ()):
        return ""
    if isinstance(row.default, tuple):
        return f"`{', '.join(row.default)}`"
    return f"`{row.default}`"


def as_markdown(table: Mapping[tuple[Any, Any], Row[Any] | vim_health.Row]) -> str:
    """Return a state table as the documentation shows it."""
    lines = ["| state | input | next state | action |", "| --- | --- | --- | --- |"]
    for (state, event), row in table.items():
        action = row.handler.__name__.lstrip("_").replace("_", " ")
        lines.append(f"| {state.value} | {event.value} | {row.next_state.value} | {action} |")
    return "\n".join(lines)


def timers() -> str:
    """Return the table of which timer may run in which state."""
    lines = ["| machine | state | timer |", "| --- | --- | --- |"]
    for module in (connect, heartbeat, vote):
        name = module.__name__.rpartition(".")[2]
        for state, names in module.TIMERS.items():
            for timer in names:
                lines.append(f"| {name} | {state.value} | {timer.value} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "heartbeat": lambda: as_markdown(heartbeat.TABLE),
    "connect": lambda: as_markdown(connect.TABLE),
    "vote": lambda: as_markdown(vote.TABLE),
    "vim": lambda: as_markdown(vim_health.TABLE),
    "timers": timers,
    "settings": settings,
}


def renewed(text: str) -> str:
    """Return a document with its tables as the code has them now."""
    return _REGION.sub(lambda region: f"{region[1]}{TABLES[region[2]]()}\n", text)


def main() -> None:
    """Write the tables into the documents."""
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text("utf-8")
        if renewed(text) != text:
            path.write_text(renewed(text), "utf-8")
            print(f"{path.name}: renewed")


if __name__ == "__main__":
    main()
