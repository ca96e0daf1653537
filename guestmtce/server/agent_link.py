"""guestServer's end of the UDP link to guestAgent (datagrams.md).

Replaces the send and receive half of guestSvrMsg. Decides whom to believe and where to send,
says READY until the agent speaks, and hands checked messages to the server.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Optional

from guestmtce import __version__
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.delivery import Post, Role
from guestmtce.core.shared.errors import PeerError, ProtocolError, StartError, Unneeded
from guestmtce.core.shared.inbox import Receipt, Verdict
from guestmtce.core.shared.limits import EveryNth
from guestmtce.core.shared.mtc_message import MtcMessage, Ready, Record
from guestmtce.core.shared.owed import TOPICS, Debt, DeliveryStats, Topic
from guestmtce.core.shared.settings import ServerSettings
from guestmtce.core.shared.stamp import Stamp, read_loopback
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime.address import cannot_bind
from guestmtce.runtime.datagram import DatagramSocket, bound_socket
from guestmtce.runtime.hosts import HOSTS_PATH, HostsFile
from guestmtce.runtime.intake import Intake
from guestmtce.runtime.interfaces import addresses_here
from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)

CONTROLLER = "controller"
READY_GAPS_SECS = (5.0, 10.0, 20.0, 40.0, 60.0)
RESOLVE_SECS = 3.0
RESOLVED_SECS = 60.0
RECEIVE_BUFFER = 4 * 1024 * 1024
# Of failures to bind, the first is logged, then every so many (5 minutes).
_BIND_LOG_EVERY = 100

# What to do with a message; the stamp is None if an old agent sent it.
MessageHandler = Callable[[MtcMessage, Optional[Stamp]], object]


class AgentLink:
    """The socket, the peers that are believed, and READY.

    `handlers` says what each command does; a handler may raise PeerError for a message that
    lacks something, which costs that message only. `on_new_agent()` is called when another
    process plays guestAgent, `on_flush()` after something was sent or acknowledged,
    `on_order(order, queued)` when an order was: as held, or for good. `epoch`
    numbers this process; None turns acknowledging off, and `role` is None then.
    """

    def __init__(
        self,
        loop: Loop,
        settings: ServerSettings,
        hostname: str,
        *,
        hosts: HostsFile,
        management_interface: str,
        handlers: Mapping[Command, MessageHandler],
        epoch: int | None = None,
        on_new_agent: Callable[[], object] = lambda: None,
        on_flush: Callable[[], object] = lambda: None,
        on_order: Callable[[Debt, bool], object] = lambda _order, _queued: None,
    ) -> None:
        self.intake = Intake(log, "datagram")
        self.spoken = False
        self.delivery = DeliveryStats()
        self.role = None
        if epoch is not None:
            self.role = Role(epoch, self._wake, on_order, stats=self.delivery, version=__version__)
        self._heard_at = loop.time()
        self._on_new_agent = on_new_agent
        self._on_flush = on_flush
        self._loop = loop
        self._settings = settings
        self._hostname = hostname
        self._hosts = hosts
        self._management_interface = management_interface
        self._handlers: dict[int, MessageHandler] = dict(handlers.items())
        self._socket: DatagramSocket | None = None
        # Why there is none, in a sentence with its remedy.
        self._unbound = "it has just been started"
        self._believed: frozenset[str] = frozenset()
        self._controller: str | None = None
        self._last_speaker: str | None = None
        self._ready_count = 0
        self._timers = Timers(loop)
        self._bind_failures = EveryNth(_BIND_LOG_EVERY)

    @property
    def address(self) -> str | None:
        """Our own address, None while it is not known or not ours yet."""
        return self._socket.address[0] if self._socket else None

    @property
    def agent_acknowledges(self) -> bool | None:
        """Whether guestAgent acknowledges; None while that is not known, or we do not."""
        return self.role.acknowledges if self.role is not None else None

    @property
    def agent_version(self) -> str:
        """The version of guestAgent, "" if it does not say."""
        return self.role.peer_version if self.role is not None else ""

    def silence(self) -> float:
        """Return the seconds since guestAgent's last word, or since our start."""
        return self._loop.time() - self._heard_at

    @property
    def overruns(self) -> int:
        """Datagrams that the kernel dropped because we were too slow."""
        return self._socket.overruns if self._socket else 0

    @property
    def destination(self) -> str | None:
        """Where events go: to what `controller` names, so that no stale agent gets them.

        Only while that name has no address, to the believed agent that spoke last (decision 22).
        """
        if self._controller is None and self._last_speaker in self._believed:
            return self._last_speaker
        return self._controller

    @property
    def problems(self) -> list[str]:
        """What keeps the link from working, for guestctl."""
        found = []
        if self._socket is None:
            found.append(f"receives nothing: {self._unbound}")
        if self.destination is None:
            found.append(f"{CONTROLLER} is not in the hosts file: add it to {HOSTS_PATH}")
        return found

    def open(self) -> None:
        """Resolve the names and bind, now or as soon as our address is there.

        Raises StartError if the port is in use.
        """
        self._resolve()
        self._bind()

    def close(self) -> None:
        """Stop the timers and close the socket."""
        self._timers.cancel_all()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def reload(self, settings: ServerSettings) -> None:
        """Go by changed settings: whom to believe."""
        self._settings = settings
        self._resolve()

    def start_ready(self, delay: float) -> None:
        """Say READY in `delay` seconds, and again until the agent has spoken.

        Once at least: an agent that has spoken before may not know of our restart.
        """
        self._timers.start("ready", delay, self._say_ready)

    def send(
        self,
        command: Command,
        record: Record,
        *,
        expires: float | None = None,
        order_id: str = "",
    ) -> bool:
        """Send one event to guestAgent; False if there is nowhere to send it.

        States and orders are repeated until they are acknowledged, an order until `expires`;
        `order_id` is the name that it had before a restart.
        """
        if self.role is None:
            return self._send(command, record.members())
        if command in TOPICS:
            uuid = getattr(record, "uuid", "")
            now = self._loop.time()
            self.role.put(command, uuid, record, now, expires=expires, order_id=order_id)
        else:
            self.role.say(command, record)
        return self._flush()

    def answer(self, record: Record, re: int | None, of: int | None) -> None:
        """Answer a query: number `re` of a new agent with one of `of` records, or an old one."""
        if self.role is None:
            self._send(Command.QRY_INST, record.members())
        else:
            self.role.answer(record, re, of)
            self._flush()

    def void(self, uuid: str, *topics: Topic) -> None:
        """Owe guestAgent nothing of these topics (of all, if none is named) of an instance."""
        if self.role is not None:
            self.role.void(uuid, *topics)
            self._wake()

    def illness_owed(self, uuid: str) -> bool:
        """Whether a new agent was told of an illness and has not acknowledged it for good."""
        role = self.role
        return role is not None and role.peer_epoch is not None and role.owed(uuid, Topic.ILLNESS)

    def illness_over(self, uuid: str) -> bool:
        """Take that a guest is well; return whether a RUNNING has to withdraw its illness.

        A new agent that was told may wait with the alarm (decision 24). Where there is none, the
        illness is void at once: the agent that comes next is not to be told of it.
        """
        role = self.role
        if role is None or not role.owed(uuid, Topic.ILLNESS):
            return False
        if role.peer_epoch is None:
            self.void(uuid, Topic.ILLNESS)
        return role.peer_epoch is not None

    def _wake(self) -> None:
        """Flush the role in the next turn: it has something new to send."""
        if not self._timers.active("new"):
            self._timers.start("new", 0.0, self._flush)

    def _flush(self) -> bool:
        """Send what is due, and come back when more is; False if there is nowhere to send."""
        role = self.role
        if role is None:
            return False
        sent = True
        for post in role.poll(self._loop.time()):
            members = post.content.members()
            if post.stamp is not None:
                members = {**members, **post.stamp.members()}
            else:
                members = {"source": self.address, "hostname": self._hostname, **members}
            sent = self._send(post.command, members, post)
        self._timers.start_at("due", role.wake_at(self._loop.time()), self._flush)
        self._on_flush()
        return sent

    def _send(self, command: Command, members: dict[str, object], post: Post | None = None) -> bool:
        """Send one datagram to where `post` says, or to guestAgent."""
        destination = (post.address if post else None) or self.destination
        if self._socket is None or destination is None:
            self.intake.dropped["no_destination"] += 1
            self._unsent(post)
            return False
        try:
            data = mtc_message.encode_server_event(command, members)
        except ProtocolError:
            self.intake.dropped["too_long"] += 1
            return False
        on_end = functools.partial(self._sent, command.name, post)
        return self._socket.send(data, (destination, self._settings.agent_rx_port), on_end)

    def _sent(self, name: str, post: Post | None, taken: bool) -> None:
        """The kernel took a datagram, or refused it: then it is owed, whoever the agent is."""
        self.intake.count_sent(name, taken)
        if not taken:
            self._unsent(post)

    def _unsent(self, post: Post | None) -> None:
        if post is not None and self.role is not None:
            self.role.unsent(post, self._loop.time())

    def _resolve(self) -> None:
        """Read the hosts file again if it changed; often until each name is there."""
        self._hosts.reload_if_changed()
        controller = self._hosts.lookup(CONTROLLER)
        self._controller = controller[0] if controller else None
        self._believed = self._own_if_controller() | {
            address for peer in self._settings.agent_peers for address in self._hosts.lookup(peer)
        }
        often = not controller or self._hosts.look_again_soon
        self._timers.start("resolve", RESOLVE_SECS if often else RESOLVED_SECS, self._resolve)

    def _own_if_controller(self) -> frozenset[str]:
        """Return this host's addresses if the controller's is one of them (all-in-one).

        guestAgent sends from its local address then, which need not be `controller-0`'s
        (decision 22).
        """
        if self._controller is None or CONTROLLER not in self._settings.agent_peers:
            return frozenset()
        try:
            here = addresses_here()
        except OSError as error:
            log.warning("cannot list the addresses of this host: %s", error.strerror or error)
            return frozenset()
        return here if self._controller in here else frozenset()

    def _bind(self) -> None:
        address = self._own_address()
        if address is None:
            self._bind_later(
                f"no address is known for this host: add {self._hostname} to {HOSTS_PATH}, or set"
                " [client] address"
            )
            return
        where = (address, self._settings.rx_port)
        try:
            sock = bound_socket(where, RECEIVE_BUFFER)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                self._bind_later(
                    f"{address} is not an address of this host: set its interface up, or correct"
                    f" {HOSTS_PATH} or [client] address"
                )
                return
            raise cannot_bind("UDP", *where, error) from error
        self._socket = DatagramSocket(self._loop, sock, self._on_datagram)
        log.info("receiving on %s port %d", *where)

    def _own_address(self) -> str | None:
        if self._settings.address is not None:
            addresses = self._hosts.lookup(self._settings.address)
            return addresses[0] if addresses else None
        return self._hosts.own_address(self._hostname, self._management_interface)

    def _bind_later(self, why: str) -> None:
        self._unbound = why
        if self._bind_failures.hit("bind") is not None:
            log.warning("%s; trying again every %d s", why, int(RESOLVE_SECS))
        self._timers.start("bind", RESOLVE_SECS, self._bind_again)

    def _bind_again(self) -> None:
        """Bind after the start; a port that is in use by now cannot stop us any more."""
        self._hosts.reload_if_changed()
        try:
            self._bind()
        except StartError as error:
            self._bind_later(str(error))

    def _say_ready(self) -> None:
        if self.spoken and self._ready_count:
            return
        if not self.send(Command.MONITOR_READY, Ready(self._hostname)):
            self._timers.start("ready", RESOLVE_SECS, self._say_ready)
            return
        gap = READY_GAPS_SECS[min(self._ready_count, len(READY_GAPS_SECS) - 1)]
        self._ready_count += 1
        self._timers.start("ready", gap, self._say_ready)

    def _on_datagram(self, data: bytes, host: str, _port: int) -> None:
        """Believe, decode, dispatch."""
        with self.intake.guard(host):
            if host not in self._believed:
                raise PeerError("stranger")
            message = mtc_message.decode(data)
            self._heard_at = self._loop.time()
            self._dispatch(message, host)

    def _dispatch(self, message: MtcMessage, host: str) -> None:
        handler = self._handlers.get(message.command)
        if handler is None:
            if message.command == Command.LOOPBACK:
                self._on_loopback(message, host)
                self.intake.received[Command.LOOPBACK.name] += 1
                return
            raise PeerError("command", f"unknown command {message.command:#x}")
        stamp = Stamp.of_message(message) if self.role is not None else None
        receipt = self._judge(message, stamp, host)
        self._last_speaker = host
        self.spoken = True
        self.intake.received[Command(message.command).name] += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%#x from %s: %s", message.command, host, printable(message.members))
        try:
            handler(message, stamp)
        finally:
            if receipt is not None and self.role is not None:
                self.role.settle(receipt)

    def _judge(self, message: MtcMessage, stamp: Stamp | None, host: str) -> Receipt | None:
        """Return an order's receipt; raises Unneeded for what must not be applied (again)."""
        if self.role is None:
            return None
        if stamp is None:
            self.role.heard_old()
            return None
        has_uuid = message.command in TOPICS and message.command != Command.MOD_HOST
        uuid = message.uuid() if has_uuid else ""
        verdict, receipt = self.role.heard(message.command, uuid, stamp, host, self._loop.time())
        if verdict is not Verdict.TAKE:
            raise Unneeded(verdict.name.lower())
        return receipt

    def _on_loopback(self, message: MtcMessage, host: str) -> None:
        """A probe or an acknowledgement; what an old peer says with LOOPBACK means nothing."""
        if self.role is None or "epoch" not in message.members:
            return
        if self.role.loopback(read_loopback(message), host, self._loop.time()):
            log.info("guestAgent at %s: another process", host)
            self._on_new_agent()
        self._flush()
