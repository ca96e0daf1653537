"""A temporary `--root` tree in which the daemons run without rights, on free loopback ports."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.peers.journal import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

CONTROLLER = "127.0.0.1"
CONTROLLER_0 = "127.0.0.3"
COMPUTE_0 = "127.0.0.2"
COMPUTE_1 = "127.0.0.4"

HOSTS = {
    "localhost": "127.0.0.1",
    "controller": CONTROLLER,
    "controller-0": CONTROLLER_0,
    "controller-1": "127.0.0.5",
    "compute-0": COMPUTE_0,
    "compute-1": COMPUTE_1,
}


# Above what is a service's own somewhere.
_FIRST_PORT = 12_000


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> list[int]:
    """Return `count` different ports that are free on every loopback address of HOSTS.

    They are below those that the kernel gives to clients, one of whom could take a port between
    now and the daemon's start; and drawn, as other tests look for theirs at the same time.
    """
    draw = random.SystemRandom()
    found: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(found) < count:
            port = draw.randrange(_FIRST_PORT, _first_of_clients())
            try:
                for address in set(HOSTS.values()):
                    held.append(socket.socket(socket.AF_INET, kind))
                    held[-1].bind((address, port))
            except OSError:
                continue
            found.append(port)
    finally:
        for sock in held:
            sock.close()
    return found


def _first_of_clients() -> int:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    return max(int(text.split()[0]), _FIRST_PORT + 10_000)


def _listens(path: Path) -> bool:
    """Whether a process listens on the UNIX socket; an old daemon's file alone does not."""
    directory = os.open(path.parent, os.O_PATH)  # the whole path may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            return sock.connect_ex(f"/proc/self/fd/{directory}/{path.name}") == 0
    finally:
        os.close(directory)


class Daemon:
    """A running daemon, its log in a file."""

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        env: Mapping[str, str],
        stderr: IO[bytes] | None = None,
    ) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=stderr or log, env=dict(env)
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text(errors="replace")

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def stop(self, timeout: float = 5.0) -> int:
        """SIGTERM, then SIGKILL if that has no effect; return the exit status."""
        if self.running:
            # One that is stopped (SIGSTOP) could not end.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def wait_for_log(self, text: str, timeout: float = 10.0) -> None:
        """Wait until `text` is in the log."""
        wait_until(lambda: text in self.log, timeout, f"{text!r} in {self.log_path}")


class Root:
    """The tree. `settings` of both ini files can be given by section, and changed later.

    Temporary unless `path` is given; short by default, because channels are UNIX sockets.
    """

    def __init__(
        self, path: Path | None = None, settings: Mapping[str, Mapping[str, object]] | None = None
    ) -> None:
        self._temporary = path is None
        self.path = path or Path(tempfile.mkdtemp(prefix="mtce-guest-"))
        udp = free_ports(4)
        tcp = free_ports(2, socket.SOCK_STREAM)
        self.agent_port, self.server_port, self.mtc_cmd_port, self.mtc_event_port = udp
        self.vim_cmd_port, self.vim_port = tcp
        self.daemons: list[Daemon] = []
        self.channels.mkdir(parents=True)
        for directory in ("etc/mtc", "etc/platform", "var/run", "var/log"):
            (self.path / directory).mkdir(parents=True)
        self.write_hosts(HOSTS)
        (self.path / "etc/platform/platform.conf").write_text(
            "nodetype=controller\nsubfunction=controller,worker\n"
        )
        (self.path / "etc/platform/.initial_config_complete").touch()
        (self.path / "var/run/.goenabled").touch()
        self.write_ini("guestAgent", "controller-0", settings or {})
        self.write_ini("guestServer", "compute-0", settings or {})

    @property
    def channels(self) -> Path:
        """The channel directory."""
        return self.path / "var/lib/libvirt/qemu"

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """Write /etc/hosts."""
        lines = [f"{address}\t{name}\n" for name, address in addresses.items()]
        (self.path / "etc/hosts").write_text("".join(lines))

    def write_ini(
        self, daemon: str, host: str, settings: Mapping[str, Mapping[str, object]]
    ) -> Path:
        """Write the daemon's ini: our ports and `host` as its name, then `settings` over it."""
        sections: dict[str, dict[str, object]] = {
            "agent": {
                "rx_port": self.agent_port,
                "vim_cmd_port": self.vim_cmd_port,
                "hbs_failure_threshold": 1,
            },
            "client": {
                "rx_port": self.server_port,
                "hbs_failure_threshold": 1,
                "hbs_pulse_period": 400,
            },
            "vim": {"address": "127.0.0.1", "port": self.vim_port},
            "mtc": {"cmd_port": self.mtc_cmd_port, "event_port": self.mtc_event_port},
            "host": {"name": host},
        }
        for name, values in settings.items():
            sections.setdefault(name, {}).update(values)
        text = ""
        for name, values in sections.items():
            text += f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        path = self.path / f"etc/mtc/{daemon}.ini"
        path.write_text(text)
        return path

    def start(self, program: str, *options: str, wait: bool = True) -> Daemon:
        """Start bin/`program` in the foreground under this root; wait for its pidfile."""
        command = [sys.executable, str(REPOSITORY / "bin" / program), "-f"]
        command += ["--root", str(self.path), *options]
        daemon = Daemon(command, self.path / f"{program}.log", os.environ)
        self.daemons.append(daemon)
        if wait:
            self._wait_started(daemon, self.path / f"var/run/{program}.pid")
        return daemon

    def start_server(self, *options: str, wait: bool = True) -> Daemon:
        """Start bin/guestServer."""
        return self.start("guestServer", *options, wait=wait)

    def start_agent(self, *options: str, wait: bool = True) -> Daemon:
        """Start bin/guestAgent."""
        return self.start("guestAgent", *options, wait=wait)

    def _wait_started(self, daemon: Daemon, pidfile: Path, timeout: float = 10.0) -> None:
        # The pidfile comes first, the control socket last: then every port is bound.
        control = pidfile.with_suffix(".ctl")
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError):
                if int(pidfile.read_text()) == daemon.pid and _listens(control):
                    return
            if not daemon.running:
                raise AssertionError(f"ended at once with {daemon.process.poll()}:\n{daemon.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not started in {timeout} s:\n{daemon.log}")
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the daemons and remove the tree."""
        self.stop()
        self.remove()

    def stop(self) -> None:
        """Stop the daemons."""
        for daemon in reversed(self.daemons):
            daemon.stop()

    def remove(self) -> None:
        """Remove the tree, if it is a temporary one."""
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
