"""Small files, read within bounds and written atomically; every path under a root.

`--root DIR` prefixes every absolute path that a daemon reads or writes (operations.md).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

DEFAULT_READ_LIMIT = 1024 * 1024

_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EROFS: "the kernel's log says why that file system is read-only",
    errno.ENOENT: "make its directory",
    errno.EISDIR: "remove the directory in its place",
    errno.EACCES: "its directory has to belong to the daemon's user",
    errno.EPERM: "its directory has to belong to the daemon's user",
}


def why(error: OSError) -> str:
    """Return why a file cannot be written, with what to do where that is known, for a sentence."""
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{reason}; {remedy}" if remedy else reason


def under(root: str, path: str) -> str:
    """Return the absolute `path` as it is called below `root` ("" or "/" for none)."""
    return root.rstrip("/") + path if root else path


def read_text(path: str, limit: int = DEFAULT_READ_LIMIT) -> str:
    """Return a regular file's text, bytes that are not UTF-8 replaced, a byte order mark left out.

    Raises OSError: what `open` raises, EINVAL if it is not a regular file (a FIFO would
    block), EFBIG if it is longer than `limit` bytes.
    """
    # Non-blocking: open(2) of a FIFO without a writer would never return.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return data.decode("utf-8-sig", "replace")


def reader(root: str) -> Callable[[str], tuple[str, str]]:
    """Return a function that reads the file at an absolute path below `root`.

    It returns the file's real path and its text, and raises OSError as `read_text` does.
    """

    def read(path: str) -> tuple[str, str]:
        full = under(root, path)
        return full, read_text(full)

    return read


def write_atomic(path: str, text: str, mode: int = 0o644) -> None:
    """Replace the file at `path`: a reader sees the old text or the new, never a part.

    Atomic for readers, not across a power failure: it does not wait for the disk, because
    the loop must not. Raises OSError with `path` in it.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(temporary, flags, mode)
        with os.fdopen(file, "wb") as stream:
            os.fchmod(file, mode)
            stream.write(text.encode("utf-8", "replace"))
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        # write(2) names no file, and the temporary one is nobody's business.
        raise OSError(error.errno, error.strerror, path) from error


def make_parent(path: str) -> None:
    """Make the directory that `path` is to be in, where it is missing. Raises OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
