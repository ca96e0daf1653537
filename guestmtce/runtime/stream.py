"""A connected stream socket on the loop, with a bounded queue of whole messages.

Replaces the old daemon's blocking writes to the guest. Knows nothing of framing: what is
sent is one message, what is received is bytes.
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from guestmtce.runtime.loop import Loop, Timer

# One read of this size a turn, so that a flooding peer cannot starve another.
READ_BYTES = 4096
DEFAULT_MAX_BUFFER = 64 * 1024


class _Message(NamedTuple):
    data: bytes
    droppable: bool


class Stream:
    """A non-blocking connected stream socket, which it owns from now on.

    `on_data(bytes)` is called with what arrives; `on_close(reason)` exactly once, when the
    peer or an error ended the connection, and never after `close`. Both are called from the
    loop only, never from inside `send` or `close`.

    `dropped` counts messages that did not fit.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        on_data: Callable[[bytes], object],
        on_close: Callable[[str], object],
        max_buffer: int = DEFAULT_MAX_BUFFER,
    ) -> None:
        self.dropped = 0
        self.closed = False
        self._loop = loop
        self._socket = sock
        self._on_data = on_data
        self._on_close = on_close
        self._max_buffer = max_buffer
        self._queue: deque[_Message] = deque()
        self._queued = 0
        # Of these, bytes of messages that may be dropped and are not partly written.
        self._droppable_bytes = 0
        # How much of the first message in the queue has gone out already.
        self._begun = 0
        self._finishing = False
        self._interest = 0
        self._ending: Timer | None = None
        self._wants_read = True
        sock.setblocking(False)
        self._update_interest()

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent."""
        return self._queued

    def send(self, data: bytes, *, droppable: bool = False) -> bool:
        """Send `data` as one message, or queue it; False if it was dropped.

        When the queue would exceed `max_buffer`, whole messages go: the oldest droppable
        first (if no other is, that is this one), then the oldest, but never one that is
        partly written. A message that cannot fit at all is refused and nothing else goes.
        """
        if self.closed or self._finishing:
            return False
        if not data:
            return True
        if not self._make_room(len(data), droppable):
            self.dropped += 1
            return False
        self._queue.append(_Message(data, droppable))
        self._queued += len(data)
        self._droppable_bytes += len(data) if droppable else 0
        if len(self._queue) > 1:
            return True
        failure = self._flush()
        if failure is not None:
            # Not from here: the caller is in the midst of something of its own.
            self._ending = self._loop.call_soon(self._tell, failure)
            self._release()
            return False
        return True

    def finish(self) -> None:
        """Read no more, close when all is sent, then call `on_close("finished")`."""
        if self.closed or self._finishing:
            return
        self._finishing = True
        if self._queue:
            self._update_interest()
        else:
            self._ending = self._loop.call_soon(self._tell, "finished")
            self._release()

    def read(self, wanted: bool) -> None:
        """Read from now on, or not: a peer that says too much waits, and nobody else does."""
        if not (self.closed or self._finishing):
            self._wants_read = wanted
            self._update_interest()

    def close(self) -> None:
        """Close now, without a callback; what is queued is lost. Closing twice does nothing."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        self._release()

    def _make_room(self, size: int, droppable: bool) -> bool:
        """Drop what must go for `size` more bytes; False if those are the ones to go."""
        excess = self._queued + size - self._max_buffer
        if excess <= 0:
            return True
        begun = self._queue[0] if self._begun else None
        kept = len(begun.data) - self._begun if begun else 0
        if excess > (self._droppable_bytes if droppable else self._queued - kept):
            return False
        while excess > 0:
            excess -= self._drop_oldest(1 if begun else 0)
        return True

    def _drop_oldest(self, first: int) -> int:
        """Drop the oldest droppable message from `first` on, else the oldest; return its size."""
        index = first
        if self._droppable_bytes:
            index = next(
                number
                for number, message in enumerate(self._queue)
                if number >= first and message.droppable
            )
        message = self._queue[index]
        del self._queue[index]
        size = len(message.data)
        self._queued -= size
        self._droppable_bytes -= size if message.droppable else 0
        self.dropped += 1
        return size

    def _ready(self, events: int) -> None:
        # Reading goes first: what the peer said before it went is worth more than our words.
        failure = self._read() if events & selectors.EVENT_READ and not self._finishing else None
        if failure is None and events & selectors.EVENT_WRITE and not self.closed:
            failure = self._flush()
            if failure is None and self._finishing and not self._queue:
                failure = "finished"
        if failure is not None:
            self._release()
            self._tell(failure)

    def _read(self) -> str | None:
        """Read once; return why the connection is over, None while it is not."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            return _reason(error)
        if not data:
            return "end of file"
        self._on_data(data)
        return None

    def _flush(self) -> str | None:
        """Send until the socket takes no more; return why the connection is over, or None."""
        while self._queue:
            message = self._queue[0]
            try:
                sent = self._socket.send(memoryview(message.data)[self._begun :])
            except BlockingIOError:
                break
            except OSError as error:
                return _reason(error)
            if message.droppable and not self._begun:
                self._droppable_bytes -= len(message.data)
            self._queued -= sent
            self._begun += sent
            if self._begun < len(message.data):
                break
            self._queue.popleft()
            self._begun = 0
        self._update_interest()
        return None

    def _update_interest(self) -> None:
        events = 0 if self._finishing or not self._wants_read else selectors.EVENT_READ
        if self._queue:
            events |= selectors.EVENT_WRITE
        if events != self._interest:
            self._interest = events
            self._loop.watch(self._socket, events, self._ready)

    def _tell(self, reason: str) -> None:
        self._ending = None
        self._on_close(reason)

    def _release(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        self._queued = 0
        self._droppable_bytes = 0
        self._begun = 0
        self._loop.unwatch(self._socket)
        self._socket.close()


def _reason(error: OSError) -> str:
    """Return the kernel's name of an error, such as ECONNRESET or EPIPE."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
