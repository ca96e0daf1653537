"""What truly happened, by the monotonic clock: the oracle's other half."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass
class Span:
    """Something of a kind went on, with `who` if it is about one; `end` is infinite until then."""

    kind: str
    who: str
    begin: float
    end: float = float("inf")

    def meets(self, begin: float, end: float) -> bool:
        """Whether it went on at any time from `begin` to `end`."""
        return self.begin <= end and self.end >= begin


class Ledger:
    """All spans, and a story for a person to read."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.spans: list[Span] = []
        self.story: list[tuple[float, str]] = []

    def tell(self, text: str) -> None:
        """Write down that something happened now."""
        self.story.append((time.monotonic(), text))

    def begin(self, kind: str, who: str = "", *, lasts: float | None = None) -> Span:
        """Something begins now, and ends after `lasts` seconds, or by `close`."""
        now = time.monotonic()
        span = Span(kind, who, now, float("inf") if lasts is None else now + lasts)
        self.spans.append(span)
        self.tell(f"{who} {kind}".strip())
        return span

    def close(self, span: Span) -> None:
        """It is over now."""
        span.end = time.monotonic()
        self.tell(f"{span.who} {span.kind}: over".strip())

    def of(self, kind: str, who: str | None = None) -> Iterator[Span]:
        """Yield the spans of a kind, of one guest or of all."""
        return (each for each in self.spans if each.kind == kind and who in (None, each.who))

    def any(self, kinds: Iterable[str], begin: float, end: float) -> bool:
        """Whether anything of these kinds went on in that time."""
        wanted = frozenset(kinds)
        return any(each.kind in wanted and each.meets(begin, end) for each in self.spans)
