"""A root in which installed files run as on a real host: no --root, the daemons' own ports.

An overlay over a lower directory (this machine's own root, or one that debootstrap has made), in
mount, process and network namespaces of its own: what a test does there ends with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.packaging.support import Completed, call, made_once, need
from tests.peers.root import REPOSITORY

_SET_UP = """
set -e
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root" "$0/files"
[ -z "$2" ] || cp -a "$2/." "$0/files"
mount -t overlay overlay -o "lowerdir=$0/files:$1,upperdir=$0/upper,workdir=$0/work" "$0/root"
mount -t proc proc "$0/root/proc"
mount -t tmpfs tmpfs "$0/root/dev"
for name in null zero full random urandom tty; do
    touch "$0/root/dev/$name"
    mount --bind "/dev/$name" "$0/root/dev/$name"
done
ln -s /proc/self/fd "$0/root/dev/fd"
mount -t tmpfs tmpfs "$0/root/run"
ip link set lo up
hostname controller-0
touch "$0/ready"
while :; do sleep 0.2; done # and so reap what has no parent any more
"""
_WAIT_SECS = 20
# What debootstrap has made stays.
ROOTS = REPOSITORY / "build/roots"
HOSTS = "127.0.0.1 localhost controller\n127.0.0.3 controller-0\n127.0.0.2 compute-0\n"


class RealRoot:
    """The root over `lower`, with `files` over that, at `directory`/root."""

    def __init__(self, lower: Path, directory: Path, files: Path | None = None) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root, for a root of its own to install into")
        need("ip", "iproute2")
        directory.mkdir()
        namespaces = ["--mount", "--pid", "--net", "--uts", "--fork", "--kill-child"]
        command = ["unshare", *namespaces, "sh", "-c", _SET_UP, str(directory), str(lower)]
        command.append(str(files or ""))
        self._holder = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._enter = self._wait_until_ready(directory)

    def _wait_until_ready(self, directory: Path) -> list[str | Path]:
        pid = self._holder.pid
        deadline = time.monotonic() + _WAIT_SECS
        while self._holder.poll() is None and time.monotonic() < deadline:
            child = Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
            if child and Path(f"/proc/{child}/root{directory}/ready").exists():
                namespaces = ["--mount", "--pid", "--net", "--uts"]
                self.path = Path(f"/proc/{child}/root{directory}/root")
                return ["nsenter", "--target", child, *namespaces, "chroot", directory / "root"]
            time.sleep(0.02)
        self.close()
        complaint = self._holder.stderr.read() if self._holder.stderr else ""
        pytest.skip(f"no leave to mount an overlay in a namespace: {complaint.strip()}")

    def call(self, *command: str, cwd: str = "/", timeout: float = 120) -> Completed:
        """Run a command there."""
        words = ["env", f"--chdir={cwd}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"]
        words += ["DEBIAN_FRONTEND=noninteractive", "PYTHONDONTWRITEBYTECODE=1"]
        return call([*self._enter, *words, *command], timeout)

    def run(self, *command: str, cwd: str = "/") -> str:
        """Run a command that has to succeed; return what it printed."""
        done = self.call(*command, cwd=cwd)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file, its directories made."""
        target = self.path / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def make_a_host(self) -> None:
        """Lay what the platform lays before the daemons start."""
        self.write("/etc/hosts", HOSTS)
        self.write("/etc/platform/platform.conf", "nodetype=controller\nsubfunction=worker\n")
        self.write("/etc/platform/.initial_config_complete", "")
        self.write("/run/.goenabled", "")
        (self.path / "var/lib/libvirt/qemu").mkdir(parents=True, exist_ok=True)
        (self.path / "var/log").mkdir(parents=True, exist_ok=True)

    def pid(self, daemon: str) -> int:
        """Return what the pid file says, in the numbers of the root's own processes."""
        return int((self.path / f"run/{daemon}.pid").read_text())

    def added(self) -> set[str]:
        """Return the files that are there now and are not in the lower directory."""
        upper = self.path.parent / "upper"
        return {
            f"/{path.relative_to(upper)}"
            for path in upper.rglob("*")
            if not path.is_dir() and not path.is_char_device()  # what overlays mark as removed
        }

    def close(self) -> None:
        """End everything in it."""
        self._holder.kill()
        self._holder.wait()


def debian(suite: str) -> Path:
    """Return a directory with a new Debian of that release; made once, kept in build/."""
    # In 13 logrotate brings systemd, which cannot be set up there.
    packages = ["python3", "make", *(["logrotate"] if suite != "trixie" else [])]
    return made_once(ROOTS / suite, lambda root: debootstrap(suite, root, packages))


def debootstrap(suite: str, root: Path, packages: Sequence[str]) -> None:
    """Make a small Debian in `root`; skip the test where that is not possible."""
    tool = need("debootstrap", "debootstrap")
    if os.geteuid() != 0:
        pytest.skip("needs root, for debootstrap")
    options = ["--variant=minbase", f"--include={','.join(packages)}"]
    done = call([tool, *options, suite, root, "http://deb.debian.org/debian"], 600)
    if done.returncode != 0:
        shutil.rmtree(root, ignore_errors=True)
        pytest.skip(f"debootstrap cannot make {suite}: {done.stdout.splitlines()[-1:]}")
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
