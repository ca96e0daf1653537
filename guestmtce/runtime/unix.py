"""UNIX sockets by path, of any length: `sun_path` has room for 107 bytes only.

A path is handed to the kernel as `/proc/self/fd/N`, N a descriptor of the file or of the
directory that it is in.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat


def connect(
    path: str,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    *,
    follow: bool = False,
) -> socket.socket:
    """Return a non-blocking socket connected to the UNIX socket at `path`.

    A symbolic link is refused unless `follow`. Raises OSError with the path in it:
    FileNotFoundError, ENOTSOCK, ConnectionRefusedError (nobody listens), BlockingIOError
    (the listen queue is full; that does not complete later), …
    """
    # A descriptor of the very file: no other can take its place between check and connect.
    file = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        if not stat.S_ISSOCK(os.fstat(file).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), path)
        sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
        try:
            sock.connect(f"/proc/self/fd/{file}")
        except OSError as error:
            sock.close()
            raise OSError(error.errno, error.strerror, path) from error
        return sock
    finally:
        os.close(file)


def listen(path: str, *, mode: int, backlog: int) -> socket.socket:
    """Return a non-blocking stream socket that listens at `path`, made with `mode`.

    Whatever socket was there is replaced. Raises OSError with the path in it.
    """
    directory, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # The file takes over the socket's own mode, so it is never open to others.
        os.fchmod(sock.fileno(), mode)
        sock.bind(f"/proc/self/fd/{parent}/{name}")
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(parent)
    return sock
