"""The packages in a Debian made by debootstrap: installed, upgraded to, rolled back, purged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.packaging import old_packages
from tests.packaging.real_root import RealRoot, debian
from tests.packaging.support import asked_for, deb_name
from tests.peers.journal import wait_until
from tests.peers.root import REPOSITORY

# StarlingX stands on 11, the present stable release is 13.
SUITES = ["bullseye", "bookworm", "trixie"]
DAEMONS = ["guestServer", "guestAgent"]
NAMES = ["mtce-guest-common", "mtce-guestServer", "mtce-guestAgent", "mtce-guestClient"]
EDITED = (
    "; edited here\n[agent]\nrx_port = 2401\n[client]\nrx_port = 2411\nhbs_failure_threshold = 3\n"
)
# What else is there on a host that is well.
CONTROLLER = (
    "python3 -m tests.peers.controller /run/events"
    " controller-0:127.0.0.3:c0c0c0c0-0000-4000-8000-00000000c0c0"
)
SYSLOG = """python3 -c '
from socket import AF_UNIX, SOCK_DGRAM, socket
log = socket(AF_UNIX, SOCK_DGRAM)
log.bind("/dev/log")
while log.recv(9999):
    pass
'"""
# What a package manager writes itself.
APT_OWN = ("/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/", "/var/log/apt/", "/var/log/dpkg.log")


class Debian(RealRoot):
    """A fresh Debian, with our packages and the old ones in /packages."""

    def apt(self, *words: str) -> str:
        """Run apt-get as an operator who keeps his edited files."""
        options = ["--yes", "--quiet", "--no-install-recommends", "--option=Dpkg::Use-Pty=0"]
        options += ["--option=Dpkg::Options::=--force-confdef"]
        options += ["--option=Dpkg::Options::=--force-confold"]
        return self.run("apt-get", *options, *words)

    def install(self, *names: str) -> str:
        """Install our packages."""
        return self.apt("install", *(f"/packages/{deb_name(name)}.deb" for name in names))

    def install_old(self) -> None:
        """Install the platform's packages; also back, over newer ones."""
        files = [f"/packages/old-{daemon}.deb" for daemon in DAEMONS]
        self.apt("install", "--allow-downgrades", *files)

    def assert_clean(self, *edited: str) -> None:
        """Nothing that belongs to a package is missing or changed, and logs rotate."""
        verified = self.run("dpkg", "--verify").splitlines()
        ours = [line.split()[-1] for line in verified if "/usr/share/" not in line]
        assert ours == list(edited)
        if (self.path / "usr/sbin/logrotate").exists():
            done = self.call("logrotate", "--debug", "/etc/logrotate.conf")
            assert done.returncode == 0
            assert "duplicate" not in done.stdout + done.stderr


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest) -> Path:
    """Give a root of each release."""
    asked_for("ROOTS", "in Debian roots that are fetched first: two minutes")
    return debian(str(request.param))


@pytest.fixture
def root(suite: Path, debs: Mapping[str, Path], tmp_path: Path) -> Iterator[Debian]:
    """Give a fresh Debian of that release."""
    packages = tmp_path / "files/packages"
    packages.mkdir(parents=True)
    for name, package in debs.items():
        shutil.copy(package, packages / f"{name}.deb")
    for daemon in DAEMONS:
        old = old_packages.build(daemon, tmp_path)
        shutil.copy(old, packages / f"old-{daemon}.deb")
    shutil.copytree(REPOSITORY / "tests/peers", tmp_path / "files/opt/tests/peers")
    root = Debian(suite, tmp_path / "real", tmp_path / "files")
    root.make_a_host()
    yield root
    root.close()


def starts(root: Debian, daemon: str) -> int:
    """Count how often our daemon has started, by its log."""
    log = root.path / f"var/log/{daemon}.log"
    return log.read_text().count(f"{daemon} 1.") if log.exists() else 0


def test_upgrade_in_place_and_back(root: Debian) -> None:
    """One restart each, the edited ini kept, none of their files left; then the same backwards."""
    root.install_old()
    (root.path / "etc/mtc/guestServer.ini").write_text(EDITED)
    for daemon in DAEMONS:
        root.run(f"/etc/init.d/{daemon}", "start")
    old_pids = {daemon: root.pid(daemon) for daemon in DAEMONS}

    root.install(*NAMES[:3])
    assert (root.path / "etc/mtc/guestServer.ini").read_text() == EDITED
    assert "the C++ daemons' file" not in (root.path / "etc/mtc/guestAgent.ini").read_text()
    for daemon in DAEMONS:
        wait_until(lambda daemon=daemon: starts(root, daemon) == 1)
        assert root.pid(daemon) != old_pids[daemon]
        gone = f"/proc/{old_pids[daemon]}"
        wait_until(lambda gone=gone: root.call("test", "-e", gone).returncode == 1)
        for path in old_packages.files_of(daemon):
            text = (root.path / path[1:]).read_text()
            assert "C++" not in text
    root.assert_clean("/etc/mtc/guestServer.ini")
    assert "threshold = 3" in root.run("/usr/local/bin/guestServer", "--check-config")

    root.install_old()
    assert (root.path / "etc/mtc/guestServer.ini").read_text() == EDITED
    for daemon in DAEMONS:
        assert "C++" in (root.path / f"usr/local/bin/{daemon}").read_text()
        root.run(f"/etc/init.d/{daemon}", "restart")
        root.run(f"/etc/init.d/{daemon}", "status")
    root.assert_clean("/etc/mtc/guestServer.ini")


def test_install_on_a_fresh_system_and_purge(root: Debian) -> None:
    """Enabled, started, well, as `guestctl doctor` says; and nothing left of it afterwards."""
    before = root.added()
    (root.path / "etc/pmon.d").mkdir()
    root.install(*NAMES)
    enabled = {link.name for link in root.path.glob("etc/systemd/system/*.wants/guest*")}
    assert enabled == {"guestServer.service", "guest-client.service"}
    link = root.path / "etc/pmon.d/guestServer.conf"
    assert str(link.readlink()) == "/usr/share/starlingx/pmon.d/guestServer.conf"
    for daemon in DAEMONS:
        root.run(f"/etc/init.d/{daemon}", "start", cwd="/root")
    root.assert_clean()
    for peer in (SYSLOG, CONTROLLER):
        root.run("sh", "-c", f"cd /opt; {peer} >/dev/null 2>&1 &")
    found = ["nothing was asked"]

    def is_well() -> bool:
        done = root.call("/usr/local/bin/guestctl", "doctor")
        found[0] = done.stdout + done.stderr
        return done.returncode == 0

    wait_until(is_well, 20, found)
    assert "FAIL" not in found[0]

    (root.path / "run/guestServer.pid").unlink()
    root.apt("purge", *(deb_name(name) for name in NAMES))
    assert root.call("sh", "-c", "grep -lx 'guest[SA].*' /proc/[0-9]*/comm").stdout == ""
    left = {path for path in root.added() - before if not path.startswith(APT_OWN)}
    assert left == set()
    assert not (root.path / "etc/mtc").exists()
    assert [path.name for path in (root.path / "run").glob("guest*")] == []


def test_removed_and_installed_again(root: Debian) -> None:
    """A service that its administrator has disabled stays disabled through an upgrade."""
    wanted = root.path / "etc/systemd/system/multi-user.target.wants/guestServer.service"
    root.install(*NAMES[:2])
    wanted.unlink()
    root.apt("install", "--reinstall", "/packages/mtce-guest-server.deb")
    assert not wanted.is_symlink()
    root.apt("remove", "mtce-guest-server")
    assert (root.path / "etc/mtc/guestServer.ini").exists()
    root.install("mtce-guestServer")
    assert wanted.is_symlink()
