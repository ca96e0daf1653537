"""The init scripts (operations.md, Services), as an administrator, pmond and systemd call them.

Exit codes: 0 ok, 1 generic, 2 usage, 3 not running (status), 5 not installed, 7 failed to stop.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.packaging.support import Host, call, command_name, is_alive, write_script
from tests.peers.journal import wait_until

DAEMONS = ["guestServer", "guestAgent"]

# Ends upon nothing but SIGKILL, and notes what it got meanwhile.
DEAF_DAEMON = """
    #!/bin/sh
    root=$2
    case " $* " in *" --check-config "*) exit 0 ;; esac
    exec >/dev/null 2>&1 </dev/null
    cp /bin/sleep "$root/guestServer" || exit
    (
        trap '' TERM INT
        exec "$root/guestServer" 60
    ) &
    echo $! >"$root/var/run/guestServer.pid"
"""


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_life(host: Host, daemon: str, shell: str) -> None:
    """Start, start again, status, stop, stop again: "start of a running daemon is 0"."""

    def init(action: str) -> tuple[int, str]:
        done = host.init(daemon, action, shell)
        assert done.stderr == ""
        return done.returncode, done.stdout

    assert init("status") == (3, f"{daemon} is not running\n")
    assert init("start") == (0, f"Starting {daemon}: OK\n")
    pid = host.pid(daemon)
    assert command_name(pid) == daemon
    assert init("start") == (0, f"{daemon} is already running (pid {pid})\n")
    assert init("status") == (0, f"{daemon} is running (pid {pid})\n")
    assert init("stop") == (0, f"Stopping {daemon}: OK\n")
    assert not is_alive(pid)
    assert not host.pidfile(daemon).exists()
    assert init("stop") == (0, f"{daemon} is not running\n")
    assert init("status") == (3, f"{daemon} is not running\n")


def test_restart_makes_a_new_process_of_a_running_and_of_a_stopped_one(
    host: Host, shell: str
) -> None:
    stopped = host.init("guestServer", "restart", shell)
    assert stopped.returncode == 0
    first = host.pid("guestServer")
    assert host.init("guestServer", "restart", shell).returncode == 0
    assert host.pid("guestServer") != first
    assert not is_alive(first)


@pytest.mark.parametrize("action", ["condrestart", "try-restart"])
def test_condrestart_leaves_a_stopped_one_alone(host: Host, shell: str, action: str) -> None:
    assert host.init("guestServer", action, shell).returncode == 0
    assert host.init("guestServer", "status", shell).returncode == 3
    host.init("guestServer", "start", shell)
    first = host.pid("guestServer")
    assert host.init("guestServer", action, shell).returncode == 0
    assert host.pid("guestServer") != first


def test_reload_has_the_configuration_read_again(host: Host, shell: str) -> None:
    assert host.init("guestServer", "reload", shell).returncode == 1
    host.init("guestServer", "start", shell)
    pid = host.pid("guestServer")
    host.peers_root.write_ini("guestServer", "compute-0", {"client": {"hbs_pulse_period": 500}})
    done = host.init("guestServer", "reload", shell)
    assert (done.returncode, done.stdout) == (0, "Reloading guestServer: OK\n")
    wait_until(lambda: "hbs_pulse_period" in host.log("guestServer"))
    assert host.pid("guestServer") == pid


def test_reload_of_a_broken_configuration_says_where_and_changes_nothing(
    host: Host, shell: str
) -> None:
    host.init("guestServer", "start", shell)
    host.peers_root.write_ini("guestServer", "compute-0", {"client": {"rx_port": "many"}})
    done = host.init("guestServer", "reload", shell)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert re.search(r"guestServer\.ini:\d+: .*rx_port", done.stderr)
    assert host.init("guestServer", "status", shell).returncode == 0


def test_a_stale_pidfile_is_no_running_daemon(host: Host, shell: str) -> None:
    """LSB: status is 1 for "program is dead and /var/run pid file exists"."""
    host.init("guestServer", "start", shell)
    host.kill("guestServer")
    assert host.init("guestServer", "status", shell).returncode == 1
    assert host.init("guestServer", "start", shell).returncode == 0
    assert host.init("guestServer", "status", shell).returncode == 0
    host.kill("guestServer")
    assert host.init("guestServer", "stop", shell).returncode == 0
    assert host.init("guestServer", "status", shell).returncode == 3


@pytest.mark.parametrize("text", ["", "0", "-1", "1 2", "nonsense", "99999999"])
def test_a_pidfile_with_rubbish_is_believed_by_nobody(host: Host, shell: str, text: str) -> None:
    host.pidfile("guestServer").write_text(text)
    done = host.init("guestServer", "stop", shell)
    assert (done.returncode, done.stdout) == (0, "guestServer is not running\n")
    assert host.init("guestServer", "start", shell).returncode == 0
    assert command_name(host.pid("guestServer")) == "guestServer"


def test_a_process_that_got_the_pid_since_is_left_alone(host: Host, shell: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            host.pidfile("guestServer").write_text(str(other.pid))
            assert host.init("guestServer", "status", shell).returncode == 1
            done = host.init("guestServer", "stop", shell)
            assert (done.returncode, done.stdout) == (0, "guestServer is not running\n")
            assert other.poll() is None
            host.pidfile("guestServer").write_text(str(other.pid))
            assert host.init("guestServer", "start", shell).returncode == 0
            assert other.poll() is None
        finally:
            other.kill()


def test_a_daemon_that_cannot_start(host: Host, shell: str) -> None:
    (host.path / "etc/mtc/guestServer.ini").unlink()
    done = host.init("guestServer", "start", shell)
    assert done.returncode == 1
    assert done.stdout == "Starting guestServer: FAILED\n"
    assert "/etc/mtc/guestServer.ini" in done.stderr
    assert host.init("guestServer", "status", shell).returncode == 3


@pytest.mark.parametrize(
    "missing", ["usr/local/bin/guestServer", "usr/lib/mtce-guest/functions.sh"]
)
def test_not_installed(host: Host, shell: str, missing: str) -> None:
    (host.path / missing).unlink()
    done = host.init("guestServer", "start", shell)
    assert done.returncode == 5
    assert f"{missing} is not installed" in done.stderr


def test_restart_keeps_what_it_could_not_start_again(host: Host, shell: str) -> None:
    host.init("guestServer", "start", shell)
    pid = host.pid("guestServer")
    (host.path / "usr/local/bin/guestServer").unlink()
    assert host.init("guestServer", "restart", shell).returncode == 5
    assert is_alive(pid)


@pytest.mark.parametrize("action", ["", "help", "--version"])
def test_usage(host: Host, shell: str, action: str) -> None:
    done = host.init("guestServer", action, shell)
    assert done.returncode == 2
    assert "{start|stop|restart|reload|status|condrestart}" in done.stderr


def test_a_daemon_under_sigstop_ends_in_order(host: Host, shell: str) -> None:
    host.init("guestServer", "start", shell)
    os.kill(host.pid("guestServer"), signal.SIGSTOP)
    assert host.init("guestServer", "stop", shell).returncode == 0
    assert host.log("guestServer").rstrip().endswith("stopped")


def test_a_daemon_that_hangs_is_killed(host: Host, shell: str) -> None:
    write_script(host.path / "usr/local/bin/guestServer", DEAF_DAEMON)
    assert host.init("guestServer", "start", shell).returncode == 0
    pid = host.pid("guestServer")
    wait_until(lambda: command_name(pid) == "guestServer")
    done = host.init("guestServer", "stop", shell)
    assert (done.returncode, done.stdout) == (0, "Stopping guestServer: OK\n")
    assert not is_alive(pid)
    assert host.init("guestServer", "status", shell).returncode == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a daemon of another user")
def test_a_daemon_that_cannot_be_stopped(host: Host, shell: str) -> None:
    host.init("guestServer", "start", shell)
    pid = host.pid("guestServer")
    for directory in (host.path, *host.path.rglob("*")):
        if directory.is_dir():
            directory.chmod(0o755)
    script = host.path / "etc/init.d/guestServer"
    script.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = call([*nobody, shell, script, "stop"], env=host.environment)
    assert done.returncode == 7
    assert f"pid {pid} is still there" in done.stdout
    assert is_alive(pid)


@pytest.mark.parametrize(
    ("line", "flags", "calls"),
    [
        ("management_interface=mgmt0", "0x1002", "link set dev mgmt0 up\n"),
        ('management_interface="mgmt0"', "0x1002", "link set dev mgmt0 up\n"),
        ("management_interface=mgmt0", "0x1003", ""),
        ("management_interface=mgmt1", "0x1002", ""),
        ("management_interface=", "0x1002", ""),
        ("nodetype=worker", "0x1002", ""),
    ],
)
def test_a_management_interface_that_is_down_is_set_up(
    host: Host, line: str, flags: str, calls: str
) -> None:
    """If platform.conf names a management interface that is DOWN, it is set up."""
    (host.path / "etc/platform/platform.conf").write_text(f"nodetype=worker\n{line}\n")
    interface = host.path / "sys/class/net/mgmt0"
    interface.mkdir(parents=True)
    (interface / "flags").write_text(f"{flags}\n")
    seen = host.path / "ip-calls"
    seen.touch()
    host.fake("ip", f'#!/bin/sh\necho "$*" >>{seen}\n')
    assert host.init("guestServer", "start").returncode == 0
    assert seen.read_text() == calls


def test_an_interface_that_cannot_be_set_up_does_not_stop_the_start(host: Host) -> None:
    (host.path / "etc/platform/platform.conf").write_text("management_interface=mgmt0\n")
    (host.path / "sys/class/net/mgmt0").mkdir(parents=True)
    (host.path / "sys/class/net/mgmt0/flags").write_text("0x1002\n")
    host.fake("ip", "#!/bin/sh\nexit 2\n")
    done = host.init("guestServer", "start")
    assert done.returncode == 0
    assert "cannot set mgmt0 up" in done.stderr


def test_the_guest_client_too(host: Host, shell: str) -> None:
    """The guest image has an init script of the same behaviour; reload means restart there."""
    log = host.path / "var/log/guest-client.log"
    config = host.path / "etc/guest-client/guest-client.conf"
    config.write_text(f"[guest-client]\ndevice = {host.path}/port\nlog = {log}\n")

    def init(action: str) -> int:
        return host.init("guest-client", action, shell).returncode

    assert init("status") == 3
    assert init("start") == 0
    first = host.pid("guest-client")
    assert command_name(first) == "guest-client"
    assert [init("start"), init("status")] == [0, 0]
    assert host.pid("guest-client") == first
    assert init("reload") == 0
    assert host.pid("guest-client") != first
    host.kill("guest-client")
    assert init("status") == 1
    assert [init("restart"), init("status"), init("stop"), init("stop")] == [0, 0, 0, 0]
    assert init("status") == 3
    config.write_text("[guest-client]\ninterval_ms = often\n")
    assert init("start") == 1


def test_headers_say_what_lsb_wants(installed: Path) -> None:
    for name in ("guestServer", "guestAgent", "guest-client"):
        text = (installed / "etc/init.d" / name).read_text()
        header = re.search(r"### BEGIN INIT INFO\n(.*)### END INIT INFO", text, re.DOTALL)
        assert header
        keys = re.findall(r"^# ([A-Z][\w-]*):", header[1], re.MULTILINE)
        assert {"Provides", "Required-Start", "Default-Start", "Short-Description"} <= set(keys)
        assert re.search(rf"^# Provides: +{name}$", header[1], re.MULTILINE)
