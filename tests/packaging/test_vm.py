"""The packages in a virtual machine with systemd: enabled, killed, rebooted, restricted, purged.

One machine for all of it, since each boot takes long: `make vm`, some minutes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.packaging.real_root import HOSTS
from tests.packaging.support import asked_for, call, deb_name
from tests.packaging.test_package_contents import NAMES
from tests.packaging.vm import VirtualMachine
from tests.peers.root import REPOSITORY

DAEMONS = ["guestServer", "guestAgent"]
HOST_UUID = "c0c0c0c0-0000-4000-8000-00000000c0c0"
INSTANCE = "11110000-0000-4000-8000-000000000001"
DROP_IN = "/usr/lib/mtce-guest/restart.conf"
CHANNELS = "/var/lib/libvirt/qemu"

# QEMU and its guest: another user's socket, as on a worker.
PEERS = {
    "controller": f"/usr/bin/python3 -m tests.peers.controller /run/events"
    f" controller-0:127.0.0.3:{HOST_UUID} {INSTANCE}",
    "qemu": f"/usr/bin/python3 -m tests.peers.relay --directory {CHANNELS} --uuid {INSTANCE}"
    " --guest /run/qemu/port",
    "guest": "/usr/bin/python3 /opt/guest_client.py --foreground --config /opt/guest.conf",
}
MORE = {"qemu": "User=games\nRuntimeDirectory=qemu\n"}


@pytest.fixture(scope="module")
def machine(
    debs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualMachine]:
    """Give a booted machine with the packages, and what they need of the platform, in files."""
    asked_for("VM", "a virtual machine under QEMU: some minutes")
    directory = tmp_path_factory.mktemp("vm")
    files = directory / "files"
    (files / "packages").mkdir(parents=True)
    for name, package in debs.items():
        shutil.copy(package, files / f"packages/{name}.deb")
    shutil.copytree(REPOSITORY / "tests/peers", files / "opt/tests/peers")
    shutil.copy(REPOSITORY / "guest/guest_client.py", files / "opt")
    write_platform(files)
    machine = VirtualMachine(directory / "machine", files)
    yield machine
    machine.close()


def write_platform(files: Path) -> None:
    """Write what the platform lays on an all-in-one host, and units of those around it."""
    texts = {
        "etc/hosts": HOSTS,
        "etc/platform/platform.conf": "nodetype=controller\nsubfunction=controller,worker\n",
        "etc/platform/.initial_config_complete": "",
        "etc/tmpfiles.d/platform.conf": "f /run/.goenabled\n",
        "opt/guest.conf": "[guest-client]\nsocket = /run/qemu/port\ninterval_ms = 1000\n"
        "name = vm\ncorrective_action = reboot\nlog = /run/guest.log\n",
    }
    for name, command in PEERS.items():
        texts[f"etc/systemd/system/{name}.service"] = (
            f"[Service]\nExecStart={command}\nWorkingDirectory=/opt\n{MORE.get(name, '')}"
            "[Install]\nWantedBy=multi-user.target\n"
        )
    for path, text in texts.items():
        target = files / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def test_a_life(machine: VirtualMachine) -> None:
    """From installation to purge, as docs/deploy.md has it where neither pmond nor SM runs."""
    install(machine)
    enable(machine)
    watch_over_a_guest(machine)
    let_in(machine)
    kill(machine)
    reboot(machine)
    answer_through_a_real_port(machine)
    no_complaints(machine)
    purge(machine)


def heard(kind: str, data: str) -> str:
    """Return what prints "heard" once the VIM has heard such an event of the instance."""
    return f"grep -q '{kind} {INSTANCE}.*{data}' /run/events && echo heard"


def install(machine: VirtualMachine) -> None:
    machine.run(f"install -d -o games {CHANNELS}; systemd-tmpfiles --create platform.conf")
    files = " ".join(f"/packages/{deb_name(name)}.deb" for name in NAMES)
    machine.run(f"apt-get install --yes --no-install-recommends {files}")
    units = [f"/lib/systemd/system/{name}.service" for name in (*DAEMONS, "guest-client")]
    assert machine.run(f"systemd-analyze verify --man=no {' '.join(units)}") == ""
    # An installation starts nothing, the client neither, though its port is there.
    assert machine.run("ls /dev/virtio-ports/cgcs.heartbeat")
    assert machine.run("systemctl is-enabled guest-client") == "enabled\n"
    assert machine.call("systemctl is-active guest-client").stdout == "inactive\n"


def enable(machine: VirtualMachine) -> None:
    for daemon in DAEMONS:
        target = f"/etc/systemd/system/{daemon}.service.d/restart.conf"
        machine.run(f"install -D -m 0644 {DROP_IN} {target}")
    machine.run("systemctl daemon-reload")
    machine.run(f"systemctl enable --now {' '.join(DAEMONS)} {' '.join(PEERS)}")
    for daemon in DAEMONS:
        assert machine.run(f"systemctl is-active {daemon}") == "active\n"
        assert machine.run(f"/etc/init.d/{daemon} status").startswith(f"{daemon} is running")


def watch_over_a_guest(machine: VirtualMachine) -> None:
    """Every feature that a restriction of the units could break."""
    machine.wait_for(heard("service", "enabled"), "heard")
    machine.wait_for("guestctl status >/dev/null; echo $?", "0")
    machine.run("install -d /var/lib/node_exporter")
    machine.run("sed -i 's/^;metrics_file/metrics_file/' /etc/mtc/*.ini")
    machine.run("systemctl reload guestServer guestAgent")
    for daemon in DAEMONS:
        written = f"grep -q guestmtce /var/lib/node_exporter/{daemon}.prom && echo written"
        machine.wait_for(written, "written")
    machine.run("systemctl kill --kill-who=main --signal=STOP guest")
    machine.wait_for(heard("alarm", "failed.*reboot"), "heard")
    machine.run("systemctl kill --kill-who=main --signal=CONT guest")
    machine.wait_for("guestctl status >/dev/null; echo $?", "0")
    assert "reboot" in machine.run(f"guestctl why {INSTANCE}")
    machine.run("kill -USR2 $(cat /run/guestServer.pid)")
    machine.wait_for("test -s /run/guestServer.dump && echo written", "written")
    for daemon in DAEMONS:
        status = machine.run(f"cat /proc/$(cat /run/{daemon}.pid)/status")
        assert "NoNewPrivs:\t1\n" in status
        assert "Seccomp:\t2\n" in status
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:2410/metrics').status)"
    assert machine.run(f'python3 -c "{fetch}"') == "200\n"


def let_in(machine: VirtualMachine) -> None:
    """Who sends a command is known under the unit's restrictions too: [agent] vim_cmd_users."""
    machine.run("sed -i 's/^;vim_cmd_users.*/vim_cmd_users = games/' /etc/mtc/guestAgent.ini")
    machine.run("guestAgent --check-config | grep -q games && systemctl restart guestAgent")
    request = "DELETE /v1/instances/22220000-0000-4000-8000-000000000002"
    client = (
        "import http.client as h; c = h.HTTPConnection('127.0.0.1', 2410);"
        f" c.request(*'{request}'.split()); print(c.getresponse().status)"
    )
    for user, status in (("man", "403"), ("games", "404"), ("root", "404")):
        command = f'setpriv --reuid={user} --clear-groups python3 -c "{client}"'
        assert machine.run(command) == f"{status}\n"


def kill(machine: VirtualMachine) -> None:
    """Killed, each is back by itself."""
    for daemon in DAEMONS:
        pid = machine.run(f"cat /run/{daemon}.pid").strip()
        machine.run(f"kill -9 {pid}")
        machine.wait_for(
            f"p=$(cat /run/{daemon}.pid) && [ $p != {pid} ] && systemctl is-active {daemon}",
            "active",
        )
    machine.wait_for("guestctl status >/dev/null; echo $?", "0")


def reboot(machine: VirtualMachine) -> None:
    """All of them are there again, the client because its port has appeared."""
    machine.reboot()
    for service in (*DAEMONS, "guest-client"):
        machine.wait_for(f"systemctl is-active {service}", "active")
    machine.wait_for(heard("service", "enabled"), "heard")
    machine.wait_for("guestctl status >/dev/null; echo $?", "0")
    # What was before the reboot is remembered.
    assert "told the VIM: alarm" in machine.run(f"guestctl why {INSTANCE}")


def answer_through_a_real_port(machine: VirtualMachine) -> None:
    """`guestctl try-guest` plays the host, at QEMU's end of it."""
    guestctl = [sys.executable, REPOSITORY / "bin/guestctl"]
    done = call([*guestctl, "try-guest", machine.guest_port], 600)
    assert done.returncode == 0, done.stdout + done.stderr


def no_complaints(machine: VirtualMachine) -> None:
    """Nothing is missing on this host, nothing was denied to a daemon, nothing of theirs failed."""
    report = machine.call("guestctl doctor").stdout.splitlines()
    # An emulated processor may have a slow clock.
    wrong = [line for line in report if line.startswith(("FAIL", "warn"))]
    assert [line for line in wrong if not line.startswith("warn  clock:")] == [], report
    failed = machine.run("systemctl list-units --failed --plain --no-legend")
    assert "guest" not in failed
    log = machine.run("journalctl --no-pager --boot _COMM=guestServer _COMM=guestAgent")
    denied = [line for line in log.splitlines() if "not permitted" in line or "Traceback" in line]
    assert denied == []


def purge(machine: VirtualMachine) -> None:
    """Nothing runs and nothing is left but what the test has put there."""
    machine.run(f"systemctl disable --now {' '.join(PEERS)}")
    machine.run(f"rm -r /etc/systemd/system/guest* /run/guest.log; rm -f {CHANNELS}/*")
    machine.run(f"apt-get purge --yes {' '.join(deb_name(name) for name in NAMES)}")
    assert machine.call("grep -lx 'guest.*' /proc/[0-9]*/comm").stdout == ""
    directories = "/etc /run /usr/local /usr/lib /usr/share /var/log"
    left = machine.run(f"find {directories} -xdev -name '*guest[SAc-]*' -o -name mtce-guest")
    assert left == ""
