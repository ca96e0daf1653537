"""Bad days of a guest: whatever happens, the guest client answers in time (decision 35).

Each test is a row of what once silenced the client, or made the host act upon a healthy guest.
`GUEST_CLIENT=FILE` has them look at another client.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.functional import guest_client_support
from tests.functional.guest_client_support import (
    challenge_until,
    ended,
    oldest_python,
    processes_with,
)
from tests.peers.host import ScriptedHost
from tests.peers.journal import wait_until
from tests.peers.root import Daemon
from tests.peers.stopwatch import Stopwatch

place = pytest.fixture(guest_client_support.make_place)
host = pytest.fixture(guest_client_support.make_host)

# The shortest interval that a host allows: an answer after it is a miss.
INTERVAL_SECS = 0.4
# All of a client's own files are within its place; this names a port that no machine has.
NO_SUCH_PORT = "/dev/virtio-ports/test.no-such-port"


def answered_in_time(host):
    began = time.monotonic()
    answer = host.challenge()
    took = time.monotonic() - began
    assert took < INTERVAL_SECS, f"answered after {took:.2f} s"
    return answer


def make_it_log(host, invocation_id, lines):
    """Have the client log `lines` lines, challenging it meanwhile."""
    for count in range(lines):
        host.notify(invocation_id, "stop")
        assert host.receive("action_response")["vote_result"] == "accept"
        if count % 50 == 0:
            answered_in_time(host)


# The log.

# Else so many lines of one kind would not get as far as what is to be shown.
EACH_LINE_COUNTS = "client.LOG_LINES_A_MINUTE = 10**6\n"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_syslogd_that_hangs(place, host, kind):
    """1,000 lines that nobody takes delay nothing, and one line says how many were lost."""
    path = place.path / "syslog"
    with socket.socket(socket.AF_UNIX, kind) as syslogd:
        syslogd.bind(str(path))
        if kind == socket.SOCK_STREAM:
            syslogd.listen()
        bad_day = f"client.SYSLOG_SOCKET = {str(path)!r}\n" + EACH_LINE_COUNTS
        place.start("--log", "syslog", bad_day=bad_day)
        init = host.greet()
        make_it_log(host, init["invocation_id"], 1500)
        syslogd.settimeout(5)
        reader = syslogd.accept()[0] if kind == socket.SOCK_STREAM else syslogd
        reader.settimeout(5)
        text = b""
        while not (lost := re.findall(rb"(\d+) lines of this log were lost here", text)):
            text += reader.recv(65536)
        assert 200 < int(lost[0]) <= 1500
        answered_in_time(host)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_standard_error_that_nobody_reads(place, host, kind):
    """journald is stuck: the log is lost, and counted, and every answer is in time."""
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    with open(writer, "wb", buffering=0) as stderr, open(reader, "rb", buffering=0) as journal:
        command = place.command("-f", "--socket", str(place.port), bad_day=EACH_LINE_COUNTS)
        client = Daemon(command, place.path / "out", os.environ, stderr=stderr)
        place.clients.append(client)
        init = host.greet()
        make_it_log(host, init["invocation_id"], 5000 if kind == "socket" else 1500)
        text = b""
        while b"lines of this log were lost here" not in text:
            text += journal.read(65536)
        answered_in_time(host)


def test_a_log_file_whose_directory_vanishes(place, host):
    directory = place.path / "logs"
    directory.mkdir()
    client = place.start("--log", str(directory / "log"), bad_day=EACH_LINE_COUNTS)
    init = host.greet()
    log = directory / "log"
    wait_until(lambda: log.exists() and "acknowledged" in log.read_text(), 5)
    log.unlink()
    directory.rmdir()
    make_it_log(host, init["invocation_id"], 10)
    client.wait_for_log("No such file or directory")
    client.wait_for_log("revocable stop: accept")

    directory.mkdir()

    def written_again():
        make_it_log(host, init["invocation_id"], 1)
        return log.exists() and "again" in log.read_text()

    wait_until(written_again, 15, "the log in its place again")
    assert client.running


def test_a_full_disk(place, host):
    log = place.path / "log"
    log.symlink_to("/dev/full")
    client = place.start("--log", str(log), bad_day=EACH_LINE_COUNTS)
    init = host.greet()
    make_it_log(host, init["invocation_id"], 100)
    client.wait_for_log("No space left on device")
    client.wait_for_log("revocable stop: accept")
    log.unlink()

    def written_again():
        make_it_log(host, init["invocation_id"], 1)
        return log.exists() and "again" in log.read_text()

    wait_until(written_again, 15, "the log in its place again")
    assert client.log.count("No space left") == 1


def test_a_log_that_cannot_be_written_at_start(place, host):
    client = place.start("--log", str(place.path / "absent" / "log"))
    host.greet()
    answered_in_time(host)
    client.wait_for_log("cannot log to")


@contextlib.contextmanager
def opening_hangs(path):
    """Have every open of a file hang, an exec too, as on a file server that is gone.

    A lease does that: who opens the file waits until its holder gives way, or 45 s.
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    holder = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"no leases here: {error}")
        yield
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


def test_a_log_file_on_a_file_system_that_hangs(place, host):
    """A frozen one, for a snapshot: the line waits in a child, not the client."""
    log = place.path / "log"
    log.touch()
    with opening_hangs(log):
        client = place.start("--log", str(log), bad_day=EACH_LINE_COUNTS)
        init = host.greet()
        make_it_log(host, init["invocation_id"], 500)
        assert log.stat().st_size == 0, "it does not hang"

    def accounted_for():
        # In the file; or elsewhere, if that took so long that the file was given up meanwhile.
        text = log.read_text() + client.log
        lost = re.findall(r"(\d+) lines of this log were lost here", text)
        return text.count("revocable stop: accept") + sum(map(int, lost))

    wait_until(lambda: accounted_for() >= 500, 20, "each line is written or counted")


# The signals.


def test_signals_blocked_by_whoever_started_it(place, host):
    """The mask is cleared: a script is seen to end, SIGTERM ends it; scripts have none either."""
    health = place.script("health", "grep SigBlk /proc/self/status\n")
    blocked = {signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        client = place.start(
            *("--health-script", health, "--health-interval-ms", "100"),
            *("--health-timeout-ms", "2000"),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    host.greet()
    answer = challenge_until(host, "healthy", text="SigBlk")
    assert int(answer["log_msg"].split()[1], 16) == 0
    client.signal(signal.SIGTERM)
    assert "SIGTERM" in host.receive("exit")["log_msg"]
    assert client.process.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_whatever_signal_ends_it_the_host_is_told(place, host, number):
    client = place.start()
    host.greet()
    answered_in_time(host)
    client.signal(number)
    assert number.name in host.receive("exit")["log_msg"]
    assert client.process.wait(5) == 0


# The scripts.

UNKILLABLE = "import os\nos.killpg = os.kill = lambda *_: None\n"
UNKILLABLE_CHILD = (
    "import os, signal\nkill = os.kill\n"
    "os.killpg = lambda pid, number: number and kill(pid, number)\n"
)


@pytest.mark.parametrize(
    ("bad_day", "how"), [(UNKILLABLE, "exec "), (UNKILLABLE_CHILD, "")], ids=["itself", "its child"]
)
def test_a_health_script_that_cannot_be_killed(place, host, bad_day, how):
    """None is started while one lives, in whatever process of it: the guest is unhealthy."""
    pids = place.path / "pids"
    health = place.script("health", f"sh -c 'echo $$ >>{pids}; {how}exec sleep 60'\n")
    if how:
        health = place.script("health", f"echo $$ >>{pids}; exec sleep 60\n")
    client = place.start(
        *("--health-script", health, "--health-interval-ms", "100"),
        *("--health-timeout-ms", "300"),
        bad_day=bad_day,
    )
    try:
        host.greet()
        assert "no answer" in challenge_until(host, "unhealthy")["log_msg"]
        for _ in range(20):
            answered_in_time(host)
            time.sleep(0.1)
        assert len(pids.read_text().split()) == 1
        assert "no answer" in host.challenge()["log_msg"]
        # When it has ended after all, the next one is started.
        os.kill(int(pids.read_text()), signal.SIGKILL)
        wait_until(lambda: len(pids.read_text().split()) == 2, 5, "the next one started")
    finally:
        client.stop()
        for pid in pids.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("option", ["--health-script", "--event-script"])
def test_a_script_whose_exec_hangs(place, host, option):
    script = place.script("script", "echo well\n")
    with opening_hangs(script):
        place.start(option, script, "--health-interval-ms", "100", "--health-timeout-ms", "700")
        init = host.greet()
        host.notify(init["invocation_id"], "stop", timeout_ms=3000)
        for _ in range(5):
            with Stopwatch() as watch:
                host.send("challenge", heartbeat_challenge=7)
                while (answer := host.receive())["msg_type"] != "challenge_response":
                    assert answer["vote_result"] in ("accept", "timeout")
                assert watch.secs < INTERVAL_SECS
            time.sleep(0.2)
        if option == "--health-script":
            assert "no answer" in challenge_until(host, "unhealthy")["log_msg"]
    if option == "--health-script":
        challenge_until(host, "healthy", text="well")


@pytest.mark.parametrize("option", ["--health-script", "--event-script"])
@pytest.mark.parametrize("why", ["absent", "not executable"])
def test_a_script_that_cannot_be_run_at_start(place, host, option, why):
    """The guest is unhealthy, which is only to be logged, said once, until it can be run."""
    script = place.path / "script"
    if why == "not executable":
        script.touch(0o644)
    client = place.start(
        *(option, str(script), "--health-interval-ms", "100"),
        *("--corrective-action", "reboot"),
    )
    host.greet()
    answer = challenge_until(host, "unhealthy", text=f"cannot run {script}: ")
    assert answer["corrective_action"] == "log"
    time.sleep(0.5)
    assert client.log.count("cannot run") == 1
    place.script("script", "echo fine\n")
    challenge_until(host, "healthy")
    assert client.running


def test_a_script_that_becomes_unrunnable(place, host):
    health = Path(place.script("health", "echo well\n"))
    client = place.start(
        *("--health-script", str(health), "--health-interval-ms", "100"),
        *("--corrective-action", "reboot"),
    )
    host.greet()
    challenge_until(host, "healthy", text="well")
    health.unlink()
    answer = challenge_until(host, "unhealthy", text=f"cannot run {health}: ")
    assert answer["corrective_action"] == "log"
    time.sleep(0.5)
    assert client.log.count("cannot run") == 1


def test_each_illness_names_its_action(place, host):
    """Also when the guest was well again for less time than between two challenges."""
    state = place.path / "state"
    state.write_text("1 ill")
    health = place.script("health", f"read -r code text <{state}; echo $text; exit $code\n")
    place.start(
        *("--health-script", health, "--health-interval-ms", "50"),
        *("--corrective-action", "reboot"),
    )
    host.greet()
    assert challenge_until(host, "unhealthy")["corrective_action"] == "reboot"
    assert host.challenge()["corrective_action"] == "none"
    state.write_text("0 well")
    time.sleep(1)
    state.write_text("1 ill again")
    time.sleep(1)
    answer = host.challenge()
    assert (answer["log_msg"], answer["corrective_action"]) == ("ill again", "reboot")


def test_what_scripts_leave_behind_is_collected_by_who_inherits_it(place, host):
    """As process 1 of a container the client gets all orphans; here it asks the kernel for them."""
    health = place.script("health", "sleep 0.1 & echo well\n")
    client = place.start(
        *("--health-script", health, "--health-interval-ms", "50"),
        bad_day="import ctypes\nassert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n",
    )
    host.greet()
    challenge_until(host, "healthy", text="well")
    time.sleep(1)
    children = Path(f"/proc/{client.pid}/task/{client.pid}/children").read_text().split()
    assert sum(map(ended, map(int, children))) <= 1
    assert host.challenge()["log_msg"] == "well"


def test_without_a_descriptor_left_it_goes_on(place, host):
    """No script can be run or looked for, nobody be told who has the port: it answers."""
    health = place.script("health", "exec sleep 60\n")
    client = place.start(
        *("--health-script", health, "--health-interval-ms", "100"),
        *("--health-timeout-ms", "300"),
    )
    host.greet()
    wait_until(lambda: processes_with(health), 5)
    before = resource.prlimit(client.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(client.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.connect(b"\0guest-client:" + bytes(place.port))
        for _ in range(20):
            answered_in_time(host)
            time.sleep(0.05)
    place.script("health", "echo well\n")
    resource.prlimit(client.pid, resource.RLIMIT_NOFILE, before)
    challenge_until(host, "healthy", text="well")
    client.wait_for_log("healthy: well")
    assert "failure" not in client.log


# The port.


def test_six_starts_at_once(place, host):
    """One client for each port: the others say who has it; after a stop there is none."""
    pid_file = place.path / "pid"
    options = ["--socket", str(place.port), "--pid-file", str(pid_file), "--log", "stderr"]
    starts = [
        Daemon(place.command(*options), place.path / f"start.{n}", os.environ) for n in range(6)
    ]
    statuses = sorted(start.process.wait(20) for start in starts)
    pid = int(pid_file.read_text())
    try:
        assert statuses == [0, 1, 1, 1, 1, 1]
        assert sum(f"already running (pid {pid})" in start.log for start in starts) == 5
        assert list(processes_with(str(place.path))) == [pid]
        host.greet()
        answered_in_time(host)
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not processes_with(str(place.path)), 5, "none left")


def test_a_path_that_the_locale_cannot_write(place):
    """Python 3.6 in the C locale: a sentence, no traceback."""
    if oldest_python() is None:
        pytest.skip("no Python 3.6 (pyenv brings one)")
    place.config.write_text("[guest-client]\ndevice = /dev/virtio-ports/é\n", encoding="utf-8")
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = place.run("-f", python=oldest_python(), env=env, timeout=10)
    assert done.returncode == 1
    assert "device" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_absent_port_is_not_polled(place):
    """It says what the VM needs, and then waits, without a look until something changes."""
    client = place.start("--socket", "", "--device", NO_SUCH_PORT)
    client.wait_for_log("Add a virtio-serial port")
    assert "name='test.no-such-port'" in client.log
    before = waits(client.pid)
    time.sleep(3)
    assert waits(client.pid) - before <= 1


def waits(pid):
    """Return how often a process has gone to sleep."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[1])


def test_a_port_that_appears_is_used_at_once(place):
    port = place.path / "dev" / "ports" / "port"
    client = place.start("--socket", str(port))
    client.wait_for_log("waiting until it appears")
    time.sleep(0.2)
    port.parent.mkdir(parents=True)
    with Stopwatch() as watch, ScriptedHost(port) as host:
        host.greet()
        assert watch.secs < 0.9
        answered_in_time(host)


@pytest.mark.parametrize(
    "bad_day",
    [
        "import sys\nsys.modules['ctypes'] = None\nclient.ABSENT_BLIND_SECS = 0.3\n",
        "client.PathWatch.start = lambda self, _on_change: None\nclient.ABSENT_SECS = 0.3\n",
    ],
    ids=["no inotify", "it does not tell"],
)
def test_a_port_of_which_inotify_does_not_tell_is_seen_later(place, bad_day):
    """A file system that is mounted over the directory is not told of, for one."""
    client = place.start(bad_day=bad_day)
    client.wait_for_log("waiting until it appears")
    with ScriptedHost(place.port) as host:
        host.greet()
        answered_in_time(host)


def test_a_stranger_s_claim_that_nobody_answers_for_is_ignored(place, host):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(b"\0guest-client:" + bytes(place.port))
        client = place.start(bad_day="client.CLAIM_SECS = 0.2\n")
        host.greet()
        answered_in_time(host)
        client.wait_for_log("does not answer; ignored")


# The client's own faults.

A_MESSAGE_RAISES = """
loads = client.json.loads
def trap(text):
    if "explode" in text:
        raise RuntimeError("made to order")
    return loads(text)
client.json.loads = trap
"""


def test_an_exception_in_a_callback_is_logged_and_survived(place, host):
    client = place.start(bad_day=A_MESSAGE_RAISES)
    host.greet()
    host.send("explode")
    answered_in_time(host)
    client.wait_for_log("made to order")
    client.signal(signal.SIGTERM)
    host.receive("exit")


A_TIMER_RAISES = """
def trap(self, now):
    if client.os.path.exists(FLAG):
        raise RuntimeError("made to order")
client.GuestProtocol.tick = trap
"""


def test_what_fails_again_and_again_says_exit_first(place, host):
    flag = place.path / "flag"
    client = place.start(bad_day=A_TIMER_RAISES.replace("FLAG", repr(str(flag))))
    host.greet()
    flag.touch()
    with contextlib.suppress(OSError):
        for value in range(200):
            host.send("challenge", heartbeat_challenge=value)
            time.sleep(0.005)
    kinds = []
    with contextlib.suppress(AssertionError, OSError):
        while True:
            kinds.append(host.receive(timeout=2)["msg_type"])
    assert kinds[-1] == "exit"
    assert client.process.wait(5) == 1


# All at once.


class HungSyslogd:
    """A syslogd that reads nothing, and is gone for half of the time."""

    def __init__(self, path):
        self.path = path
        self._socket = None
        self._next = 0.0

    def tick(self, now):
        if now < self._next:
            return
        self._next = now + 1.5
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(self.path))
        else:
            self.close()

    def close(self):
        if self._socket is not None:
            self._socket.close()
            self.path.unlink()
            self._socket = None


BAD_HEALTH = """
echo >>COUNT
case $(($(wc -l <COUNT) % 5)) in
    0) echo trouble >&2; exec sleep 60 ;;
    1) sleep 5 & echo 'its child keeps standard output' ;;
    2) trap '' TERM; sleep 60; sleep 60 ;;
    3) exec yes ;;
    4) echo ill; exit 1 ;;
esac
"""

THE_CLOCK_JUMPS = """
import random, time
time.time = lambda: random.uniform(-1e9, 4e9)
time.time_ns = lambda: int(time.time() * 1e9)
"""


def kept_waiting(pid):
    """Return the seconds for which a process could have run and had no processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def take_turns_at_trouble(host, client):
    """Yield for ever, each time after another trouble: the id of the session since then."""
    while True:
        host.hang_up()
        session = host.greet()["invocation_id"]
        yield session
        client.signal(signal.SIGSTOP)
        time.sleep(0.1)
        client.signal(signal.SIGCONT)
        yield session
        host.vanish()
        time.sleep(0.1)
        host.appear()
        session = host.greet()["invocation_id"]
        yield session
        for number in [signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH] * 50:
            client.signal(number)
        yield session
        host.send_raw(b"{" * 5000 + b"\n\xff\n[]\n")
        yield session


def test_all_faults_at_once(place, host):
    """syslogd hangs or is gone, the disk is full, nobody reads stderr, the clock jumps, scripts
    hang and worse, the host orders 50 things a second, talks rubbish, goes and comes back.

    GUEST_FAULTS_SECS: for how long.
    """
    seconds = float(os.environ.get("GUEST_FAULTS_SECS", "8"))
    health = place.script("health", BAD_HEALTH.replace("COUNT", str(place.path / "count")))
    event = place.script("event", "trap '' TERM; sleep 60 & exec sleep 60\n")
    syslogd = HungSyslogd(place.path / "syslog")
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb", buffering=0) as stderr:
        command = place.command(
            *("-f", "--socket", str(place.port), "--log", "syslog", "--log-level", "debug"),
            *("--health-script", health, "--health-interval-ms", "100"),
            *("--health-timeout-ms", "200", "--event-script", event, "--interval-ms", "400"),
            bad_day=f"client.SYSLOG_SOCKET = {str(syslogd.path)!r}\n"
            "client.LOG_WITHOUT_SYSLOG = '/dev/full'\n" + EACH_LINE_COUNTS + THE_CLOCK_JUMPS,
        )
        syslogd.tick(time.monotonic())
        client = Daemon(command, place.path / "out", os.environ, stderr=stderr)
        place.clients.append(client)
        session = host.greet()["invocation_id"]
        troubles = take_turns_at_trouble(host, client)
        took = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            syslogd.tick(time.monotonic())
            before = kept_waiting(client.pid)
            with Stopwatch() as watch:
                host.send("challenge", heartbeat_challenge=7)
                while host.receive()["msg_type"] != "challenge_response":
                    pass
                took.append(watch.secs - kept_waiting(client.pid) + before)
            for _ in range(20):
                host.notify(session, "stop", timeout_ms=300)
            time.sleep(max(0.0, INTERVAL_SECS - took[-1]))
            if len(took) % 3 == 0:
                session = next(troubles)
    syslogd.close()
    late = sum(one > INTERVAL_SECS for one in took)
    print(f"{len(took)} challenges, {late} late, slowest {max(took) * 1000:.0f} ms")
    assert late == 0
    assert client.running
