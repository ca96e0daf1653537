"""The files of the packages at work: nothing of the checkout runs here but the peers.

SM's part is played with the OCF agent, pmond's and the guest's init with the init scripts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.support import Completed, Host, call, host_of
from tests.packaging.test_ocf import STUB_OCF_ROOT, Ocf
from tests.peers.journal import wait_until
from tests.peers.mtc_agent import MtcAgent
from tests.peers.relay import Relay
from tests.peers.root import COMPUTE_0
from tests.peers.vim import Vim

HOST_UUID = "c0c0c0c0-0000-4000-8000-00000000c0c0"
INSTANCE = "11110000-0000-4000-8000-000000000001"
INTERVAL_MS = 500


class Site:
    """A controller and a worker in one root, with a VIM, an mtcAgent and one instance."""

    def __init__(self, host: Host, cleanup: contextlib.ExitStack) -> None:
        self.host = host
        root = host.peers_root
        self.agent = Ocf(host, STUB_OCF_ROOT, "sh")
        self.vim = cleanup.enter_context(Vim(root.vim_port, root.vim_cmd_port, serial=True))
        self.vim.set_host(HOST_UUID, "compute-0")
        self.vim.set_instance(INSTANCE, "compute-0")
        mtc = cleanup.enter_context(MtcAgent(root.mtc_event_port, root.mtc_cmd_port))
        mtc.add_host("compute-0", HOST_UUID, COMPUTE_0, tell=False)
        port = host.path / "port"
        self.relay = cleanup.enter_context(Relay(root.channels, INSTANCE, port))
        (host.path / "etc/guest-client/guest-client.conf").write_text(
            f"[guest-client]\nsocket = {port}\ninterval_ms = {INTERVAL_MS}\nname = vm\n"
            f"corrective_action = reboot\nlog = {host.path}/var/log/guest-client.log\n"
        )

    def start(self) -> None:
        """Start all three programs and wait until the VIM hears that the instance heartbeats."""
        assert self.agent.code("start") == 0
        self.init("guestServer", "start")
        self.init("guest-client", "start")
        self.vim.wait_event("service", INSTANCE, status="enabled")

    def init(self, daemon: str, action: str) -> None:
        """Run an init script that has to succeed."""
        done = self.host.init(daemon, action)
        assert done.returncode == 0, done.stdout + done.stderr

    def guestctl(self, *words: str) -> Completed:
        """Run the installed guestctl."""
        program = self.host.path / "usr/local/bin/guestctl"
        return call([program, "--root", self.host.path, *words], env=self.host.environment)

    def answers(self) -> int:
        """Count the challenges that the guest has answered."""
        return sum(said.message["msg_type"] == "challenge_response" for said in self.relay.messages)

    def wait_for_answers(self, count: int, timeout: float = 10.0) -> None:
        """Wait for so many more answers."""
        target = self.answers() + count
        wait_until(lambda: self.answers() >= target, timeout, f"{count} more answers")


@pytest.fixture
def packaged(unpacked: Path) -> Iterator[Host]:
    """Give a host with the files of all packages."""
    with host_of(unpacked) as host:
        yield host


@pytest.fixture
def site(packaged: Host) -> Iterator[Site]:
    """Give a site on that host, not started yet."""
    with contextlib.ExitStack() as cleanup:
        yield Site(packaged, cleanup)


@pytest.fixture
def installed_site(host: Host) -> Iterator[Site]:
    """Give one of the same files by `make install`, for what does not depend on their package."""
    with contextlib.ExitStack() as cleanup:
        yield Site(host, cleanup)


@pytest.mark.parametrize("daemon", ["guestServer", "guestAgent"])
def test_the_shipped_configuration_is_right(unpacked: Path, packaged: Host, daemon: str) -> None:
    ini = packaged.path / f"etc/mtc/{daemon}.ini"
    ini.write_text((unpacked / f"etc/mtc/{daemon}.ini").read_text())
    program = packaged.path / "usr/local/bin" / daemon
    check = [program, "--root", packaged.path, "--check-config"]
    done = call(check, env=packaged.environment)
    assert done.returncode == 0, done.stderr
    assert "rx_port = 2411" in done.stdout
    ini.write_text("[client]\nrx_port = 0\n")
    assert call(check, env=packaged.environment).returncode == 1


def test_the_installed_files_are_those_that_run(site: Site) -> None:
    """The package beside the program, not the checkout's: its daemon says its own version."""
    (site.host.path / "usr/lib/mtce-guest/VERSION").write_text("9.8.7 cafe\n")
    program = site.host.path / "usr/local/bin/guestServer"
    done = call([program, "--version"], env=site.host.environment)
    assert done.stdout == "guestServer 9.8.7 (cafe)\n"


def test_a_heartbeat_from_guest_to_vim(site: Site) -> None:
    """Service enabled, an answered vote, a loss with the action that the guest asked for."""
    site.start()
    site.wait_for_answers(3)
    assert site.agent.code("monitor") == 0
    assert site.guestctl("status").returncode == 0
    shown = json.loads(site.guestctl("--json", "show", INSTANCE).stdout)
    assert INSTANCE in json.dumps(shown)
    assert site.vim.command.vote(INSTANCE, "compute-0", "stop").status == 200
    site.vim.wait_event("action", INSTANCE, action="stop", guest_response="allow")
    os.kill(site.host.pid("guest-client"), signal.SIGSTOP)
    site.vim.wait_event("alarm", INSTANCE, state="failed", repair_action="reboot")
    os.kill(site.host.pid("guest-client"), signal.SIGCONT)


def test_a_killed_server_recovers_and_the_vim_hears_no_false_alarm(installed_site: Site) -> None:
    """pmond's view: kill -9, then the init script; everything is back within 5 s of the restart."""
    site = installed_site
    site.start()
    site.wait_for_answers(2)
    since = len(site.vim.requests)
    site.host.kill("guestServer")
    assert site.host.init("guestServer", "status").returncode == 1
    site.init("guestServer", "restart")
    restarted = time.monotonic()
    site.wait_for_answers(3)
    assert time.monotonic() - restarted < 5
    # Long enough for a loss, two audits' questions and whatever was held back.
    site.wait_for_answers(8)
    events = site.vim.requests.since(since)
    assert not [event for event in events if event.event_type == "alarm"]
    assert site.guestctl("status").returncode == 0
    # And it is still on guard.
    os.kill(site.host.pid("guest-client"), signal.SIGSTOP)
    site.vim.wait_event("alarm", INSTANCE, since=since, state="failed")
    os.kill(site.host.pid("guest-client"), signal.SIGCONT)


def test_a_killed_agent_recovers_and_the_vim_hears_no_false_alarm(installed_site: Site) -> None:
    """SM's view: kill -9, monitor says 7, start; the agent learns all again by itself."""
    site = installed_site
    site.start()
    since = len(site.vim.requests)
    site.host.kill("guestAgent")
    assert site.agent.code("monitor") == 7
    assert site.agent.code("start") == 0
    wait_until(lambda: site.vim.command.query_instance(INSTANCE).status == 200)
    site.vim.wait_event("service", INSTANCE, timeout=20, since=since, status="enabled")
    events = [event for event in site.vim.requests.since(since) if event.event_type]
    assert [event.event_type for event in events] == ["service"]
