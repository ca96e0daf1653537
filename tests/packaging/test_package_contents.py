"""The packages (operations.md, Packages): what is in them."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from guestmtce import __version__
from tests.packaging.support import call, make, must, need
from tests.peers.root import REPOSITORY

NAMES = ["mtce-guest-common", "mtce-guestServer", "mtce-guestAgent", "mtce-guestClient"]
PYTHON_FILES = {
    f"/usr/lib/mtce-guest/{path.relative_to(REPOSITORY)}": "0644"
    for path in (REPOSITORY / "guestmtce").rglob("*.py")
}
SAMPLES = list((REPOSITORY / "guest/samples").glob("*.sh"))
UNITS = "/usr/lib/systemd/system"
# "Modes: binaries and init scripts 0755, ini 0644."
FILES = {
    "mtce-guest-common": {
        **PYTHON_FILES,
        "/usr/lib/mtce-guest/functions.sh": "0644",
        "/usr/lib/mtce-guest/maintain": "0755",
        "/usr/local/bin/guestctl": "0755",
    },
    "mtce-guestServer": {
        "/usr/local/bin/guestServer": "0755",
        "/etc/init.d/guestServer": "0755",
        "/etc/mtc/guestServer.ini": "0644",
        "/etc/logrotate.d/guestServer": "0644",
        "/etc/pmon.d/guestServer.conf": "0644",
        f"{UNITS}/guestServer.service": "0644",
    },
    "mtce-guestAgent": {
        "/usr/local/bin/guestAgent": "0755",
        "/etc/init.d/guestAgent": "0755",
        "/etc/mtc/guestAgent.ini": "0644",
        "/etc/logrotate.d/guestAgent": "0644",
        "/usr/lib/ocf/resource.d/platform/guestAgent": "0755",
        f"{UNITS}/guestAgent.service": "0644",
    },
    "mtce-guestClient": {
        "/usr/sbin/guest-client": "0755",
        "/usr/lib/guest-client/functions.sh": "0644",
        "/usr/lib/guest-client/maintain": "0755",
        "/etc/init.d/guest-client": "0755",
        "/etc/guest-client/guest-client.conf": "0644",
        "/etc/logrotate.d/guest-client": "0644",
        "/usr/share/guest-client/hardened.conf": "0644",
        "/usr/share/guest-client/guest-client.openrc": "0755",
        **{f"/usr/share/guest-client/{path.name}": "0755" for path in SAMPLES},
        f"{UNITS}/guest-client.service": "0644",
    },
}
CONFIGURATION = {
    "mtce-guest-common": set(),
    "mtce-guestServer": {"/etc/mtc/guestServer.ini", "/etc/logrotate.d/guestServer"},
    "mtce-guestAgent": {"/etc/mtc/guestAgent.ini", "/etc/logrotate.d/guestAgent"},
    "mtce-guestClient": {
        "/etc/guest-client/guest-client.conf",
        "/etc/logrotate.d/guest-client",
    },
}


def rpm_query(package: Path, format_: str) -> list[str]:
    """Return the lines of `rpm --query --queryformat`."""
    return must([need("rpm", "rpm"), "-qp", "--queryformat", format_, package]).splitlines()


def deb_members(package: Path) -> list[tarfile.TarInfo]:
    """Return the files of a Debian package."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getmembers()


def is_documentation(path: str) -> bool:
    return path.startswith(("/usr/share/doc/", "/usr/share/licenses/", "/usr/share/lintian/"))


def test_make_install_lays_the_same_files(installed: Path) -> None:
    laid = {
        f"/{path.relative_to(installed)}": f"{path.stat().st_mode & 0o7777:04o}"
        for path in installed.rglob("*")
        if path.is_file()
    }
    assert laid == {path: mode for files in FILES.values() for path, mode in files.items()}
    assert (installed / "etc/mtc/tmp").is_dir()
    directories = [path for path in installed.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o755}


def test_make_install_takes_no_notice_of_the_umask(sources: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    must(["sh", "-c", f"umask 077; make -C {sources} -s install DESTDIR={tree}"])
    assert (tree / "usr/lib/mtce-guest").stat().st_mode & 0o777 == 0o755
    assert (tree / "etc/mtc/tmp").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", NAMES)
def test_rpm_files(rpms: Mapping[str, Path], name: str) -> None:
    lines = rpm_query(
        rpms[name], "[%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]"
    )
    rows = [line.split(" ", 2) for line in lines]
    assert {owner for _mode, owner, _path in rows} == {"root:root"}
    files = {
        path: f"{int(mode, 8) & 0o7777:04o}"
        for mode, _owner, path in rows
        if int(mode, 8) & 0o100000 and not is_documentation(path)
    }
    assert files == FILES[name]
    directories = {path for mode, _owner, path in rows if not int(mode, 8) & 0o100000}
    assert name != "mtce-guest-common" or "/etc/mtc/tmp" in directories


@pytest.mark.parametrize("name", NAMES)
def test_rpm_configuration_is_not_replaced(rpms: Mapping[str, Path], name: str) -> None:
    """`/etc/mtc/guestServer.ini` (config(noreplace))."""
    flags = rpm_query(rpms[name], "[%{FILEFLAGS:fflags} %{FILENAMES}\n]")
    kept = {line.split(" ", 1)[1] for line in flags if line.startswith("cn ")}
    assert kept == CONFIGURATION[name]


def test_rpms_are_what_the_old_ones_were(rpms: Mapping[str, Path]) -> None:
    """Noarch; they provide the old names and need the common package of the same version."""
    assert sorted(rpms) == sorted(NAMES)
    for name, package in rpms.items():
        assert rpm_query(package, "%{VERSION} %{ARCH} %{LICENSE}\n") == [
            f"{__version__} noarch Apache-2.0"
        ]
        provides = rpm_query(package, "[%{PROVIDES}\n]")
        requires = rpm_query(package, "[%{REQUIRES} %{REQUIREVERSION}\n]")
        if name in {"mtce-guestServer", "mtce-guestAgent"}:
            old = f"cgts-mtce-common-{name.removeprefix('mtce-')}"
            assert old in provides
            assert old in rpm_query(package, "[%{OBSOLETES}\n]")
            assert f"mtce-guest-common {__version__}-1" in requires
    assert "python3 3.9" in rpm_query(
        rpms["mtce-guest-common"], "[%{REQUIRES} %{REQUIREVERSION}\n]"
    )
    client = rpm_query(rpms["mtce-guestClient"], "[%{REQUIRES}\n]")
    assert not [word for word in client if word.startswith("mtce-")]


@pytest.mark.parametrize("name", NAMES)
def test_deb_files(debs: Mapping[str, Path], name: str) -> None:
    """The same layout; `/usr/share/starlingx/pmon.d/guestServer.conf` there."""
    members = deb_members(debs[name.lower()])
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    files = {
        member.name[1:]: f"{member.mode & 0o7777:04o}"
        for member in members
        if member.isfile() and not is_documentation(member.name[1:])
    }
    expected = dict(FILES[name])
    if "/etc/pmon.d/guestServer.conf" in expected:
        mode = expected.pop("/etc/pmon.d/guestServer.conf")
        expected["/usr/share/starlingx/pmon.d/guestServer.conf"] = mode
    assert files == expected


@pytest.mark.parametrize("name", NAMES[1:])
def test_deb_configuration_is_not_replaced(debs: Mapping[str, Path], name: str) -> None:
    """As Debian has it, every file in /etc is the administrator's."""
    kept = must(["dpkg-deb", "--info", debs[name.lower()], "conffiles"]).split()
    assert set(kept) >= CONFIGURATION[name]
    assert kept == sorted(
        path for path in FILES[name] if path.startswith("/etc/") and "pmon.d" not in path
    )


def test_debs_are_what_the_old_ones_were(debs: Mapping[str, Path]) -> None:
    assert sorted(debs) == sorted(name.lower() for name in NAMES)
    for name, package in debs.items():
        fields = must(["dpkg-deb", "--field", package])
        assert f"Version: {__version__}-1\n" in fields
        assert "Architecture: all\n" in fields
        if name in {"mtce-guestserver", "mtce-guestagent"}:
            old = f"cgts-mtce-common-{name.removeprefix('mtce-')}"
            assert f"Provides: {old} (= {__version__}-1)\n" in fields
            assert f"mtce-guest-common (= {__version__}-1)" in fields
        assert ("mtce-guest-common" in fields) == (name != "mtce-guestclient")


def test_packages_hold_sources_only(
    rpms: Mapping[str, Path], debs: Mapping[str, Path], installed: Path
) -> None:
    for package in rpms.values():
        assert not [
            name for name in rpm_query(package, "[%{FILENAMES}\n]") if "__pycache__" in name
        ]
    for package in debs.values():
        assert not [member for member in deb_members(package) if ".pyc" in member.name]
    assert not list(installed.rglob("*.pyc"))


@pytest.mark.parametrize("kind", ["rpm", "deb"])
def test_equal_sources_make_equal_packages(
    request: pytest.FixtureRequest, sources: Path, tmp_path: Path, kind: str
) -> None:
    first = request.getfixturevalue(f"{kind}s")
    make(sources, kind, f"BUILD={tmp_path}")
    second = {path.name: path.read_bytes() for path in (tmp_path / kind).iterdir()}
    assert {path.name: path.read_bytes() for path in first.values()} == second


def test_the_client_has_the_same_version() -> None:
    text = (REPOSITORY / "guest/guest_client.py").read_text()
    assert re.findall(r'^VERSION = "(.*)"$', text, re.MULTILINE) == [__version__]


def test_rpmlint_finds_nothing_new(rpms: Mapping[str, Path]) -> None:
    """Its findings were reviewed; those that stay are in rpmlintrc with their reasons."""
    known = REPOSITORY / "rpm/mtce-guest.rpmlintrc"
    done = call([need("rpmlint", "rpmlint"), "--rpmlintrc", known, *rpms.values()])
    assert "0 errors, 0 warnings" in done.stdout, done.stdout + done.stderr


def test_lintian_finds_nothing_new(debs: Mapping[str, Path]) -> None:
    """The same; the packages carry what was reviewed as lintian-overrides."""
    done = call([need("lintian", "lintian"), "--fail-on", "error,warning", *debs.values()])
    assert done.returncode == 0, done.stdout + done.stderr
