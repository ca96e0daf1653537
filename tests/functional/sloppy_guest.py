"""A guest client with the known habits of the old C client, on standard input and output.

What `guestctl try-guest` tolerates, all in one. With the argument `broken`: what it does not.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

INIT = (
    '"invocation_id":{},"name":"sloppy","heartbeat_interval_ms":500,"vote_secs":3,'
    '"shutdown_notice_secs":3,"suspend_notice_secs":3,"resume_notice_secs":3,"restart_secs":3,'
    '"corrective_action":"log"'
)


class SloppyGuest:
    """The client; `broken` makes one answer wrong and leaves out the exit."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.sequence = 0
        self.invocation_id = 1804289383
        self.next_init = 0.0
        self.late: list[tuple[float, dict[str, Any]]] = []

    def say(self, kind: str, body: str) -> None:
        """Paste a message together, as C does."""
        self.sequence += 1
        head = f'"version":3,"revision":1,"msg_type":"{kind}","sequence":{self.sequence}'
        os.write(1, b"\n{" + f"{head},{body}".encode() + b"}\n")

    def tick(self, now: float) -> None:
        if now >= self.next_init:
            # Another number with each repeated init.
            self.invocation_id += 1
            self.next_init = now + 2
            self.say("init", INIT.format(self.invocation_id))
        while self.late and now >= self.late[0][0]:
            self.vote(self.late.pop(0)[1])

    def hear(self, message: dict[str, Any]) -> None:
        kind = message.get("msg_type")
        if kind == "init_ack":
            self.next_init = time.monotonic() + 5
        elif kind == "challenge":
            self.next_init = time.monotonic() + 5
            number = message["heartbeat_challenge"]
            if self.broken and number == 2**31 - 1:
                number = 1
            self.say(
                "challenge_response",
                f'"heartbeat_response":{number},"heartbeat_health":"healthy",'
                '"corrective_action":"none","log_msg":""',
            )
        elif kind == "action_notify":
            self.vote(message)
            if message["event_type"] == "stop":
                # The timer of the one that was superseded.
                self.late.append((time.monotonic() + 2, message))

    def vote(self, asked: dict[str, Any]) -> None:
        """Say accept, to a notification too, with a script's output as it is."""
        self.say(
            "action_response",
            f'"invocation_id":{asked["invocation_id"]},"event_type":"{asked["event_type"]}",'
            f'"notification_type":"{asked["notification_type"]}","vote_result":"accept",'
            '"log_msg":"it\tsays "yes""',
        )

    def leave(self, *_: object) -> None:
        if not self.broken:
            self.say("exit", '"log_msg":"ends"')
        sys.exit(0)


def main() -> None:
    guest = SloppyGuest(sys.argv[1:] == ["broken"])
    signal.signal(signal.SIGTERM, guest.leave)
    tail = b""
    while True:
        guest.tick(time.monotonic())
        if not select.select([0], [], [], 0.05)[0]:
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, tail = (tail + data).split(b"\n")
        for line in filter(None, lines):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                guest.hear(found)


if __name__ == "__main__":
    main()
