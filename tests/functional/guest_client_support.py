"""What the functional tests of the guest client share: a client process, and a host for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.peers.host import ScriptedHost
from tests.peers.root import REPOSITORY, Daemon

# Another client can be given, to see what these tests say of it.
CLIENT = Path(os.environ.get("GUEST_CLIENT") or REPOSITORY / "guest" / "guest_client.py")
PYTHON = os.environ.get("GUEST_CLIENT_PYTHON") or sys.executable

# Runs the client after some lines that may change it, or what it uses: a bad day, made to order.
BAD_DAY = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location("guest_client", sys.argv[1])
client = importlib.util.module_from_spec(spec)
sys.modules["guest_client"] = client
spec.loader.exec_module(client)
exec(sys.argv[2])
sys.exit(client.main(sys.argv[3:]))
"""


def oldest_python() -> str | None:
    """Return a Python 3.6 if this machine has one (the client's floor)."""
    candidates = [shutil.which("python3.6"), *Path.home().glob(".pyenv/versions/3.6.*/bin/python")]
    for candidate in filter(None, candidates):
        # A shim of pyenv may be there without the interpreter behind it.
        if subprocess.run([candidate, "-V"], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    return None


class Place:
    """A directory, its path short enough for a UNIX socket, with a port and clients for it.

    No client that is started here reads the machine's own configuration, or logs to its syslog.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = path / "port"
        self.config = path / "client.conf"
        self.config.write_text("[guest-client]\n")
        self.clients: list[Daemon] = []

    def command(self, *options: str, python: str = PYTHON, bad_day: str = "") -> list[str]:
        """Return the command that starts a client. `bad_day` is what is done to it first."""
        no_syslog = f"client.SYSLOG_SOCKET = {str(self.path / 'no-syslog')!r}\n"
        start = [python, "-c", BAD_DAY, str(CLIENT), no_syslog + bad_day]
        return [*start, "--config", str(self.config), *options]

    def start(self, *options: str, python: str = PYTHON, bad_day: str = "") -> Daemon:
        """Start a client in the foreground, at the other end of `port`."""
        options = ("-f", "--socket", str(self.port), *options)
        command = self.command(*options, python=python, bad_day=bad_day)
        client = Daemon(command, self.path / f"log.{len(self.clients)}", os.environ)
        self.clients.append(client)
        return client

    def script(self, name: str, text: str) -> str:
        """Write an executable shell script and return its path."""
        path = self.path / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    def run(self, *options: str, python: str = PYTHON, **more: Any) -> Any:
        """Run a client that is to end by itself; return what `subprocess.run` returns."""
        command = self.command(*options, python=python)
        more = {"capture_output": True, "text": True, "timeout": 30, **more}
        return subprocess.run(command, check=False, **more)


def make_place() -> Iterator[Place]:
    """Give a place; end all clients that were started there."""
    with tempfile.TemporaryDirectory(prefix="guest-") as name:
        place = Place(Path(name))
        yield place
        for client in place.clients:
            client.stop()


def make_host(place: Place) -> Iterator[ScriptedHost]:
    """Give a host that listens at the place's port."""
    with ScriptedHost(place.port) as host:
        yield host


def challenge_until(
    host: ScriptedHost, health: str, timeout: float = 10.0, text: str = ""
) -> dict[str, Any]:
    """Challenge until the guest has that health, and `text` in its reason; return the answer."""
    deadline = time.monotonic() + timeout
    while True:
        answer = host.challenge()
        if answer["heartbeat_health"] == health and text in answer["log_msg"]:
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def ended(pid: int) -> bool:
    """Tell whether a process has ended.

    A zombie has; if it is an orphan, reaping it is up to this machine's init.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def all_ended(path: Path) -> bool:
    """Tell whether the processes whose numbers are in the file have ended."""
    return all(ended(int(pid)) for pid in path.read_text().split())


def processes_with(argument: str) -> Sequence[int]:
    """Return the processes that have `argument` in their command line, zombies aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if argument.encode() in text and not ended(int(path.parent.name)):
            found.append(int(path.parent.name))
    return found
