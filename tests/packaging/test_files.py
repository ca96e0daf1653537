"""The files that are installed as they are: scripts, units, pmond's, logrotate's, the ini."""

from __future__ import annotations

import configparser
import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from guestmtce.core.shared.settings import AgentSettings, ServerSettings
from tests.packaging.support import SHELL_SCRIPTS, Host, call, must, need, write_script
from tests.peers.root import REPOSITORY

# operations.md, Configuration: what the shipped file sets.
SHIPPED = {
    "agent": {"rx_port": "2401", "vim_cmd_port": "2410", "hbs_failure_threshold": "1"},
    "client": {"rx_port": "2411", "hbs_failure_threshold": "1", "hbs_pulse_period": "400"},
    "timeouts": {"start_delay": "1"},
    "debug": {
        **{
            f"debug_{area}": "0"
            for area in (
                *("timer", "json", "fsm", "http", "alive"),
                *("msg", "state", "work", "level", "all"),
            )
        },
        "flush": "1",
        "flush_thld": "5",
    },
}

# operations.md, Services.
PMON = {
    "process": "guestServer",
    "service": "guestServer",
    "pidfile": "/var/run/guestServer.pid",
    "script": "/etc/init.d/guestServer",
    "style": "lsb",
    "severity": "major",
    "restarts": "3",
    "interval": "3",
    "debounce": "10",
    "startuptime": "5",
    "mode": "passive",
    "subfunction": "worker",
}


# operations.md, Packages.
LOGROTATE = {
    *("create 0640 root root", "start 1", "rotate 5", "size 10M"),
    *("compress", "delaycompress", "notifempty", "missingok"),
}


def read_ini(text: str) -> dict[str, dict[str, str]]:
    """Return an ini file as the daemons and pmond read it."""
    parser = configparser.RawConfigParser(
        comment_prefixes=(";", "#"), inline_comment_prefixes=(";",)
    )
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def uncommented(text: str) -> str:
    """Return the ini with its commented-out settings in force."""
    return re.sub(r"^;(\w+ =)", r"\1", text, flags=re.MULTILINE)


def unit(path: Path) -> dict[str, dict[str, str]]:
    """Return a unit file; its keys keep their case."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}


def test_every_script_is_known_here() -> None:
    found = set()
    # Not below what is made: other tests build whole machines there meanwhile.
    made = {".venv", ".git", "build", "dist", "tests"}
    tops = [path for path in REPOSITORY.iterdir() if path.name not in made]
    for path in [each for top in tops for each in (top, *top.rglob("*")) if each.is_file()]:
        if path.suffix == ".sh" or re.match(rb"#!/bin/(ba|da)?sh\b", path.read_bytes()[:20]):
            found.add(str(path.relative_to(REPOSITORY)))
    assert found == set(SHELL_SCRIPTS)


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    done = call([need("shellcheck", "shellcheck"), "-x", script], cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [name for name in SHELL_SCRIPTS if name != ".ci/run"])
def test_every_shell_can_read_it(script: str, shell: str) -> None:
    must([shell, "-n", REPOSITORY / script])


@pytest.mark.parametrize("daemon", ["guestServer", "guestAgent"])
def test_units_run_the_init_script_and_never_restart(installed: Path, daemon: str) -> None:
    """Type=forking, Restart=no: pmond recovers guestServer, SM guestAgent."""
    service = unit(installed / f"usr/lib/systemd/system/{daemon}.service")["Service"]
    assert service["Type"] == "forking"
    assert service["Restart"] == "no"
    assert service["PIDFile"] == f"/run/{daemon}.pid"
    assert service["ExecStart"] == f"/etc/init.d/{daemon} start"
    # systemd would run it after a kill -9 too, and stop what pmond or SM has just started.
    assert "ExecStop" not in service
    assert service["ExecReload"] == f"/etc/init.d/{daemon} reload"


def test_guest_server_is_up_before_pmond(installed: Path) -> None:
    section = unit(installed / "usr/lib/systemd/system/guestServer.service")["Unit"]
    assert section["Before"] == "pmon.service"


@pytest.mark.parametrize("name", ["guestServer", "guestAgent", "guest-client"])
def test_systemd_accepts_the_units(installed: Path, tmp_path: Path, name: str) -> None:
    tool = need("systemd-analyze", "systemd")
    root = tmp_path / "root"
    shutil.copytree(installed, root)
    units = root / "usr/lib/systemd/system"
    for target in ("sysinit", "basic", "shutdown", "multi-user", "network"):
        (units / f"{target}.target").write_text("[Unit]\nDescription=stand-in\n")
    command = [tool, "verify", "--man=no", f"--root={root}", f"{name}.service"]
    done = call(command)
    if "unrecognized option" in done.stderr or "only supported for" in done.stderr:
        pytest.skip("this systemd-analyze cannot verify under a root")
    assert (done.returncode, done.stderr) == (0, "")
    # And would have found something.
    (units / f"{name}.service").write_text("[Service]\nExecStart=/nonexistent\n")
    assert call(command).returncode != 0


def test_pmond_is_told_what_it_needs(installed: Path) -> None:
    assert read_ini((installed / "usr/share/starlingx/pmon.d/guestServer.conf").read_text()) == {
        "process": PMON
    }


def test_one_ini_under_both_names(installed: Path) -> None:
    texts = {
        (installed / f"etc/mtc/{name}.ini").read_text() for name in ("guestServer", "guestAgent")
    }
    assert texts == {(REPOSITORY / "etc/guest.ini").read_text()}


def test_the_ini_sets_what_the_specification_says() -> None:
    sections = read_ini((REPOSITORY / "etc/guest.ini").read_text())
    assert {name: keys for name, keys in sections.items() if keys} == SHIPPED


def test_the_ini_shows_every_setting_with_its_default() -> None:
    """Each row of the tables of settings is there, set or commented out, at its default."""
    sections = read_ini(uncommented((REPOSITORY / "etc/guest.ini").read_text()))
    shown = {(section, key) for section, keys in sections.items() for key in keys}
    rows = [*dataclasses.fields(ServerSettings), *dataclasses.fields(AgentSettings)]
    known = {row.metadata["at"] for row in rows}
    shipped = {(section, key) for section, keys in SHIPPED.items() for key in keys}
    assert shown == known | shipped
    for row in rows:
        section, key = row.metadata["at"]
        value = sections[section][key]
        if row.default not in (dataclasses.MISSING, None):
            assert row.metadata["convert"](value) == row.default


def test_the_ini_marks_what_a_reload_changes() -> None:
    """SIGHUP applies what can change while running; the comment above such a key says so."""
    marked = set()
    section = comment = ""
    for line in (REPOSITORY / "etc/guest.ini").read_text().splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            section = header[1]
        elif (key := re.match(r";?(\w+) =", line)) and "(reload)" in comment:
            marked.add((section, key[1]))
        comment = f"{comment} {line}" if line.startswith("; ") else ""
    rows = [*dataclasses.fields(ServerSettings), *dataclasses.fields(AgentSettings)]
    assert marked == {row.metadata["at"] for row in rows if row.metadata["live"]}


@pytest.mark.parametrize("daemon", ["guestServer", "guestAgent"])
@pytest.mark.parametrize("example", [False, True], ids=["as shipped", "every example in force"])
def test_the_ini_has_no_problem(host: Host, daemon: str, example: bool) -> None:
    text = (REPOSITORY / "etc/guest.ini").read_text()
    if example:
        # An empty value in the file stands for a name that only the reader knows.
        text = re.sub(r"^(\w+ =)$", r"\1 127.0.0.1", uncommented(text), flags=re.MULTILINE)
    (host.path / f"etc/mtc/{daemon}.ini").write_text(text)
    program = host.path / "usr/local/bin" / daemon
    done = call([program, "--root", host.path, "--check-config"], env=host.environment)
    assert done.returncode == 0, done.stderr
    assert "unknown" not in done.stdout + done.stderr
    assert "rx_port = 2401" in done.stdout


@pytest.mark.parametrize("daemon", ["guestServer", "guestAgent"])
def test_logs_rotate(installed: Path, tmp_path: Path, daemon: str) -> None:
    """The platform's keys, under the platform's names; postrotate reloads syslog-ng."""
    text = (installed / f"etc/logrotate.d/{daemon}.logrotate").read_text()
    keys = text.partition("{")[2].partition("#")[0].split("\n")
    assert {key.strip() for key in keys} - {""} == LOGROTATE
    tool = need("logrotate", "logrotate")
    log = tmp_path / f"{daemon}.log"
    config = tmp_path / "logrotate.conf"
    config.write_text(text.replace(f"/var/log/{daemon}.log", str(log)))
    config.chmod(0o644)
    tmp_path.chmod(0o755)
    calls = tmp_path / "calls"
    write_script(tmp_path / "systemctl", f'#!/bin/sh\necho "$*" >>{calls}\n')

    def rotate() -> list[str]:
        path = f"{tmp_path}:/usr/sbin:/usr/bin:/bin"
        done = call([tool, "-s", tmp_path / "state", config], env={"PATH": path})
        assert (done.returncode, done.stderr) == (0, "")
        return sorted(file.name for file in tmp_path.glob("*.log*"))

    assert rotate() == []
    log.write_bytes(b"x" * 1000)
    assert rotate() == [f"{daemon}.log"]
    for _ in range(7):
        log.write_bytes(b"x" * 11_000_000)
        kept = rotate()
    older = [f"{daemon}.log.{number}.gz" for number in range(2, 6)]
    assert kept == [f"{daemon}.log", f"{daemon}.log.1", *older]
    assert calls.read_text() == "reload syslog-ng\n" * 7
