"""The bytes of a guest client, for `guestctl try-guest`: read as the daemons read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from guestmtce.core.server.guest_protocol import (
    LOG_MSG_LIMIT,
    MESSAGE_LIMIT,
    Framer,
    GuestMessage,
    decode,
)
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.vocabulary import NAME_LIMIT

RIGHT, TOLERATED, WRONG, NOT_TRIED = "right", "tolerated", "WRONG", "not tried"

_BODIES = {
    "init": "invocation_id name heartbeat_interval_ms vote_secs shutdown_notice_secs"
    " suspend_notice_secs resume_notice_secs restart_secs corrective_action",
    "challenge_response": "heartbeat_response heartbeat_health corrective_action log_msg",
    "action_response": "invocation_id event_type notification_type vote_result log_msg",
    "exit": "log_msg",
}


class RuleFinding(NamedTuple):
    """What came of one row; `mark` is one of the four words above, `note` says more."""

    rule: str
    mark: str
    note: str


class Wire:
    """What the client's bytes look like: a mark and an example for each habit that was seen."""

    RULES = (
        "writes a newline before and after each message",
        "writes messages that can be read",
        "escapes its texts",
        "writes the keys of each message in their order",
        "counts its messages in `sequence`",
        "keeps its texts within their limits",
    )

    def __init__(self) -> None:
        self.seen: dict[str, tuple[str, str]] = {}
        self.begin()

    def begin(self) -> None:
        """Forget what belongs to the connection: there is a new one."""
        self._framer = Framer()
        self._blank = True
        self._sequence: int | None = None

    def feed(self, data: bytes) -> list[GuestMessage]:
        """Return the messages that these bytes complete, as the daemons read them."""
        for line in (self._framer.tail + data).split(b"\n")[:-1]:
            if line and not self._blank:
                self._note(0, TOLERATED, line)
            self._blank = not line
        found = []
        for whole in self._framer.feed(data):
            if whole is None:
                self._note(1, WRONG, f"a line of over {MESSAGE_LIMIT} bytes")
                continue
            try:
                found.append(decode(whole))
            except ProtocolError as error:
                self._note(1, WRONG, error.answer or error.reason, whole)
            else:
                self._look_at(whole)
        return found

    def findings(self) -> Iterator[RuleFinding]:
        """Yield a row for each rule of the wire."""
        for rule in self.RULES:
            yield RuleFinding(rule, *self.seen.get(rule, (RIGHT, "")))

    def _look_at(self, line: bytes) -> None:
        """Note what is not as the rules have it, though it was understood."""
        try:
            members = json.loads(line.decode("utf-8"))
        except ValueError:
            self._note(2, TOLERATED, line)
            self._sequence = None
            return
        order = ["version", "revision", "msg_type", "sequence"]
        order += _BODIES[members["msg_type"]].split()
        if [key for key in members if key in order] != order:
            self._note(3, TOLERATED, line)
        if self._sequence is not None and members["sequence"] != self._sequence + 1:
            self._note(4, TOLERATED, f"{members['sequence']} after {self._sequence}")
        self._sequence = members["sequence"]
        for key, limit in (("name", NAME_LIMIT), ("log_msg", LOG_MSG_LIMIT)):
            if len(str(members.get(key, "")).encode("utf-8", "replace")) > limit:
                self._note(5, TOLERATED, f"a {key} of over {limit} bytes is cut")

    def _note(self, rule: int, mark: str, *what: str | bytes) -> None:
        note = ": ".join(repr(part[:200]) if isinstance(part, bytes) else part for part in what)
        self.seen.setdefault(self.RULES[rule], (mark, note))
