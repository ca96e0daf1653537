"""The packages' scripts (operations.md, Packages) at install, upgrade and removal.

"`%post` of guestServer enables its unit where systemctl exists; `%preun` stops it; an upgrade
restarts through pmond, never twice."
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.packaging.machine import Machine
from tests.packaging.support import copy_sources, deb_name, is_alive, make, must

SERVER = ("mtce-guest-common", "mtce-guestServer")
AGENT = ("mtce-guest-common", "mtce-guestAgent")
CLIENT = ("mtce-guestClient",)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Give a machine without packages."""
    machine = Machine(tmp_path / "machine")
    yield machine
    machine.close()


class Kind:
    """Packages of one kind, and a newer release of them with another guest.ini."""

    def __init__(self, kind: str, old: Mapping[str, Path], new: Mapping[str, Path]) -> None:
        self.kind = kind
        self._old = old
        self._new = new

    def old(self, *names: str) -> list[Path]:
        return self._pick(self._old, names)

    def new(self, *names: str) -> list[Path]:
        return self._pick(self._new, names)

    def _pick(self, packages: Mapping[str, Path], names: tuple[str, ...]) -> list[Path]:
        return [packages[deb_name(name) if self.kind == "deb" else name] for name in names]


@pytest.fixture(scope="module", params=["rpm", "deb"])
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """Give the packages, and release 2 of them."""
    kind = str(request.param)
    old = request.getfixturevalue(f"{kind}s")
    changed = tmp_path_factory.mktemp("changed")
    copy_sources(changed)
    ini = changed / "etc/guest.ini"
    ini.write_text(f"; of release 2\n{ini.read_text()}")
    make(changed, kind, "RELEASE=2")
    built = (changed / "build" / kind).glob(f"*.{kind}")
    separator = "-" if kind == "rpm" else "_"
    new = {path.name.rsplit(separator, 2)[0]: path for path in built}
    return Kind(kind, old, new)


def test_install_enables_the_server_where_systemctl_exists(
    machine: Machine, packages: Kind
) -> None:
    machine.give_systemd()
    machine.install(*packages.old(*SERVER))
    calls = machine.calls
    assert "systemctl enable guestServer.service" in calls
    assert "systemctl daemon-reload" in calls
    assert not [line for line in calls if "start" in line]


def test_install_leaves_the_agent_to_sm(machine: Machine, packages: Kind) -> None:
    machine.give_systemd()
    machine.install(*packages.old(*AGENT))
    assert not [line for line in machine.calls if "enable" in line]


@pytest.mark.parametrize(
    ("command", "enabled", "disabled"),
    [
        ("update-rc.d", "update-rc.d guestServer defaults", "update-rc.d -f guestServer remove"),
        ("chkconfig", "chkconfig --add guestServer", "chkconfig --del guestServer"),
    ],
)
def test_install_and_remove_without_systemd(
    machine: Machine, packages: Kind, command: str, enabled: str, disabled: str
) -> None:
    machine.give_command(command)
    machine.install(*packages.old(*SERVER))
    assert machine.calls == [enabled]
    machine.remove(*reversed(SERVER), kind=packages.kind)
    assert machine.calls == [disabled]


def test_install_without_any_service_manager(machine: Machine, packages: Kind) -> None:
    done = machine.install(*packages.old(*SERVER))
    assert "start it with /etc/init.d/guestServer start" in done.stdout + done.stderr
    machine.start("guestServer")


def test_an_upgrade_restarts_through_pmond_once(machine: Machine, packages: Kind) -> None:
    """An upgrade restarts through pmond, never twice."""
    machine.give_systemd()
    machine.give_pmond()
    machine.install(*packages.old(*SERVER))
    _ = machine.calls
    pid = machine.start("guestServer")
    machine.install(*packages.new(*SERVER))
    assert [line for line in machine.calls if "daemon-reload" not in line] == [
        "pmon-restart guestServer"
    ]
    assert is_alive(pid)


def test_an_upgrade_without_pmond_restarts_once(machine: Machine, packages: Kind) -> None:
    machine.give_command("update-rc.d")
    machine.install(*packages.old(*SERVER))
    _ = machine.calls
    pid = machine.start("guestServer")
    machine.install(*packages.new(*SERVER))
    assert machine.calls == ["start guestServer"]
    assert not is_alive(pid)
    assert is_alive(machine.pid("guestServer"))


def test_an_upgrade_of_what_systemd_runs(machine: Machine, packages: Kind) -> None:
    machine.give_systemd()
    machine.install(*packages.old(*SERVER))
    (machine.path / "systemd-has-it").touch()
    _ = machine.calls
    machine.start("guestServer")
    machine.install(*packages.new(*SERVER))
    assert [line for line in machine.calls if "daemon-reload" not in line] == [
        "systemctl try-restart guestServer.service"
    ]


def test_an_upgrade_of_the_agent_restarts_through_sm(machine: Machine, packages: Kind) -> None:
    machine.give_command("sm-restart-safe")
    machine.install(*packages.old(*AGENT))
    _ = machine.calls
    machine.start("guestAgent")
    machine.install(*packages.new(*AGENT))
    assert machine.calls == ["sm-restart-safe service guest-agent"]


def test_an_upgrade_starts_nothing_that_did_not_run(machine: Machine, packages: Kind) -> None:
    machine.give_systemd()
    machine.give_pmond()
    machine.install(*packages.old(*SERVER))
    _ = machine.calls
    machine.install(*packages.new(*SERVER))
    assert [line for line in machine.calls if "daemon-reload" not in line] == []


def test_an_upgrade_keeps_an_edited_ini(machine: Machine, packages: Kind) -> None:
    machine.give_systemd()
    machine.install(*packages.old(*SERVER, "mtce-guestAgent"))
    edited = machine.path / "etc/mtc/guestServer.ini"
    edited.write_text("[client]\nrx_port = 2412\n")
    machine.install(*packages.new(*SERVER, "mtce-guestAgent"))
    assert edited.read_text() == "[client]\nrx_port = 2412\n"
    untouched = (machine.path / "etc/mtc/guestAgent.ini").read_text()
    assert untouched.startswith("; of release 2\n")


def test_remove_stops_disables_and_leaves_nothing_behind(machine: Machine, packages: Kind) -> None:
    """`%preun` stops it; what python compiled goes with the package."""
    machine.give_systemd()
    machine.install(*packages.old(*SERVER))
    _ = machine.calls
    pid = machine.start("guestServer")
    compiled = machine.path / "usr/lib/mtce-guest/guestmtce/core/__pycache__"
    compiled.mkdir()
    (compiled / "config.cpython-39.pyc").touch()
    machine.remove(*reversed(SERVER), kind=packages.kind)
    assert not is_alive(pid)
    assert "systemctl disable guestServer.service" in machine.calls
    assert not (machine.path / "usr/lib/mtce-guest").exists()
    assert not (machine.path / "usr/local/bin/guestServer").exists()


def test_remove_tells_pmond_first(machine: Machine, packages: Kind) -> None:
    machine.give_pmond()
    machine.give_command("update-rc.d")
    machine.install(*packages.old(*SERVER))
    _ = machine.calls
    machine.start("guestServer")
    machine.remove(*reversed(SERVER), kind=packages.kind)
    assert machine.calls == ["pmon-stop guestServer", "update-rc.d -f guestServer remove"]


def test_a_debian_with_system_v_init(machine: Machine, packages: Kind) -> None:
    """The helper that makes links for systemd is there, and makes none of init scripts."""
    machine.give_command("deb-systemd-helper")
    machine.give_command("update-rc.d")
    machine.install(*packages.old(*CLIENT))
    assert "update-rc.d guest-client defaults" in machine.calls


def test_the_client_package_stands_alone(machine: Machine, packages: Kind) -> None:
    machine.give_command("update-rc.d")
    machine.install(*packages.old(*CLIENT))
    assert machine.calls == ["update-rc.d guest-client defaults"]
    assert not (machine.path / "usr/lib/mtce-guest").exists()
    pid = machine.start("guest-client")
    machine.install(*packages.new(*CLIENT))
    assert machine.calls == ["start guest-client"]
    assert not is_alive(pid)
    pid = machine.pid("guest-client")
    machine.remove(*CLIENT, kind=packages.kind)
    assert not is_alive(pid)
    assert not (machine.path / "usr/lib/guest-client").exists()


OLD_SPEC = """
Name: cgts-mtce-common-guestServer
Version: 1.0
Release: 145
Summary: The C++ daemon
License: Apache-2.0
BuildArch: noarch
%description
It.
%install
mkdir -p %{buildroot}/usr/local/bin %{buildroot}/etc/init.d
echo old >%{buildroot}/usr/local/bin/guestServer
echo old >%{buildroot}/etc/init.d/guestServer
%preun
[ "$1" -gt 0 ] || systemctl disable guestServer.service
%files
/usr/local/bin/guestServer
/etc/init.d/guestServer
"""


def test_it_takes_the_place_of_the_old_daemons_package(
    machine: Machine, rpms: Mapping[str, Path], tmp_path: Path
) -> None:
    """The old name is provided; the old package goes, and what its script disabled is enabled."""
    spec = tmp_path / "old.spec"
    spec.write_text(OLD_SPEC)
    build = tmp_path / "rpmbuild"
    must(["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {build}", spec])
    machine.give_systemd()
    machine.install(*build.rglob("*.rpm"))
    machine.install(*(rpms[name] for name in SERVER))
    assert [line for line in machine.calls if "able" in line][-2:] == [
        "systemctl disable guestServer.service",
        "systemctl enable guestServer.service",
    ]
    assert (machine.path / "usr/local/bin/guestServer").read_text() != "old\n"
    query = ["rpm", "--root", machine.path, "-q", "--whatprovides", "cgts-mtce-common-guestServer"]
    assert must(query).startswith("mtce-guestServer-")
