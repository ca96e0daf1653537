"""The guest client as a process, with a scripted host at the other end of its socket."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.functional import guest_client_support
from tests.functional.guest_client_support import all_ended, challenge_until, oldest_python
from tests.peers.host import ScriptedHost
from tests.peers.journal import wait_until
from tests.peers.root import REPOSITORY
from tests.peers.stopwatch import Stopwatch

place = pytest.fixture(guest_client_support.make_place)
host = pytest.fixture(guest_client_support.make_host)


@pytest.fixture
def start(place):
    return place.start


def test_a_session_from_init_to_exit(host, start):
    client = start("--name", "vm-1", "--interval-ms", "500", "--corrective-action", "reboot")
    init = host.greet()
    assert init["name"] == "vm-1"
    assert init["heartbeat_interval_ms"] == 500
    assert init["corrective_action"] == "reboot"
    for value in (846930886, 0, 2**31 - 1):
        assert host.challenge(value)["heartbeat_health"] == "healthy"
    host.notify(init["invocation_id"], "stop")
    assert host.receive("action_response")["vote_result"] == "accept"
    client.signal(signal.SIGTERM)
    assert "SIGTERM" in host.receive("exit")["log_msg"]
    assert client.process.wait(5) == 0
    assert "Traceback" not in client.log


def test_init_is_repeated_until_acknowledged(host, start):
    start()
    host.accept()
    first = host.receive("init")
    second = host.receive("init", timeout=5)
    assert second["invocation_id"] == first["invocation_id"]
    host.send("init_ack", invocation_id=first["invocation_id"])
    host.challenge()
    host.receive_nothing(3)


def test_init_again_when_challenges_stop(host, start):
    """protocol.md: no challenge for max(2 x interval, 5 s) and the guest says init again."""
    start("--interval-ms", "500")
    first = host.greet()
    host.challenge()
    began = time.monotonic()
    again = host.receive("init")
    assert 4.5 < time.monotonic() - began < 8
    assert again["invocation_id"] != first["invocation_id"]
    host.send("init_ack", invocation_id=again["invocation_id"])
    host.challenge()


def test_connects_again_after_a_hang_up(host, start):
    start()
    host.greet()
    host.hang_up()
    host.greet()
    host.challenge()


def test_waits_for_a_host_that_is_not_there_yet(place, start):
    client = start()
    client.wait_for_log("No such file")
    with ScriptedHost(place.port) as host:
        host.greet()
    client.wait_for_log("closed by the host")
    used = cpu_seconds(client.pid)
    time.sleep(1.5)
    assert cpu_seconds(client.pid) - used < 0.2
    assert client.running


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("split", [1, 7])
def test_a_host_whose_bytes_arrive_in_pieces(host, start, split):
    start()
    host.accept()
    init = host.receive("init")
    host.send("init_ack", split, invocation_id=init["invocation_id"])
    host.send("challenge", split, heartbeat_challenge=42)
    assert host.receive("challenge_response")["heartbeat_response"] == 42


def test_rubbish_is_survived(host, start):
    client = start()
    init = host.greet()
    host.send_raw(b"\xff" * 3000 + b"\n\n{}\n[]\n" + b"[" * 1000 + b'\n{"version":3}\n')
    host.send("explode")
    host.notify(init["invocation_id"], "explode")
    host.notify(init["invocation_id"] ^ 1, "stop")
    host.send("nack", invocation_id=1, log_msg="no\x1b[2J thanks")
    host.challenge()
    client.wait_for_log("no [2J thanks")
    assert "\x1b" not in client.log


def test_votes_through_a_script(host, start, place):
    event_script = place.script(
        "event",
        'case "$1 $2" in\n'
        '"revocable pause") printf "it\\tsays \\"busy\\"\\nmore\\n"; exit 1;;\n'
        '"revocable stop") echo fine;;\n'
        '"revocable reboot") exit 7;;\n'
        '"irrevocable stop") echo saved;;\n'
        "esac\n",
    )
    start("--event-script", event_script)
    invocation_id = host.greet()["invocation_id"]
    cases = [
        ("revocable", "pause", "reject", 'it says "busy"'),
        ("revocable", "stop", "accept", "fine"),
        ("revocable", "reboot", "error", "the event script ended with status 7"),
        ("irrevocable", "stop", "complete", "saved"),
    ]
    for kind, event, vote, reason in cases:
        host.notify(invocation_id, event, kind)
        answer = host.receive("action_response")
        assert answer["invocation_id"] == invocation_id
        assert (answer["event_type"], answer["notification_type"]) == (event, kind)
        assert (answer["vote_result"], answer["log_msg"]) == (vote, reason)


def test_a_script_that_is_too_slow_is_killed(host, start, place):
    """The vote is timeout, one second before timeout_ms; the heartbeat goes on meanwhile."""
    event_script = place.script("event", f"sleep 60 & echo $$ $! > {place.path}/pid; wait\n")
    start("--event-script", event_script)
    invocation_id = host.greet()["invocation_id"]
    with Stopwatch() as watch:
        host.notify(invocation_id, "pause", timeout_ms=2500)
        host.challenge()
        answer = host.receive("action_response")
        assert watch.secs + watch.starved > 1.4
        assert watch.secs < 2.4
    assert answer["vote_result"] == "timeout"
    wait_until(lambda: all_ended(place.path / "pid"), 5, "script and its child killed")


def test_a_second_notification_supersedes_the_first(host, start, place):
    event_script = place.script(
        "event",
        f'if [ $2 = pause ]; then echo $$ > {place.path}/pid; exec sleep 60; fi; echo "$2"\n',
    )
    start("--event-script", event_script)
    invocation_id = host.greet()["invocation_id"]
    host.notify(invocation_id, "pause", timeout_ms=3000)
    wait_until(lambda: (place.path / "pid").exists() and (place.path / "pid").read_text(), 5)
    host.notify(invocation_id, "stop", timeout_ms=9000)
    answer = host.receive("action_response")
    assert (answer["event_type"], answer["log_msg"]) == ("stop", "stop")
    wait_until(lambda: all_ended(place.path / "pid"), 5, "the first script killed")
    host.receive_nothing(3)


def test_a_script_that_prints_without_end_is_bounded(host, start, place):
    """Neither the output nor a child that keeps standard output open delays the answer."""
    event_script = place.script(
        "event",
        "head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; sleep 5 & exit 1\n",
    )
    start("--event-script", event_script)
    invocation_id = host.greet()["invocation_id"]
    host.notify(invocation_id, "stop")
    answer = host.receive("action_response", timeout=4.5)
    assert answer["vote_result"] == "reject"
    assert re.fullmatch("x{191}", answer["log_msg"])


def test_a_health_script_makes_the_guest_unhealthy_and_healthy_again(host, start, place):
    fault = place.path / "fault"
    health_script = place.script("health", f'[ ! -e {fault} ] || {{ echo "disk full"; exit 1; }}\n')
    start(
        *("--health-script", health_script, "--health-interval-ms", "100"),
        *("--unhealthy-corrective-action", "reboot"),
    )
    host.greet()
    assert host.challenge()["heartbeat_health"] == "healthy"
    fault.touch()
    answer = challenge_until(host, "unhealthy")
    assert (answer["corrective_action"], answer["log_msg"]) == ("reboot", "disk full")
    assert host.challenge()["corrective_action"] == "none"
    fault.unlink()
    assert challenge_until(host, "healthy")["log_msg"] == ""


def test_a_health_script_that_hangs_is_unhealthy_and_delays_nothing(host, start, place):
    health_script = place.script("health", "exec sleep 60\n")
    start(
        *("--health-script", health_script),
        *("--health-interval-ms", "100", "--health-timeout-ms", "600"),
    )
    host.greet()
    with Stopwatch() as watch:
        host.challenge()
        assert watch.secs < 0.5
    assert challenge_until(host, "unhealthy")["log_msg"] == "no answer from the script in 0.6 s"


def test_stopped_and_continued(host, start):
    """Challenges of meanwhile are answered in order; without them a new init follows at once."""
    client = start("--interval-ms", "500")
    host.greet()
    host.challenge()
    client.signal(signal.SIGSTOP)
    for value in (5, 6):
        host.send("challenge", heartbeat_challenge=value)
    host.receive_nothing(0.3)
    client.signal(signal.SIGCONT)
    assert host.receive("challenge_response")["heartbeat_response"] == 5
    assert host.receive("challenge_response")["heartbeat_response"] == 6

    client.signal(signal.SIGSTOP)
    time.sleep(5.5)
    client.signal(signal.SIGCONT)
    with Stopwatch() as watch:
        host.receive("init")
        assert watch.secs < 2


def test_a_host_that_does_not_read_is_survived(host, start):
    """The output is bounded and the client stays alive; after that all is well again."""
    client = start()
    host.greet()
    for value in range(2000):
        host.send("challenge", heartbeat_challenge=value)
    answers = [host.receive("challenge_response")["heartbeat_response"] for _ in range(200)]
    assert answers == sorted(answers)
    host.send("challenge", heartbeat_challenge=10**6)
    while host.receive("challenge_response")["heartbeat_response"] != 10**6:
        pass
    assert client.running


@pytest.mark.skipif(oldest_python() is None, reason="no Python 3.6 (pyenv brings one)")
def test_runs_on_the_oldest_python(host, start, place):
    event_script = place.script("event", "echo no; exit 1\n")
    health_script = place.script("health", "echo well\n")
    client = start(
        *("--event-script", event_script, "--health-script", health_script),
        python=oldest_python(),
    )
    invocation_id = host.greet()["invocation_id"]
    wait_until(lambda: host.challenge()["log_msg"] == "well", 5, "the health script's text")
    host.notify(invocation_id, "stop")
    assert host.receive("action_response")["vote_result"] == "reject"
    assert client.stop() == 0
    assert "Traceback" not in client.log


def test_the_samples_work_as_they_are(host, start, place):
    samples = REPOSITORY / "guest" / "samples"
    os.environ["BUSY_FILE"] = str(place.path / "busy")
    os.environ["FAULT_FILE"] = str(place.path / "fault")
    try:
        start(
            *("--event-script", str(samples / "event-script.sh")),
            *("--health-script", str(samples / "health-script.sh")),
            *("--health-interval-ms", "100"),
        )
    finally:
        del os.environ["BUSY_FILE"], os.environ["FAULT_FILE"]
    invocation_id = host.greet()["invocation_id"]
    wait_until(lambda: host.challenge()["log_msg"] == "ok", 5, "healthy")
    host.notify(invocation_id, "live_migrate_begin")
    assert host.receive("action_response")["vote_result"] == "accept"
    (place.path / "busy").write_text("call in progress")
    host.notify(invocation_id, "live_migrate_begin")
    answer = host.receive("action_response")
    assert (answer["vote_result"], answer["log_msg"]) == ("reject", "call in progress")
    host.notify(invocation_id, "live_migrate_end", "irrevocable")
    assert host.receive("action_response")["vote_result"] == "complete"
    (place.path / "fault").write_text("fan broken\n")
    assert challenge_until(host, "unhealthy")["log_msg"] == "fan broken"


@pytest.mark.parametrize(
    ("options", "status", "problem"),
    [
        (["--config", "/nonexistent"], 1, "/nonexistent"),
        (["--interval-ms", "0"], 2, "from 1 to 86400000"),
        (["--what"], 2, "--what"),
        (["--device", "/dev/null"], 1, "/dev/null: is not a device that one can wait for"),
        (["--device", __file__], 1, "is not a device"),
        (["--socket", __file__], 1, "is not a socket"),
    ],
)
def test_a_bad_start_is_explained(place, options, status, problem):
    done = place.run("-f", *options)
    assert done.returncode == status
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_in_the_background_with_a_log_and_a_pid_file(host, place):
    log, pid_file = place.path / "log", place.path / "pid"
    background = ["--socket", str(place.port), "--log", str(log), "--pid-file", str(pid_file)]
    assert place.run(*background).returncode == 0
    pid = int(pid_file.read_text())
    try:
        host.greet()
        wait_until(lambda: log.exists() and "acknowledged" in log.read_text(), 5)
        assert f"guest-client[{pid}]" in log.read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
    host.receive("exit")
    wait_until(lambda: all_ended(pid_file), 5, "it has ended")


def test_a_pid_file_that_cannot_be_written_is_explained(place):
    options = ["--socket", str(place.port), "--pid-file", str(place.path / "absent" / "pid")]
    done = place.run(*options)
    assert done.returncode == 1
    assert "No such file" in done.stderr
