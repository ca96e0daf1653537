"""Becoming, being and ceasing to be a daemon: real processes under a root (operations.md)."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guestmtce import __version__
from guestmtce.runtime import control

EXAMPLE = str(Path(__file__).with_name("example_daemon.py"))
NAME = "guestExample"
# Generous: the machine is shared. The daemon itself needs a tenth of a second.
PATIENCE = 20.0
EFFECTIVE = "[a]\nword = fine\nfixed = 0\n[host]\nname = host-1\n[debug]\nlevel = 0\n"


def wait_for(condition, what="the condition"):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come about")


class Place:
    """A root directory with daemons in it, all of which end with the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pids = set()
        self.set("")

    def path(self, suffix: str) -> Path:
        return self.root / "var/run" / f"{NAME}.{suffix}"

    def set(self, word: str, more: str = "") -> None:
        """Write the configuration: how to behave, and further lines."""
        (self.root / "example.ini").write_text(f"[a]\nword = {word}\n{more}")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, EXAMPLE, NAME, "--root", str(self.root), *arguments]

    def start(self, *arguments: str, **how) -> subprocess.CompletedProcess:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **how,
        )
        if done.returncode == 0 and self.path("pid").exists():
            self.pids.add(self.pid)
        return done

    def foreground(self, *arguments: str) -> subprocess.Popen:
        """Start with `-f` and wait until it runs; its stderr is a pipe."""
        daemon = subprocess.Popen(self.command("-f", *arguments), stderr=subprocess.PIPE, text=True)
        self.pids.add(daemon.pid)
        wait_for(self.path("info").exists, "the start")
        return daemon

    @property
    def pid(self) -> int:
        return int(self.path("pid").read_text())

    def running(self, pid: int) -> bool:
        try:
            return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def stop(self) -> float:
        """Send SIGTERM; return how many seconds it took to be gone."""
        pid = self.pid
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.running(pid), "the end")
        return time.monotonic() - began

    def log(self) -> str:
        path = self.root / "var/log" / f"{NAME}.log"
        return path.read_text() if path.exists() else ""

    def ask(self, **request) -> dict:
        return control.ask(str(self.path("ctl")), request)

    def close(self) -> None:
        for pid in self.pids:
            if self.running(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()


# Starting


def test_the_parent_exits_0_when_the_daemon_is_initialised(place):
    """ "The parent exits 0 only when the child is initialised (pidfile written, …)"."""
    done = place.start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert place.running(place.pid)
    assert place.ask(command="status")["pid"] == place.pid
    assert place.path("info").read_text().startswith("I'm healthy: Here is my config ...\n")


def test_the_daemon_is_detached(place):
    """Fork, setsid, chdir `/`, /dev/null on 0-2, umask 022."""
    place.start(umask=0o077)
    proc = Path(f"/proc/{place.pid}")
    assert os.getsid(place.pid) == place.pid
    assert os.readlink(proc / "cwd") == "/"
    assert [os.readlink(proc / "fd" / fd) for fd in "012"] == ["/dev/null"] * 3
    assert re.search(r"^Umask:\s+0022$", (proc / "status").read_text(), re.MULTILINE)


def test_the_process_shows_as_the_daemon_not_as_python(place):
    """ "The process name is … (pidof, ps -C, /proc/PID/comm), not python3"."""
    place.start("-d", "1")
    pid = place.pid
    assert Path(f"/proc/{pid}/comm").read_text() == f"{NAME}\n"
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert words == [word.encode() for word in (NAME, "--root", str(place.root), "-d", "1")]


@pytest.mark.skipif(shutil.which("pidof") is None, reason="no pidof (package sysvinit-utils)")
def test_pidof_finds_it(place):
    place.start()
    found = subprocess.run(["pidof", NAME], capture_output=True, text=True, check=False)
    assert str(place.pid) in found.stdout.split()


def test_the_descriptor_limit_is_raised_to_the_hard_one(place):
    """ "as many as descriptors allow (raise RLIMIT_NOFILE to its hard limit)"."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    place.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)))
    assert resource.prlimit(place.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_lock_of_the_callers_script_is_not_held_on_to(place, tmp_path):
    """A script's `flock 9` would otherwise last as long as the daemon."""
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    place.start(pass_fds=[lock])
    os.close(lock)
    again = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(again)


def test_blocked_signals_of_the_caller_are_let_in(place):
    """A daemon that inherited a blocked SIGTERM could only be killed."""
    place.start(preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]))
    place.stop()


def test_it_starts_with_its_standard_descriptors_closed(place):
    shell = " ".join(place.command()) + " <&- >&- 2>&-"
    assert subprocess.run(shell, shell=True, timeout=PATIENCE, check=False).returncode == 0
    place.pids.add(place.pid)
    assert place.ask(command="status")["healthy"] is True
    fd = Path(f"/proc/{place.pid}/fd")
    assert [os.readlink(fd / number) for number in "012"] == ["/dev/null"] * 3


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("refuse", "port 2411 is in use"),
        ("oserror", "/var/lib/x: Permission denied"),
        ("crash", "ended before it was ready (signal 9)"),
    ],
)
def test_a_failed_start_exits_1_with_the_reason_on_stderr(place, word, reason):
    place.set(word)
    done = place.start()
    assert (done.returncode, done.stderr) == (1, f"{NAME}: {reason}\n")
    assert not place.path("ctl").exists()
    if word != "crash":
        assert not place.path("pid").exists()
        assert f"Error: cannot start: {reason}" in place.log()


def test_every_problem_of_the_configuration_is_named(place):
    """ "missing → a clear error, exit 1", and nothing is left behind."""
    place.set("wrong", "what is this\n")
    done = place.start()
    assert done.returncode == 1
    ini = place.root / "example.ini"
    assert done.stderr == (
        f"{NAME}: {ini}:2: [a] word = 'wrong': not a way to behave\n"
        f"{NAME}: {ini}:3: neither [section] nor key = value\n"
    )
    assert not (place.root / "var").exists()


def test_an_unwritable_run_directory_is_a_clear_error(place):
    (place.root / "var").touch()
    done = place.start()
    assert done.returncode == 1
    assert re.fullmatch(rf"{NAME}: .*/var/run: (Not a directory|File exists)\n", done.stderr)


# One at a time


def test_a_second_start_exits_1_and_says_who_runs(place):
    """`already running (pid N)`."""
    place.start()
    first = place.pid
    done = place.start()
    assert (done.returncode, done.stderr) == (1, f"{NAME}: already running (pid {first})\n")
    assert place.pid == first
    assert place.ask(command="status")["pid"] == first


@pytest.mark.parametrize("content", ["1\n", "999999999\n", "rubbish", ""])
def test_a_stale_pidfile_is_replaced(place, content):
    """Even one that names a living process: the lock counts, not the number."""
    place.path("pid").parent.mkdir(parents=True)
    place.path("pid").write_text(content)
    assert place.start().returncode == 0
    assert place.pid not in (1, 999999999)


def test_after_a_kill_it_starts_again(place):
    place.start()
    old = place.pid
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: not place.running(old))
    assert place.start().returncode == 0
    assert place.pid != old
    assert place.ask(command="status")["pid"] == place.pid


def test_the_running_daemon_is_found_by_its_lock(place):
    """For init scripts: `--pid` prints it, 3 if there is none, with or without a pidfile."""
    assert (place.start("--pid").returncode, place.start("--pid").stdout) == (3, "")
    place.start()
    first = place.pid
    for gone in ("pid", "lock", "ctl"):
        place.path(gone).unlink()
        assert place.start("--pid").stdout == f"{first}\n"
        again = place.start()
        assert (again.returncode, again.stderr) == (
            1,
            f"{NAME}: already running (pid {first})\n",
        )
    os.kill(first, signal.SIGUSR1)
    wait_for(lambda: place.path("ctl").exists() and place.path("lock").exists())
    assert place.pid == first
    assert place.ask(command="status")["pid"] == first
    place.stop()
    assert place.start("--pid").returncode == 3


def test_a_signal_as_soon_as_the_pid_is_known_ends_nobody(place):
    """SIGUSR1 or SIGHUP right after the pidfile appears: none of the starts dies."""
    for _ in range(5):
        start = subprocess.Popen(place.command(), stderr=subprocess.PIPE, text=True)
        while not place.path("pid").exists():
            pass
        pid = wait_for(lambda: place.path("pid").read_text().strip())
        place.pids.add(int(pid))
        os.kill(int(pid), signal.SIGUSR1)
        os.kill(int(pid), signal.SIGHUP)
        assert start.wait(PATIENCE) == 0, start.stderr.read()
        start.stderr.close()
        assert place.ask(command="status")["pid"] == int(pid)
        place.stop()


def test_what_cannot_be_put_back_is_a_problem_until_it_can(place):
    place.start()
    place.path("pid").unlink()
    place.path("pid").mkdir()
    pid = place.ask(command="status")["pid"]
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: place.ask(command="status")["problems"])
    (problem,) = place.ask(command="status")["problems"]
    reason = "Is a directory; remove the directory in its place"
    assert problem == f"cannot write {place.path('pid')}: {reason}"
    first = place.path("info").read_text().splitlines()[0]
    assert first == "I'm healthy: Here is my config ..."
    place.path("pid").rmdir()
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: not place.ask(command="status")["problems"])


def test_only_root_may_read_the_health_file_and_the_dump(place):
    place.start()
    place.signal(signal.SIGUSR2)
    wait_for(place.path("dump").exists)
    modes = {
        suffix: place.path(suffix).stat().st_mode & 0o777 for suffix in ("info", "dump", "ctl")
    }
    assert modes == {"info": 0o600, "dump": 0o600, "ctl": 0o600}


def test_many_starts_at_once_leave_exactly_one(place):
    starts = [
        subprocess.Popen(place.command(), stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    codes = sorted(start.wait(PATIENCE) for start in starts)
    for start in starts:
        start.stderr.close()
    place.pids.add(place.pid)
    assert codes == [0, 1, 1, 1]


# Stopping


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly(place, signum):
    """ "remove pidfile, control socket, exit 0"."""
    daemon = place.foreground()
    daemon.send_signal(signum)
    daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 0
    assert not place.path("pid").exists()
    assert not place.path("ctl").exists()


def test_one_that_does_not_end_by_itself_is_ended_within_2_seconds(place):
    place.set("slow")
    place.start()
    # The bound is the point: 2 s, and as much again for a busy machine.
    assert place.stop() < 4.0
    assert not place.path("pid").exists()


def test_a_second_signal_ends_it_at_once(place):
    place.set("slow")
    place.start()
    pid = place.pid
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: "stopping" in place.log())
    os.kill(pid, signal.SIGINT)
    wait_for(lambda: not place.running(pid))


# The other signals


def test_sigusr1_writes_the_health_file_again(place):
    """ "written at start and again within 1 s of SIGUSR1 (the OCF monitor removes it …)"."""
    place.set("word")
    place.start()
    place.path("info").unlink()
    place.signal(signal.SIGUSR1)
    lines = wait_for(lambda: place.path("info").exists() and place.path("info").read_text())
    assert lines.splitlines() == [
        "I'm healthy: Here is my config ...",
        "[a]",
        "word = word",
        "fixed = 0",
        "[host]",
        "name = host-1",
        "[debug]",
        "level = 0",
        f"daemon = {NAME}",
        f"version = {__version__}",
        f"pid = {place.pid}",
        lines.splitlines()[11],
        "instances = 3",
        'word = "word"',
        lines.splitlines()[-1],
    ]
    assert lines.splitlines()[-1].endswith('no capabilities"')


def test_sigusr2_dumps_the_state_as_json_and_logs_it(place):
    place.start()
    place.signal(signal.SIGUSR2)
    text = wait_for(lambda: place.path("dump").exists() and place.path("dump").read_text())
    state = json.loads(text)
    assert state["instances"] == [{"uuid": "u0", "name": "a\nb"}, {"uuid": "u1", "name": "a\nb"}]
    assert state["peers"] == {"x": {"seen": 1}, "y": {"seen": 2}}
    assert state["none"] == []
    # One item a line, so that grep finds it.
    assert '  {"uuid": "u0", "name": "a\\nb"},' in text.splitlines()
    wait_for(lambda: 'dump: "n": 1' in place.log())


def test_a_large_dump_is_logged_in_part(place):
    place.set("large")
    place.start()
    place.signal(signal.SIGUSR2)
    wait_for(lambda: "lines more in the file" in place.log())
    assert place.log().count("Info: dump: ") == 501
    assert len(json.loads(place.path("dump").read_text())["instances"]) == 2_000


def test_sighup_reads_the_configuration_again(place):
    place.set("before")
    place.start()
    place.set("after", "fixed = 1\n")
    place.signal(signal.SIGHUP)
    wait_for(lambda: place.ask(command="status")["summary"]["word"] == "after")
    assert "[a] word changed" in place.log()
    assert "[a] fixed changed: it needs a restart" in place.log()
    assert place.ask(command="dump")["configuration"][:3] == ["[a]", "word = after", "fixed = 0"]


def test_a_broken_configuration_changes_nothing(place):
    """ "A broken file changes nothing", and says what is wrong."""
    place.set("before")
    place.start()
    place.set("wrong", "\x1b[1m\n")
    place.signal(signal.SIGHUP)
    wait_for(lambda: "the configuration is broken" in place.log())
    assert "example.ini:2: [a] word = 'wrong': not a way to behave" in place.log()
    assert place.ask(command="status")["summary"]["word"] == "before"


# The control socket


def test_status(place):
    place.start()
    status = place.ask(command="status")
    assert status.pop("uptime_secs") < PATIENCE
    assert status["summary"].pop("rights").endswith("no capabilities")
    assert status == {
        "daemon": NAME,
        "version": __version__,
        "pid": place.pid,
        "healthy": True,
        "problems": [],
        "summary": {"instances": 3, "word": ""},
    }


def test_a_daemon_with_a_problem_is_not_healthy(place):
    place.set("sick")
    place.start()
    status = place.ask(command="status")
    assert (status["healthy"], status["problems"]) == (False, ["it is sick"])
    assert "problem: it is sick" in place.path("info").read_text()
    metrics = place.ask(command="metrics")["metrics"]
    assert f'guestmtce_healthy{{daemon="{NAME}"}} 0\n' in metrics
    assert f'guestmtce_problems{{daemon="{NAME}",kind="health"}} 1\n' in metrics


def test_the_other_commands(place):
    place.start()
    assert place.ask(command="dump")["n"] == 1
    metrics = place.ask(command="metrics")["metrics"]
    assert f'guestmtce_healthy{{daemon="{NAME}"}} 1\n' in metrics
    started = re.findall(r"^guestmtce_start_time_seconds{.*} (\S+)$", metrics, re.MULTILINE)
    assert abs(time.time() - float(started[0])) < PATIENCE
    assert place.ask(command="log-level", level=3) == {"level": 3}
    assert "a number from 0 to 255" in place.ask(command="log-level", level="3")["error"]
    assert len(place.ask(command="instances")["instances"]) == 2
    assert place.ask(command="show") == {"error": "no such instance"}
    assert place.ask(command="delete") == {"error": "unknown command"}


# In the foreground


def test_in_the_foreground_it_stays_and_logs_to_stderr(place):
    daemon = place.foreground("-d1")
    assert place.pid == daemon.pid
    assert Path(f"/proc/{daemon.pid}/comm").read_text() == f"{NAME}\n"
    daemon.terminate()
    _out, err = daemon.communicate(timeout=PATIENCE)
    assert re.search(
        rf"^\S+ host-1 {NAME} example example_daemon\.py\(\d+\) start: Debug: a debug line$",
        err,
        re.MULTILINE,
    )
    assert place.log() == ""


def test_a_failed_start_in_the_foreground(place):
    place.set("refuse")
    done = place.start("-f")
    assert done.returncode == 1
    assert f"{NAME}: port 2411 is in use\n" in done.stderr


def test_a_full_stderr_does_not_stop_the_daemon(place):
    """Somebody started it with a pipe and does not read: it must go on all the same."""
    place.set("large")
    daemon = place.foreground("-d1")
    for _ in range(5):
        place.path("dump").unlink(missing_ok=True)
        daemon.send_signal(signal.SIGUSR2)
        wait_for(place.path("dump").exists)
    assert place.ask(command="status")["healthy"] is True
    daemon.terminate()
    daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 0


# The command line


def test_check_config_prints_and_starts_nothing(place):
    place.set("fine", "odd = 1\n")
    done = place.start("--check-config")
    ini = place.root / "example.ini"
    assert (done.returncode, done.stdout) == (0, EFFECTIVE)
    assert done.stderr == f"warning: {ini}:3: unknown key [a] odd\n"
    assert not (place.root / "var").exists()


def test_check_config_prints_every_problem(place):
    place.set("wrong", "stray\n")
    done = place.start("--check-config")
    assert done.returncode == 1
    assert [line.rpartition("example.ini")[2] for line in done.stderr.splitlines()] == [
        ":2: [a] word = 'wrong': not a way to behave",
        ":3: neither [section] nor key = value",
    ]


def test_verbose_prints_the_configuration_at_start(place):
    place.set("fine")
    assert place.start("-v").stdout == EFFECTIVE


@pytest.mark.parametrize("wrong", [["--unknown"], ["-z"], ["operand"], ["-"], ["-d", "x"], ["-d"]])
def test_wrong_usage_exits_2_with_the_usage_on_stderr(place, wrong):
    done = place.start(*wrong)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {NAME} ")
    assert done.stdout == ""


def test_a_root_that_does_not_exist_is_wrong_usage(place):
    done = place.start("--root", str(place.root / "missing"))
    assert done.returncode == 2
    assert "no such directory" in done.stderr


def test_help_and_version(place):
    done = place.start("--help")
    assert done.returncode == 0
    for word in ("--check-config", "SIGUSR2", f"/var/run/{NAME}.pid", "exit status:"):
        assert word in done.stdout
    assert place.start("--version").stdout.startswith(f"{NAME} {__version__} (")


def test_options_of_the_old_daemon_are_ignored_with_a_warning(place):
    """ "accepted and ignored with a warning (scripts pass them)"."""
    done = place.start("-a", "-n", "5", "-l")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"{NAME}: option -a of the old daemon is ignored",
        f"{NAME}: option -n of the old daemon is ignored",
    ]
    assert "Warn: option -n of the old daemon is ignored" in place.log()
