"""A scripted guest: QEMU's socket and the guest's client in one object, under the test's control.

It listens on the channel path as QEMU does (one client at a time) and speaks the guest protocol.
By default it behaves well: init upon connect, resent until acknowledged, healthy answers, consent
to votes. A test changes its attributes at any time, or sends bytes of its own.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.peers import wire
from tests.peers.journal import Journal
from tests.peers.reactor import Reactor, Timer, unix_listener

INIT_RESEND_SECS = 2.0


class Seen(NamedTuple):
    """A message of the host, or `event` connected/closed; `at` is monotonic seconds."""

    at: float
    event: str
    message: dict[str, Any]


class ScriptedGuest:
    """One instance's channel. Pass one `reactor` to many guests to run them in one thread."""

    def __init__(
        self,
        directory: Path,
        uuid: str,
        *,
        reactor: Reactor | None = None,
        file_name: str = "cgcs.heartbeat.{uuid}.sock",
        split: int = 0,
        **init: Any,
    ) -> None:
        self.uuid = uuid
        self.path = directory / file_name.format(uuid=uuid)
        # What the guest does; changed by the test at any time.
        self.auto_init = True
        self.auto_answer = True
        self.health = "healthy"
        self.corrective_action = "none"
        self.log_msg = ""
        self.wrong_number = False
        self.delay = 0.0
        self.reading = True
        self.split = split
        self.votes: dict[str, tuple[str, str]] = {}
        self.auto_vote = True
        self.init_body = wire.init_body(**{"name": f"vm-{uuid[:4]}", **init})
        # What the host did.
        self.seen: Journal[Seen] = Journal()
        self.answered = 0
        self._own_reactor = reactor is None
        self._reactor = reactor or Reactor()
        self._listener: socket.socket | None = None
        self._host: socket.socket | None = None
        self._reader = wire.MessageReader()
        self._output = b""
        self._sequence = 0
        self._init_timer: Timer | None = None
        self._reactor.call(self._listen)

    def wait_for(self, what: str, timeout: float = 10.0, since: int = 0, **values: Any) -> Seen:
        """Wait for a message type, or the event connected/closed, with these values."""

        def fits(seen: Seen) -> bool:
            return seen.event == what and all(
                seen.message.get(key) == value for key, value in values.items()
            )

        return self.seen.wait_for(fits, timeout, since)

    def messages(self, msg_type: str) -> list[Seen]:
        """Return the messages of that type seen so far."""
        return [seen for seen in self.seen if seen.event == msg_type]

    @property
    def connected(self) -> bool:
        return self._host is not None

    def send(self, msg_type: str, **body: Any) -> None:
        """Send one message to the host; its sequence is counted."""
        self._sequence += 1
        self.send_raw(wire.message(msg_type, self._sequence, **body))

    def send_raw(self, data: bytes) -> None:
        """Send bytes to the host, whatever they are."""
        self._reactor.call(self._send, data)

    def send_init(self, **changed: Any) -> None:
        """Send init; `changed` keys stay for later inits."""
        self.init_body.update(changed)
        self.send("init", **self.init_body)

    def hang_up(self) -> None:
        """Close the connection, as QEMU does when it ends; goes on listening."""
        self._reactor.call(self.close_host)

    def remove(self) -> None:
        """End as QEMU ends cleanly: the socket file goes."""
        self._reactor.call(self._stop, True)

    def crash(self) -> None:
        """End as QEMU killed: the socket file stays, and refuses."""
        self._reactor.call(self._stop, False)

    def listen(self) -> None:
        """Be there (again): a file left behind is replaced."""
        self._reactor.call(self._listen)

    def stall(self, stalled: bool = True) -> None:
        """Stop reading what the host sends, as QEMU does while the guest is paused."""
        self.reading = not stalled
        self._reactor.call(self._watch_host)

    def close(self) -> None:
        self.remove()
        if self._own_reactor:
            self._reactor.stop()

    def __enter__(self) -> ScriptedGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        self._stop(True)
        self._listener = unix_listener(self.path)
        self._reactor.watch(self._listener, selectors.EVENT_READ, self._accept)

    def _stop(self, unlink: bool) -> None:
        self.close_host()
        if self._listener is not None:
            self._reactor.unwatch(self._listener)
            self._listener.close()
            self._listener = None
        if unlink:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            self._host, _ = self._listener.accept()
        if self._host is None:
            return
        self._reactor.unwatch(self._listener)
        self._host.setblocking(False)
        self._reader = wire.MessageReader()
        self._output = b""
        self._watch_host()
        self.seen.append(Seen(time.monotonic(), "connected", {}))
        self._say_init()

    def _say_init(self) -> None:
        if self.auto_init and self._host is not None:
            self.send_init()
            self._init_timer = self._reactor.later(INIT_RESEND_SECS, self._say_init)

    def close_host(self) -> None:
        if self._init_timer is not None:
            self._init_timer.cancel()
        if self._host is None:
            return
        self._reactor.unwatch(self._host)
        self._host.close()
        self._host = None
        self.seen.append(Seen(time.monotonic(), "closed", {}))
        if self._listener is not None:
            self._reactor.watch(self._listener, selectors.EVENT_READ, self._accept)

    def _watch_host(self) -> None:
        if self._host is not None:
            events = selectors.EVENT_READ if self.reading else 0
            events |= selectors.EVENT_WRITE if self._output else 0
            self._reactor.watch(self._host, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._read()
        if events & selectors.EVENT_WRITE and self._host is not None:
            self._send(b"")

    def _read(self) -> None:
        assert self._host is not None
        try:
            data = self._host.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.close_host()
            return
        for message in self._reader.feed(data):
            self.seen.append(Seen(time.monotonic(), message["msg_type"], message))
            self._react(message)

    def _react(self, message: dict[str, Any]) -> None:
        if message["msg_type"] == "init_ack" and self._init_timer is not None:
            self._init_timer.cancel()
        elif message["msg_type"] == "challenge" and self.auto_answer:
            if self.delay:
                self._reactor.later(self.delay, lambda: self._answer(message))
            else:
                self._answer(message)
        elif message["msg_type"] == "action_notify" and self.auto_vote:
            self._vote(message)

    def _answer(self, message: dict[str, Any]) -> None:
        self.answered += 1
        self.send(
            "challenge_response",
            heartbeat_response=message["heartbeat_challenge"] ^ self.wrong_number,
            heartbeat_health=self.health,
            corrective_action=self.corrective_action,
            log_msg=self.log_msg,
        )

    def _vote(self, message: dict[str, Any]) -> None:
        consent = "accept" if message["notification_type"] == "revocable" else "complete"
        vote, reason = self.votes.get(message["event_type"], (consent, ""))
        self.send(
            "action_response",
            invocation_id=message["invocation_id"],
            event_type=message["event_type"],
            notification_type=message["notification_type"],
            vote_result=vote,
            log_msg=reason,
        )

    def _send(self, data: bytes) -> None:
        """Queue `data` and send what goes; with `split` that many bytes each half millisecond."""
        self._output += data
        if self._host is None:
            self._output = b""
            return
        try:
            sent = self._host.send(self._output[: self.split or None]) if self._output else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close_host()
            return
        self._output = self._output[sent:]
        if self.split and self._output:
            self._reactor.watch(
                self._host, selectors.EVENT_READ if self.reading else 0, self._ready
            )
            self._reactor.later(0.0005, lambda: self._send(b""))
        else:
            self._watch_host()
