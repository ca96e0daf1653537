"""The installed files at their own paths, without --root (decisions 33 and 47)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.real_root import RealRoot
from tests.peers.journal import wait_until

DAEMONS = ["guestServer", "guestAgent"]
# One of no interest, one that has what looks like a root, and one that is no more.
DIRECTORIES = ["/root", "/decoy", "/var/log"]
OCF = ["env", "OCF_ROOT=/ocf", "/usr/lib/ocf/resource.d/platform/guestAgent"]


@pytest.fixture
def root(installed: Path, tmp_path: Path) -> Iterator[RealRoot]:
    """Give this machine's root with the installed files over it."""
    root = RealRoot(Path("/"), tmp_path / "real", installed)
    root.make_a_host()
    root.write("/decoy/etc/mtc/guestServer.ini", "[nonsense]\n")
    root.write("/decoy/etc/mtc/guestAgent.ini", "[nonsense]\n")
    stub = Path(__file__).parent / "ocf_root/lib/heartbeat/ocf-shellfuncs"
    root.write("/ocf/lib/heartbeat/ocf-shellfuncs", stub.read_text())
    yield root
    root.close()


def test_daemons_start_from_any_directory(root: RealRoot) -> None:
    for directory in DIRECTORIES:
        for daemon in DAEMONS:
            script = f"/etc/init.d/{daemon}"
            assert root.run(script, "start", cwd=directory) == f"Starting {daemon}: OK\n"
            first = root.pid(daemon)
            assert root.run(script, "restart", cwd=directory).endswith(f"Starting {daemon}: OK\n")
            assert root.pid(daemon) != first
            assert root.run("readlink", f"/proc/{root.pid(daemon)}/cwd") == "/\n"
            root.run(script, "reload", cwd=directory)
            root.run(script, "stop", cwd=directory)
    strays = {path for path in root.added() if path.startswith(("/decoy/", "/root/"))}
    assert strays == {f"/decoy/etc/mtc/{daemon}.ini" for daemon in DAEMONS}


def test_the_ocf_agent_works_from_any_directory(root: RealRoot) -> None:
    for directory in DIRECTORIES:
        for action in ("validate-all", "start", "monitor", "reload", "stop"):
            root.run(*OCF, action, cwd=directory)


def test_guestctl_works_from_any_directory(root: RealRoot) -> None:
    root.run("/etc/init.d/guestServer", "start")
    for directory in DIRECTORIES:
        assert "guestServer" in root.call("/usr/local/bin/guestctl", "status", cwd=directory).stdout


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_without_its_pid_file_is_found(root: RealRoot, daemon: str) -> None:
    """A cleaner removed pid file and control socket; the daemon is not started a second time."""
    script = f"/etc/init.d/{daemon}"
    root.run(script, "start")
    pid = root.pid(daemon)
    for suffix in ("pid", "ctl", "info"):
        (root.path / f"run/{daemon}.{suffix}").unlink(missing_ok=True)
    assert root.run(script, "status") == f"{daemon} is running (pid {pid})\n"
    assert root.run(script, "start") == f"{daemon} is already running (pid {pid})\n"
    if daemon == "guestAgent":
        root.run(*OCF, "monitor")
    (root.path / f"run/{daemon}.pid").unlink(missing_ok=True)
    assert root.run(script, "stop") == f"Stopping {daemon}: OK\n"
    assert root.call(script, "status").returncode == 3
    wait_until(lambda: root.call("test", "-e", f"/proc/{pid}").returncode == 1)


def test_one_that_only_has_the_name_is_left_alone(root: RealRoot) -> None:
    """Of another user, of another root, and one that is called so."""
    script = "/etc/init.d/guestServer"
    root.run("cp", "/bin/sleep", "/tmp/guestServer")
    root.run("sh", "-c", "/tmp/guestServer 100 >/dev/null 2>&1 &")
    root.run("sh", "-c", "setpriv --reuid=65534 -- /tmp/guestServer 100 >/dev/null 2>&1 &")
    others = "chroot /proc/1/root/ true; cd /tmp && mkdir -p r && mount --bind / r"
    root.run("sh", "-c", f"{others} && chroot r /tmp/guestServer 100 >/dev/null 2>&1 &")
    count = ["sh", "-c", "grep -lx guestServer /proc/[0-9]*/comm | wc -l"]
    wait_until(lambda: root.run(*count) == "3\n", what="three of that name")
    assert root.call(script, "status").returncode == 3
    assert root.run(script, "stop") == "guestServer is not running\n"
    assert root.run(*count) == "3\n"


def test_pmond_has_its_link_while_the_package_is_there(root: RealRoot) -> None:
    """Where /etc/pmon.d is; what somebody has put there stays."""
    maintain = "/usr/lib/mtce-guest/maintain"
    link = root.path / "etc/pmon.d/guestServer.conf"
    root.run(maintain, "guestServer", "changed")
    assert not link.parent.exists()
    link.parent.mkdir()
    root.run(maintain, "guestServer", "changed")
    assert root.run("cat", "/etc/pmon.d/guestServer.conf").startswith("; guestServer as pmond")
    root.run(maintain, "guestServer", "removing")
    assert not link.is_symlink()
    link.write_text("mine\n")
    root.run(maintain, "guestServer", "changed")
    root.run(maintain, "guestServer", "removing")
    assert link.read_text() == "mine\n"
