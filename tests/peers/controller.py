"""The VIM and mtcAgent on their own ports, beside daemons that are installed on a machine.

python -m tests.peers.controller EVENTS HOST:ADDRESS:UUID [INSTANCE...]: the instances are on that
host; each event that guestAgent posts becomes a line in the file EVENTS: "TYPE INSTANCE DATA".
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path

from tests.peers.mtc_agent import MtcAgent
from tests.peers.vim import Request, Vim

# The platform's defaults (operations.md, Configuration).
VIM_PORT, VIM_COMMAND_PORT = 30002, 2410
MTC_EVENT_PORT, MTC_COMMAND_PORT = 2107, 2108


def write_events(vim: Vim, path: Path) -> None:
    """Write the events that have come and those that come, for ever."""
    seen = 0
    with path.open("a") as file:
        while True:
            new: list[Request] = vim.requests.since(seen)
            seen += len(new)
            for request in new:
                if request.event_type:
                    print(request.event_type, request.uuid, json.dumps(request.data), file=file)
            file.flush()
            threading.Event().wait(0.1)


def main() -> None:
    """Play both until a signal ends it."""
    events, host, *instances = sys.argv[1:]
    name, address, uuid = host.split(":")
    with contextlib.ExitStack() as cleanup:
        vim = cleanup.enter_context(Vim(VIM_PORT, VIM_COMMAND_PORT, serial=True))
        vim.set_host(uuid, name)
        for instance in instances:
            vim.set_instance(instance, name)
        mtc = cleanup.enter_context(MtcAgent(MTC_EVENT_PORT, MTC_COMMAND_PORT))
        mtc.add_host(name, uuid, address)
        write_events(vim, Path(events))


if __name__ == "__main__":
    main()
