"""Which process is the daemon, and that there is only one."""

from __future__ import annotations

import fcntl
import os

import pytest

from guestmtce.core.shared.errors import StartError
from guestmtce.runtime import files
from guestmtce.runtime.pidfile import PidFile


def test_a_lock_on_a_file_that_was_removed_is_not_taken_for_ours(tmp_path, monkeypatch):
    """Between opening and locking, the one that ran may have removed its file."""
    path = str(tmp_path / "d.pid")
    removed = []
    flock = fcntl.flock

    def remove_then_lock(fd, how):
        if not removed:
            removed.append(fd)
            os.unlink(path)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", remove_then_lock)
    pidfile = PidFile(path)
    pidfile.acquire()
    assert files.read_text(path) == f"{os.getpid()}\n"
    with pytest.raises(StartError, match=f"pid {os.getpid()}"):
        PidFile(path).acquire()
    pidfile.release()
    pidfile.release()
    assert not os.path.exists(path)


def test_a_pidfile_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "d.pid").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        PidFile(str(tmp_path / "d.pid")).acquire()
    assert (tmp_path / "target").read_text() == "precious"
