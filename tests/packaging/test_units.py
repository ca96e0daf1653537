"""The units' restrictions: their score, and that the daemons live with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.real_root import RealRoot
from tests.packaging.support import call, must, need
from tests.packaging.test_files import unit

DAEMONS = ["guestServer", "guestAgent"]
UNITS = "usr/lib/systemd/system"


@pytest.fixture
def root(installed: Path, tmp_path: Path) -> Iterator[RealRoot]:
    """Give this machine's root with the installed files over it."""
    root = RealRoot(Path("/"), tmp_path / "real", installed)
    root.make_a_host()
    yield root
    root.close()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_score_is_good(installed: Path, tmp_path: Path, daemon: str) -> None:
    """`systemd-analyze security` says 2.5 at most."""
    assert exposure((installed / UNITS / f"{daemon}.service").read_text(), tmp_path) <= 2.5


def test_the_hardened_client_scores_well_too(installed: Path, tmp_path: Path) -> None:
    service = (installed / UNITS / "guest-client.service").read_text()
    drop_in = (installed / "usr/share/guest-client/hardened.conf").read_text()
    assert exposure(f"{service}\n{drop_in}", tmp_path) <= 2.5


def exposure(text: str, directory: Path) -> float:
    """Return the score of a unit of that text."""
    tool = need("systemd-analyze", "systemd")
    path = directory / "scored.service"
    path.write_text(text)
    done = call([tool, "security", "--offline=true", path])
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze knows no --offline")
    score = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    return float(score[1])


@pytest.mark.parametrize("daemon", DAEMONS)
def test_limits(installed: Path, daemon: str) -> None:
    service = unit(installed / UNITS / f"{daemon}.service")["Service"]
    assert service["LimitNOFILE"] == "65536"
    assert int(service["OOMScoreAdjust"]) < 0
    assert int(service["TasksMax"]) >= 8
    assert service["UMask"] == "0077"


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_metrics_file_can_be_written_where_the_ini_proposes(
    installed: Path, daemon: str
) -> None:
    ini = (installed / f"etc/mtc/{daemon}.ini").read_text()
    proposed = re.search(rf"^;metrics_file = (/\S*/{daemon}\.prom)$", ini, re.MULTILINE)
    assert proposed
    paths = unit(installed / UNITS / f"{daemon}.service")["Service"]["ReadWritePaths"].split()
    assert proposed[1].startswith(tuple(f"{path}/" for path in paths))


def test_restart_without_pmond_is_a_drop_in_that_the_unit_names(installed: Path) -> None:
    drop_in = "usr/lib/mtce-guest/restart.conf"
    assert unit(installed / drop_in)["Service"]["Restart"] == "on-failure"
    for daemon in DAEMONS:
        assert f"/{drop_in}" in (installed / UNITS / f"{daemon}.service").read_text()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_it_runs_under_what_of_its_unit_can_be_had_here(root: RealRoot, daemon: str) -> None:
    """Read-only but for ReadWritePaths, with the unit's capabilities and no_new_privs."""
    need("setpriv", "util-linux")
    service = unit(root.path / UNITS / f"{daemon}.service")["Service"]
    root.run("mount", "-o", "remount,ro", "/")
    for path in service["ReadWritePaths"].split():
        root.run("mount", "-t", "tmpfs", "tmpfs", path)
    root.write("/run/.goenabled", "")
    for path in ("var/log", "var/lib/libvirt/qemu"):
        if path.startswith(tuple(word[1:] for word in service["ReadWritePaths"].split())):
            (root.path / path).mkdir(parents=True, exist_ok=True)
    bounds = [
        name.removeprefix("CAP_").lower() for name in service["CapabilityBoundingSet"].split()
    ]
    limits = "-all," + ",".join(f"+{name}" for name in bounds)
    words = ["setpriv", "--no-new-privs", f"--bounding-set={limits}", f"--inh-caps={limits}"]
    root.run(*words, f"/etc/init.d/{daemon}", "start")
    assert '"pid"' in root.call("/usr/local/bin/guestctl", "--json", "status").stdout
    root.run(*words, f"/etc/init.d/{daemon}", "reload")
    root.run(*words, f"/etc/init.d/{daemon}", "stop")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_its_system_calls_are_among_those_that_its_unit_allows(root: RealRoot, daemon: str) -> None:
    """By strace's list of them, from start to stop, and what a reload and a status take."""
    need("strace", "strace")
    allowed = allowed_calls((root.path / UNITS / f"{daemon}.service").read_text())
    trace = ["strace", "--follow-forks", "--quiet=all", "--output=/run/trace"]
    root.run(*trace, "sh", "-c", f"/etc/init.d/{daemon} start && /etc/init.d/{daemon} stop")
    text = (root.path / "run/trace").read_text()
    used = set(re.findall(r"^\d+ +(\w+)\(", text, re.MULTILINE))
    assert {"socket", "bind", "epoll_wait"} <= used
    assert used - allowed == set()
    families = set(re.findall(r"\bsocket\((AF_\w+)", text))
    assert families <= {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}


def allowed_calls(text: str) -> set[str]:
    """Return the system calls that the unit's SystemCallFilter lines leave."""
    tool = need("systemd-analyze", "systemd")
    found: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(\S+)$", text, re.MULTILINE):
        names = set(_expand(tool, line.lstrip("~")))
        found = found - names if line.startswith("~") else found | names
    return found


def _expand(tool: str, name: str) -> Iterator[str]:
    if not name.startswith("@"):
        yield name
        return
    for line in must([tool, "syscall-filter", name]).splitlines():
        word = line.strip()
        if line.startswith("    ") and not word.startswith("#"):
            yield from _expand(tool, word)
