"""bin/guestAgent as a process: its life, its control socket, and recordings replayed against it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from guestmtce.runtime import control
from guestmtce.runtime.loop import Loop
from tests.functional.agent_replay import Recording, compare, feed
from tests.functional.test_agent_replay import INTENDED, explains
from tests.peers import wire
from tests.peers.root import REPOSITORY, Root
from tests.peers.stopwatch import Stopwatch
from tests.unit.agent_rig import HOSTS, PeersRig, Ports
from tests.unit.agent_support import HOST_0, UUID

# What a process on a busy machine needs to answer a datagram.
SETTLE_SECS = 0.03


class RealLoop(Loop):
    """The rig's loop in real time."""

    def settle(self) -> None:
        self.advance(SETTLE_SECS)

    def advance(self, seconds: float) -> None:
        end = self.call_later(seconds, lambda: None)
        while end.active:
            self.run_once()


class ProcessRig(PeersRig):
    """The agent as a process, in real time, as fast as it goes."""

    def __init__(self) -> None:
        self.root = Root()
        super().__init__(
            RealLoop(),
            Ports(
                self.root.agent_port,
                self.root.server_port,
                self.root.mtc_cmd_port,
                self.root.mtc_event_port,
                self.root.vim_cmd_port,
            ),
        )
        self.root.write_hosts(HOSTS)
        self.configure({})

    def configure(self, settings: dict) -> None:
        vim = {"vim": {"address": "127.0.0.1", "port": self.vim.port}}
        self.root.write_ini("guestAgent", "controller-0", {**vim, **settings})

    def start(self, *options: str) -> ProcessRig:
        self.daemon = self.root.start_agent(*options)
        self.wait_until(lambda: self.to_mtc)
        return self

    def wait_until(self, condition, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.daemon.log
            self.loop.advance(0.01)

    def ask(self, **request: str) -> dict:
        return control.ask(str(self.root.path / "var/run/guestAgent.ctl"), dict(request))

    def close(self) -> None:
        self.root.stop()
        super().close()
        self.root.remove()


@pytest.fixture
def rig():
    rig = ProcessRig()
    yield rig
    rig.close()


def test_it_starts_asks_for_hosts_and_stops_within_2_s(rig):
    rig.start()
    assert len(rig.to_mtc) == 1
    assert Path(f"/proc/{rig.daemon.pid}/comm").read_text().strip() == "guestAgent"
    health = (rig.root.path / "var/run/guestAgent.info").read_text()
    assert health.startswith("I'm healthy: Here is my config ...\n")
    with Stopwatch() as watch:
        assert rig.daemon.stop() == 0
        assert watch.secs < 2
    assert not (rig.root.path / "var/run/guestAgent.pid").exists()
    assert not (rig.root.path / "var/run/guestAgent.ctl").exists()


def test_the_control_socket_tells_what_guestctl_shows(rig):
    rig.start()
    rig.add_host()
    assert rig.host_command("enable") == 200
    rig.create()
    rig.info("RUNNING")
    status = rig.ask(command="status")
    assert (status["daemon"], status["pid"]) == ("guestAgent", rig.daemon.pid)
    assert status["healthy"], status["problems"]
    assert status["summary"]["heartbeating"] == 1
    (instance,) = rig.ask(command="instances")["instances"]
    assert (instance["uuid"], instance["host"], instance["heartbeating"]) == (
        UUID,
        "compute-0",
        True,
    )
    (host,) = rig.ask(command="hosts")["hosts"]
    assert (host["hostname"], host["ip"], host["reporting"]) == (
        "compute-0",
        "127.0.0.2",
        "enabled",
    )
    shown = rig.ask(command="show", uuid=UUID)["instance"]
    assert {**shown, **instance} == shown, "show has all of the list, and the history"
    assert shown["history"]
    assert "error" in rig.ask(command="show", uuid="none")
    assert "guestmtce_hosts 1\n" in rig.ask(command="metrics")["metrics"]
    assert rig.ask(command="dump")["vim"]["suspect"] is False


def test_the_status_page_and_the_stream_of_events(rig):
    """What a browser gets: the page as it is now, and each event as it happens."""
    rig.start()
    rig.add_host()
    rig.host_command("enable")
    with socket.create_connection(("127.0.0.1", rig.root.vim_cmd_port), 10) as stream:
        stream.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        rig.wait_until(lambda: b": events follow" in stream.recv(4096, socket.MSG_PEEK))
        rig.create()
        rig.info("RUNNING")
        rig.wait_until(lambda: b"data: {" in stream.recv(65536, socket.MSG_PEEK))
        lines = stream.recv(65536).decode("ascii").splitlines()
        event = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
        assert event["uuid"] == UUID
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.root.vim_cmd_port}/", timeout=10) as page:
        html = page.read().decode("utf-8")
    assert UUID in html
    assert "compute-0" in html


DELETE = (
    f"DELETE /v1/instances/{UUID} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
).encode()
# What another user runs: a whole command, and then its answer.
AS_USER = """\
import os, socket, sys
uid, port, command = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
os.setgroups([]), os.setgid(uid), os.setuid(uid)
with socket.socket() as client:
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall(command)
    print(client.recv(100).decode())
"""


def test_the_log_says_which_user_of_this_host_commands(rig):
    """Through a daemon that has given up its rights, and names users by its root's passwd."""
    (rig.root.path / "etc/passwd").write_text(f"vim:x:{os.getuid()}:1::/:\n")
    rig.start()
    rig.add_host()
    rig.create()
    rig.daemon.wait_for_log(f"instance create {UUID}, host compute-0, by vim: 200")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_commands_are_for_those_users_whom_the_setting_names(rig):
    rig.configure({"agent": {"vim_cmd_users": "1234, nobody"}})
    rig.start()
    rig.daemon.wait_for_log("[agent] vim_cmd_users: no user nobody in the passwd file")
    rig.add_host()
    assert rig.create() == 200, "root may always"

    def answer_to(uid: int) -> str:
        words = [sys.executable, "-c", AS_USER, str(uid), str(rig.root.vim_cmd_port), DELETE.hex()]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout

    assert answer_to(65534).startswith("HTTP/1.1 403 ")
    rig.daemon.wait_for_log("403 user uid 65534 is not in [agent] vim_cmd_users")
    assert answer_to(1234).startswith("HTTP/1.1 204 ")
    rig.daemon.wait_for_log(f"instance delete {UUID}, by uid 1234: 204")


def test_signals(rig):
    rig.start()
    health = rig.root.path / "var/run/guestAgent.info"
    rig.wait_until(health.exists)
    health.unlink()
    rig.daemon.signal(signal.SIGUSR1)
    rig.wait_until(health.exists)
    rig.daemon.signal(signal.SIGUSR2)
    rig.wait_until((rig.root.path / "var/run/guestAgent.dump").exists)
    rig.configure({"agent": {"vim_cmd_port": 1}, "debug": {"debug_level": 1}})
    rig.daemon.signal(signal.SIGHUP)
    rig.daemon.wait_for_log("[debug] debug_level changed")
    rig.daemon.wait_for_log("[agent] vim_cmd_port changed: it needs a restart")
    assert rig.create() == 400, "and it goes on where it was"


def run(rig: ProcessRig, *options: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        str(REPOSITORY / "bin/guestAgent"),
        "-f",
        "--root",
        str(rig.root.path),
    ]
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=20, check=False
    )


def test_a_second_one_does_not_start(rig):
    rig.start()
    ended = run(rig)
    assert ended.returncode == 1
    assert f"already running (pid {rig.daemon.pid})" in ended.stderr


@pytest.mark.parametrize(("kind", "port"), [("STREAM", "vim_cmd_port"), ("DGRAM", "agent_port")])
def test_a_port_in_use_is_named(rig, kind, port):
    number = getattr(rig.root, port)
    with socket.socket(socket.AF_INET, getattr(socket, f"SOCK_{kind}")) as taken:
        taken.bind(("127.0.0.1", number))
        if kind == "STREAM":
            taken.listen()
        ended = run(rig)
    assert ended.returncode == 1
    assert f"port {number} on 127.0.0.1" in ended.stderr


def test_a_missing_setting_is_named(rig):
    ini = rig.root.path / "etc/mtc/guestAgent.ini"
    ini.write_text("[agent]\nrx_port = 2401\n[client]\nrx_port = 2411\n")
    for options in ((), ("--check-config",)):
        ended = run(rig, *options)
        assert ended.returncode == 1
        assert "guestAgent.ini:1: [agent] vim_cmd_port is missing" in ended.stderr


def test_check_config(rig):
    ended = run(rig, "--check-config")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"vim_cmd_port = {rig.root.vim_cmd_port}" in ended.stdout


def test_commands_are_taken_on_loopback_only(rig):
    rig.configure({"agent": {"vim_cmd_address": "0.0.0.0"}})
    ended = run(rig)
    assert ended.returncode == 1
    assert "not a loopback address" in ended.stderr


def test_names_that_resolve_to_nothing_yet_are_waited_for(rig):
    rig.root.write_hosts({})
    rig.daemon = rig.root.start_agent()
    rig.wait_until((rig.root.path / "var/run/guestAgent.ctl").exists)
    assert not rig.ask(command="status")["healthy"]
    assert rig.command("GET", f"/v1/hosts/{HOST_0}")[0] == 404, "commands are served meanwhile"
    rig.root.write_hosts(HOSTS)
    rig.wait_until(lambda: rig.to_mtc)
    assert rig.ask(command="status")["healthy"]


def test_without_an_idle_wake_up(rig):
    """It wakes only for I/O and due timers: not for nothing 100 times a second."""
    rig.start()
    rig.loop.advance(0.5)
    before = _switches(rig.daemon.pid)
    rig.loop.advance(2)
    assert _switches(rig.daemon.pid) - before <= 10


def _switches(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError("no count of context switches")


def test_ipv6(rig):
    """All sockets and peers work with ::1 as with 127.0.0.1; URLs bracket it."""
    rig.root.write_hosts({"::1": "unused"})
    (rig.root.path / "etc/hosts").write_text("::1 controller controller-0 compute-0\n")
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as vim:
        vim.bind(("::1", 0))
        vim.listen()
        vim.settimeout(10)
        port = vim.getsockname()[1]
        rig.configure(
            {"vim": {"address": "::1", "port": port}, "agent": {"vim_cmd_address": "::1"}}
        )
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as mtc:
            mtc.bind(("::1", rig.ports.mtc_event))
            mtc.settimeout(10)
            rig.daemon = rig.root.start_agent()
            assert mtc.recv(2000).startswith(b"guest msg header:")
            body = {"uuid": HOST_0, "hostname": "compute-0", "ip": "::1"}
            mtc.sendto(wire.pack("ADD_HOST", body, wire.MTC_SIGNATURE), ("::1", rig.ports.mtc_cmd))
        connection, _ = vim.accept()
        with connection:
            assert f"Host: [::1]:{port}\r\n".encode() in connection.recv(65536)
    with socket.create_connection(("::1", rig.ports.commands)) as client:
        client.sendall(b"GET /v1/hosts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b'"hostname":"compute-0"' in client.recv(65536)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::1", rig.ports.server))
        server.settimeout(10)
        members = {"uuid": HOST_0, "hostname": "compute-0"}
        head = f"PUT /v1/hosts/{HOST_0}/enable HTTP/1.0\r\n"
        data = json.dumps(members)
        with socket.create_connection(("::1", rig.ports.commands)) as client:
            client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n{data}".encode())
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        datagram = wire.unpack(server.recv(2000))
    assert datagram.name == "MOD_HOST"
    assert datagram.body["source"] == "::1"


# Recordings whose point is not when something happens.
SELECTION = [
    "agent-rest-success",
    "agent-rest-errors",
    "agent-events",
    "agent-instance-moved",
]


@pytest.mark.parametrize("scenario", SELECTION)
def test_replay_against_the_process(rig, scenario):
    """As on simulated time, but at another pace: without regard to when."""
    recording = Recording(scenario)
    rig.start()
    ours = feed(rig, scenario, recording, until=rig.time + 0.5)
    differences = compare(recording.outputs, ours)
    unexplained = [
        difference
        for difference in differences
        if difference.side not in {"time", "order"}
        and "QRY_INST" not in difference.text  # the audit's turn comes, or does not
        and not any(explains(row, scenario, difference) for row in INTENDED)
    ]
    assert unexplained == []
    assert rig.daemon.running
    assert "Traceback" not in rig.daemon.log


def test_a_vim_that_hangs_for_real(rig):
    """The process, not only the rules: a command is answered at once while requests hang."""
    rig.start()
    rig.add_host()
    rig.create()
    rig.vim.hang()
    for _ in range(3):
        rig.info("RUNNING")
    with Stopwatch() as watch:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", rig.ports.commands)) as client:
                client.sendall(f"GET /v1/instances/{UUID} HTTP/1.0\r\n\r\n".encode())
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert watch.secs < 1
    rig.vim.go_on()
    rig.wait_until(lambda: rig.vim.events("service"))
