"""A virtual machine in which systemd runs: Debian 11 under QEMU, without any network.

Its disk is made once, by debootstrap, and kept in build/; what a machine writes ends with it. Files
come in as a tar archive that is its second disk, commands go in through a virtio-serial port.
"""

from __future__ import annotations

import base64
import itertools
import shlex
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

from tests.packaging.real_root import ROOTS, debootstrap
from tests.packaging.support import Completed, call, made_once, must, need

# What StarlingX stands on.
SUITE = "bullseye"
_PACKAGES = [
    *("systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "initramfs-tools", "kmod"),
    *("python3", "iproute2", "logrotate"),
]
# The processor is emulated (KVM within virtual machines is not to be relied on), and the host may
# be busy: a boot of 15 s has taken two minutes. No bound here is the point of a test.
_PATIENCE_SECS = 600
_DISK_BYTES = 2 << 30

_SHELL = """\
#!/bin/sh
# Runs what comes through the port, a line of base64 each; answers "STATUS OUTPUT", also so.
port=/dev/virtio-ports/test.shell
until [ -e $port ]; do sleep 0.2; done
exec 3<>$port
echo ready >&3
while read -r words <&3; do
    echo "$words" | base64 -d >/run/test-command
    sh /run/test-command >/run/test-output 2>&1 </dev/null 3<&-
    echo "$? $(base64 -w 0 /run/test-output)" >&3
done
"""
_SHELL_UNIT = """\
[Unit]
Description=Runs the commands of a test
[Service]
ExecStart=/bin/sh /usr/local/sbin/test-shell
StandardInput=null
Environment=DEBIAN_FRONTEND=noninteractive LC_ALL=C HOME=/root
OOMScoreAdjust=-1000
[Install]
WantedBy=multi-user.target
"""


class VirtualMachine:
    """Runs with what is in `files` laid over its disk, until `close`.

    `guest_port` is the socket of QEMU that leads to its port cgcs.heartbeat.
    """

    def __init__(self, directory: Path, files: Path) -> None:
        emulator = need("qemu-system-x86_64", "qemu-system-x86")
        disk = made_once(ROOTS / "vm", _make_disk)
        directory.mkdir()
        self._console = directory / "console"
        self._shell_path = directory / "shell"
        self.guest_port = directory / "guest"
        _pack(files, directory / "files.tar")
        command = [emulator, "-nodefaults", "-no-user-config", "-display", "none", "-m", "768"]
        command += ["-accel", "tcg,tb-size=256", "-cpu", "max"]
        command += ["-kernel", str(disk / "vmlinuz"), "-initrd", str(disk / "initrd")]
        command += ["-append", "root=/dev/vda rw console=ttyS0 quiet panic=1"]
        command += ["-serial", f"file:{self._console}", "-device", "virtio-serial"]
        command += _drive(disk / "disk", "snapshot=on")
        command += _drive(directory / "files.tar", "readonly=on")
        for path, name in ((self._shell_path, "test.shell"), (self.guest_port, "cgcs.heartbeat")):
            command += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev={name},name={name}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._shell = socket.socket(socket.AF_UNIX)
        self._rest = b""
        try:
            self._connect()
            self._wait_for_boot()
            self.run("tar --extract --file=/dev/vdb --directory=/")
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self._shell.connect(str(self._shell_path))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                assert self._process.poll() is None, "QEMU does not start"
                assert time.monotonic() < deadline, "QEMU makes no socket"
                time.sleep(0.05)

    def _line(self, timeout: float) -> str:
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            self._shell.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._shell.recv(65536)
            except socket.timeout:
                raise AssertionError(f"no answer in {timeout} s: {self.console()}") from None
            assert data, f"QEMU has ended: {self.console()}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii", "replace").strip()

    def _wait_for_boot(self) -> None:
        while self._line(_PATIENCE_SECS) != "ready":
            pass
        # "degraded" where a unit of Debian's own has failed; the tests look at ours.
        self.call("systemctl is-system-running --wait", _PATIENCE_SECS)

    def call(self, script: str, timeout: float = _PATIENCE_SECS) -> Completed:
        """Run a line of shell there as root; what it prints is `stdout`."""
        self._shell.settimeout(timeout)
        self._shell.sendall(base64.b64encode(script.encode()) + b"\n")
        status, _, output = self._line(timeout).partition(" ")
        text = base64.b64decode(output).decode("utf-8", "replace")
        return subprocess.CompletedProcess(script, int(status), text, "")

    def run(self, script: str, timeout: float = _PATIENCE_SECS) -> str:
        """Run a line that has to succeed; return what it printed."""
        done = self.call(script, timeout)
        assert done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def wait_for(self, script: str, output: str, timeout: float = _PATIENCE_SECS) -> None:
        """Run a line again and again until it succeeds and prints this."""
        deadline = time.monotonic() + timeout
        for pause in itertools.repeat(0.3):
            done = self.call(script)
            if done.returncode == 0 and done.stdout.strip() == output:
                return
            assert time.monotonic() < deadline, f"{script}: {done.returncode}\n{done.stdout}"
            time.sleep(pause)

    def reboot(self) -> None:
        """Reboot in order, and wait until it is up again."""
        self.run("systemctl --no-block reboot")
        self._wait_for_boot()

    def console(self) -> str:
        """Return the end of what it has written to its serial console."""
        text = self._console.read_text(errors="replace") if self._console.exists() else ""
        return text[-3000:]

    def close(self) -> None:
        """Pull the plug."""
        self._process.kill()
        self._process.wait()
        self._shell.close()


def _drive(path: Path, more: str) -> list[str]:
    return ["-drive", f"file={path},format=raw,if=virtio,{more}"]


def _pack(files: Path, archive: Path) -> None:
    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w") as tar:
        for path in sorted(files.iterdir()):
            tar.add(path, path.name, filter=owned_by_root)


def _make_disk(directory: Path) -> None:
    """Make disk, vmlinuz and initrd in `directory`."""
    maker = need("mke2fs", "e2fsprogs")
    root = directory / "root"
    debootstrap(SUITE, root, _PACKAGES)
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "etc/hostname").write_text("controller-0\n")
    (root / "usr/local/sbin/test-shell").write_text(_SHELL)
    (root / "etc/systemd/system/test-shell.service").write_text(_SHELL_UNIT)
    for command in ("enable test-shell.service", "mask getty.target apt-daily.timer"):
        must(["chroot", root, "systemctl", *shlex.split(command)])
    for name in ("vmlinuz", "initrd"):
        (found,) = (root / "boot").glob(f"{name}*-amd64")
        shutil.copy(found, directory / name)
    with (directory / "disk").open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    done = call([maker, "-q", "-t", "ext4", "-d", root, directory / "disk"], 300)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(root)
