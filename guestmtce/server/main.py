"""guestServer's way in: configuration, then the daemon driver."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from guestmtce.core.shared import config
from guestmtce.core.shared.config import ServerSettings
from guestmtce.runtime import files
from guestmtce.runtime.daemon import Configuration, run_daemon
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.options import Options
from guestmtce.server.app import GuestServer

NAME = "guestServer"
PURPOSE = """\
Heartbeats the virtual machines of this worker: finds their channels in the channel
directory, challenges their guests, takes their votes, and reports to guestAgent.
"""


def configure(options: Options) -> Configuration[ServerSettings]:
    """Read what guestServer goes by; whatever is wrong with it is in the result."""
    return Configuration.of(config.load_server(files.reader(options.root)))


def build(loop: Loop, settings: ServerSettings, options: Options) -> GuestServer:
    """Make the daemon proper."""
    platform = config.load_platform(files.reader(options.root))
    hostname = settings.hostname or socket.gethostname()
    return GuestServer(loop, settings, platform, hostname, options.root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run guestServer; return its exit status."""
    return run_daemon(
        NAME,
        sys.argv[1:] if arguments is None else arguments,
        purpose=PURPOSE,
        configure=configure,
        build=build,
    )
