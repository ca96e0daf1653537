"""guestServer's way in."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from guestmtce.core.shared.settings import load_server
from guestmtce.runtime.daemon import Program, run_daemon
from guestmtce.runtime.privileges import CAP_DAC_OVERRIDE
from guestmtce.server.app import GuestServer

PROGRAM = Program(
    name="guestServer",
    purpose="""\
Heartbeats the virtual machines of this worker: finds their channels in the channel
directory, challenges their guests, takes their votes, and reports to guestAgent.
""",
    load=load_server,
    app=GuestServer,
    # The channels are sockets of the user that QEMU runs as.
    capabilities=(CAP_DAC_OVERRIDE,),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run guestServer; return its exit status."""
    return run_daemon(PROGRAM, sys.argv[1:] if arguments is None else arguments)
