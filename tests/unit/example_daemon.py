"""A daemon with nothing in it, to try `run_daemon` with: `example_daemon.py NAME [OPTIONS]`.

Its ini is one line below the root, `word = how to behave`:
refuse (does not start), crash (dies while starting), slow (never says that it has stopped),
sick (has a problem), large (much to dump), wrong (a configuration that cannot be used).
"""

from __future__ import annotations

import logging
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from guestmtce.core.shared.errors import PeerError, StartError
from guestmtce.runtime import files
from guestmtce.runtime.daemon import Configuration, run_daemon

log = logging.getLogger("guestmtce.example.app")


def configure(options):
    path = files.under(options.root, "/example.ini")
    try:
        word = files.read_text(path).strip()
    except OSError:
        word = ""
    if word.startswith("wrong"):
        problems = [f"{path}:1: [a] b = 'x': not a number", f"{path}:2: [a] c is missing"]
        return Configuration(None, "", problems, [], "host-1")
    return Configuration(word, f"[a]\nword = {word}", [], [f"{path}:3: odd"], "host-1")


class Example:
    def __init__(self, loop, settings, options):
        self.loop = loop
        self.word = settings

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
        self.word = settings
        log.info("now %s", settings)

    def configuration(self):
        return f"[a]\nword = {self.word}"

    def problems(self):
        return ["it is sick"] if self.word == "sick" else []

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

    def metrics(self):
        return "up 1\n"

    def commands(self):
        def show(request):
            raise PeerError("unknown", "no such instance")

        return {"show": show, "instances": lambda _request: {"instances": self.dump()["instances"]}}


if __name__ == "__main__":
    sys.exit(
        run_daemon(
            sys.argv[1],
            sys.argv[2:],
            purpose="Does nothing.",
            configure=configure,
            build=Example,
        )
    )
