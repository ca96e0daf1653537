"""Prints guestServer's state tables, for `guestmtce/core/server/STATES.md`."""

from __future__ import annotations

from guestmtce.core.server import connect, heartbeat, vote
from guestmtce.core.server.machine import as_markdown

HEAD = """# The state tables of guestServer

Printed from the code by `python3 -m tests.states`; a test compares. What is not in a table is
ignored in that state.
"""


def document() -> str:
    """Return the document."""
    parts = [HEAD]
    for module in (heartbeat, connect, vote):
        title = module.__name__.rpartition(".")[2]
        parts.append(f"## {title}\n\n{as_markdown(module.TABLE)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(document(), end="")
