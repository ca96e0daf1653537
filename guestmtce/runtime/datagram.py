"""A bound UDP socket on the loop, with a bounded backlog of what could not be sent at once.

Replaces msgClassSock for the datagrams between the daemons. Knows nothing of their content.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
from collections import deque
from collections.abc import Callable

from guestmtce.runtime import address as addresses
from guestmtce.runtime.loop import Loop

log = logging.getLogger(__name__)

# More than the largest datagram that anyone is owed (1060), so that an oversize one shows.
RECEIVE_BYTES = 2048
RECEIVES_PER_TURN = 64
MAX_BACKLOG = 4096

# linux/socket.h; the socket module does not have it.
_SO_RXQ_OVFL = 40
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)


class DatagramSocket:
    """A UDP socket bound to `address` (numeric host, port; port 0 takes a free one).

    `on_datagram(data, host, port)` is called for each datagram, with the source's address in
    its usual spelling (no scope id, IPv4-mapped as IPv4). Raises OSError if it cannot bind.

    `received`, `sent`, `errors` count datagrams; `dropped` those that found the backlog full;
    `overruns` those that the kernel dropped because we were too slow.
    """

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        on_datagram: Callable[[bytes, str, int], object],
        *,
        rcvbuf: int | None = None,
    ) -> None:
        self.received = 0
        self.sent = 0
        self.errors = 0
        self.dropped = 0
        self.overruns = 0
        self._loop = loop
        self._on_datagram = on_datagram
        self._backlog: deque[tuple[bytes, addresses.SocketAddress]] = deque()
        self._family = addresses.family_of(address[0])
        self._socket = _bound_socket(self._family, address, rcvbuf)
        self.closed = False
        self._update_interest()

    @property
    def address(self) -> tuple[str, int]:
        """The (host, port) that the socket is bound to."""
        host, port = self._socket.getsockname()[:2]
        return addresses.normalise(host) or host, port

    @property
    def backlog(self) -> int:
        """Datagrams that wait to be sent."""
        return len(self._backlog)

    def send(self, data: bytes, destination: tuple[str, int]) -> bool:
        """Send `data` to (numeric host, port), or queue it; False if it cannot be sent."""
        if self.closed:
            return False
        try:
            target = addresses.socket_address(self._family, *destination)
        except (OSError, ValueError):
            self.errors += 1
            return False
        if self._backlog:
            return self._queue(data, target)
        try:
            self._socket.sendto(data, target)
        except BlockingIOError:
            return self._queue(data, target)
        except OSError as error:
            self._failed("send", error)
            return False
        self.sent += 1
        return True

    def close(self) -> None:
        """Close now; the backlog is lost. Closing twice does nothing."""
        if self.closed:
            return
        self.closed = True
        self._backlog.clear()
        self._loop.unwatch(self._socket)
        self._socket.close()

    def _queue(self, data: bytes, target: addresses.SocketAddress) -> bool:
        if len(self._backlog) >= MAX_BACKLOG:
            self.dropped += 1
            return False
        self._backlog.append((data, target))
        self._update_interest()
        return True

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._receive()
        if events & selectors.EVENT_WRITE and not self.closed:
            self._flush()

    def _receive(self) -> None:
        for _ in range(RECEIVES_PER_TURN):
            try:
                data, ancillary, _flags, source = self._socket.recvmsg(
                    RECEIVE_BYTES, _ANCILLARY_BYTES
                )
            except BlockingIOError:
                return
            except OSError as error:
                # An ICMP error of an earlier send (ECONNREFUSED, …): that peer is not there.
                self._failed("receive", error)
                continue
            self.received += 1
            if ancillary:
                self._note_overruns(ancillary)
            self._on_datagram(data, addresses.normalise(source[0]) or source[0], source[1])
            if self.closed:
                return

    def _note_overruns(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Take over the kernel's running total of what it dropped at this socket."""
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                self.overruns = int.from_bytes(data[:4], "little")

    def _flush(self) -> None:
        while self._backlog:
            try:
                self._socket.sendto(*self._backlog[0])
            except BlockingIOError:
                break
            except OSError as error:
                self._failed("send", error)
            else:
                self.sent += 1
            self._backlog.popleft()
        self._update_interest()

    def _failed(self, what: str, error: OSError) -> None:
        self.errors += 1
        log.debug("datagram %s failed: %s", what, error)

    def _update_interest(self) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._backlog else 0)
        self._loop.watch(self._socket, events, self._ready)


def _bound_socket(
    family: socket.AddressFamily, address: tuple[str, int], rcvbuf: int | None
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        with contextlib.suppress(OSError):
            # Not on every kernel; without it `overruns` stays 0.
            sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        sock.bind(addresses.socket_address(family, *address))
    except OSError:
        sock.close()
        raise
    return sock
