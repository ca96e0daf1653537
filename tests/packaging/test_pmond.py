"""guestServer as pmond looks after it, by the file that is shipped: killed, or broken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.real_root import RealRoot
from tests.packaging.support import asked_for, write_script
from tests.peers.journal import wait_until
from tests.peers.root import REPOSITORY

LINK = "/etc/pmon.d/guestServer.conf"
# `systemctl restart` without systemd: what the unit says, done after the main process has ended.
SYSTEMCTL = """
    #!/bin/sh
    [ "$1" = restart ] || exit 0
    unit=/usr/lib/systemd/system/$2
    pid=$(cat "$(sed -n 's/^PIDFile=//p' "$unit")" 2>/dev/null)
    [ -z "$pid" ] || kill "$pid" 2>/dev/null
    while [ -n "$pid" ] && [ -e "/proc/$pid/exe" ]; do sleep 0.1; done
    exec $(sed -n 's/^ExecStart=//p' "$unit")
"""


class Watched(RealRoot):
    """A root in which pmond has been started, with what it said."""

    def said(self) -> list[str]:
        """Return pmond's lines."""
        path = self.path / "run/pmond.said"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, *lines: str, timeout: float = 40) -> None:
        """Wait until it has said exactly these since it began to watch."""
        deadline = time.monotonic() + timeout
        while self.said()[1:] != list(lines):
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)


@pytest.fixture
def root(installed: Path, tmp_path: Path) -> Iterator[Watched]:
    """Give this machine's root with the installed files, guestServer and pmond running."""
    asked_for("ROOTS", "pmond's own times: half a minute")
    root = Watched(Path("/"), tmp_path / "real", installed)
    root.make_a_host()
    (root.path / "etc/pmon.d").mkdir()
    (root.path / "opt/systemctl").mkdir(parents=True)
    write_script(root.path / "opt/systemctl/systemctl", SYSTEMCTL)
    root.run("/usr/lib/mtce-guest/maintain", "guestServer", "installed")
    assert root.run("readlink", LINK) == "/usr/share/starlingx/pmon.d/guestServer.conf\n"
    root.run("/etc/init.d/guestServer", "start")
    pmond = f"cd {REPOSITORY}; PATH=/opt/systemctl:$PATH python3 -m tests.peers.pmond {LINK}"
    root.run("sh", "-c", f"{{ {pmond}; }} >/run/pmond.said 2>&1 &")
    wait_until(lambda: root.said() == ["watching guestServer"], 20)
    yield root
    root.close()


def test_killed_it_is_back_and_recovered(root: Watched) -> None:
    """And a lost pidfile is no death: guestServer puts it back in time for pmond's audit."""
    first = root.pid("guestServer")
    root.run("kill", "-9", str(first))
    root.wait_for("restart", "running", "recovered")
    second = root.pid("guestServer")
    assert second != first
    assert root.run("/etc/init.d/guestServer", "status").endswith(f"(pid {second})\n")
    (root.path / "run/guestServer.pid").unlink()
    root.run("kill", "-USR1", str(second))
    wait_until((root.path / "run/guestServer.pid").exists)
    assert root.pid("guestServer") == second


def test_one_that_cannot_start_raises_the_alarm_and_comes_back(root: Watched) -> None:
    ini = root.path / "etc/mtc/guestServer.ini"
    good = ini.read_text()
    ini.write_text("nonsense\n")
    root.run("kill", "-9", str(root.pid("guestServer")))
    alarm = ["restart", "failed"] * 3 + ["alarm major"]
    root.wait_for(*alarm)
    ini.write_text(good)
    root.wait_for(*alarm, "restart", "running", "recovered")
