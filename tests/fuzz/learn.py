"""python3 -m tests.fuzz.learn: looks for inputs that reach something new, and keeps them.

An input is kept when it makes a step from one line of the product to another that no input before
it made. What was kept starts the next look, so the corpus in `tests/fuzz/learned` only grows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import sys
import time
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.doors import DOORS, LEARNED, corpus_of, learned
from tests.fuzz.mutation import mutant

ROOT = str(LEARNED.parents[2])
PRODUCT = (f"{ROOT}/guestmtce/", f"{ROOT}/guest/")
# A longer input is seldom more interesting, and costs each time.
LONGEST = 3000
# A room is opened anew after so many inputs.
SERIES = 500

Step = tuple[CodeType, int, int]


class Tracer:
    """Notes each step from line to line; `new()` says whether there was one for the first time."""

    def __init__(self) -> None:
        self._seen: set[Step] = set()
        self._count = 0
        self._before: Any = None

    def __enter__(self) -> Tracer:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_error: object) -> None:
        sys.settrace(self._before)

    def new(self) -> bool:
        before, self._count = self._count, len(self._seen)
        return self._count > before

    def _called(self, frame: FrameType, _event: str, _value: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PRODUCT):
            return None
        code, seen, last = frame.f_code, self._seen, 0

        def line(frame: FrameType, _event: str, _value: Any) -> Any:
            nonlocal last
            seen.add((code, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line


def look(name: str, seconds: float, dice: random.Random) -> list[bytes]:
    """Return the inputs beyond the first ones of a door that reach something."""
    door, tracer, end = DOORS[name], Tracer(), time.monotonic() + seconds
    untried = corpus_of(name)
    found: list[bytes] = []
    while time.monotonic() < end or untried:
        with door.open() as enter:
            for _ in range(SERIES):
                data = untried.pop(0) if untried else mutant(door.inputs + found, dice)
                with tracer, contextlib.suppress(*door.errors):
                    enter(data)
                if tracer.new() and data not in door.inputs and len(data) <= LONGEST:
                    found.append(data)
                if time.monotonic() >= end and not untried:
                    break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.learn", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each door")
    parser.add_argument("--door", choices=sorted(DOORS), default=None)
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    LEARNED.mkdir(exist_ok=True)
    for name in [chosen.door] if chosen.door else DOORS:
        before = learned(name)
        found = look(name, chosen.seconds, random.Random())
        lines = ",\n".join(json.dumps(data.decode("latin-1")) for data in found)
        (LEARNED / f"{name}.json").write_text(f"[\n{lines}\n]\n")
        print(f"{name}: {len(found)} inputs, {len(set(found) - set(before))} of them new")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
