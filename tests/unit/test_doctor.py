"""guestctl doctor: each thing that has to be right, seen right and seen wrong."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from guestmtce.ctl import app, doctor
from guestmtce.ctl.patient import Finding, Level, Patient
from guestmtce.ctl.table import Style
from guestmtce.runtime import control

NOW = 1_700_000_000.0
REPOSITORY = Path(__file__).parents[2]
SERVER = {"version": "1.1.0", "pid": 12, "problems": [], "summary": {"instances": 10}}
AGENT = {"version": "1.1.0", "pid": 13, "problems": [], "summary": {}}


class Machine:
    """A host whose files are below a temporary root, right in everything to begin with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers = {"guestServer": dict(SERVER), "guestAgent": dict(AGENT)}
        self.states: dict[str, str] = {}
        for daemon in ("guestServer", "guestAgent"):
            self.put(f"/etc/mtc/{daemon}.ini", (REPOSITORY / "etc/guest.ini").read_text("utf-8"))
        self.put("/etc/hosts", "192.168.204.2 controller\n")
        self.put("/var/lib/libvirt/qemu/cgcs.heartbeat.x.sock", "")
        self.put("/proc/sys/fs/inotify/max_user_watches", "65536\n")
        self.put("/proc/sys/fs/inotify/max_user_instances", "128\n")
        self.put("/proc/12/limits", "Max open files            524288    524288    files\n")
        self.put(doctor.CLOCK_SOURCE, "tsc\n")
        self.put("/etc/pmon.d/guestServer.conf", "")
        self.put("/etc/nfv/vim/config.ini", "[nfvi]\nguest_plugin_disabled=False\n")
        self.put("/proc/net/tcp", "head\n 0: 0100007F:7532 00000000:0000 0A 0 0\n")
        self.sql("CREATE TABLE SERVICES (NAME TEXT)", "INSERT INTO SERVICES VALUES ('guest-agent')")
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.bind(str(self.path("/dev/log")))

    def path(self, path: str) -> Path:
        full = self.root / path.lstrip("/")
        full.parent.mkdir(parents=True, exist_ok=True)
        return full

    def put(self, path: str, text: str) -> None:
        self.path(path).write_text(text, "utf-8")

    def remove(self, path: str) -> None:
        full = self.path(path)
        shutil.rmtree(full) if full.is_dir() else full.unlink()

    def sql(self, *statements: str) -> None:
        database = sqlite3.connect(self.path(doctor.SM_DATABASE))
        with contextlib.closing(database), database:
            for statement in statements:
                database.execute(statement)

    def silence_syslog(self) -> None:
        self._log.close()

    def close(self) -> None:
        self._log.close()

    def findings(self) -> list[Finding]:
        return doctor.examine(Patient(str(self.root), self.answers, self.states, NOW))

    def wrong(self) -> list[tuple[Level, str]]:
        found = [finding for finding in self.findings() if finding.level is not Level.OK]
        assert all(finding.remedy for finding in found), "what is wrong has a remedy"
        return [(finding.level, finding.subject) for finding in found]


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.close()


def test_a_machine_that_is_right(machine):
    assert machine.wrong() == []
    subjects = {finding.subject for finding in machine.findings()}
    assert subjects == {
        "guestServer", "guestAgent", "configuration", "names", "channels", "inotify",
        "descriptors", "log", "clock", "pmond", "SM", "VIM",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "text", "level", "subject"),
    [
        ("/etc/mtc/guestServer.ini", "[client]\n", Level.CRITICAL, "configuration"),
        ("/etc/hosts", "127.0.0.1 localhost\n", Level.CRITICAL, "names"),
        ("/proc/sys/fs/inotify/max_user_watches", "8\n", Level.WARNING, "inotify"),
        ("/proc/sys/fs/inotify/max_user_instances", "0\n", Level.WARNING, "inotify"),
        ("/proc/12/limits", "Max open files  32  32  files\n", Level.CRITICAL, "descriptors"),
        (doctor.CLOCK_SOURCE, "hpet\n", Level.WARNING, "clock"),
        ("/etc/nfv/vim/config.ini", "[nfvi]\n", Level.CRITICAL, "VIM"),
        ("/etc/nfv/vim/config.ini", "no ini\n", Level.WARNING, "VIM"),
        ("/proc/net/tcp", "head\n 0: 0100007F:7532 0:0 01 0 0\n", Level.CRITICAL, "VIM"),
        (doctor.SM_DATABASE, "no database, but long enough to be one", Level.WARNING, "SM"),
    ],
)
def test_each_fault_is_seen(machine, path, text, level, subject):
    machine.put(path, text)
    assert (level, subject) in machine.wrong()


@pytest.mark.parametrize(
    ("path", "level", "subject"),
    [
        ("/var/lib/libvirt/qemu", Level.CRITICAL, "channels"),
        ("/etc/pmon.d/guestServer.conf", Level.WARNING, "pmond"),
        ("/dev/log", Level.WARNING, "log"),
        ("/etc/mtc/guestAgent.ini", Level.CRITICAL, "configuration"),
    ],
)
def test_what_is_missing_is_seen(machine, path, level, subject):
    machine.remove(path)
    assert (level, subject) in machine.wrong()


def test_a_syslog_that_died(machine):
    """/dev/log is still there, and nobody listens."""
    machine.silence_syslog()
    assert machine.wrong() == [(Level.WARNING, "log")]


def test_a_database_without_our_row(machine):
    machine.sql("DELETE FROM SERVICES")
    assert machine.wrong() == [(Level.CRITICAL, "SM")]


def test_what_belongs_to_other_hosts_is_not_missed(machine):
    """A worker has no VIM, no SM database; a host without pmond is none of its hosts."""
    for path in ("/etc/nfv/vim/config.ini", doctor.SM_DATABASE, "/etc/pmon.d"):
        machine.remove(path)
    machine.remove("/etc/mtc/guestAgent.ini")
    del machine.answers["guestAgent"]
    assert machine.wrong() == []


def test_daemons_that_do_not_run(machine):
    machine.answers = {}
    assert machine.wrong() == [(Level.CRITICAL, "guestServer")]  # a standby agent is right
    for state, words in (("down", "ended"), ("silent", "does not answer")):
        machine.states = {"guestAgent": state}
        assert (Level.CRITICAL, "guestAgent") in machine.wrong()
        assert [each for each in machine.findings() if words in each.text]


def test_a_daemons_own_problems_are_told(machine):
    machine.answers["guestServer"]["problems"] = ["no watch\x1b[2J"]
    (line,) = [line for line in report(machine) if line.startswith("warn")]
    assert line == "warn  guestServer: no watch\\x1b[2J"


def report(machine) -> list[str]:
    return doctor.report(machine.findings(), Style(colour=False))


@pytest.mark.parametrize(
    ("heard", "level"),
    [(NOW - 5, Level.OK), (NOW - 61, Level.CRITICAL), (None, Level.WARNING)],
)
def test_workers_last_word(machine, heard, level):
    host = {"hostname": "compute-0", "instances": 3, "last_heard": heard}
    spare = {"hostname": "compute-1", "instances": 0, "last_heard": None}
    machine.answers["guestAgent"]["hosts"] = [host, spare]
    found = [finding for finding in machine.findings() if finding.subject.startswith("worker")]
    assert [(finding.level, finding.subject) for finding in found] == [
        (level, "worker compute-0"),
        (Level.OK, "worker compute-1"),
    ]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"acknowledges": True, "version": "1.1.0"}, "version 1.1.0, it acknowledges"),
        ({"acknowledges": True, "version": ""}, "it acknowledges"),
        ({"acknowledges": False, "version": ""}, "an old version: it acknowledges nothing"),
        ({"acknowledges": None}, "its version is not known yet"),
    ],
)
def test_what_a_peer_is(machine, known, words):
    """On both sides, in the same words."""
    host = {"hostname": "compute-0", "instances": 3, "last_heard": NOW - 5, **known}
    machine.answers["guestAgent"]["hosts"] = [host]
    machine.answers["guestServer"] |= {
        "uptime_secs": 90,
        "summary": {
            "agent": "192.168.204.2",
            "agent_has_spoken": True,
            "agent_silent_secs": 7,
            **{f"agent_{key}": value for key, value in known.items()},
        },
    }
    assert f"ok    worker compute-0: last heard 5 s ago, {words}" in report(machine)
    assert f"ok    guestAgent at 192.168.204.2: last heard 7 s ago, {words}" in report(machine)


@pytest.mark.parametrize(("secs", "level"), [(59, None), (60, Level.WARNING)])
def test_an_agent_that_knows_no_host(machine, secs, level):
    """It would say `healthy`, and look after nobody; mtcAgent has a minute to name them."""
    machine.answers["guestAgent"] |= {"hosts": [], "uptime_secs": secs}
    assert machine.wrong() == ([(level, "workers")] if level else [])


def test_whom_a_worker_believes(machine):
    """To hold against the address of a stranger in the log; a name may have no address."""
    machine.put("/etc/hosts", "192.168.204.2 controller\n192.168.204.3 controller-0\n")
    line = "guestServer believes controller 192.168.204.2, controller-0 192.168.204.3, "
    assert f"ok    names: {line}controller-1 -" in report(machine)


def test_the_remedies_name_files_that_are_installed(machine):
    """`make install` puts them there, whatever becomes of /usr/share/doc."""
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    for path in (doctor.SM_ROWS, doctor.PMON_FILE):
        assert path in makefile
    machine.sql("DELETE FROM SERVICES")
    (missing,) = [each for each in machine.findings() if each.subject == "SM"]
    assert doctor.SM_ROWS in missing.remedy


def test_a_worker_that_answers_no_audit(machine):
    host = {"hostname": "compute-0", "instances": 3, "last_heard": NOW - 40, "silent": True}
    machine.answers["guestAgent"]["hosts"] = [host]
    assert (Level.CRITICAL, "worker compute-0") in machine.wrong()


@pytest.mark.parametrize(
    ("secs", "instances", "level"),
    [(60, 3, Level.OK), (301, 3, Level.WARNING), (301, 0, Level.OK)],
)
def test_an_agent_that_was_never_heard(machine, secs, instances, level):
    """For a while after the start that says nothing; nor without instances to speak of."""
    machine.answers["guestServer"] |= {
        "uptime_secs": secs,
        "summary": {
            "agent": "A",
            "agent_has_spoken": False,
            "agent_silent_secs": secs,
            "instances": instances,
        },
    }
    (found,) = [each for each in machine.findings() if each.subject == "guestAgent at A"]
    assert found.level is level
    assert "has not been heard" in found.text
    assert bool(found.remedy) is (level is not Level.OK)


def test_a_bare_machine_is_told_what_to_install(tmp_path):
    (finding,) = doctor.examine(Patient(str(tmp_path), {}, {}, NOW))
    assert finding.level is Level.CRITICAL
    assert "mtce-guest-server" in finding.remedy


def test_the_command_and_its_exit_status(machine, monkeypatch, capsys):
    """0, 1, 2 as Nagios has them."""

    def ask(path, request):
        daemon = Path(path).stem
        if request["command"] == "hosts":
            return {"hosts": []} if daemon == "guestAgent" else {"error": "unknown command"}
        return machine.answers[daemon]

    monkeypatch.setattr(control, "ask", ask)
    root = str(machine.root)
    assert app.main(["--root", root, "doctor"]) == 0
    assert "ok    names: controller is 192.168.204.2\n" in capsys.readouterr().out
    machine.put(doctor.CLOCK_SOURCE, "hpet\n")
    assert app.main(["--root", root, "doctor"]) == 1
    machine.put("/etc/hosts", "")
    assert app.main(["--root", root, "doctor", "--json"]) == 2
    capsys.readouterr()
    app.main(["--root", root, "doctor", "--json"])
    levels = {finding["level"] for finding in json.loads(capsys.readouterr().out)}
    assert levels == {"ok", "warning", "critical"}
