"""A machine to install packages on: a chroot with busybox, the tools that it lacks faked.

The packages' scripts run there for real; what they ask of systemctl, pmond and their like is
noted. /usr/bin/python3 is a stand-in that acts as any daemon: it runs until it is told to end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.packaging.support import (
    Completed,
    call,
    command_name,
    deb_name,
    is_alive,
    must,
    need,
    privileged,
    write_script,
)

# Called as an interpreter: after its option, if any, comes the daemon's own path.
PYTHON = """
    #!/bin/sh
    while [ "${1#-}" != "$1" ]; do shift; done
    name=${1##*/}
    if [ "$2" = child ]; then
        while :; do sleep 1; done
    fi
    echo "start $name" >>/calls
    "$1" child >/dev/null 2>&1 </dev/null &
    echo $! >/var/run/$name.pid
"""
FAKE = """
    #!/bin/sh
    echo "${0##*/} $*" >>/calls
"""
SYSTEMCTL = """
    #!/bin/sh
    case $* in
        *is-active*) [ -e /systemd-has-it ] ;;
        *) echo "systemctl $*" >>/calls ;;
    esac
"""


class Machine:
    """A root directory on which `rpm` or `dpkg` installs, with the scripts in effect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        prefix = privileged()
        if prefix is None:
            pytest.skip("needs root, or leave to make a user namespace")
        # The scripts need /dev/null and look at processes; the mounts end with the call.
        mount = 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec "$@"'
        self._enter = [*(prefix or ("unshare",)), "--mount", "sh", "-c", mount, str(path)]
        busybox = need("busybox", "busybox-static")
        for directory in (
            "bin",
            "dev",
            "proc",
            "run",
            "tmp",
            "usr/bin",
            "usr/local/sbin",
            "etc/init.d",
        ):
            (path / directory).mkdir(parents=True)
        (path / "var").mkdir()
        (path / "var/run").symlink_to("../run")
        (path / "calls").touch()
        shutil.copy(busybox, path / "bin/busybox")
        if call([*self._enter, "chroot", path, "/bin/busybox", "true"]).returncode != 0:
            pytest.skip("no leave to mount in a chroot, or busybox is not static")
        self.run("/bin/busybox", "--install", "-s", "/bin")
        write_script(path / "usr/bin/python3", PYTHON)
        write_script(path / "bin/dpkg-maintscript-helper", "#!/bin/sh\n")

    def run(self, *command: str) -> str:
        """Run a command in the chroot; it has to succeed."""
        return must([*self._enter, "chroot", self.path, *command])

    def install(self, *packages: Path) -> Completed:
        """Install or upgrade these packages in one go."""
        if packages[0].suffix == ".deb":
            return self._dpkg("--install", *packages)
        return self._rpm("--upgrade", "--nodeps", *packages)

    def remove(self, *names: str, kind: str) -> Completed:
        """Remove packages by name."""
        if kind == "deb":
            return self._dpkg("--remove", *[deb_name(name) for name in names])
        return self._rpm("--erase", *names)

    def _rpm(self, *arguments: str | Path) -> Completed:
        done = call([*self._enter, need("rpm", "rpm"), "--root", self.path, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def _dpkg(self, *arguments: str | Path) -> Completed:
        dpkg = self.path / "var/lib/dpkg"
        for directory in ("info", "updates"):
            (dpkg / directory).mkdir(parents=True, exist_ok=True)
        (dpkg / "status").touch()
        options = ["--root", self.path, "--force-depends", "--force-confdef", "--force-confold"]
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        command = [*self._enter, need("dpkg", "dpkg"), *options, *arguments]
        done = call(command, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def give_systemd(self) -> None:
        """Have systemd run."""
        (self.path / "run/systemd/system").mkdir(parents=True)
        write_script(self.path / "usr/bin/systemctl", SYSTEMCTL)

    def give_command(self, name: str) -> None:
        """Have a command whose calls are noted."""
        write_script(self.path / "usr/local/sbin" / name, FAKE)

    def give_pmond(self) -> None:
        """Have pmond run, with its tools."""
        (self.path / "run/pmond.pid").write_text(str(os.getpid()))
        self.give_command("pmon-restart")
        self.give_command("pmon-stop")

    @property
    def calls(self) -> list[str]:
        """What was asked of others, and what was started; forgotten with the look."""
        lines = (self.path / "calls").read_text().splitlines()
        (self.path / "calls").write_text("")
        return lines

    def start(self, service: str) -> int:
        """Start a service by its init script; return its pid."""
        self.run(f"/etc/init.d/{service}", "start")
        assert self.calls == [f"start {service}"]
        return self.pid(service)

    def pid(self, service: str) -> int:
        """Return the pid in the service's pid file."""
        return int((self.path / f"run/{service}.pid").read_text())

    def close(self) -> None:
        """End the daemons."""
        for pidfile in (self.path / "run").glob("*.pid"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                pid = int(pidfile.read_text())
                if command_name(pid) == pidfile.stem and is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
