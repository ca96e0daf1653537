"""How `guestctl try-guest` reaches a guest client: by a socket, or by starting it.

Knows nothing of the protocol: bytes in and out, under a timeout.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import tempfile
import time
import tty
from collections.abc import Sequence

SOCKET_MARK, DEVICE_MARK = "{socket}", "{device}"
_READ_BYTES = 65536
_CONNECT_SECS = 10.0
_END_SECS = 5.0


class LinkError(Exception):
    """The guest client cannot be reached, or is gone; the text says why."""


def guest_target(words: Sequence[str]) -> str | list[str]:
    """Return the socket, or the command, that the words of a command line name.

    Raises LinkError if there are none.
    """
    command = list(words[1:] if words[:1] == ["--"] else words)
    if not command:
        raise LinkError("try-guest needs a SOCKET, or -- and a COMMAND")
    if len(words) == 1 and not (os.path.isfile(words[0]) and os.access(words[0], os.X_OK)):
        return words[0]
    return command


class Link:
    """The way to one guest client. `open` may be called again after `close`.

    `target` is the path of a socket: QEMU's, which is connected to, or one that is not there yet,
    which is made for a client that connects. Or it is a command to start, with `{socket}` or
    `{device}` in it where the client is to be told its port; without both, its standard input and
    output are the channel. Raises LinkError.
    """

    def __init__(self, target: str | Sequence[str]) -> None:
        self._target = target
        self._descriptor = -1
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Our copy of a pseudo-terminal's other end: without one open, the terminal reads EIO.
        self._held = -1
        self._directory = tempfile.TemporaryDirectory(prefix="try-guest-")
        # What a pseudo-terminal does when its other end closes differs from what QEMU does.
        self.can_hang_up = isinstance(target, str) or any(SOCKET_MARK in word for word in target)

    @property
    def pid(self) -> int | None:
        """The process that was started, if one was."""
        return None if self._process is None else self._process.pid

    def open(self) -> None:
        """Connect, or wait until the client does."""
        if isinstance(self._target, str):
            self._descriptor = self._reach(self._target)
        elif self._process is None:
            self._descriptor = self._start(self._target)
        else:
            self._descriptor = self._accept()
        os.set_blocking(self._descriptor, False)

    def _reach(self, path: str) -> int:
        try:
            if self._listener is None and os.path.exists(path):
                if not stat.S_ISSOCK(os.stat(path).st_mode):
                    raise LinkError(f"{path} is not a socket")
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.connect(path)
                return connection.detach()
            if self._listener is None:
                self._listen(path)
            return self._accept()
        except OSError as error:
            raise LinkError(f"{path}: {error.strerror or error}") from None

    def _listen(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.settimeout(_CONNECT_SECS)

    def _accept(self) -> int:
        if self._listener is None:
            raise LinkError("this channel cannot be opened again")
        try:
            return self._listener.accept()[0].detach()
        except socket.timeout:
            raise LinkError(f"no client has connected in {_CONNECT_SECS:g} s") from None

    def _start(self, command: Sequence[str]) -> int:
        text = " ".join(command)
        path = os.path.join(self._directory.name, "port")
        if DEVICE_MARK in text:
            master, slave = pty.openpty()
            tty.setraw(slave)
            self._held = slave
            self._spawn(command, os.ttyname(slave))
            return master
        if SOCKET_MARK in text:
            self._listen(path)
            self._spawn(command, path)
            return self._accept()
        ours, theirs = socket.socketpair()
        with theirs:
            self._spawn(command, "", theirs.fileno())
        return ours.detach()

    def _spawn(self, command: Sequence[str], path: str, channel: int = subprocess.DEVNULL) -> None:
        words = [word.replace(SOCKET_MARK, path).replace(DEVICE_MARK, path) for word in command]
        output = None if channel == subprocess.DEVNULL else channel
        try:
            # The words are those of guestctl's own user.
            self._process = subprocess.Popen(words, stdin=channel, stdout=output)  # noqa: S603
        except OSError as error:
            raise LinkError(f"cannot run {words[0]}: {error.strerror}") from None

    def send(self, data: bytes, timeout: float = 5.0) -> None:
        """Send all of `data`."""
        until = time.monotonic() + timeout
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                if time.monotonic() > until:
                    raise LinkError("the client does not read") from None
                select.select([], [self._descriptor], [], 0.1)
            except OSError as error:
                raise LinkError(f"the channel is gone: {error.strerror}") from None

    def receive(self, timeout: float) -> bytes:
        """Return what has come, waiting for it at most `timeout` seconds; nothing if nothing."""
        if not select.select([self._descriptor], [], [], max(0.0, timeout))[0]:
            return b""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except OSError as error:
            raise LinkError(f"the channel is gone: {error.strerror}") from None
        if not data:
            raise LinkError("the client closed the channel")
        return data

    def close(self) -> None:
        """Hang up."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def terminate(self) -> None:
        """Ask the process that was started to end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Hang up for good, and end what was started."""
        self.close()
        if self._held >= 0:
            os.close(self._held)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.terminate()
                self._process.wait(_END_SECS)
            self._process.kill()
            self._process.wait()
        if self._listener is not None:
            path = self._listener.getsockname()
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._directory.cleanup()
