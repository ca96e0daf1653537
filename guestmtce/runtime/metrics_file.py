"""A daemon's metrics as a file for a node exporter, written anew every 15 s.

It goes with the daemon: a file that stays would go on saying that all is well. One that a killed
daemon left is known by its age (`node_textfile_mtime_seconds`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

from guestmtce.runtime import files
from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)

FILE_SECS = 15.0


class MetricsFile:
    """Writes what `render` returns, below `root`; while that fails, `problem` says why."""

    def __init__(self, loop: Loop, render: Callable[[], str], root: str) -> None:
        self.problem = ""
        self._render = render
        self._root = root
        self._timers = Timers(loop)
        self._path: str | None = None

    def start(self, setting: str | None) -> None:
        """Write the file that is set now and from now on; None: no file."""
        path = None if setting is None else files.under(self._root, setting)
        if path != self._path:
            self.stop()
        self._path = path
        if path is not None:
            self._write(path)

    def stop(self) -> None:
        """Write no more, and remove the file."""
        self.problem = ""
        self._timers.cancel_all()
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _write(self, path: str) -> None:
        self._timers.start("write", FILE_SECS, self._write, path)
        try:
            files.write_atomic(path, self._render())
        except OSError as error:
            problem = f"cannot write {path}: {files.why(error)}"
            if problem != self.problem:
                log.warning("%s", problem)
            self.problem = problem
        else:
            self.problem = ""
