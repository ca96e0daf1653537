"""What has happened to an instance: a bounded memory, so that "why?" has an answer afterwards.

Both daemons keep one `History` an instance. guestServer writes what the guest did and what it
reported; guestAgent what it received, and what became of it at the VIM. The last ENTRIES are kept
in memory, fewer if their texts are long, 16 KiB an instance in all; each new one is also passed
to `on_entry`, which writes it to a file and to whoever follows the stream, so that a restart does
not wipe the answer.

Times are seconds since 1970 by the wall clock: a person compares them with other logs. They
are never compared with one another by a state machine.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Optional, Union

from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Word

ENTRIES = 64
EXCHANGES = 32
DETAIL_LIMIT = 240
# Bytes that the details of one instance take together: what holds its memory to its 16 KiB.
TEXT_BYTES = 4608
PAST_INSTANCES = 1000


class What(Word):
    """The kinds of entry, in the order of an instance's life."""

    FOUND = "found"
    CONNECTED = "connected"
    CLOSED = "closed"
    GONE = "gone"
    INIT = "init"
    HEARTBEATING = "heartbeating"
    MISS = "miss"
    LOSS = "loss"
    STOPPED = "stopped"
    ILL = "ill"
    WELL = "well"
    EXIT = "exit"
    ASKED = "asked"
    ANSWERED = "answered"
    ENDED = "ended"  # an ask, without an answer
    HELD = "held"
    REPORTING = "reporting"
    REFUSED = "refused"
    ACKNOWLEDGED = "acknowledged"
    RESTARTED = "restarted"  # the daemon that remembers
    # guestAgent's: what a guestServer said, and what the VIM was told of it.
    RECEIVED = "received"
    QUEUED = "queued"
    TOLD = "told"
    UNTOLD = "untold"
    MOVED = "moved"


class Entry(NamedTuple):
    """One thing that happened: when (wall clock), what, and a sentence that is safe to print."""

    at: float
    what: What
    detail: str

    def for_operator(self) -> dict[str, object]:
        """Return it as guestctl, the page and the events file show it."""
        return {"at": round(self.at, 3), "what": self.what.value, "detail": self.detail}


class History:
    """The last entries of one instance.

    `wall` returns the wall clock's seconds; `on_entry(entry)` hears of each new one.
    """

    __slots__ = ("_entries", "_on_entry", "_text", "_wall")

    def __init__(
        self, wall: Callable[[], float], on_entry: Callable[[Entry], object] | None = None
    ) -> None:
        self._wall = wall
        self._on_entry = on_entry
        self._entries: deque[Entry] = deque()
        self._text = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, what: What, detail: str = "") -> Entry:
        """Remember that `what` happened now; `detail` may hold a peer's text."""
        entry = Entry(self._wall(), what, printable(detail, DETAIL_LIMIT))
        self._keep(entry)
        if self._on_entry is not None:
            self._on_entry(entry)
        return entry

    def restore(self, entries: Iterable[Entry]) -> None:
        """Take what an earlier run of the daemon remembered; nobody hears of it again."""
        for entry in entries:
            self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._text += sys.getsizeof(entry.detail)
        while len(self._entries) > ENTRIES or self._text > TEXT_BYTES:
            self._text -= sys.getsizeof(self._entries.popleft().detail)

    def last(self, *kinds: What) -> Entry | None:
        """Return the newest entry of these kinds."""
        return next((entry for entry in reversed(self._entries) if entry.what in kinds), None)

    def for_operator(self) -> list[dict[str, object]]:
        """Return the entries, oldest first."""
        return [entry.for_operator() for entry in self._entries]


_KINDS = {what.value: what for what in What}


class Past:
    """What is remembered of instances that are not there: of an earlier run, or deleted.

    At most PAST_INSTANCES, or as many as an earlier run left; the one of which nothing was heard
    for the longest goes first.
    """

    def __init__(
        self, events: Iterable[Mapping[str, object]], restarted: Entry | None = None
    ) -> None:
        """Take the events that an earlier run wrote; what is no entry is passed over.

        `restarted` is what stands behind them in the history of an instance that comes again.
        """
        self._restarted = restarted
        self._entries: dict[str, deque[Entry]] = {}
        self._names: dict[str, str] = {}
        for event in events:
            uuid, at, name = event.get("uuid"), event.get("at"), event.get("name")
            what = _KINDS.get(str(event.get("what")))
            if what is None or not isinstance(uuid, str) or not isinstance(at, (int, float)):
                continue
            entries = self._entries.pop(uuid, None) or deque(maxlen=ENTRIES)
            entries.append(Entry(float(at), what, printable(event.get("detail"), DETAIL_LIMIT)))
            self._entries[uuid] = entries
            if name and isinstance(name, str):
                self._names[uuid] = printable(name)
        self._earlier = set(self._entries)
        self._most = max(PAST_INSTANCES, len(self._entries))

    def put(self, uuid: str, history: Iterable[Entry], name: str = "") -> None:
        """Remember an instance that goes, and what its guest called itself."""
        self._entries.pop(uuid, None)
        self._earlier.discard(uuid)
        self._entries[uuid] = deque(history, maxlen=ENTRIES)
        self._names[uuid] = name
        while len(self._entries) > self._most:
            oldest = next(iter(self._entries))
            del self._entries[oldest]
            self._earlier.discard(oldest)
            self._names.pop(oldest, None)

    def name(self, uuid: str) -> str:
        """Return what the guest of an instance called itself, "" if that is not remembered."""
        return self._names.get(uuid, "")

    def take(self, uuid: str) -> Iterable[Entry]:
        """Return what is remembered of an instance that comes, and forget it here."""
        self._names.pop(uuid, None)
        entries = self._entries.pop(uuid, ())
        if self._restarted is None or uuid not in self._earlier:
            return entries
        self._earlier.discard(uuid)
        return [*entries, self._restarted]

    def for_operator(self, uuid: str) -> list[dict[str, object]]:
        """Return what is remembered of an instance that is not there."""
        return [entry.for_operator() for entry in self._entries.get(uuid, ())]

    def instances(self) -> list[dict[str, str]]:
        """Return the instances that are remembered, so that they are found by name."""
        return [{"uuid": uuid, "name": self.name(uuid)} for uuid in self._entries]


class Exchange(NamedTuple):
    """One message on the channel, as it is told: when (wall clock), which, how long it took.

    `what` is its direction and type, and what was odd about it: `> challenge`,
    `< challenge_response, late`. `secs` is how long the guest took, for an answer that matched.
    """

    at: float
    what: str
    secs: float | None = None

    def for_operator(self) -> dict[str, object]:
        """Return it as guestctl shows it."""
        took = None if self.secs is None else round(self.secs * 1000, 1)
        return {"at": round(self.at, 3), "what": self.what, "ms": took}


CHALLENGE = "> challenge"

# What is kept of a message: of a challenge the time alone, of others what an `Exchange` has.
Kept = Union[float, tuple[float, str, Optional[float]]]


class Exchanges:
    """The last messages on one channel.

    Two of them make a heartbeat, so what is kept is what costs least: times are the monotonic
    clock's, which the heartbeat has read anyway; they become the wall clock's, and the rest
    becomes text, when somebody asks. `keep(message)` is the ring's own `append`.
    """

    __slots__ = ("_ring", "keep")

    def __init__(self) -> None:
        self._ring: deque[Kept] = deque(maxlen=EXCHANGES)
        self.keep: Callable[[Kept], None] = self._ring.append

    def told(self, ahead: float) -> list[Exchange]:
        """Return the messages, oldest first; the wall clock is `ahead` seconds ahead of ours."""
        return [
            Exchange(kept[0] + ahead, kept[1], kept[2])
            if isinstance(kept, tuple)
            else Exchange(kept + ahead, CHALLENGE)
            for kept in self._ring
        ]
