"""A daemon with nothing in it, to try `run_daemon` with: `example_daemon.py NAME [OPTIONS]`.

Its ini, `/example.ini` below the root, has one setting of its own, `[a] word`, how to behave:
refuse (does not start), crash (dies while starting), slow (never says that it has stopped),
sick (has a problem), large (much to dump), wrong (a configuration that cannot be used).
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from guestmtce.core.shared.config import load, setting
from guestmtce.core.shared.errors import PeerError, StartError
from guestmtce.runtime.daemon import Program, run_daemon
from guestmtce.runtime.metrics import Registry

log = logging.getLogger("guestmtce.example.app")


def word(text: str) -> str:
    if text == "wrong":
        raise ValueError("not a way to behave")
    return text


@dataclass(frozen=True)
class Settings:
    word: str = setting("a", "word", word, "", live=True)
    fixed: int = setting("a", "fixed", int, 0)
    hostname: str | None = setting("host", "name", str, "host-1")
    debug: int = setting("debug", "level", int, 0, live=True)


class Example:
    def __init__(self, loop, settings, hostname, root):
        self.loop = loop
        self.word = settings.word
        self.registry = Registry(sys.argv[1])

    def start(self):
        if self.word == "refuse":
            raise StartError("port 2411 is in use")
        if self.word == "oserror":
            raise PermissionError(13, "Permission denied", "/var/lib/x")
        if self.word == "crash":
            os.kill(os.getpid(), 9)
        log.debug("a debug line")

    def stop(self, done):
        if self.word != "slow":
            self.loop.call_later(0.05, done)

    def reload(self, settings):
        self.word = settings.word
        log.info("now %s", self.word)

    def problems(self):
        return {"health": ["it is sick"] if self.word == "sick" else []}

    def summary(self):
        return {"instances": 3, "word": self.word}

    def dump(self):
        count = 2_000 if self.word == "large" else 2
        return {
            "instances": [{"uuid": f"u{n}", "name": "a\nb"} for n in range(count)],
            "peers": {"x": {"seen": 1}, "y": {"seen": 2}},
            "none": [],
            "n": 1,
        }

    def commands(self):
        def show(request):
            raise PeerError("unknown", "no such instance")

        return {"show": show, "instances": lambda _request: {"instances": self.dump()["instances"]}}


if __name__ == "__main__":
    example = Program(
        name=sys.argv[1],
        purpose="Does nothing.",
        load=lambda read: load(Settings, "/example.ini", read, {}),
        app=Example,
    )
    sys.exit(run_daemon(example, sys.argv[2:]))
