"""A scripted host for the guest client: listens where the client connects, under test control.

Without a thread: the test accepts, reads and writes itself, under a timeout.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from tests.peers import wire


class ScriptedHost:
    """The other end of a guest client's port."""

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self.path = path
        self.timeout = timeout
        self.appear()
        self._guest: socket.socket | None = None
        self._reader = wire.MessageReader()
        self._waiting: list[dict[str, Any]] = []
        self._sequence = 0

    def appear(self) -> None:
        """Listen at the path, after `vanish` anew."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(1)

    def vanish(self) -> None:
        """Be gone, with the socket's file."""
        self.close()
        self.path.unlink()

    def accept(self) -> None:
        """Wait for the client to connect."""
        self._listener.settimeout(self.timeout)
        self._guest, _ = self._listener.accept()
        self._reader = wire.MessageReader()
        self._waiting = []

    def send_raw(self, data: bytes, split: int = 0) -> None:
        """Send bytes, `split` of them at a time."""
        assert self._guest is not None
        step = split or len(data)
        for start in range(0, len(data), step):
            self._guest.sendall(data[start : start + step])
            if split:
                time.sleep(0.0005)

    def send(self, msg_type: str, split: int = 0, **body: Any) -> None:
        """Send one message."""
        self._sequence += 1
        self.send_raw(wire.message(msg_type, self._sequence, **body), split)

    def receive(self, msg_type: str = "", timeout: float = 0) -> dict[str, Any]:
        """Return the next message; one of another type than `msg_type` is an AssertionError."""
        assert self._guest is not None
        deadline = time.monotonic() + (timeout or self.timeout)
        while not self._waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no {msg_type or 'message'} in time")
            self._guest.settimeout(left)
            try:
                data = self._guest.recv(65536)
            except socket.timeout:
                continue
            if not data:
                raise AssertionError("the guest closed the channel")
            self._waiting += self._reader.feed(data)
        found = self._waiting.pop(0)
        assert not msg_type or found["msg_type"] == msg_type, found
        return found

    def receive_nothing(self, seconds: float) -> None:
        """Check that the guest stays silent."""
        try:
            found = self.receive(timeout=seconds)
        except AssertionError as error:
            assert "in time" in str(error), error  # noqa: PT017
            return
        raise AssertionError(f"unexpected: {found}")

    def greet(self) -> dict[str, Any]:
        """Accept the client if need be, take its init, acknowledge it; return the init."""
        if self._guest is None:
            self.accept()
        init = self.receive("init")
        self.send("init_ack", invocation_id=init["invocation_id"])
        return init

    def challenge(self, value: int = 846930886) -> dict[str, Any]:
        """Challenge the guest and return its response."""
        self.send("challenge", heartbeat_challenge=value)
        response = self.receive("challenge_response")
        assert response["heartbeat_response"] == value
        return response

    def notify(
        self, invocation_id: int, event: str, kind: str = "revocable", timeout_ms: int = 9000
    ) -> None:
        """Ask for a vote, or notify."""
        self.send(
            "action_notify",
            invocation_id=invocation_id,
            event_type=event,
            notification_type=kind,
            timeout_ms=timeout_ms,
        )

    def hang_up(self) -> None:
        """Close the connection; the client may come again."""
        if self._guest is not None:
            self._guest.close()
            self._guest = None

    def close(self) -> None:
        self.hang_up()
        self._listener.close()

    def __enter__(self) -> ScriptedHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
