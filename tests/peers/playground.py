"""`make try`: both daemons, a VIM and three guests on loopback, until ^C: to look around in.

Like the demo, under a temporary root, without root rights; but it stays, so that guestctl, the
status page and the command API can be tried from another terminal.

    python3 -m tests.peers.playground
"""

from __future__ import annotations

import signal
import sys
import threading

from tests.peers.demo import Demo
from tests.peers.root import REPOSITORY


class Playground(Demo):
    """The demo's first chapter, and then whatever the user does."""

    def run(self) -> int:
        """Start everything, say what can be tried, wait for ^C; return the exit status."""
        try:
            self._start()
            self._host_and_instances()
            self._invite()
            threading.Event().wait()
        except AssertionError as error:
            self.missing.append(str(error))
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            self._stop()
        self.root.remove()
        return 1 if self.missing else 0

    def _invite(self) -> None:
        hung, ill = self.guests[2], self.guests[1]
        self.timeline.chapter("Everything runs. Try from another terminal, and end it here with ^C")
        for command in (
            f"alias guestctl='{REPOSITORY / 'bin' / 'guestctl'} --root {self.root.path}'",
            "guestctl status",
            "guestctl instances",
            f"kill -STOP {hung.client.pid}      # {hung.name} hangs; -CONT lets it go on",
            f"guestctl why {hung.name}",
            f"echo fan broken > {ill.fault_file}      # {ill.name} is ill",
            f"guestctl why {ill.name}",
            "guestctl watch",
            "guestctl events -f",
            f"curl -s http://127.0.0.1:{self.root.vim_cmd_port}/v1/instances",
        ):
            print(f"    {command}", flush=True)


def main() -> int:
    """Run the playground until ^C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return Playground().run()


if __name__ == "__main__":
    sys.exit(main())
