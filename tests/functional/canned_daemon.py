"""A daemon as guestctl sees it: a control socket that gives answers made beforehand.

So guestctl is tried with 10,000 instances, hostile texts, and daemons that do not behave, in the
time that it takes itself.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOW = 1_700_000_000.0
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\u202etxt\x9b31m\u2028"


def uuid_of(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def instance(number: int, condition: str = "ok", detail: str = "") -> dict[str, Any]:
    """Return one instance of the answer to `instances`."""
    return {
        "uuid": uuid_of(number),
        "host": f"compute-{number % 7}",
        "name": f"vm-{number}",
        "condition": condition,
        "since": NOW - 100,
        "detail": detail,
        "last_answer": NOW,
        "state": "waiting_challenge",
        "reporting": True,
        "interval_ms": 1000,
        "failures": 0,
        "corrective_action": "reboot",
    }


def instances(count: int) -> list[dict[str, Any]]:
    """Return so many instances: of any three the last is lost, the one before ill."""
    rows = [instance(number) for number in range(count)]
    if count > 2:
        rows[-2:] = [
            instance(count - 2, "ill", f"fan broken {HOSTILE}"),
            instance(count - 1, "lost"),
        ]
    return rows


def history() -> list[dict[str, Any]]:
    """Return a story with a long sentence in it."""
    said = (
        ("heartbeating", ""),
        ("miss", "1 of 2; last good answer 1.0 s ago (12 ms)"),
        ("ill", f"a reason of many words, longer than any line that there is room for: {HOSTILE}"),
        ("loss", "no answer for 2.0 s, 2 misses; reported, action reboot"),
    )
    return [
        {"at": NOW + number / 2, "what": what, "detail": detail}
        for number, (what, detail) in enumerate(said)
    ]


def answers(count: int, daemon: str = "guestServer") -> dict[str, dict[str, Any]]:
    """Return what a daemon with so many instances answers to each command."""
    rows = instances(count)
    events = [
        {"number": number + 1, "uuid": row["uuid"], "name": row["name"], **history()[3]}
        for number, row in enumerate(rows[:1000])
    ]
    status = {
        "daemon": daemon,
        "version": "1.1.0",
        "pid": 4711,
        "uptime_secs": 93_784,
        "healthy": False,
        "problems": [f"a problem with more words than a line takes, and {HOSTILE}"],
        "summary": {"hostname": "compute-0", "sent": {f"COMMAND_{n}": n for n in range(12)}},
    }
    host = {
        "hostname": "compute-0.a-domain-of-some-length",
        "uuid": uuid_of(0),
        "ip": "fd00::1234:5678:9abc:def0",
        "personality": "worker",
        "reporting": "enabled",
        "instances": count,
        "lost": 1,
        "ill": 1,
        "last_heard": NOW,
    }
    return {
        "status": status,
        "instances": {"instances": rows},
        "past": {"past": []},
        "hosts": {"hosts": [host] * min(count, 200)},
        "show": {"instance": {**instance(1, "lost"), "history": history(), "exchanges": []}},
        "events": {"events": events, "next": len(events)},
        "metrics": {"metrics": "# HELP a b\n" + "guestmtce_a_metric_of_some_length 1\n" * 20},
        "log-level": {"level": 1},
    }


class CannedDaemon:
    """Listens where the daemon `name` under `root` would, and answers what `said` has.

    `mangle` makes of an answer's bytes what is sent in their place; None: nothing, for ever.
    """

    def __init__(
        self,
        root: Path,
        said: dict[str, dict[str, Any]],
        name: str = "guestServer",
        mangle: Callable[[bytes], bytes | None] = lambda data: data,
    ) -> None:
        path = root / "var/run" / f"{name}.ctl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._said = said
        self._mangle = mangle
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
                request = json.loads(client.makefile("rb").readline())
            except (OSError, ValueError):
                return
            answer = self._said.get(request["command"], {"error": "unknown command"})
            data = self._mangle(json.dumps(answer).encode() + b"\n")
            if data is None:
                self._held.append(client)
                continue
            with contextlib.suppress(OSError):
                client.sendall(data)
            client.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._held:
            client.close()
