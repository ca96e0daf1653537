"""The packages (operations.md, Packages): what is in them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from guestmtce import __version__
from tests.packaging.support import call, deb_name, make, must, need
from tests.peers.root import REPOSITORY

NAMES = ["mtce-guest-common", "mtce-guestServer", "mtce-guestAgent", "mtce-guestClient"]
PYTHON_FILES = {
    f"/usr/lib/mtce-guest/{path.relative_to(REPOSITORY)}": "0644"
    for path in (REPOSITORY / "guestmtce").rglob("*.py")
}
SAMPLES = list((REPOSITORY / "guest/samples").glob("*.sh"))
UNITS = "/usr/lib/systemd/system"
MANUAL = "/usr/share/man/man"
# operations.md, Packages: daemons, init scripts and ini files are root's alone.
FILES = {
    "mtce-guest-common": {
        **PYTHON_FILES,
        "/usr/lib/mtce-guest/VERSION": "0644",
        "/usr/lib/mtce-guest/functions.sh": "0644",
        "/usr/lib/mtce-guest/maintain": "0755",
        "/usr/lib/mtce-guest/restart.conf": "0644",
        "/usr/local/bin/guestctl": "0755",
        "/usr/share/bash-completion/completions/guestctl": "0644",
        "/usr/share/mtce-guest/guestmtce.rules.yml": "0644",
        f"{MANUAL}1/guestctl.1": "0644",
        f"{MANUAL}5/guest.ini.5": "0644",
    },
    "mtce-guestServer": {
        "/usr/local/bin/guestServer": "0700",
        "/etc/init.d/guestServer": "0700",
        "/etc/mtc/guestServer.ini": "0600",
        "/etc/logrotate.d/guestServer.logrotate": "0644",
        "/usr/share/starlingx/pmon.d/guestServer.conf": "0644",
        f"{UNITS}/guestServer.service": "0644",
        f"{MANUAL}8/guestServer.8": "0644",
    },
    "mtce-guestAgent": {
        "/usr/local/bin/guestAgent": "0700",
        "/etc/init.d/guestAgent": "0700",
        "/etc/mtc/guestAgent.ini": "0600",
        "/etc/logrotate.d/guestAgent.logrotate": "0644",
        "/usr/lib/ocf/resource.d/platform/guestAgent": "0755",
        "/usr/share/mtce-guest/guest-agent.sql": "0644",
        f"{UNITS}/guestAgent.service": "0644",
        f"{MANUAL}8/guestAgent.8": "0644",
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
        f"{MANUAL}8/guest-client.8": "0644",
    },
}
CONFIGURATION = {
    "mtce-guest-common": set(),
    "mtce-guestServer": {"/etc/mtc/guestServer.ini", "/etc/logrotate.d/guestServer.logrotate"},
    "mtce-guestAgent": {"/etc/mtc/guestAgent.ini", "/etc/logrotate.d/guestAgent.logrotate"},
    "mtce-guestClient": {
        "/etc/guest-client/guest-client.conf",
        "/etc/logrotate.d/guest-client",
    },
}


def in_deb(path: str) -> str:
    """Return where a Debian package has the file: units on the platform's path, manuals packed."""
    if path.startswith(MANUAL):
        return f"{path}.gz"
    return path.replace("/usr/lib/systemd", "/lib/systemd")


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


def test_make_install_lays_the_same_files(laid: Path) -> None:
    found = {
        f"/{path.relative_to(laid)}": f"{path.stat().st_mode & 0o7777:04o}"
        for path in laid.rglob("*")
        if path.is_file()
    }
    assert found == {path: mode for files in FILES.values() for path, mode in files.items()}
    assert (laid / "etc/mtc/tmp").is_dir()
    directories = [path for path in laid.rglob("*") if path.is_dir()]
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


def test_documentation_is_for_reading(rpms: Mapping[str, Path], debs: Mapping[str, Path]) -> None:
    """docs/ of the sources also has the programs that make the manual pages."""
    packed = rpm_query(rpms["mtce-guest-common"], "[%{FILENAMES}\n]")
    members = [
        f"/{each.name.removeprefix('./')}" for each in deb_members(debs["mtce-guest-common"])
    ]
    for paths in (packed, members):
        documents = [path for path in paths if is_documentation(path)]
        assert [path for path in documents if "/docs/troubleshooting.md" in path]
        assert not [path for path in documents if ".py" in path]


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
    """The same layout, with units in /lib/systemd/system as the platform's packages had them."""
    members = deb_members(debs[deb_name(name)])
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    files = {
        member.name[1:]: f"{member.mode & 0o7777:04o}"
        for member in members
        if member.isfile() and not is_documentation(member.name[1:])
    }
    assert files == {in_deb(path): mode for path, mode in FILES[name].items()}


@pytest.mark.parametrize("name", NAMES[1:])
def test_deb_configuration_is_not_replaced(debs: Mapping[str, Path], name: str) -> None:
    """As Debian has it, every file in /etc is the administrator's."""
    kept = must(["dpkg-deb", "--info", debs[deb_name(name)], "conffiles"]).split()
    assert set(kept) >= CONFIGURATION[name]
    assert sorted(kept) == sorted(path for path in FILES[name] if path.startswith("/etc/"))


def test_debs_are_what_the_old_ones_were(debs: Mapping[str, Path]) -> None:
    assert sorted(debs) == sorted(deb_name(name) for name in NAMES)
    for name, package in debs.items():
        fields = must(["dpkg-deb", "--field", package])
        assert f"Version: {__version__}-1\n" in fields
        assert "Architecture: all\n" in fields
        if name in {"mtce-guest-server", "mtce-guest-agent"}:
            assert f"mtce-guest-common (= {__version__}-1)" in fields
        assert ("mtce-guest-common" in fields) == (name != "mtce-guest-client")


def test_debs_sort_above_those_of_the_platform() -> None:
    tool = need("dpkg", "dpkg")
    for old in ("1.0-1", "1.0-1.stx.9", "1.0-1.stx.123"):
        must([tool, "--compare-versions", f"{__version__}-1", "gt", old])
        must([tool, "--compare-versions", f"{__version__}-1.stx.1", "gt", old])


def test_one_version_everywhere() -> None:
    """Two files of the platform's build cannot read VERSION."""
    version = (REPOSITORY / "VERSION").read_text().strip()
    meta_data = (REPOSITORY / "debian/meta_data.yaml").read_text()
    assert f"\ndebver: {version}-1\n" in meta_data
    changelog = (REPOSITORY / "debian/deb_folder/changelog").read_text()
    assert changelog.startswith(f"mtce-guest ({version}-1) ")
    assert f"\n## {version}\n" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_platforms_build_finds_what_it_looks_for() -> None:
    """It lays deb_folder over debian/ of src_path; ours link there, for a plain build."""
    debian = REPOSITORY / "debian"
    assert (debian / "deb_folder/source/format").read_text() == "3.0 (quilt)\n"
    for name in ("changelog", "control", "copyright", "rules", "source"):
        assert (debian / name).resolve() == debian / "deb_folder" / name
    text = (debian / "meta_data.yaml").read_text()
    values = dict(re.findall(r"^ *(\w+): (.+)$", text, re.MULTILINE))
    assert values["debname"] == "mtce-guest"
    assert (REPOSITORY / values["src_path"]).resolve() == REPOSITORY
    assert values["dist"] == "$STX_DIST"


def test_packages_hold_sources_only(
    rpms: Mapping[str, Path], debs: Mapping[str, Path], laid: Path
) -> None:
    for package in rpms.values():
        assert not [
            name for name in rpm_query(package, "[%{FILENAMES}\n]") if "__pycache__" in name
        ]
    for package in debs.values():
        assert not [member for member in deb_members(package) if ".pyc" in member.name]
    assert not list(laid.rglob("*.pyc"))


def test_a_release_is_the_same_to_the_byte_when_made_again(
    rpms: Mapping[str, Path], debs: Mapping[str, Path], sources: Path, tmp_path: Path
) -> None:
    """`make dist`; its checksums and its bill of materials fit what lies beside them."""
    shutil.copytree(sources, tmp_path / "copy", symlinks=True)
    make(tmp_path / "copy", "dist")
    files = {path.name: path.read_bytes() for path in (tmp_path / "copy/dist").iterdir()}
    first = {path.name: path.read_bytes() for path in (*rpms.values(), *debs.values())}
    archive = f"mtce-guest-{__version__}.tar.gz"
    make(sources, "source", f"BUILD={tmp_path}/again")
    first[archive] = (tmp_path / "again" / archive).read_bytes()
    assert {name: files[name] for name in first} == first
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    lines = files["SHA256SUMS"].decode().splitlines()
    assert {tuple(line.split("  ")) for line in lines} == {
        (sums[name], name) for name in files if name != "SHA256SUMS"
    }
    bill = json.loads(files[f"mtce-guest-{__version__}.spdx.json"])
    assert bill["spdxVersion"] == "SPDX-2.3"
    assert {
        package["packageFileName"]: package["checksums"][0]["checksumValue"]
        for package in bill["packages"]
        if "packageFileName" in package
    } == {name: sums[name] for name in first}


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("usr/local/bin/guestServer", "guestServer"),
        ("usr/local/bin/guestAgent", "guestAgent"),
        ("usr/local/bin/guestctl", "guestctl"),
        ("usr/sbin/guest-client", "guest-client"),
    ],
)
def test_programs_say_version_and_commit(installed: Path, program: str, name: str) -> None:
    said = must([installed / program, "--version"])
    assert re.fullmatch(rf"{name} {re.escape(__version__)} \(\w+\)\n", said)


def test_a_source_archive_carries_its_commit(sources: Path, tmp_path: Path) -> None:
    """To what runs from it and to what is installed from it, without git."""
    shutil.copytree(sources, tmp_path / "first", symlinks=True)
    (tmp_path / "first/COMMIT").write_text(f"{'0123456789abcdef' * 2}01234567 1700000000\n")
    make(tmp_path / "first", "source")
    (archive,) = (tmp_path / "first/build").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path)
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    make(unpacked, "install", f"DESTDIR={tmp_path}/installed")
    for program in (unpacked / "bin/guestctl", tmp_path / "installed/usr/local/bin/guestctl"):
        assert must([program, "--version"]) == f"guestctl {__version__} (0123456789ab)\n"


def test_rpmlint_finds_nothing_new(rpms: Mapping[str, Path]) -> None:
    """Its findings were reviewed; those that stay are in rpmlintrc with their reasons."""
    known = REPOSITORY / "rpm/mtce-guest.rpmlintrc"
    done = call([need("rpmlint", "rpmlint"), "--rpmlintrc", known, *rpms.values()])
    assert "0 errors, 0 warnings" in done.stdout, done.stdout + done.stderr


def test_lintian_finds_nothing_new(debs: Mapping[str, Path]) -> None:
    """The same; the packages carry what was reviewed as lintian-overrides."""
    done = call([need("lintian", "lintian"), "--fail-on", "error,warning", *debs.values()])
    assert done.returncode == 0, done.stdout + done.stderr
