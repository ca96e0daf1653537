"""A daemon's metrics as a file for a node exporter, written anew every 15 s."""

from __future__ import annotations

import logging
from collections.abc import Callable

from guestmtce.runtime.files import write_atomic
from guestmtce.runtime.loop import Loop, Timer

log = logging.getLogger(__name__)

FILE_SECS = 15.0


class MetricsFile:
    """Writes what `render` returns; while that fails, `problem` says why."""

    def __init__(self, loop: Loop, render: Callable[[], str]) -> None:
        self.problem = ""
        self._loop = loop
        self._render = render
        self._timer: Timer | None = None

    def start(self, path: str | None) -> None:
        """Write the file at `path` now and from now on; None: no file."""
        self.stop()
        if path is not None:
            self._write(path)

    def stop(self) -> None:
        """Write no more. The file stays as it is."""
        self.problem = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, path: str) -> None:
        self._timer = self._loop.call_later(FILE_SECS, self._write, path)
        try:
            write_atomic(path, self._render())
        except OSError as error:
            problem = f"cannot write {path}: {error.strerror}"
            if problem != self.problem:
                log.warning("%s", problem)
            self.problem = problem
        else:
            self.problem = ""
