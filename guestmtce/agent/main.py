"""guestAgent's way in."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from guestmtce.agent.app import GuestAgent
from guestmtce.core.shared.settings import load_agent
from guestmtce.runtime.daemon import Program, run_daemon

PROGRAM = Program(
    name="guestAgent",
    purpose="""\
Stands between the VIM and the guestServers, on the active controller: takes the VIM's
commands over HTTP, tells it what becomes of its instances, and audits every guestServer.
""",
    load=load_agent,
    app=GuestAgent,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run guestAgent; return its exit status."""
    return run_daemon(PROGRAM, sys.argv[1:] if arguments is None else arguments)
