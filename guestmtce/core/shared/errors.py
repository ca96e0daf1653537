"""The exception types: one per layer, so that a peer's fault is never taken for ours.

Imported by everybody; imports nothing.
"""

from __future__ import annotations


class GuestError(Exception):
    """Base of everything that this project raises on purpose."""


class PeerError(GuestError):
    """The peer broke the protocol: answer it, count it, go on.

    `reason` is a short label from a fixed vocabulary (a metrics label, safe to log);
    `answer` is the text owed to the peer, or None when the rule is to stay silent.
    """

    def __init__(self, reason: str, answer: str | None = None) -> None:
        super().__init__(answer or reason)
        self.reason = reason
        self.answer = answer


class ProtocolError(PeerError):
    """A message that is malformed or out of its range (protocol.md, Bad input)."""


class Unneeded(GuestError):  # noqa: N818 - it is nobody's error
    """A message that breaks no rule and changes nothing now (an answer that came too late, …).

    It is counted under `reason`, a short label from a fixed vocabulary, and not warned of.
    """

    def __init__(self, reason: str, explanation: str = "") -> None:
        super().__init__(explanation or reason)
        self.reason = reason


class NotYet(Unneeded):
    """A message that cannot be judged before we know more: it should be said again later."""


class ConfigError(GuestError):
    """A setting that cannot be used: names file, line, section and key; stops start-up."""

    def __init__(self, problem: str, *, path: str = "", line: int = 0) -> None:
        where = f"{path}:{line}: " if line else f"{path}: " if path else ""
        super().__init__(where + problem)
        self.path = path
        self.line = line


class StartError(GuestError):
    """The daemon cannot start, for a reason outside its configuration (a port in use, …)."""
