"""A network between the daemons that drops, repeats, delays, reorders and cuts datagrams.

Each daemon is told a port at which the network listens in the other's place, and hears the
datagrams that come through from the address that they were sent from.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from guestmtce.runtime.datagram import DatagramSocket, bound_socket
from guestmtce.runtime.loop import Loop
from tests.chaos.evidence import Evidence
from tests.peers import wire
from tests.simulation import SimulatedLoop

# Longer than the first repeats take, and than a daemon needs to be back.
STRAY_SECS = 4.0


@dataclass
class Weather:
    """How bad the network is: shares from 0 to 1, and the longest delay in seconds.

    A share of `stray` of the datagrams takes up to `STRAY_SECS`: whatever was said meanwhile, by
    whomever, arrives before it.
    """

    loss: float = 0.0
    twice: float = 0.0
    delay: float = 0.0
    stray: float = 0.0
    cut: bool = False


class Network:
    """Stands in for each daemon towards the other.

    `evidence` is what was said and came through, by the clock `now`; `queries` counts what
    guestAgent asked, at `last_query` for the last time.
    """

    def __init__(
        self,
        loop: SimulatedLoop | Loop,
        seed: random.Random,
        now: Callable[[], float],
        evidence: Evidence | None = None,
    ) -> None:
        self.weather = Weather()
        self.carried = 0
        self.lost = 0
        self._digest = hashlib.sha256()
        self.queries = 0
        self.last_query = 0.0
        self.evidence = evidence or Evidence()
        self._loop = loop
        self._now = now
        self._random = seed
        self._listeners: list[DatagramSocket] = []
        self._senders: dict[str, DatagramSocket] = {}

    def listen(self, role: str, address: str, port: int, real_port: int) -> None:
        """Stand in for the daemon, `agent` or `server`, that hears at `address` and `real_port`."""

        def received(data: bytes, source: str, _port: int) -> None:
            self._carry(data, source, role, (address, real_port))

        sock = bound_socket((address, port), 4 * 1024 * 1024)
        self._listeners.append(DatagramSocket(self._loop, sock, received))

    @property
    def digest(self) -> str:
        """What was sent until now, and when, in a few letters: the same for the same run."""
        return self._digest.hexdigest()[:12]

    def close(self) -> None:
        for each in (*self._listeners, *self._senders.values()):
            each.close()

    def _carry(self, data: bytes, source: str, receiver: str, destination: tuple[str, int]) -> None:
        weather, chance = self.weather, self._random.random
        copies = 0 if weather.cut or chance() < weather.loss else 1
        if copies and chance() < weather.twice:
            copies = 2
        self.carried += 1
        self._digest.update(b"%.9f %b" % (self._now(), data))
        self.lost += not copies
        datagram = wire.unpack(data)
        passage = self.evidence.sent(datagram, receiver, self._now())
        if datagram.name == "QRY_INST" and not datagram.body.get("uuid"):
            self.queries, self.last_query = self.queries + 1, self._now()
        for _ in range(copies):
            delay = chance() * (STRAY_SECS if chance() < weather.stray else weather.delay)
            arrive = functools.partial(self.evidence.arrived, datagram, receiver, passage)
            self._loop.call_later(delay, self._pass_on, data, source, destination, arrive)

    def _pass_on(
        self,
        data: bytes,
        source: str,
        destination: tuple[str, int],
        arrive: Callable[[float], object],
    ) -> None:
        self._sender(source).send(data, destination)
        arrive(self._now())

    def _sender(self, source: str) -> DatagramSocket:
        if source not in self._senders:
            sock = bound_socket((source, 0))
            self._senders[source] = DatagramSocket(self._loop, sock, lambda *_: None)
        return self._senders[source]
