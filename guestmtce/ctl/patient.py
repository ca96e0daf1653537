"""What `guestctl doctor` looks at, and what it finds: a host, and a line for each thing on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from guestmtce.runtime import files


class Level(IntEnum):
    """How bad a finding is; the worst one is the exit status (0, 1, 2 as Nagios has them)."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


class Finding(NamedTuple):
    """One line of the report. `remedy` says what to do; empty where all is well."""

    level: Level
    subject: str
    text: str
    remedy: str = ""

    def for_operator(self) -> dict[str, object]:
        """Return it for `--json`."""
        return {**self._asdict(), "level": self.level.name.lower()}


class Patient(NamedTuple):
    """What is looked at. `answers` has what each daemon that runs said to `status` and `hosts`.

    `states` has what came of asking each daemon (`ask.Reply`); `now` is the wall clock.
    """

    root: str
    answers: Mapping[str, Mapping[str, Any]]
    states: Mapping[str, str]
    now: float

    def path(self, path: str) -> str:
        """Return where `path` is below the root."""
        return files.under(self.root, path)

    def exists(self, path: str) -> bool:
        """Return whether there is something at `path`."""
        return os.path.exists(self.path(path))

    def text(self, path: str) -> str | None:
        """Return the text of a small file without white space around it, None if unreadable."""
        try:
            return files.read_text(self.path(path)).strip()
        except OSError:
            return None

    def installed(self, daemon: str) -> bool:
        """Return whether this host has that daemon's configuration, or runs it."""
        return daemon in self.answers or self.exists(f"/etc/mtc/{daemon}.ini")
