"""Tells guestAgent how every instance is: when it asks, and when another process plays its part.

What is told goes out in portions that fit the other's receive buffer (decision 18).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from guestmtce.core.shared.mtc_message import Ready
from guestmtce.core.shared.stamp import Stamp
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime.loop import Loop, Timers
from guestmtce.server.agent_link import AgentLink
from guestmtce.server.channel import Channel

PORTION = 100
PORTION_SECS = 0.01


class Telling:
    """Answers to queries, and states said anew. `channels` are the instances by UUID."""

    def __init__(
        self, loop: Loop, hostname: str, link: AgentLink, channels: Mapping[str, Channel]
    ) -> None:
        self._hostname = hostname
        self._link = link
        self._channels = channels
        self._timers = Timers(loop)
        self._unanswered: deque[str] = deque()
        self._untold: deque[str] = deque()
        # The query that is being answered: its stamp, None if an old agent sent it, and how
        # many answers it gets.
        self._query: Stamp | None = None
        self._answers = 0
        # The last query that came meanwhile; a stamp may be None, so it is in a list.
        self._next: list[Stamp | None] = []

    def stop(self) -> None:
        """Tell no more."""
        self._timers.cancel_all()

    def query(self, stamp: Stamp | None) -> None:
        """QRY_INST: one answer per known instance, in portions.

        Queries that come meanwhile get one round of answers more: beginning again at each
        would never come to the end.
        """
        if self._unanswered:
            self._next = [stamp]
        else:
            self._begin(stamp)
            self._answer()

    def _begin(self, stamp: Stamp | None) -> None:
        self._query, self._answers = stamp, len(self._channels)
        self._unanswered.extend(self._channels)
        if stamp is not None and not self._channels:
            self._link.answer(Ready(self._hostname), stamp.seq, 0)

    def _answer(self) -> None:
        query = self._query
        for _ in range(min(PORTION, len(self._unanswered))):
            channel = self._channels.get(self._unanswered.popleft())
            if channel is not None:
                re, of = (None, None) if query is None else (query.seq, self._answers)
                self._link.answer(channel.instance.for_agent(), re, of)
        if not self._unanswered and self._next:
            self._begin(self._next.pop())
        if self._unanswered:
            self._timers.start("answer", PORTION_SECS, self._answer)

    def say_state(self, uuid: str) -> None:
        """RUNNING or STOPPED: what the instance is now.

        Not RUNNING while an illness is owed, which RUNNING makes void: ILLHEALTH goes on being
        said, and says that the guest heartbeats as well.
        """
        channel = self._channels.get(uuid)
        if channel is not None:
            information = channel.instance.for_agent()
            running = information.heartbeating
            if running and self._link.illness_owed(uuid):
                return
            command = Command.HEARTBEAT_RUNNING if running else Command.HEARTBEAT_STOPPED
            self._link.send(command, information)

    def say_states(self) -> None:
        """Say of every instance what it is now, in portions."""
        self._untold.clear()
        self._untold.extend(self._channels)
        self._say_portion()

    def _say_portion(self) -> None:
        for _ in range(min(PORTION, len(self._untold))):
            self.say_state(self._untold.popleft())
        if self._untold:
            self._timers.start("say", PORTION_SECS, self._say_portion)
