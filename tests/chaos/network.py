"""A network between the daemons that drops, repeats, delays, reorders and cuts datagrams.

Each daemon is told a port at which the network listens in the other's place, and hears the
datagrams that come through from the address that they were sent from.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from guestmtce.runtime.datagram import DatagramSocket, bound_socket
from tests.peers import wire
from tests.simulation import SimulatedLoop


@dataclass
class Weather:
    """How bad the network is: shares from 0 to 1, and the longest delay in seconds."""

    loss: float = 0.0
    twice: float = 0.0
    delay: float = 0.0
    cut: bool = False


class Arrived(NamedTuple):
    """A datagram that came through, at a time of the loop's clock."""

    at: float
    name: str
    uuid: str


class Network:
    """Stands in for each daemon towards the other; `arrived` is what came through, and when."""

    def __init__(self, loop: SimulatedLoop, seed: random.Random) -> None:
        self.weather = Weather()
        self.carried = 0
        self.lost = 0
        self.arrived: list[Arrived] = []
        self._loop = loop
        self._random = seed
        self._listeners: list[DatagramSocket] = []
        self._senders: dict[str, DatagramSocket] = {}

    def listen(self, address: str, port: int, real_port: int) -> None:
        """Stand in for the daemon that hears at `address` and `real_port`."""

        def received(data: bytes, source: str, _port: int) -> None:
            self._carry(data, source, (address, real_port))

        sock = bound_socket((address, port), 4 * 1024 * 1024)
        self._listeners.append(DatagramSocket(self._loop, sock, received))

    def close(self) -> None:
        for each in (*self._listeners, *self._senders.values()):
            each.close()

    def _carry(self, data: bytes, source: str, destination: tuple[str, int]) -> None:
        weather, chance = self.weather, self._random.random
        copies = 0 if weather.cut or chance() < weather.loss else 1
        if copies and chance() < weather.twice:
            copies = 2
        self.carried += 1
        self.lost += not copies
        for _ in range(copies):
            delay = chance() * weather.delay
            self._loop.call_later(delay, self._pass_on, data, source, destination)

    def _pass_on(self, data: bytes, source: str, destination: tuple[str, int]) -> None:
        self._sender(source).send(data, destination)
        datagram = wire.unpack(data)
        uuid = str(datagram.body.get("uuid", ""))
        self.arrived.append(Arrived(self._loop.time(), datagram.name, uuid))

    def _sender(self, source: str) -> DatagramSocket:
        if source not in self._senders:
            sock = bound_socket((source, 0))
            self._senders[source] = DatagramSocket(self._loop, sock, lambda *_: None)
        return self._senders[source]
