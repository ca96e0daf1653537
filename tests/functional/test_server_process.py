"""guestServer as a process: starting, not starting, signals, files (operations.md)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.functional.server_support import UUID, Place, started
from tests.peers import wire
from tests.peers.journal import wait_until
from tests.peers.root import COMPUTE_0, REPOSITORY, Root
from tests.peers.stopwatch import Stopwatch

PROGRAM = str(REPOSITORY / "bin" / "guestServer")
INI = "etc/mtc/guestServer.ini"


@pytest.fixture
def root():
    with Root() as made:
        yield made


@pytest.fixture
def place():
    with started() as made:
        yield made


def run(root, *options, timeout=10):
    """Run guestServer until it, or in the background its parent, ends."""
    return subprocess.run(
        [sys.executable, PROGRAM, "--root", str(root.path), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def pid_of(root):
    return int((root.path / "var/run/guestServer.pid").read_text())


@pytest.mark.parametrize("options", [(), ("-f",)], ids=["background", "foreground"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, [INI, "No such file"]),
        ("[agent]\nrx_port = 2401\n[client]\n", [f"{INI}:3", "[client] rx_port", "missing"]),
        ("[agent]\nrx_port = 2401\nnonsense\n", [f"{INI}:3"]),
        ("rx_port = 2401\n", [f"{INI}:1"]),
        (
            "[agent]\nrx_port = 2401\n\n[client]\nrx_port = many\n",
            [f"{INI}:5", "[client] rx_port", "many", "not a number"],
        ),
        (
            "[agent]\nrx_port = 70000\n[client]\nrx_port = 1\n",
            [f"{INI}:2", "[agent] rx_port", "70000", "out of range"],
        ),
    ],
)
def test_a_missing_or_broken_ini(root, text, said, options):
    """ "a clear message naming file, line and key, exit 1"."""
    path = root.path / INI
    path.unlink()
    if text is not None:
        path.write_text(text)
    result = run(root, *options)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for words in said:
        assert words in result.stderr
    assert not (root.path / "var/run/guestServer.pid").exists()


@pytest.mark.parametrize("options", [(), ("-f",)], ids=["background", "foreground"])
def test_a_port_in_use(root, options):
    """ "A port in use → a clear message with the port, exit 1"; nothing is left behind."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((COMPUTE_0, root.server_port))
        result = run(root, *options)
    assert result.returncode == 1
    assert str(root.server_port) in result.stderr
    assert "in use" in result.stderr
    assert "Traceback" not in result.stderr
    assert list((root.path / "var/run").glob("guestServer.*")) == []


def test_the_users_inotify_instances_are_used_up():
    """Root has 128 of them for all its daemons (max_user_instances): it starts, and says so."""
    code = (
        "import sys\n"
        "from guestmtce.runtime import inotify\n"
        "def full(self): raise OSError(24, 'Too many open files', 'inotify_init1')\n"
        "inotify.Inotify.__init__ = full\n"
        "from guestmtce.server.main import main\n"
        "sys.exit(main())\n"
    )
    place = Place()
    place.guest()
    command = [sys.executable, "-c", code, "--root", str(place.root.path), "-f"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            place.agent.wait_for("MONITOR_READY")
            place.agent.add(UUID)
            place.agent.wait_for("RUNNING", UUID)
        finally:
            daemon.terminate()
            log = daemon.communicate(timeout=10)[1]
            place.close()
    assert "fs.inotify.max_user_instances" in log
    assert "Traceback" not in log


def test_a_second_start_is_refused_and_harms_nothing(place):
    """ "a second start exits 1 "already running (pid N)""."""
    guest = place.beating()
    for options in ((), ("-f",)):
        result = run(place.root, *options)
        assert result.returncode == 1
        assert f"already running (pid {place.server.pid})" in result.stderr
    assert pid_of(place.root) == place.server.pid
    assert (place.root.path / "var/run/guestServer.ctl").is_socket()
    answered = guest.answered
    wait_until(lambda: guest.answered > answered)


def test_a_stale_pidfile_is_replaced(root):
    (root.path / "var/run/guestServer.pid").write_text("1\n")
    daemon = root.start_server()
    assert pid_of(root) == daemon.pid


def test_in_the_background_the_parent_ends_when_the_daemon_is_ready():
    """ "The parent exits 0 only when the child is initialised (pidfile written, …)"."""
    place = Place()
    pid = 0
    try:
        result = run(place.root)
        assert (result.returncode, result.stderr) == (0, "")
        pid = pid_of(place.root)
        with open(f"/proc/{pid}/comm") as file:
            assert file.read() == "guestServer\n"
        place.beating()
        with Stopwatch() as watch:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not (place.root.path / "var/run/guestServer.pid").exists(), 5)
            assert watch.secs < 2
    finally:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        place.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stop(place, signum):
    """ "exit 0 within 2 s", pidfile and control socket removed; no STOPPED (decision 19)."""
    guests = [place.beating(f"00000000-0000-4000-8000-{n:012d}") for n in range(3)]
    since = len(place.agent.told)
    with Stopwatch() as watch:
        place.server.signal(signum)
        assert place.server.process.wait(5) == 0
        assert watch.secs < 2
    for guest in guests:
        guest.wait_for("closed")
    assert place.agent.names(since=since) == []
    left = {path.name for path in (place.root.path / "var/run").glob("guestServer.*")}
    assert left <= {"guestServer.info"}


def test_the_health_file_is_back_within_a_second_of_sigusr1(place):
    """ "first line `I'm healthy: Here is my config ...`, then the effective configuration"."""
    path = place.root.path / "var/run/guestServer.info"
    wait_until(path.exists)
    place.beating()
    path.unlink()
    with Stopwatch() as watch:
        place.server.signal(signal.SIGUSR1)
        wait_until(path.exists, 5)
        assert watch.secs < 1
    lines = path.read_text().splitlines()
    assert lines[0] == "I'm healthy: Here is my config ..."
    assert f"rx_port = {place.root.server_port}" in lines
    assert "heartbeating = 1" in lines


def test_the_dump_is_json_with_every_instance(place):
    place.beating(name='a"b')
    place.server.signal(signal.SIGUSR2)
    path = place.root.path / "var/run/guestServer.dump"
    wait_until(path.exists)
    dump = json.loads(path.read_text())
    (instance,) = dump["instances"]
    assert instance["uuid"] == UUID
    assert instance["name"] == 'a"b'
    assert instance["heartbeating"] is True


def test_reload_applies_what_can_change_and_names_the_rest(place):
    """SIGHUP: threshold, pulse period, debug, peers apply; "A broken file changes nothing"."""
    health = place.root.path / "var/run/guestServer.info"
    path = place.root.path / INI
    port = place.root.server_port

    def in_force():
        health.unlink(missing_ok=True)
        place.server.signal(signal.SIGUSR1)
        wait_until(health.exists)
        return health.read_text()

    path.write_text(
        re.sub("hbs_failure_threshold = 1", "hbs_failure_threshold = 7", path.read_text())
    )
    path.write_text(re.sub(rf"rx_port = {port}", f"rx_port = {port - 1}", path.read_text()))
    place.server.signal(signal.SIGHUP)
    place.server.wait_for_log("needs a restart")
    text = in_force()
    assert "hbs_failure_threshold = 7" in text
    assert f"rx_port = {port}\n" in text
    path.write_text("[client]\nrx_port = no\n")
    place.server.signal(signal.SIGHUP)
    place.server.wait_for_log("is broken")
    assert in_force().splitlines()[1:15] == text.splitlines()[1:15]
    place.beating()


def test_reload_changes_whom_to_believe(place):
    """A peer that is named in `agent_peers` from now on is believed, one that is not is not."""
    path = place.root.path / INI
    path.write_text(path.read_text().replace("[client]\n", "[client]\nagent_peers = compute-1\n"))
    place.server.signal(signal.SIGHUP)
    place.server.wait_for_log("was read again")
    place.agent.add(UUID)
    place.server.wait_for_log("stranger")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.4", 0))
        peer.sendto(add_inst(), (COMPUTE_0, place.root.server_port))
        place.server.wait_for_log(f"instance {UUID}: added")


def add_inst():
    body = {"source": "127.0.0.4", "uuid": UUID, "service": "heartbeat", "state": "enabled"}
    return wire.pack("ADD_INST", body, wire.GUEST_SIGNATURE)


@pytest.mark.parametrize("flag", ["etc/platform/.initial_config_complete", "var/run/.goenabled"])
def test_waits_for_the_platform_and_can_be_stopped_meanwhile(flag):
    """ "guestServer waits (checking every 2 s, answering signals, one log a minute)"."""
    place = Place()
    (place.root.path / flag).unlink()
    guest = place.guest()
    try:
        place.server = place.root.start_server()
        place.server.wait_for_log(f"waiting for /{flag}")
        time.sleep(0.3)
        assert not guest.connected
        if flag.startswith("etc"):
            (place.root.path / flag).touch()
            guest.wait_for("challenge", timeout=5)
            place.agent.wait_for("MONITOR_READY")
        begun = time.monotonic()
        assert place.server.stop() == 0
        assert time.monotonic() - begun < 2
    finally:
        place.close()


def test_idle_it_does_not_wake(place):
    """ "wakes only for I/O and due timers": the kernel counts how often it went to sleep."""
    place.agent.query()
    time.sleep(0.3)
    before = sleeps(place.server.pid)
    time.sleep(2)
    assert sleeps(place.server.pid) - before <= 3


def sleeps(pid):
    with open(f"/proc/{pid}/status") as status:
        text = status.read()
    return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.MULTILINE)[1])


def test_guest_server_pulls_in_no_http():
    """No HTTP module, nor what takes long to import (architecture.md, "Who imports whom")."""
    code = "import sys, guestmtce.server.main; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    modules = set(result.stdout.split())
    heavy = {"http", "urllib", "email", "ssl", "asyncio", "subprocess", "xml"}
    assert heavy & {name.partition(".")[0] for name in modules} == set()
    assert not {name for name in modules if name.startswith(("guestmtce.agent", "guestmtce.ctl"))}
    assert "guestmtce.runtime.http_client" not in modules
