"""A daemon's own files: what cannot be written is a problem until it can be."""

from __future__ import annotations

import stat
from pathlib import Path

from guestmtce.runtime.own_files import OwnFiles


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path, caplog) -> None:
    """Who has made room looks at the status: nobody may ask for that file again for a day."""
    files = OwnFiles(str(tmp_path), "guestServer")
    path = tmp_path / "var/run/guestServer.info"
    files.replace("info", ["well"])
    problem = f"cannot write {path}: No such file or directory; make its directory"
    assert files.problems == [problem]
    files.retry()
    assert files.problems == caplog.messages == [problem], "logged when it begins"
    path.parent.mkdir(parents=True)
    files.retry()
    assert files.problems == []
    assert path.read_text() == "well\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    files.retry()
    assert not path.exists(), "what was written is not written again"
