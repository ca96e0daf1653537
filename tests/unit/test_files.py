"""Small files: where they are, how they are read and written."""

from __future__ import annotations

import errno
import os

import pytest

from guestmtce.runtime import files


def test_paths_under_a_root():
    assert files.under("", "/var/run/x") == "/var/run/x"
    assert files.under("/", "/var/run/x") == "/var/run/x"
    assert files.under("/tmp/r/", "/var/run/x") == "/tmp/r/var/run/x"


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path):
    path = tmp_path / "f"
    files.write_atomic(str(path), "old")
    with path.open() as reader:
        files.write_atomic(str(path), "new", 0o600)
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["f"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_args: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        files.write_atomic(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_write_that_fails_names_the_file(tmp_path, monkeypatch):
    """A write(2) to a full disk names none, and the temporary file is nobody's business."""

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = str(tmp_path / "f")
    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space") as caught:
        files.write_atomic(path, "new")
    assert caught.value.filename == path
    with pytest.raises(FileNotFoundError) as missing:
        files.write_atomic(f"{path}/g", "new")
    assert missing.value.filename == f"{path}/g"


def test_why_says_what_to_do_where_that_is_known():
    assert files.why(OSError(errno.ENOSPC, "full")) == "full; make room there"
    assert files.why(OSError(errno.EIO, "Input/output error")) == "Input/output error"
    assert files.why(OSError("odd")) == "odd"


def test_reading_is_bounded_and_never_blocks(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="too large"):
        files.read_text(str(tmp_path / "f"), 10)
    assert files.read_text(str(tmp_path / "f"), 11) == "x" * 11
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_text(str(tmp_path / "fifo"))
    with pytest.raises(IsADirectoryError):
        files.read_text(str(tmp_path))
    (tmp_path / "latin").write_bytes(b"\xe4")
    assert files.read_text(str(tmp_path / "latin")) == "\N{REPLACEMENT CHARACTER}"


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "ini").write_bytes(b"\xef\xbb\xbf[agent]\n")
    assert files.read_text(str(tmp_path / "ini")) == "[agent]\n"
