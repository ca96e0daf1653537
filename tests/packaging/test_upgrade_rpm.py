"""The RPMs on a system that rpm can change: upgraded to, rolled back, erased.

Over this machine's own root, where rpm is; what the packages need of others is not asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.packaging import old_packages
from tests.packaging.real_root import RealRoot
from tests.packaging.support import need
from tests.packaging.test_upgrade import DAEMONS, EDITED, NAMES, starts
from tests.peers.journal import wait_until

# Debian's rpm keeps its database in the home directory.
RPM_OWN = ("/var/lib/rpm/", "/usr/lib/sysimage/rpm/", "/root/.rpmdb/")


class RpmSystem(RealRoot):
    """This machine's root with an empty database of RPMs; ours and the old ones in /packages."""

    def rpm(self, *words: str) -> str:
        """Run rpm, which has to succeed."""
        return self.run("rpm", "--nodeps", *words)

    def verify(self) -> list[str]:
        """Return what of the installed packages is missing or changed, a path each."""
        names = self.run("rpm", "--query", "--all").split()
        done = self.call("rpm", "--verify", "--nodeps", *names)
        return [line.split()[-1] for line in done.stdout.splitlines()]

    def assert_clean(self, *edited: str) -> None:
        """No file of a package is missing or changed but these, and logs rotate."""
        assert self.verify() == list(edited)
        if shutil.which("logrotate"):
            done = self.call("logrotate", "--debug", "/etc/logrotate.conf")
            assert "duplicate" not in done.stdout + done.stderr


@pytest.fixture
def system(rpms: Mapping[str, Path], tmp_path: Path) -> Iterator[RpmSystem]:
    """Give such a system."""
    need("rpm", "rpm")
    packages = tmp_path / "files/packages"
    packages.mkdir(parents=True)
    for name, package in rpms.items():
        shutil.copy(package, packages / f"{name}.rpm")
    for daemon in DAEMONS:
        shutil.copy(old_packages.build_rpm(daemon, tmp_path), packages / f"old-{daemon}.rpm")
    system = RpmSystem(Path("/"), tmp_path / "real", tmp_path / "files")
    system.make_a_host()
    yield system
    system.close()


def test_upgrade_in_place_and_back(system: RpmSystem) -> None:
    """One restart each, the edited ini kept, none of their files left; then the same backwards."""
    old = [f"/packages/old-{daemon}.rpm" for daemon in DAEMONS]
    new = [f"/packages/{name}.rpm" for name in NAMES[:3]]
    system.rpm("--install", *old)
    ini = system.path / "etc/mtc/guestServer.ini"
    ini.write_text(EDITED)
    for daemon in DAEMONS:
        system.run(f"/etc/init.d/{daemon}", "start")
    old_pids = {daemon: system.pid(daemon) for daemon in DAEMONS}

    system.rpm("--upgrade", *new)
    assert ini.read_text() == EDITED
    for daemon in DAEMONS:
        wait_until(lambda daemon=daemon: starts(system, daemon) == 1)
        assert system.pid(daemon) != old_pids[daemon]
        for path in old_packages.files_of(daemon):
            target = system.path / path.replace("/lib/systemd", "/usr/lib/systemd")[1:]
            assert "C++" not in target.read_text()
    system.assert_clean("/etc/mtc/guestServer.ini")
    ini.with_name("guestServer.ini.rpmnew").unlink(missing_ok=True)
    assert "threshold = 3" in system.run("/usr/local/bin/guestServer", "--check-config")

    system.rpm("--upgrade", "--oldpackage", *old)
    assert ini.read_text() == EDITED
    for daemon in DAEMONS:
        assert "C++" in (system.path / f"usr/local/bin/{daemon}").read_text()
        system.run(f"/etc/init.d/{daemon}", "restart")
    system.rpm("--erase", "mtce-guest-common")
    system.assert_clean("/etc/mtc/guestServer.ini")


def test_erased_it_leaves_nothing(system: RpmSystem) -> None:
    """Enabled, started, erased; an edited file is kept under rpm's name for it."""
    before = system.added()
    system.rpm("--install", *(f"/packages/{name}.rpm" for name in NAMES))
    enabled = {link.name for link in system.path.glob("etc/systemd/system/*.wants/guest*")}
    assert enabled == {"guestServer.service", "guest-client.service"}
    for daemon in DAEMONS:
        system.run(f"/etc/init.d/{daemon}", "start", cwd="/root")
    (system.path / "etc/mtc/guestServer.ini").write_text(EDITED)
    system.assert_clean("/etc/mtc/guestServer.ini")

    system.rpm("--erase", *NAMES)
    assert system.call("sh", "-c", "grep -lx 'guest[SA].*' /proc/[0-9]*/comm").stdout == ""
    left = {path for path in system.added() - before if not path.startswith(RPM_OWN)}
    assert left == {"/etc/mtc/guestServer.ini.rpmsave"}
    assert [path.name for path in (system.path / "run").glob("guest*")] == []
