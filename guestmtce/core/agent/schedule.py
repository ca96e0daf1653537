"""When each host is audited: once in each period, spread evenly over it."""

from __future__ import annotations

import heapq

START_SECS = 2.0
PERIOD_SECS = 10.0

# Multiples of the golden ratio's fraction fall evenly into a period, however many there are.
_GOLDEN = 0.6180339887498949


class Schedule:
    """Gives each host one audit per PERIOD_SECS, at a fixed offset of its own.

    The offsets of all hosts are spread evenly; the first host's is 0. Times are seconds of the
    loop's clock.
    """

    def __init__(self, start: float) -> None:
        self._base = start + START_SECS
        self._turns: list[tuple[float, int, str]] = []
        self._numbers: dict[str, int] = {}
        self._count = 0

    def add(self, hostname: str, now: float) -> None:
        """Give a host its turns; the first one is the next that is not past."""
        if hostname in self._numbers:
            return
        number = self._count
        self._count += 1
        self._numbers[hostname] = number
        turn = self._base + PERIOD_SECS * (number * _GOLDEN % 1.0)
        if turn < now:
            turn += PERIOD_SECS * -((turn - now) // PERIOD_SECS)
        heapq.heappush(self._turns, (turn, number, hostname))

    def remove(self, hostname: str) -> None:
        """Give a host no more turns: it is gone."""
        self._numbers.pop(hostname, None)

    def next_at(self) -> float | None:
        """Return when the next turn is, None if there is no host."""
        while self._turns and not self._is_current(self._turns[0]):
            heapq.heappop(self._turns)
        return self._turns[0][0] if self._turns else None

    def due(self, now: float) -> list[str]:
        """Return the hosts whose turn has come.

        A host whose turn was missed several times (the process was stopped) is returned once.
        """
        names = []
        while (turn := self.next_at()) is not None and turn <= now:
            _turn, number, hostname = heapq.heappop(self._turns)
            names.append(hostname)
            missed = (now - turn) // PERIOD_SECS
            heapq.heappush(self._turns, (turn + PERIOD_SECS * (missed + 1), number, hostname))
        return names

    def _is_current(self, entry: tuple[float, int, str]) -> bool:
        return self._numbers.get(entry[2]) == entry[1]
