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
from typing import Optional

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

# What waits: the datagram, where to, and whom to tell what became of it.
_Queued = tuple[bytes, addresses.SocketAddress, Optional[Callable[[bool], object]]]


class DatagramSocket:
    """What `bound_socket` returned, on a loop; it belongs to this object from now on.

    `on_datagram(data, host, port)` is called for each datagram, with the source's address in
    its usual spelling (no scope id, IPv4-mapped as IPv4).

    `overruns` counts datagrams that the kernel dropped because we were too slow to receive them.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_datagram: Callable[[bytes, str, int], object],
    ) -> None:
        self.overruns = 0
        self._loop = loop
        self._on_datagram = on_datagram
        self._backlog: deque[_Queued] = deque()
        self._socket = sock
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

    def send(
        self,
        data: bytes,
        destination: tuple[str, int],
        on_end: Callable[[bool], object] | None = None,
    ) -> bool:
        """Send `data` to (numeric host, port), or queue it; False if it cannot be sent.

        `on_end(taken)` is called once, now or when its turn in the queue comes: True when the
        kernel has taken the datagram, False when it refused it or the socket was closed first.
        """
        taken = self._send(data, destination, on_end)
        if taken is not None and on_end is not None:
            on_end(taken)
        return taken is not False

    def _send(
        self, data: bytes, destination: tuple[str, int], on_end: Callable[[bool], object] | None
    ) -> bool | None:
        """Return whether the kernel took it, None if that is still to come."""
        if self.closed:
            return False
        try:
            target = addresses.socket_address(self._socket.family, *destination)
        except (OSError, ValueError) as error:
            log.debug("no address to send to: %s", error)
            return False
        taken = None if self._backlog else self._offer(data, target)
        if taken is not None:
            return taken
        if len(self._backlog) >= MAX_BACKLOG:
            return False
        self._backlog.append((data, target, on_end))
        self._update_interest()
        return None

    def _offer(self, data: bytes, target: addresses.SocketAddress) -> bool | None:
        """Return whether the kernel takes it, None if it has no room now."""
        try:
            self._socket.sendto(data, target)
        except BlockingIOError:
            return None
        except OSError as error:
            log.debug("datagram send failed: %s", error)
            return False
        return True

    def close(self) -> None:
        """Close now; the backlog is lost. Closing twice does nothing."""
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self._socket)
        self._socket.close()
        while self._backlog:
            _data, _target, on_end = self._backlog.popleft()
            if on_end is not None:
                on_end(False)

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
                log.debug("datagram receive failed: %s", error)
                continue
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
        while self._backlog and not self.closed:
            data, target, on_end = self._backlog[0]
            taken = self._offer(data, target)
            if taken is None:
                break
            self._backlog.popleft()
            if on_end is not None:
                on_end(taken)
        if not self.closed:
            self._update_interest()

    def _update_interest(self) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._backlog else 0)
        self._loop.watch(self._socket, events, self._ready)


def bound_socket(address: tuple[str, int], rcvbuf: int | None = None) -> socket.socket:
    """Return a non-blocking UDP socket on (numeric host, port); port 0 takes a free one.

    `rcvbuf` is the size of its receive buffer in bytes. Raises OSError if it cannot be bound.
    """
    family = addresses.family_of(address[0])
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
