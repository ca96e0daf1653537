"""guestAgent's end of the UDP link to the guestServers (datagrams.md).

Decides who is believed and where commands go. What a message does is `core.agent.events`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from guestmtce.agent.addresses import OwnAddresses, Receiver
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Host
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.mtc_message import MtcMessage, Record
from guestmtce.core.shared.settings import AgentSettings
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime.intake import Intake
from guestmtce.runtime.loop import Loop

log = logging.getLogger(__name__)


class ServerLink:
    """Sockets on the floating and the local address, one port.

    `on_event(host, message)` is called for what is believed; it may raise PeerError, which
    costs that message only.
    """

    def __init__(
        self,
        loop: Loop,
        settings: AgentSettings,
        own: OwnAddresses,
        agent: Agent,
        on_event: Callable[[Host, MtcMessage], object],
    ) -> None:
        self.intake = Intake(log, "event")
        self._settings = settings
        self._own = own
        self._loop = loop
        self._agent = agent
        self._on_event = on_event
        self.receiver = Receiver(
            loop, lambda: [own.local, own.floating], settings.rx_port, self._on_datagram
        )

    def send(self, host: Host, command: Command, record: Record) -> bool:
        """Send a command to a host's guestServer; False if it cannot go out.

        It leaves from our local address: an address that guestServers believe.
        """
        address = self._address_of(host)
        if address is None:
            return self._cannot_send("no_address", host)
        members = {"source": self._own.source, **record.members()}
        data = mtc_message.encode_agent_command(command, members)
        destination = (address, self._settings.server_rx_port)
        count = functools.partial(self.intake.count_sent, command.name)
        return self.receiver.send(data, destination, self._own.local, count)

    def _address_of(self, host: Host) -> str | None:
        """Return the host's address: the `ip` of ADD_HOST, else what the hosts file says.

        None if it has neither (decision 17).
        """
        if host.ip is not None:
            return host.ip
        named = self._own.hosts.lookup(host.hostname)
        return named[0] if named else None

    def _cannot_send(self, reason: str, host: Host) -> bool:
        count = self.intake.drop(reason, host.hostname)
        if count is not None:
            name = printable(host.hostname)
            log.warning("cannot send to %s: %s (%d so far)", name, reason, count)
        return False

    def _on_datagram(self, data: bytes, source: str, _port: int) -> None:
        """Decode, believe, pass on."""
        with self.intake.guard(source):
            message = mtc_message.decode(data)
            if message.command == Command.LOOPBACK:
                return
            self._on_event(self._believe(message, source), message)
            self.intake.received[Command(message.command).name] += 1

    def _believe(self, message: MtcMessage, source: str) -> Host:
        """Return the host that the message is from; raises PeerError if it is not from there."""
        hostname = message.text("hostname")
        host = self._agent.inventory.host_named(hostname)
        if host is None:
            self._agent.unknown_hosts.note(hostname, self._loop.time())
            raise PeerError("unknown_host")
        if source != self._address_of(host) and not (
            hostname == self._own.hostname and self._own.is_own(source)
        ):
            raise PeerError("stranger")
        return host
