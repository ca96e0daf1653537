"""What the packaging tests share: an installed tree, and its scripts run under one shell."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.peers.journal import wait_until
from tests.peers.root import REPOSITORY, Root

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
SHELL_SCRIPTS = [
    ".ci/run",
    "init.d/functions.sh",
    "init.d/guestAgent",
    "init.d/guestServer",
    "ocf/guestAgent",
    "guest/guest-client.init",
    *sorted(f"guest/samples/{path.name}" for path in (REPOSITORY / "guest/samples").glob("*.sh")),
    "packaging/maintain.sh",
    "packaging/common.prerm",
    "packaging/service.postinst",
    "packaging/service.prerm",
    "packaging/service.postrm",
]

Completed = subprocess.CompletedProcess[str]


def need(tool: str, package: str) -> str:
    """Return the path of `tool`; skip the test, saying what to install, where it is missing."""
    path = shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{tool} is not installed (package {package})")
    return path


def made_once(directory: Path, build: Callable[[Path], object]) -> Path:
    """Return `directory`, filled by `build` in whichever test process comes first."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            unfinished = directory.with_name(f"{directory.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            build(unfinished)
            unfinished.rename(directory)
    return directory


def asked_for(variable: str, what: str) -> None:
    """Skip a test that takes minutes unless the environment asks for it, as CI does."""
    if not os.environ.get(variable):
        pytest.skip(f"{what}; {variable}=1 make test runs it")


def call(
    command: Sequence[str | Path], timeout: float = 60, **more: str | Path | Mapping[str, str]
) -> Completed:
    """Run a command with its output kept."""
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **more,  # type: ignore[call-overload]
    )


def must(command: Sequence[str | Path], timeout: float = 60, **more: str | Path) -> str:
    """Run a command that has to succeed; return its standard output."""
    done = call(command, timeout, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def copy_sources(target: Path) -> None:
    """Copy what packages are built of: this tree may change while tests run."""
    text = (REPOSITORY / "Makefile").read_text()
    packaged = re.search(r"^PACKAGED := ((?:.*\\\n)*.*)", text, re.MULTILINE)
    assert packaged
    for name in packaged[1].replace("\\", "").split():
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, target / name)


def deb_name(name: str) -> str:
    """Return the Debian package's name for an RPM's: mtce-guest-server for mtce-guestServer."""
    return re.sub("guest([A-Z])", r"guest-\1", name).lower()


def make(directory: Path, *arguments: str) -> None:
    """Run make in a copy of the sources."""
    must(["make", "--no-print-directory", "-C", directory, *arguments], timeout=300)


@functools.cache
def privileged() -> tuple[str, ...] | None:
    """Return what to put before a command that needs root; None where there is no way."""
    if os.geteuid() == 0:
        return ()
    unshare = ("unshare", "--user", "--map-root-user")
    if shutil.which("unshare") and call([*unshare, "chroot", "/", "true"]).returncode == 0:
        return unshare
    return None


def need_root() -> tuple[str, ...]:
    """Return what to put before a command that needs root, or skip the test."""
    prefix = privileged()
    if prefix is None:
        pytest.skip("needs root, or leave to make a user namespace")
    return prefix


class Host:
    """A root with installed files in it: free ports, the host's files, scripts to be run.

    `files` is an installed tree; its files are copied over those of a test peers' Root, and the
    ini files written again, for free ports.
    """

    def __init__(self, files: Path) -> None:
        self.peers_root = Root()
        self.path = self.peers_root.path
        shutil.copytree(files, self.path, symlinks=True, dirs_exist_ok=True)
        self.peers_root.write_ini("guestAgent", "controller-0", {})
        self.peers_root.write_ini("guestServer", "compute-0", {})
        # Fakes of system commands, found first.
        self.commands = self.path / "fakes"
        self.commands.mkdir()
        self.environment = {
            **os.environ,
            "PATH": f"{self.commands}:{os.environ['PATH']}",
            "GUESTMTCE_ROOT": str(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def init(self, daemon: str, action: str, shell: str = "sh", timeout: float = 30) -> Completed:
        """Run /etc/init.d/`daemon` under a shell."""
        script = self.path / "etc/init.d" / daemon
        words = [action] if action else []
        return call([shell, script, *words], timeout, env=self.environment)

    def pidfile(self, daemon: str) -> Path:
        """Return /var/run/`daemon`.pid."""
        return self.path / f"var/run/{daemon}.pid"

    def pid(self, daemon: str) -> int:
        """Return the pid that the pid file names."""
        return int(self.pidfile(daemon).read_text())

    def log(self, daemon: str) -> str:
        """What the daemon has logged; it writes to this file for want of /dev/log in the root."""
        return (self.path / f"var/log/{daemon}.log").read_text()

    def kill(self, daemon: str) -> None:
        """SIGKILL the daemon and wait until it is gone."""
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), what=f"end of pid {pid}")

    def fake(self, name: str, script: str) -> Path:
        """Put a command before those of the system."""
        return write_script(self.commands / name, script)

    def close(self) -> None:
        """End every daemon that a pid file names, and remove everything."""
        for pidfile in (self.path / "var/run").glob("*.pid"):
            with contextlib.suppress(ValueError, ProcessLookupError, FileNotFoundError):
                pid = int(pidfile.read_text())
                if pidfile.stem == command_name(pid):
                    os.kill(pid, signal.SIGKILL)
        self.peers_root.close()


def write_script(path: Path, script: str) -> Path:
    """Write an executable."""
    path.write_text(textwrap.dedent(script).lstrip())
    path.chmod(0o755)
    return path


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_name(pid: int) -> str:
    """Return /proc/PID/comm, empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def host_of(files: Path) -> contextlib.closing[Host]:
    """Have a Host for the time of a test."""
    return contextlib.closing(Host(files))
