"""The agent's own addresses, and sockets on addresses that may not be there yet.

The floating address is what `controller` names; the local one is this host's own
(datagrams.md, Ports and addresses). Either may be missing when the agent starts, and come.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from guestmtce.core.shared.errors import StartError
from guestmtce.core.shared.settings import AgentSettings
from guestmtce.runtime.address import cannot_bind, family_of, is_loopback
from guestmtce.runtime.datagram import DatagramSocket, bound_socket
from guestmtce.runtime.hosts import HOSTS_PATH, HostsFile
from guestmtce.runtime.loop import Loop

log = logging.getLogger(__name__)

CONTROLLER = "controller"
RECEIVE_BUFFER = 4 * 1024 * 1024


class OwnAddresses:
    """The floating and the local address, as far as they are known."""

    def __init__(
        self, settings: AgentSettings, hostname: str, hosts: HostsFile, interface: str
    ) -> None:
        self.hostname = hostname
        self.hosts = hosts
        self.floating: str | None = None
        self.local: str | None = None
        self._settings = settings
        self._interface = interface
        self.refresh()

    def refresh(self) -> None:
        """Look the names up again, in the hosts file if that has changed."""
        self.hosts.reload_if_changed()
        self.floating = self._first(self._settings.address or CONTROLLER)
        if self._settings.local_address is not None:
            self.local = self._first(self._settings.local_address)
        else:
            self.local = self.hosts.own_address(self.hostname, self._interface)

    def _first(self, name: str) -> str | None:
        found = self.hosts.lookup(name)
        return found[0] if found else None

    @property
    def source(self) -> str:
        """What our datagrams name as their source: the floating address."""
        return self.floating or self.local or ""

    def is_own(self, address: str) -> bool:
        """True for the floating, the local, and loopback addresses."""
        return address in (self.floating, self.local) or is_loopback(address)


class Receiver:
    """UDP sockets on the addresses that `wanted` returns, all on one port.

    Raises StartError from `open` if the port is in use; what fails later is tried again with
    each `refresh`.
    """

    def __init__(
        self,
        loop: Loop,
        wanted: Callable[[], list[str | None]],
        port: int,
        on_datagram: Callable[[bytes, str, int], object],
    ) -> None:
        self.port = port
        self._loop = loop
        self._wanted = wanted
        self._on_datagram = on_datagram
        self._sockets: dict[str, DatagramSocket] = {}

    @property
    def addresses(self) -> list[str]:
        """The addresses that it receives on."""
        return list(self._sockets)

    @property
    def overruns(self) -> int:
        """Datagrams that the kernel dropped because we were too slow."""
        return sum(sock.overruns for sock in self._sockets.values())

    @property
    def complete(self) -> bool:
        """True if every address is known and has its socket."""
        return all(address in self._sockets for address in self._wanted())

    def open(self) -> None:
        """Bind to what is there. Raises StartError for any fault but a missing address."""
        for address in self._wanted():
            if address is not None and address not in self._sockets:
                self._bind(address)

    def refresh(self) -> None:
        """Bind to what has come, close what has gone."""
        wanted = set(self._wanted())
        for address in [address for address in self._sockets if address not in wanted]:
            log.info("no longer receiving on %s port %d", address, self.port)
            self._sockets.pop(address).close()
        try:
            self.open()
        except StartError as error:
            log.warning("%s", error)

    def send(
        self,
        data: bytes,
        destination: tuple[str, int],
        source: str | None,
        on_end: Callable[[bool], object],
    ) -> bool:
        """Send from the socket on `source`, else from any that can reach the destination.

        False if it cannot be sent; `on_end` as that of `DatagramSocket.send`.
        """
        sock = self._sockets.get(source or "")
        family = family_of(destination[0])
        if sock is None or family_of(sock.address[0]) != family:
            fit = (
                other for address, other in self._sockets.items() if family_of(address) == family
            )
            sock = next(fit, None)
        if sock is None:
            on_end(False)
            return False
        return sock.send(data, destination, on_end)

    def close(self) -> None:
        """Close every socket."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _bind(self, address: str) -> None:
        where = (address, self.port)
        try:
            sock = bound_socket(where, RECEIVE_BUFFER)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return
            raise cannot_bind("UDP", *where, error) from error
        self._sockets[address] = DatagramSocket(self._loop, sock, self._on_datagram)
        log.info("receiving on %s port %d", *where)


def missing(own: OwnAddresses, servers: Receiver, mtc_agent: Receiver) -> list[str]:
    """Return what keeps us from receiving on the floating or the local address.

    `servers` receives from guestServers, on both; `mtc_agent` on the floating one.
    """
    found = []
    for name, address, host, key in (
        ("floating", own.floating, CONTROLLER, "address"),
        ("local", own.local, own.hostname, "local_address"),
    ):
        if address is None:
            remedy = f"add {host} to {HOSTS_PATH}, or set [agent] {key}"
            found.append(f"our {name} address is not known: {remedy}")
        elif address not in servers.addresses:
            remedy = f"set its interface up, or correct {HOSTS_PATH} or [agent] {key}"
            found.append(f"our {name} address {address} is not on this host: {remedy}")
    if not found and not mtc_agent.complete:
        found.append(f"not receiving mtcAgent's commands on {own.floating}: the log says why")
    return found
