"""What an image builder uses: --check, --selftest, the samples, the unit, the manual page."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from tests.functional import guest_client_support
from tests.functional.guest_client_support import (
    CLIENT,
    PYTHON,
    challenge_until,
    oldest_python,
    processes_with,
)
from tests.peers.host import ScriptedHost
from tests.peers.journal import wait_until
from tests.peers.root import REPOSITORY, Daemon

place = pytest.fixture(guest_client_support.make_place)
GUEST = REPOSITORY / "guest"
SAMPLES = GUEST / "samples"


@pytest.fixture
def port(place):
    """A socket where the client's port is to be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place.port))
        yield str(place.port)


def check(place, *options):
    done = place.run("--check", "--log", str(place.path / "log"), *options)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_all_is_well(place, port):
    health = place.script("health", "echo fine\n")
    event = place.script("event", '[ "$GUEST_CLIENT_CHECK $1 $2" = "1 revocable unknown" ]\n')
    status, said = check(
        place, "--socket", port, "--health-script", health, "--event-script", event
    )
    assert status == 0, said
    assert re.search(rf"ok +health script {health}: healthy in \d\.\d\d s: fine\n", said)
    assert re.search(rf"ok +event script {event}: accept in ", said)
    assert f"socket {port} is there" in said
    assert said.endswith("no problems\n")
    assert not (place.path / "log").exists()


@pytest.mark.parametrize(
    ("script", "options", "problem"),
    [
        ("echo full; exit 1", ["--health-script"], r"unhealthy in .* s: full"),
        ("sleep 60", ["--health-timeout-ms", "300", "--health-script"], r"no answer .* in 0\.3 s"),
        ("sleep 0.4", ["--health-timeout-ms", "600", "--health-script"], "over half of the 0.6 s"),
        ("exit 7", ["--event-script"], r"error in .* s: the event script ended with status 7"),
    ],
)
def test_a_script_with_a_problem(place, port, script, options, problem):
    status, said = check(place, "--socket", port, *options, place.script("script", script + "\n"))
    assert status == 1
    assert re.search(rf"PROBLEM .*{problem}", said)


def test_what_is_absent_or_can_be_changed_by_anybody(place):
    loose = place.script("loose", "exit 0\n")
    os.chmod(loose, 0o777)
    status, said = check(
        place,
        *("--device", "/dev/virtio-ports/test.no-such-port", "--log", "/nonexistent/log"),
        *("--health-script", "/nonexistent/script", "--event-script", loose),
    )
    assert status == 1
    for problem in (
        "/dev/virtio-ports/test.no-such-port is not there. Add a virtio-serial port",
        "/nonexistent/log cannot be written",
        "cannot run /nonexistent/script: No such file or directory",
        f"{loose} can be changed by every user",
    ):
        assert problem in said
    assert said.endswith("4 problems\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[guest-client]\ninterval_ms = often\n", "client.conf:2: [guest-client] interval_ms"),
        ("[guest-client]\ncolour = red\n", "colour: unknown setting"),
        ("[guest-client]\ndevice = /dev/null\n", "is not a device that one can wait for"),
    ],
)
def test_a_configuration_with_a_problem(place, text, problem):
    place.config.write_text(text)
    status, said = check(place)
    assert status == 1
    assert problem in said


def test_who_has_the_port(place, port):
    """A device that another process has open is said to be in use, by whom."""
    master, slave = os.openpty()
    try:
        status, said = check(place, "--device", os.ttyname(slave))
        assert status == 0
        assert re.search(rf"is there; \S+ \(pid {os.getpid()}\) has it open", said)
    finally:
        os.close(master)
        os.close(slave)


def test_selftest(place):
    health = place.script("health", "echo fine\n")
    done = place.run("--selftest", "--health-script", health)
    assert done.returncode == 0, done.stdout
    for text in ("challenges each 0.4 s answered", "the guest is healthy: fine", "exit: "):
        assert text in done.stdout


def test_selftest_of_a_guest_that_is_ill(place):
    event = place.script("event", "exit 3\n")
    health = place.script("health", "echo 'no disk'; exit 1\n")
    done = place.run("--selftest", "--health-script", health, "--event-script", event)
    assert done.returncode == 1
    assert "PROBLEM the guest is unhealthy: no disk" in done.stdout
    assert "PROBLEM revocable unknown is answered: error" in done.stdout


# The samples.


def run_sample(name, *words, tools, place, **environment):
    """Run a sample with `tools` (name: shell text) in front of PATH; return status and output."""
    directory = place.path / "bin"
    directory.mkdir(exist_ok=True)
    for tool, text in tools.items():
        place.script(f"bin/{tool}", text)
    done = subprocess.run(
        [str(SAMPLES / name), *words],
        env={**environment, "PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.split("\n")[0]


@pytest.mark.parametrize(
    ("name", "tool", "text", "answer"),
    [
        ("postgresql", "pg_isready", "exit 0", (0, "PostgreSQL accepts connections")),
        ("postgresql", "pg_isready", "exit 1", (0, "PostgreSQL is starting")),
        ("postgresql", "pg_isready", "exit 2", (1, "PostgreSQL does not answer")),
        ("postgresql", "pg_isready", "echo no such host; exit 3", (1, "pg_isready: no such host")),
        ("nginx", "curl", "exit 0", (0, "http://127.0.0.1/ comes")),
        ("nginx", "curl", "echo 502 >&2; exit 22", (1, "http://127.0.0.1/: 502")),
        ("systemd", "systemctl", "echo active", (0, "ok")),
        ("systemd", "systemctl", "echo activating", (0, "ok")),
        ("systemd", "systemctl", "echo failed; exit 3", (1, "a.service is failed")),
    ],
)
def test_the_health_samples(place, name, tool, text, answer):
    said = run_sample(
        f"health-{name}.sh", tools={tool: text + "\n"}, place=place, UNITS="a.service b.service"
    )
    assert said == answer


def test_the_sample_that_drains(place):
    """No new work, then a yes when the old is done, or a no and work again."""
    open_file, work = place.path / "open", place.path / "work"
    commands = {
        "DRAIN": f"rm {work}",
        "UNDRAIN": f"touch {work}",
        "COUNT": f"cat {open_file}",
        "WAIT_SECS": "1",
    }

    def ask(*words):
        return run_sample("event-drain.sh", *words, tools={}, place=place, **commands)

    work.touch()
    open_file.write_text("0")
    assert ask("revocable", "stop") == (0, "drained")
    assert not work.exists()
    assert ask("irrevocable", "live_migrate_end") == (0, "")
    assert work.exists()
    open_file.write_text("3")
    assert ask("revocable", "reboot") == (1, "3 connections are still open")
    assert work.exists()
    assert ask("revocable", "unknown") == (0, "")
    assert ask("nonsense")[0] == 2


def test_the_samples_are_named_in_the_configuration():
    text = (GUEST / "guest-client.conf").read_text()
    for sample in SAMPLES.glob("*.sh"):
        assert sample.name in text


# What starts it.


def test_the_unit():
    """Started by the port's appearance, and again however often it ends."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(GUEST / "guest-client.service")
    port = r"dev-virtio\x2dports-cgcs.heartbeat.device"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"
    assert parser["Unit"]["After"] == port
    assert parser["Install"]["WantedBy"] == port
    assert parser["Service"]["Restart"] == "always"


def test_openrc_starts_it_whatever_other_services_there_are():
    """Debian's OpenRC has no `localmount`: a service that needs it is never started there."""
    words = "need() { echo need; }; use() { echo use; }; after() { echo after; }"
    script = f"{words}; . {GUEST}/guest-client.openrc; depend"
    said = subprocess.check_output(["sh", "-c", script], text=True)
    assert said.split() == ["use", "after"]


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff (package groff)")
def test_the_manual_page(tmp_path):
    """It is made from --help, so it has every option, and roff has nothing to say of it."""
    program = [sys.executable, str(GUEST / "guest_client.py"), "--help"]
    options = re.findall(r"--[a-z][a-z-]+", subprocess.check_output(program, text=True))
    maker = GUEST.parent / "packaging" / "man.py"
    page = subprocess.check_output([sys.executable, str(maker), program[1], "1.1.0"], text=True)
    command = ["groff", "-man", "-ww", "-Tascii", "-P-c", "-P-b", "-P-u"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert options
    assert all(option in done.stdout for option in options)


def test_the_old_signals_still_end_it(place):
    client = place.start()
    client.wait_for_log("waiting until it appears")
    client.signal(signal.SIGHUP)
    assert client.process.wait(5) == 0


# What whoever started it left behind.


@pytest.mark.parametrize("mode", ["--check", "--selftest"])
def test_with_sigchld_ignored_scripts_are_judged_all_the_same(place, port, mode):
    health = place.script("health", "echo fine\n")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        command = place.command(mode, "--socket", str(port), "--health-script", health)
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGCHLD, before)
    said, errors = client.communicate(timeout=30)
    assert b"no problems" in said, said
    assert b"Traceback" not in errors
    assert client.returncode == 0


@pytest.mark.parametrize("python", [PYTHON, oldest_python()])
def test_a_script_says_what_the_locale_cannot_write(place, port, python):
    health = place.script("health", "echo 'très bien'\n")
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    options = ("--check", "--socket", str(port), "--health-script", health)
    done = place.run(*options, python=python or PYTHON, env=env, encoding="utf-8")
    assert "très bien" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("mode", ["--check", "--selftest"])
def test_findings_that_nobody_takes(place, mode):
    with open("/dev/full", "wb") as full:
        done = place.run(mode, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert "guest-client: cannot print what it found: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    wait_until(lambda: not processes_with(str(place.config)), 5, "none left")


def test_a_check_that_is_interrupted_leaves_no_script(place, port):
    health = place.script("health", "exec sleep 60\n")
    options = ("--check", "--socket", str(port), "--health-script", health)
    # Whoever started the tests may have it ignored, as a shell's `&` does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check = Daemon(place.command(*options), place.path / "check", os.environ)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: "ok      log" in check.log, 10)
    wait_until(lambda: processes_with(health), 10)
    check.signal(signal.SIGINT)
    assert check.process.wait(10) == 1
    assert check.log.endswith("guest-client: interrupted\n")


def test_a_relative_path_with_the_working_directory_gone(place):
    (place.path / "gone").mkdir()
    # As it is run in earnest: with `-c`, Python 3.13.0 itself fails there.
    command = [PYTHON, str(CLIENT), "-f", "--log", "relative"]
    remove = 'cd "$0" && rmdir "$0" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", remove, str(place.path / "gone"), *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "expected an absolute path: the working directory is gone" in done.stderr


def test_without_descriptors_and_dev_null_it_starts(place):
    """All that it needs of /dev early in a boot is the port."""
    bad_day = "client.os.devnull = '/nowhere/null'\n"
    health = place.script("health", "echo fine\n")
    with ScriptedHost(place.port) as host:
        options = ("-f", "--socket", str(place.port), "--health-script", health)
        command = place.command(*options, bad_day=bad_day)
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
        client = Daemon(command, place.path / "log", os.environ)
        place.clients.append(client)
        host.greet()
        challenge_until(host, "healthy", text="fine")
