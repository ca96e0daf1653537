"""guestAgent's way in: configuration, then the daemon driver."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from guestmtce.agent.app import GuestAgent
from guestmtce.core.shared import config
from guestmtce.core.shared.config import AgentSettings
from guestmtce.runtime import files
from guestmtce.runtime.daemon import Configuration, run_daemon
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.options import Options

NAME = "guestAgent"
PURPOSE = """\
Stands between the VIM and the guestServers, on the active controller: takes the VIM's
commands over HTTP, tells it what becomes of its instances, and audits every guestServer.
"""


def configure(options: Options) -> Configuration[AgentSettings]:
    """Read what guestAgent goes by; whatever is wrong with it is in the result."""
    return Configuration.of(config.load_agent(files.reader(options.root)))


def build(loop: Loop, settings: AgentSettings, options: Options) -> GuestAgent:
    """Make the daemon proper."""
    platform = config.load_platform(files.reader(options.root))
    hostname = settings.hostname or socket.gethostname()
    return GuestAgent(loop, settings, platform, hostname, options.root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run guestAgent; return its exit status."""
    return run_daemon(
        NAME,
        sys.argv[1:] if arguments is None else arguments,
        purpose=PURPOSE,
        configure=configure,
        build=build,
    )
