"""What a peer has seen, in order, for a test in another thread to wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Journal(Generic[T]):
    """An append-only list with a `wait_for`. Safe to use from several threads.

    `listener`, if set, is called with each new item, in the thread that appends it.
    """

    def __init__(self) -> None:
        self.listener: Callable[[T], object] | None = None
        self._items: list[T] = []
        self._changed = threading.Condition()

    def append(self, item: T) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()
        if self.listener is not None:
            self.listener(item)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.since(0))

    def __getitem__(self, index: int) -> T:
        return self._items[index]

    def since(self, start: int) -> list[T]:
        """Return a copy of what came after the first `start` items."""
        with self._changed:
            return self._items[start:]

    def clear(self) -> None:
        with self._changed:
            self._items.clear()

    def wait_for(
        self, predicate: Callable[[T], object], timeout: float = 10.0, since: int = 0
    ) -> T:
        """Return the first item at or after index `since` that fits; wait for it if need be.

        Raises AssertionError with what was seen instead.
        """
        return self.wait_for_count(1, predicate, timeout, since)[0]

    def wait_for_count(
        self, count: int, predicate: Callable[[T], object], timeout: float = 10.0, since: int = 0
    ) -> list[T]:
        """Return the first `count` items at or after index `since` that fit."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [item for item in self._items[since:] if predicate(item)]
                if len(found) >= count:
                    return found[:count]
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = "\n  ".join(map(repr, self._items[since:][-20:])) or "nothing"
                    raise AssertionError(
                        f"{len(found)} of {count} in {timeout} s; the last 20 seen:\n  {seen}"
                    )
                self._changed.wait(left)


def wait_until(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> None:
    """Wait until `condition()` is true, looking every 10 ms; else raise AssertionError."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        time.sleep(0.01)
