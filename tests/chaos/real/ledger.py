"""What truly happened, by the monotonic clock: the oracle's other half."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass
class Span:
    """Something of a kind went on, with `who` if it is about one; `end` is infinite until then.

    Of a vote, `about` is the answer that is wanted: "reboot allow".
    """

    kind: str
    who: str
    begin: float
    end: float = float("inf")
    about: str = ""

    def meets(self, begin: float, end: float) -> bool:
        """Whether it went on at any time from `begin` to `end`."""
        return self.begin <= end and self.end >= begin


class Line(NamedTuple):
    """A line of the story, about a guest or a host unless `who` is empty."""

    at: float
    who: str
    text: str


class Ledger:
    """All spans, and a story for a person to read."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.spans: list[Span] = []
        self.story: list[Line] = []

    def tell(self, text: str, who: str = "") -> None:
        """Write down that something happened now, to `who` if it is about one."""
        self.story.append(Line(time.monotonic(), who, text))

    def begin(
        self,
        kind: str,
        who: str = "",
        *,
        lasts: float | None = None,
        about: str = "",
        since: float | None = None,
    ) -> Span:
        """Something begins now, or began at `since`.

        It ends `lasts` seconds from now, or by `close`.
        """
        now = time.monotonic()
        end = float("inf") if lasts is None else now + lasts
        span = Span(kind, who, now if since is None else since, end, about)
        self.spans.append(span)
        self.tell(f"{kind} {about}".strip(), who)
        return span

    def close(self, span: Span) -> None:
        """It is over now."""
        span.end = time.monotonic()
        self.tell(f"{span.kind}: over", span.who)

    def of(self, kind: str, who: str | None = None) -> Iterator[Span]:
        """Yield the spans of a kind, of one guest or of all."""
        return (each for each in self.spans if each.kind == kind and who in (None, each.who))

    def any(self, kinds: Iterable[str], begin: float, end: float) -> bool:
        """Whether anything of these kinds went on in that time."""
        wanted = frozenset(kinds)
        return any(each.kind in wanted and each.meets(begin, end) for each in self.spans)
