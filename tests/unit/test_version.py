"""Which commit --version names, without git."""

from __future__ import annotations

from pathlib import Path

import pytest

from guestmtce.runtime.version import commit_of_source


def test_an_unpacked_archive_says_its_commit(tmp_path: Path) -> None:
    (tmp_path / "COMMIT").write_text("0123456789abcdef0123456789abcdef01234567 1700000000\n")
    assert commit_of_source(str(tmp_path)) == "0123456789ab"


@pytest.mark.parametrize("content", [None, b"", b"$Format:%H %ct$\n", b"\xff\0", b"0123456789a\n"])
def test_who_does_not_know_says_so(tmp_path: Path, content: bytes | None) -> None:
    """A copy of a checkout, without git's own directory."""
    if content is not None:
        (tmp_path / "COMMIT").write_bytes(content)
    assert commit_of_source(str(tmp_path)) == "unknown commit"
