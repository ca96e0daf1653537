"""The OCF agent (operations.md, Services), as SM calls it.

Return codes: 0 success, 1 generic, 2 args, 3 unimplemented, 5 not installed, 6 not configured,
7 not running.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.packaging.support import Completed, Host, call, is_alive, need, write_script
from tests.peers.journal import wait_until

AGENT = "usr/lib/ocf/resource.d/platform/guestAgent"
SYSTEM_OCF_ROOT = Path("/usr/lib/ocf")
STUB_OCF_ROOT = Path(__file__).parent / "ocf_root"
DTD = Path("/usr/share/resource-agents/ra-api-1.dtd")

# Notes its arguments and the signals that it gets, and ends upon nothing but SIGKILL.
DEAF_DAEMON = """
    #!/usr/bin/python3
    import os, signal, sys, time

    root = sys.argv[2]
    if "--check-config" in sys.argv:
        sys.exit(0)
    ready, told = os.pipe()
    if os.fork():
        os.read(ready, 1)
        sys.exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    notes = open(root + "/notes", "a", buffering=1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: notes.write(signal.Signals(got).name + "\\n"))
    notes.write(" ".join(sys.argv[3:]) + "\\n")
    with open(root + "/var/run/guestAgent.pid", "w") as pidfile:
        pidfile.write(str(os.getpid()))
    os.write(told, b".")
    while True:
        time.sleep(60)
"""


@pytest.fixture(params=["system", "stub"])
def ocf_root(request: pytest.FixtureRequest) -> Path:
    """Give resource-agents' functions, and those that stand in for them."""
    if request.param == "stub":
        return STUB_OCF_ROOT
    if not (SYSTEM_OCF_ROOT / "lib/heartbeat/ocf-shellfuncs").exists():
        pytest.skip("no ocf-shellfuncs (package resource-agents)")
    return SYSTEM_OCF_ROOT


class Ocf:
    """Calls the agent's actions on a host."""

    def __init__(self, host: Host, ocf_root: Path, shell: str) -> None:
        self.host = host
        self.script = host.path / AGENT
        self.environment = {
            **host.environment,
            "OCF_ROOT": str(ocf_root),
            "OCF_RESOURCE_INSTANCE": "guest-agent",
            "OCF_RESKEY_user": pwd.getpwuid(os.geteuid()).pw_name,
        }
        self._shell = shell

    def __call__(self, *words: str, **parameters: str) -> Completed:
        keys = {f"OCF_RESKEY_{name}": value for name, value in parameters.items()}
        command = [self._shell, self.script, *words]
        return call(command, 30, env={**self.environment, **keys})

    def code(self, *words: str, **parameters: str) -> int:
        """Return an action's return code."""
        return self(*words, **parameters).returncode


@pytest.fixture
def ocf(host: Host, ocf_root: Path, shell: str) -> Ocf:
    """Give the installed agent, under each shell and with each set of functions."""
    return Ocf(host, ocf_root, shell)


@pytest.fixture
def one_ocf(host: Host) -> Ocf:
    """Give the agent under sh, where shell and functions make no difference."""
    return Ocf(host, STUB_OCF_ROOT, "sh")


def test_a_life(ocf: Ocf) -> None:
    """Start of a running one and stop of a stopped one are success."""
    assert [ocf.code("monitor"), ocf.code("status")] == [7, 7]
    assert [ocf.code("stop"), ocf.code("reload")] == [0, 7]
    assert ocf.code("validate-all") == 0
    assert ocf.code("start") == 0
    pid = ocf.host.pid("guestAgent")
    assert [ocf.code("start"), ocf.code("monitor"), ocf.code("status")] == [0, 0, 0]
    assert ocf.code("reload") == 0
    assert ocf.host.pid("guestAgent") == pid
    assert ocf.code("stop") == 0
    assert not is_alive(pid)
    assert [ocf.code("monitor"), ocf.code("status"), ocf.code("stop")] == [7, 7, 0]


def test_usage(ocf: Ocf) -> None:
    usage = ocf("usage")
    assert usage.returncode == 0
    assert "{start|stop|reload|status|monitor|validate-all|meta-data|usage}" in usage.stdout
    assert [ocf.code(), ocf.code("start", "again")] == [2, 2]
    assert [ocf.code("promote"), ocf.code("--help")] == [3, 3]


def test_a_killed_one_is_not_running(ocf: Ocf) -> None:
    """After kill -9 monitor says 7, and start starts it again."""
    ocf("start")
    ocf.host.kill("guestAgent")
    assert [ocf.code("monitor"), ocf.code("status")] == [7, 7]
    assert [ocf.code("start"), ocf.code("monitor")] == [0, 0]


def test_a_hung_one_fails_its_monitor_in_time(one_ocf: Ocf) -> None:
    """Monitor: pid alive, then SIGUSR1 and the health file back, within 10 s."""
    one_ocf("start")
    pid = one_ocf.host.pid("guestAgent")
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert one_ocf.code("status") == 0
    assert one_ocf.code("monitor") == 1
    assert time.monotonic() - began < 10
    os.kill(pid, signal.SIGCONT)
    assert one_ocf.code("monitor") == 0


def test_monitor_asks_for_the_health_file_each_time(one_ocf: Ocf) -> None:
    one_ocf("start")
    health = one_ocf.host.path / "var/run/guestAgent.info"
    health.write_text("I'm healthy: said by somebody long ago")
    assert one_ocf.code("monitor") == 0
    assert "long ago" not in health.read_text()


def test_stop_is_three_sigint_and_then_sigkill(one_ocf: Ocf) -> None:
    """SIGINT thrice a second apart, then SIGKILL."""
    write_script(one_ocf.host.path / "usr/local/bin/guestAgent", DEAF_DAEMON)
    assert one_ocf.code("start") == 0
    pid = one_ocf.host.pid("guestAgent")
    began = time.monotonic()
    assert one_ocf.code("stop") == 0
    assert 3 <= time.monotonic() - began < 10
    assert not is_alive(pid)
    assert (one_ocf.host.path / "notes").read_text().split() == ["SIGINT"] * 3
    assert one_ocf.code("monitor") == 7


@pytest.mark.parametrize(("dbg", "arguments"), [("true", "-d 1"), ("false", ""), ("", "")])
def test_dbg_is_the_debug_option(one_ocf: Ocf, dbg: str, arguments: str) -> None:
    write_script(one_ocf.host.path / "usr/local/bin/guestAgent", DEAF_DAEMON)
    assert one_ocf.code("start", dbg=dbg) == 0
    assert (one_ocf.host.path / "notes").read_text() == f"{arguments}\n"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"dbg": "perhaps"}, 2),
        ({"user": "no-such-user"}, 2),
        ({"binary": "/nonexistent/guestAgent"}, 5),
        ({"config": "/nonexistent/guestAgent.ini"}, 6),
        ({"mode": "active"}, 0),
    ],
)
def test_parameters_are_checked(ocf: Ocf, parameters: dict[str, str], code: int) -> None:
    assert ocf.code("validate-all", **parameters) == code
    assert ocf.code("start", **parameters) == code
    assert ocf.code("monitor", **parameters) == (7 if code else 0)
    assert ocf.code("stop", **parameters) == 0


def test_a_pid_parameter_that_is_wrong_does_no_harm(one_ocf: Ocf) -> None:
    """The daemon is found all the same (decision 33)."""
    one_ocf("start")
    assert one_ocf.code("monitor", pid="/nonexistent/guestAgent.pid") == 0
    assert one_ocf.code("monitor", pid=str(one_ocf.host.pidfile("guestAgent"))) == 0


def test_a_broken_configuration_is_not_configured(ocf: Ocf) -> None:
    ocf.host.peers_root.write_ini("guestAgent", "controller-0", {"agent": {"rx_port": "x"}})
    done = ocf("start")
    assert done.returncode == 6
    assert "rx_port" in done.stderr
    assert ocf.code("validate-all") == 6


def test_a_broken_configuration_does_not_reach_the_running_one(one_ocf: Ocf) -> None:
    one_ocf("start")
    one_ocf.host.peers_root.write_ini("guestAgent", "controller-0", {"agent": {"rx_port": "x"}})
    assert one_ocf.code("reload") == 6
    assert one_ocf.code("monitor") == 0


def test_a_daemon_that_cannot_start_is_a_generic_error(one_ocf: Ocf) -> None:
    with socket.create_server(("127.0.0.1", one_ocf.host.peers_root.vim_cmd_port)):
        done = one_ocf("start")
    assert done.returncode == 1
    assert str(one_ocf.host.peers_root.vim_cmd_port) in done.stderr
    assert one_ocf.code("start") == 0


@pytest.mark.parametrize("missing", ["functions.sh", "ocf-shellfuncs"])
def test_not_installed(one_ocf: Ocf, tmp_path: Path, missing: str) -> None:
    if missing == "functions.sh":
        (one_ocf.host.path / "usr/lib/mtce-guest/functions.sh").unlink()
    else:
        one_ocf.environment["OCF_ROOT"] = str(tmp_path)
    done = one_ocf("monitor")
    assert done.returncode == 5
    assert missing in done.stderr


def test_meta_data_says_what_the_specification_says(one_ocf: Ocf) -> None:
    """Timeouts start/stop/monitor 10 s, monitor interval 300 s; six parameters."""
    tree = ET.fromstring(one_ocf("meta-data").stdout)
    assert tree.get("name") == "guestAgent"
    actions = {action.get("name"): action for action in tree.iter("action")}
    assert set(actions) == {
        "start",
        "stop",
        "reload",
        "status",
        "monitor",
        "validate-all",
        "meta-data",
        "usage",
    }
    assert {actions[name].get("timeout") for name in ("start", "stop", "monitor")} == {"10s"}
    assert actions["monitor"].get("interval") == "300s"
    parameters = {row.get("name") for row in tree.iter("parameter")}
    assert parameters == {"binary", "config", "dbg", "mode", "user", "pid"}


def test_meta_data_is_valid(one_ocf: Ocf, tmp_path: Path) -> None:
    """Valid against the OCF ra-api DTD."""
    if not DTD.exists():
        pytest.skip(f"no {DTD} (package resource-agents)")
    document = tmp_path / "meta-data.xml"
    document.write_text(one_ocf("meta-data").stdout)
    done = call([need("xmllint", "libxml2-utils"), "--noout", "--dtdvalid", DTD, document])
    assert done.returncode == 0, done.stderr


def test_ocf_tester_passes(host: Host) -> None:
    """It looks for the DTD, runs each action in each state, and counts what is wrong."""
    tester = need("ocf-tester", "resource-agents")
    need("xmllint", "libxml2-utils")
    # Run as root it has user nobody call the agent.
    host.path.chmod(0o755)
    ocf = Ocf(host, SYSTEM_OCF_ROOT, "sh")
    done = call(["sh", tester, "-n", "guest-agent", ocf.script], env=ocf.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed all tests" in done.stdout
    wait_until(lambda: not host.pidfile("guestAgent").exists())
