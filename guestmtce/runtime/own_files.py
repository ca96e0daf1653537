"""A daemon's own files, `/var/run/<daemon>.<suffix>`, and which of them cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from guestmtce.core.shared.errors import GuestError
from guestmtce.runtime import files

log = logging.getLogger(__name__)


def run_path(root: str, name: str, suffix: str) -> str:
    """Return the path of the file with that suffix of the daemon `name`, below `root`."""
    return files.under(root, f"/var/run/{name}.{suffix}")


class OwnFiles:
    """The files of the daemon `name`, by suffix."""

    def __init__(self, root: str, name: str) -> None:
        self._root = root
        self._name = name
        # By suffix: the problem, and what is to be called again.
        self._unwritable: dict[str, tuple[str, Callable[[], object]]] = {}

    @property
    def problems(self) -> list[str]:
        """What cannot be written at present, and why."""
        return [problem for problem, _write in self._unwritable.values()]

    def path(self, suffix: str) -> str:
        """Return where the file with that suffix is."""
        return run_path(self._root, self._name, suffix)

    def replace(self, suffix: str, lines: Iterable[str]) -> None:
        """Write a file anew; only root may read it (decision 46)."""
        text = "".join(line + "\n" for line in lines)
        self.attempt(suffix, lambda: files.write_atomic(self.path(suffix), text, 0o600))

    def attempt(self, suffix: str, write: Callable[[], object]) -> None:
        """Call `write` for a file; while it raises that is a problem, logged when it begins."""
        try:
            write()
        except (GuestError, OSError) as error:
            reason = files.why(error) if isinstance(error, OSError) else error
            problem = f"cannot write {self.path(suffix)}: {reason}"
            if problem not in self.problems:
                log.error("%s", problem)
            self._unwritable[suffix] = (problem, write)
        else:
            self._unwritable.pop(suffix, None)

    def retry(self) -> None:
        """Try again what failed, so that a problem ends soon after its cause."""
        for suffix, (_problem, write) in [*self._unwritable.items()]:
            self.attempt(suffix, write)
