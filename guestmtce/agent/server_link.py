"""guestAgent's end of the UDP link to the guestServers (datagrams.md).

Decides who is believed and where commands go. What a message does is `core.agent.events`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from guestmtce import __version__
from guestmtce.agent.addresses import OwnAddresses, Receiver
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.inventory import Host
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.delivery import Post, Role
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.mtc_message import HostState, MtcMessage, Record
from guestmtce.core.shared.owed import TOPICS, DeliveryStats
from guestmtce.core.shared.settings import AgentSettings
from guestmtce.core.shared.stamp import read_loopback
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime.intake import Intake
from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)


class ServerLink:
    """Sockets on the floating and the local address, one port.

    `on_event(host, message, source)` is called for what is believed; it may raise PeerError,
    which costs that message only. `on_start(host)` is called when another process plays a
    host's guestServer. `new_epoch()` returns a random number for what we say to a host from when
    we learn of it; None turns acknowledging off.
    """

    def __init__(
        self,
        loop: Loop,
        settings: AgentSettings,
        own: OwnAddresses,
        agent: Agent,
        *,
        on_event: Callable[[Host, MtcMessage, str], object],
        on_start: Callable[[Host], object],
        new_epoch: Callable[[], int] | None,
    ) -> None:
        self.intake = Intake(log, "event")
        self.delivery = DeliveryStats()
        self._loop = loop
        self._settings = settings
        self._own = own
        self._agent = agent
        self._on_event = on_event
        self._on_start = on_start
        self._new_epoch = new_epoch
        self._deaf = False
        self._timers = Timers(loop)
        self.receiver = Receiver(
            loop, lambda: [own.local, own.floating], settings.rx_port, self._on_datagram
        )

    def send(
        self,
        host: Host,
        command: Command,
        record: Record,
        expires: float | None = None,
        *,
        once: bool = False,
    ) -> int | None:
        """Send a command to a host's guestServer; return its number, None where it has none.

        States and orders are repeated until they are acknowledged, an order until `expires`;
        not what is to be said `once`.
        """
        role = self._role_of(host)
        number = None
        if role is None:
            self._send(host, command, record.members(), self._address_of(host))
        elif command in TOPICS and not once:
            uuid = "" if isinstance(record, HostState) else getattr(record, "uuid", "")
            role.put(command, uuid, record, self._loop.time(), expires=expires)
        else:
            number = role.say(command, record)
        self._flush(host)
        return number

    def close(self) -> None:
        """Say for the last time which orders are done, unless that is another's, and close."""
        self._timers.cancel_all()
        for host in self._agent.inventory.hosts.values():
            if host.role is not None and self._agent.presence.active:
                self._send_posts(host, host.role.last_words())
        self.receiver.close()

    def stop_listening(self) -> None:
        """Take nothing in any more; what is told from now on is still acknowledged."""
        self._deaf = True

    def _role_of(self, host: Host) -> Role | None:
        """Return the host's role, made when it is talked to for the first time.

        Its epoch is of its own: to the guestServer of a host that was forgotten and has come
        back we are another process, whose numbers begin anew.
        """
        if host.role is None and self._new_epoch is not None:
            wake = functools.partial(self._wake, host)
            host.role = Role(self._new_epoch(), wake, stats=self.delivery, version=__version__)
        return host.role

    def _wake(self, host: Host) -> None:
        """Flush a role in the next turn: it has something new to send."""
        if not self._timers.active(f"new {host.uuid}"):
            self._timers.start(f"new {host.uuid}", 0.0, self._flush, host)

    def _flush(self, host: Host) -> None:
        """Send what is due to a host, and come back when more is."""
        role = host.role
        if role is None or not self._agent.presence.active:
            return
        gone = self._agent.inventory.hosts.get(host.uuid) is not host
        self._send_posts(host, role.poll(self._loop.time()))
        wake_at = None if gone else role.wake_at(self._loop.time())
        self._timers.start_at(f"due {host.uuid}", wake_at, self._flush, host)

    def _send_posts(self, host: Host, posts: list[Post]) -> None:
        own = self._address_of(host)
        for post in posts:
            members = post.content.members()
            if post.stamp is not None:
                members = {**members, **post.stamp.members()}
            else:
                members = {"hostname": self._own.hostname, **members}
            self._send(host, post.command, members, post.address or own, post)

    def _send(
        self,
        host: Host,
        command: Command,
        members: dict[str, object],
        address: str | None,
        post: Post | None = None,
    ) -> None:
        """Send one datagram, from our local address: one that guestServers believe."""
        if address is None:
            self._cannot_send("no_address", host)
            self._unsent(host, post)
            return
        data = mtc_message.encode_agent_command(command, {"source": self._own.source, **members})
        on_end = functools.partial(self._sent, host, command.name, post)
        destination = (address, self._settings.server_rx_port)
        if not self.receiver.send(data, destination, self._own.local, on_end):
            self._cannot_send("not_sent", host)

    def _sent(self, host: Host, name: str, post: Post | None, taken: bool) -> None:
        """The kernel took a datagram, or refused it: then it is owed, whoever is there."""
        self.intake.count_sent(name, taken)
        if not taken:
            self._unsent(host, post)

    def _unsent(self, host: Host, post: Post | None) -> None:
        if post is not None and host.role is not None:
            host.role.unsent(post, self._loop.time())

    def _address_of(self, host: Host) -> str | None:
        """Return the host's address: the `ip` of ADD_HOST, else what the hosts file says.

        None if it has neither (decision 17).
        """
        if host.ip is not None:
            return host.ip
        named = self._own.hosts.lookup(host.hostname)
        return named[0] if named else None

    def _cannot_send(self, reason: str, host: Host) -> None:
        count = self.intake.drop(reason, host.hostname)
        if count is not None:
            name = printable(host.hostname)
            log.warning("cannot send to %s: %s (%d so far)", name, reason, count)

    def _on_datagram(self, data: bytes, source: str, _port: int) -> None:
        """Decode, believe, pass on."""
        if self._deaf:
            return
        with self.intake.guard(source):
            message = mtc_message.decode(data)
            if message.command == Command.LOOPBACK:
                self._on_loopback(message, source)
                self.intake.received[Command.LOOPBACK.name] += 1
                return
            host = self._believe(message, source)
            self._role_of(host)
            self._on_event(host, message, source)
            self.intake.received[Command(message.command).name] += 1

    def _on_loopback(self, message: MtcMessage, source: str) -> None:
        """A probe or an acknowledgement; what an old peer says with LOOPBACK means nothing."""
        if self._new_epoch is None or "epoch" not in message.members:
            return
        self._agent.check_active()
        host = self._believe(message, source)
        host.last_heard = self._agent.wall()
        role = self._role_of(host)
        if role is not None and role.loopback(read_loopback(message), source, self._loop.time()):
            log.info("guestServer of %s: another process", printable(host.hostname))
            self._on_start(host)

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
