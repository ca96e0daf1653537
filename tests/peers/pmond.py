"""pmond, as far as it looks after a process: passive, by its file in /etc/pmon.d (decision 48).

python -m tests.peers.pmond CONF: looks at the pidfile, restarts the service with systemctl when the
process is gone, and prints a line for each thing that it does: "restart", "spawn timeout",
"failed", "running", "recovered", "alarm SEVERITY". A restart is good if systemctl ends within
`startuptime` and the process lives then; `restarts` bad ones in a row raise the alarm, and it goes
on each `interval` seconds; `debounce` seconds of life make it recovered and clear the alarm.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
import time
from pathlib import Path

LOOK_SECS = 0.5
AUDIT_SECS = 50.0
# What it waits for before it looks at anything.
GO_ENABLED = Path("/var/run/.goenabled")


def say(text: str) -> None:
    """Print a line that a test can wait for."""
    print(text, flush=True)


class Watched:
    """One process, by its file."""

    def __init__(self, conf: Path) -> None:
        parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
        parser.read_string(conf.read_text())
        section = parser["process"]
        self.process, self.service = section["process"], section["service"]
        self.pidfile, self.severity = Path(section["pidfile"]), section["severity"]
        self.restarts, self.interval = section.getint("restarts"), section.getint("interval")
        self.debounce, self.startuptime = section.getint("debounce"), section.getint("startuptime")
        self.pid = 0
        self.failures = 0
        self.alarmed = False

    def read_pid(self) -> int:
        """Return what the pidfile says, 0 for nothing."""
        try:
            return int(self.pidfile.read_text())
        except (OSError, ValueError):
            return 0

    def lives(self) -> bool:
        """Tell whether the process that was found last is there, and no zombie."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return f"({self.process})" in stat and stat.rpartition(") ")[2][0] not in "ZX"

    def restart(self) -> bool:
        """Restart the service; return whether the process lives after that."""
        say("restart")
        command = ["systemctl", "restart", f"{self.service}.service"]
        try:
            output = subprocess.DEVNULL
            subprocess.run(
                command, timeout=self.startuptime, check=False, stdout=output, stderr=output
            )
        except subprocess.TimeoutExpired:
            say("spawn timeout")
            return False
        self.pid = self.read_pid()
        return self.lives()

    def stays(self) -> bool:
        """Watch it for `debounce` seconds; return whether it lived so long."""
        deadline = time.monotonic() + self.debounce
        while time.monotonic() < deadline:
            if not self.lives():
                return False
            time.sleep(LOOK_SECS)
        return True

    def recover(self) -> None:
        """Restart it until it has stayed."""
        while True:
            if self.restart():
                say("running")
                if self.stays():
                    break
            self.failures += 1
            say("failed")
            if self.failures >= self.restarts and not self.alarmed:
                self.alarmed = True
                say(f"alarm {self.severity}")
            time.sleep(self.interval)
        self.failures, self.alarmed = 0, False
        say("recovered")

    def watch(self) -> None:
        """Look after it, for ever."""
        audit = time.monotonic() + AUDIT_SECS
        self.pid = self.read_pid()
        while True:
            if time.monotonic() >= audit:
                audit += AUDIT_SECS
                # A pidfile that was lost counts as a death.
                self.pid = self.read_pid()
            if not self.lives():
                self.recover()
            time.sleep(LOOK_SECS)


def main() -> None:
    """Look after the process of one file."""
    watched = Watched(Path(sys.argv[1]))
    while not GO_ENABLED.exists():
        time.sleep(LOOK_SECS)
    say(f"watching {watched.process}")
    watched.watch()


if __name__ == "__main__":
    main()
