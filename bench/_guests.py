"""Many guests in one process, as cheap as can be: python3 -m bench._guests DIR FIRST COUNT MS.

Each listens as its QEMU would, says init when it is connected, and answers every challenge.
Ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
from pathlib import Path

PER_PROCESS = 2500
_CHALLENGE = re.compile(rb'"heartbeat_challenge":(\d+)')
INIT = (
    b'\n{"version":3,"revision":1,"msg_type":"init","sequence":1,"invocation_id":1804289383,'
    b'"name":"vm","heartbeat_interval_ms":%d,"vote_secs":9,"shutdown_notice_secs":9,'
    b'"suspend_notice_secs":9,"resume_notice_secs":14,"restart_secs":301,'
    b'"corrective_action":"reboot"}\n'
)
_ANSWER = (
    b'\n{"version":3,"revision":1,"msg_type":"challenge_response","sequence":2,'
    b'"heartbeat_response":%s,"heartbeat_health":"healthy","corrective_action":"none",'
    b'"log_msg":""}\n'
)


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


class Guests:
    """The processes for `count` guests at `interval_ms` in `directory`, numbered from `first`."""

    def __init__(self, directory: Path, count: int, interval_ms: int, first: int = 0) -> None:
        self._processes = []
        for done in range(0, count, PER_PROCESS):
            size = min(PER_PROCESS, count - done)
            command = [sys.executable, "-m", "bench._guests"]
            command += [str(directory), str(first + done), str(size), str(interval_ms)]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    def signal(self, signum: int) -> None:
        for process in self._processes:
            process.send_signal(signum)

    def close(self) -> None:
        for process in self._processes:
            process.communicate()


def main() -> None:
    directory, (first, count, interval_ms) = sys.argv[1], map(int, sys.argv[2:])
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir(directory)
    selector = selectors.EpollSelector()
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    init = INIT % interval_ms

    def accept(listener: socket.socket) -> None:
        guest, _ = listener.accept()
        selector.register(guest, selectors.EVENT_READ, (read, guest))
        guest.send(init)

    def read(guest: socket.socket) -> None:
        data = guest.recv(4096)
        if not data:
            selector.unregister(guest)
            guest.close()
        for number in _CHALLENGE.findall(data):
            with contextlib.suppress(BrokenPipeError):
                guest.send(_ANSWER % number)

    for number in range(first, first + count):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"cgcs.heartbeat.{uuid_of(number)}.sock")
        listener.listen(1)
        selector.register(listener, selectors.EVENT_READ, (accept, listener))
    while True:
        for key, _ready in selector.select():
            if key.data is None:
                return
            handler, sock = key.data
            handler(sock)


if __name__ == "__main__":
    main()
