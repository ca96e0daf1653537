"""guestAgent's link to mtcAgent: commands in, MONITOR_READY out (datagrams.md)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from guestmtce.agent.addresses import OwnAddresses, Receiver
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.errors import PeerError, ProtocolError
from guestmtce.core.shared.mtc_message import MtcMessage
from guestmtce.core.shared.settings import AgentSettings
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime.intake import Intake
from guestmtce.runtime.loop import Loop

log = logging.getLogger(__name__)


class MtcLink:
    """A socket on the floating address for mtcAgent's commands.

    `on_command(message)` is called for what is believed; it may raise PeerError, which costs
    that message only. `send` is how datagrams leave: `Receiver.send` without the source.
    """

    def __init__(
        self,
        loop: Loop,
        settings: AgentSettings,
        own: OwnAddresses,
        on_command: Callable[[MtcMessage], object],
        send: Callable[[bytes, tuple[str, int], Callable[[bool], object]], bool],
    ) -> None:
        self.intake = Intake(log, "command")
        self._settings = settings
        self._own = own
        self._on_command = on_command
        self._send = send
        self._owed = False
        self.receiver = Receiver(
            loop, lambda: [own.floating], settings.mtc_cmd_port, self._on_datagram
        )

    def ask_for_hosts(self) -> None:
        """Ask for ADD_HOST of every host, now or as soon as there is an address to ask at."""
        floating = self._own.floating
        if floating is None or not self.receiver.complete:
            self._owed = True
            return
        data = mtc_message.encode_ready_for_mtc_agent()
        self._send(data, (floating, self._settings.mtc_event_port), self._asked)

    def _asked(self, taken: bool) -> None:
        """Count it, and ask again at the next refresh if it did not go out."""
        self._owed = not taken
        self.intake.count_sent(Command.MONITOR_READY.name, taken)

    def refresh(self) -> None:
        """The addresses may have changed: bind, and ask if that could not be done before."""
        self.receiver.refresh()
        if self._owed:
            self.ask_for_hosts()

    def _on_datagram(self, data: bytes, source: str, _port: int) -> None:
        """Believe, decode, pass on."""
        with self.intake.guard(source):
            if not self._own.is_own(source):
                raise PeerError("stranger")
            message = mtc_message.decode(data)
            if message.signature != mtc_message.MTC_SIGNATURE:
                raise ProtocolError("bad_signature")
            self._on_command(message)
            self.intake.received[Command(message.command).name] += 1
