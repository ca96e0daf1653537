"""The control socket: one JSON request line in, one JSON answer line out, then closed.

Used by guestctl. A request is an object with a `command`; every answer is an object, and one
with the member `error` says why there is no other. Both daemons know:

    {"command": "status"}   daemon, version, pid, uptime_secs, healthy, problems, summary
    {"command": "dump"}     the whole state, as SIGUSR2 writes it
    {"command": "metrics"}  {"metrics": "<Prometheus text>"}
    {"command": "log-level", "level": N}  {"level": N}

and what the daemon itself adds (`App.commands`):

    {"command": "instances"}          {"instances": [{"uuid", "host", "name", "state", …}]}
    {"command": "show", "uuid": U}    {"instance": {…, "history": […], "exchanges": […]}}
    {"command": "events"}             {"events": [{"number", "at", "uuid", "what", …}], "next": N}
    {"command": "past"}               {"past": [{"uuid", "name"}]}: remembered, and not there
    {"command": "hosts"}              {"hosts": [{"hostname", "uuid", "ip", "reporting", …}]}
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from guestmtce.core.shared.errors import PeerError
from guestmtce.runtime import files, unix
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.stream import Stream

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4096
# Several times the whole state of 10,000 instances.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_CLIENTS = 8
DEADLINE_SECS = 5.0

_ACCEPTS_PER_TURN = 4
_ACCEPT_RETRY_SECS = 1.0
_RECEIVE_BYTES = 65536

Answer = dict[str, Any]
Handler = Callable[[dict[str, Any]], Answer]


class ControlServer:
    """Listens at `path` (mode 0600) and answers with what `handler` returns for a request.

    A socket that an earlier daemon left there is replaced. A client has DEADLINE_SECS from
    connecting to the last byte of its answer; at most MAX_CLIENTS are served at a time and
    the others wait in the listen queue. Raises OSError if it cannot listen.
    """

    def __init__(self, loop: Loop, path: str, handler: Handler) -> None:
        self._loop = loop
        self._path = path
        self._handler = handler
        self._clients: set[_Client] = set()
        self._listen()

    def keep(self) -> None:
        """Listen anew if somebody has removed or replaced the socket. Raises OSError."""
        try:
            if os.path.samestat(os.stat(self._path, follow_symlinks=False), self._made):
                return
        except FileNotFoundError:
            pass
        old = self._socket
        self._listen()
        self._loop.unwatch(old)
        old.close()

    def _listen(self) -> None:
        files.make_parent(self._path)
        self._socket = unix.listen(self._path, mode=0o600, backlog=MAX_CLIENTS)
        self._made = os.stat(self._path, follow_symlinks=False)
        self._accept_again()

    def close(self) -> None:
        """Stop listening, hang up, remove the socket. Closing twice does nothing."""
        if self._socket.fileno() < 0:
            return
        self._loop.unwatch(self._socket)
        self._socket.close()
        for client in list(self._clients):
            client.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def answer(self, line: bytes) -> Answer:
        """Return the answer to one request line; what is wrong with it becomes an `error`."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "the request is not JSON"}
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            return {"error": "the request is not an object with a command"}
        try:
            return self._handler(request)
        except PeerError as error:
            return {"error": str(error)}

    def client_gone(self, client: _Client) -> None:
        """Make room for the next one."""
        self._clients.discard(client)
        self._accept_again()

    def _accept_again(self) -> None:
        if self._socket.fileno() >= 0:
            events = selectors.EVENT_READ if len(self._clients) < MAX_CLIENTS else 0
            self._loop.watch(self._socket, events, self._accept)

    def _accept(self, _events: int) -> None:
        for _ in range(min(_ACCEPTS_PER_TURN, MAX_CLIENTS - len(self._clients))):
            try:
                sock, _address = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                # EMFILE stays true until something is closed: not now, later.
                log.warning("cannot accept a control client: %s", error.strerror)
                self._loop.unwatch(self._socket)
                self._loop.call_later(_ACCEPT_RETRY_SECS, self._accept_again)
                return
            self._clients.add(_Client(self._loop, sock, self))
        self._accept_again()


class _Client:
    """One connection: collects a line, sends the answer, goes."""

    def __init__(self, loop: Loop, sock: socket.socket, server: ControlServer) -> None:
        self._server = server
        self._received = bytearray()
        self._stream = Stream(
            loop,
            sock,
            on_data=self._on_data,
            on_close=self._on_close,
            max_buffer=MAX_ANSWER_BYTES,
        )
        self._deadline = loop.call_later(DEADLINE_SECS, self.close)

    def close(self) -> None:
        """Hang up, whether served or not."""
        self._stream.close()
        self._on_close("closed")

    def _on_close(self, _reason: str) -> None:
        self._deadline.cancel()
        self._server.client_gone(self)

    def _on_data(self, data: bytes) -> None:
        self._received += data
        line, newline, _rest = self._received.partition(b"\n")
        if newline:
            self._reply(self._server.answer(bytes(line)))
        elif len(self._received) > MAX_REQUEST_BYTES:
            self._reply({"error": "the request is too long"})

    def _reply(self, answer: Answer) -> None:
        # default=str: an answer with an odd member is better than none.
        line = json.dumps(answer, default=str).encode() + b"\n"
        if not self._stream.send(line):
            self._stream.send(b'{"error": "the answer is too long"}\n')
        self._stream.finish()


def ask(path: str, request: Mapping[str, object], timeout: float = DEADLINE_SECS) -> Answer:
    """Send one request to the daemon that listens at `path` and return its answer.

    Blocks, for at most `timeout` seconds. Raises OSError (FileNotFoundError or
    ConnectionRefusedError: no daemon; TimeoutError: it does not answer) and ValueError (what
    it answered is not a JSON object).
    """
    try:
        received = _exchange(path, json.dumps(request).encode() + b"\n", timeout)
    except socket.timeout:
        # Before Python 3.10 this is no TimeoutError.
        raise TimeoutError("the daemon does not answer") from None
    try:
        answer = json.loads(received)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ValueError("the answer is not a JSON object")
    return answer


def _exchange(path: str, line: bytes, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    received = bytearray()
    with unix.connect(path) as sock:
        sock.settimeout(timeout)
        sock.sendall(line)
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise socket.timeout
            sock.settimeout(left)
            chunk = sock.recv(_RECEIVE_BYTES)
            if not chunk:
                break
            received += chunk
            if len(received) > MAX_ANSWER_BYTES:
                raise ValueError("the answer is too long")
    return bytes(received)
