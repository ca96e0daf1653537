"""Waits until the platform says that this host is configured and enabled: two flag files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from guestmtce.core.shared.limits import Gap
from guestmtce.runtime import files
from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)

FLAG_FILES = ("/etc/platform/.initial_config_complete", "/var/run/.goenabled")
FLAG_SECS = 2.0
FLAG_LOG_SECS = 60.0

_WAITING = (
    "waiting for the platform: {} is not there; it is made when this host has been configured, "
    "unlocked and enabled"
)


class Platform:
    """Looks each FLAG_SECS for the flag files below `root`; `on_ready()` is called once."""

    def __init__(self, loop: Loop, root: str, on_ready: Callable[[], object]) -> None:
        self._loop = loop
        self._root = root
        self._on_ready = on_ready
        self._missing = ", ".join(FLAG_FILES)
        self._logged = Gap(FLAG_LOG_SECS)
        self._timers = Timers(loop)

    @property
    def problems(self) -> list[str]:
        """What the daemon waits for, while it does."""
        return [_WAITING.format(self._missing)] if self._missing else []

    def start(self) -> None:
        """Look, and look again until both are there."""
        missing = [path for path in FLAG_FILES if not os.path.exists(files.under(self._root, path))]
        self._missing = ", ".join(missing)
        if not missing:
            self._on_ready()
            return
        if self._logged.allows(self._loop.time()):
            log.info("waiting for %s", self._missing)
        self._timers.start("look", FLAG_SECS, self.start)

    def stop(self) -> None:
        """Wait no more."""
        self._timers.cancel_all()
