"""`/v1/events`: what happens, as server-sent events, for clients that follow or come back.

Each event has an id: the run of the daemon, and the event's number in it. A browser that lost the
stream names the last one it got, and first gets what it has missed, as far as that is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from guestmtce.core.shared.text import encode_json
from guestmtce.runtime.event_log import EventLog
from guestmtce.runtime.http_message import encode_event

# What is sent at once to a client that comes back: half of what may wait for one that is slow.
MISSED_BYTES = 32 * 1024
_ID = re.compile(r"(?P<run>[0-9a-f]+)-(?P<number>[0-9]{1,15})")
# A comment for people; when a browser is to come back, in milliseconds.
BEGIN = b": events follow\nretry: 3000\n\n"


class EventStream:
    """The events of `events` as a stream; `run` tells this run of the daemon from others."""

    def __init__(self, events: EventLog, run: str) -> None:
        self.run = run
        self._events = events

    def encode(self, event: Mapping[str, object]) -> bytes:
        """Return one event as it is sent."""
        return encode_event(encode_json(event), f"{self.run}-{event['number']}")

    def begin(self, last_id: str) -> bytes:
        """Return what a follower gets first; `last_id` is the last one that it knows, or ""."""
        return BEGIN + b"".join(self._missed(last_id) if last_id else ())

    def _missed(self, last_id: str) -> list[bytes]:
        match = _ID.fullmatch(last_id)
        # Of an earlier run it can have missed everything of this one.
        known = int(match["number"]) if match and match["run"] == self.run else 0
        missed: list[bytes] = []
        size = 0
        for event in reversed(self._events.since(known)):
            data = self.encode(event)
            size += len(data)
            if size > MISSED_BYTES:
                break
            missed.append(data)
        return missed[::-1]
