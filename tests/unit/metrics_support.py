"""The metrics of both daemons, as they are when one has just started."""

from __future__ import annotations

import functools

from guestmtce.runtime import vitals
from tests.unit.agent_rig import AgentRig
from tests.unit.server_support import Server

DAEMONS = ("guestServer", "guestAgent")


@functools.cache
def rendered(daemon: str) -> str:
    """Return the text; the agent knows a host, the server no VM yet."""
    if daemon == "guestServer":
        server = Server().start()
        vitals.register(server.app.registry, server.loop, 1.5e9, server.app.problems)
        text = server.app.registry.render()
        server.close()
        return text
    rig = AgentRig()
    vitals.register(rig.agent.registry, rig.loop, 1.5e9, rig.agent.problems)
    rig.start()
    rig.add_host()
    text = rig.agent.registry.render()
    rig.close()
    return text
