"""One instance's channel in the real world: its socket, its timers, its lines in the log.

Replaces the descriptor half of guestInstClass. It is the port of that instance's state
machines: what they decide is done here, what happens here is told to them.
"""

from __future__ import annotations

import errno
import logging
from typing import Protocol

from guestmtce.core.server.instance import Instance
from guestmtce.core.server.machine import Attempt, TimerName
from guestmtce.core.server.worker import Worker
from guestmtce.core.shared.limits import RateLimit
from guestmtce.core.shared.mtc_message import InstanceInformation, Record, VoteAnswer
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime import log as logs
from guestmtce.runtime import unix
from guestmtce.runtime.loop import Loop, Timers
from guestmtce.runtime.stream import Stream
from guestmtce.server.virtio import ChannelDirectory, SocketFile

log = logging.getLogger(__name__)

# Of bad messages of one instance the first is logged, then every so many.
BAD_MESSAGE_LOG_EVERY = 1000
EXCERPT_LIMIT = 80
# A guest can make us say something with each message; this is how much it may.
LOG_LINES = 40
LOG_PERIOD_SECS = 10.0
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
# What an operator looks for afterwards: no flood of other lines may use up the room for it.
_WHY = frozenset({Command.HEARTBEAT_LOSS, Command.HEARTBEAT_ILLHEALTH, Command.VOTE_NOTIFY})


class Owner(Protocol):
    """Who holds the channels: the server."""

    def report(self, command: Command, record: Record) -> object:
        """Tell guestAgent."""

    def loss_is_void(self, uuid: str) -> object:
        """QEMU has closed the channel: a loss that is not told yet is the VIM's to know."""

    def forget(self, uuid: str) -> object:
        """Drop an instance that has no file and that nobody named."""

    def out_of_descriptors(self) -> object:
        """Note that a channel could not be opened for want of a descriptor."""

    def stalled(self, late: float) -> object:
        """Log that our host was `late` seconds behind."""


class Channel:
    """The port of one instance: a Stream when connected, and its timers."""

    __slots__ = (
        "_bad_messages",
        "_directory",
        "_file",
        "_lines",
        "_loop",
        "_owner",
        "_stream",
        "_timers",
        "instance",
    )

    def __init__(
        self, uuid: str, worker: Worker, loop: Loop, directory: ChannelDirectory, owner: Owner
    ) -> None:
        self.instance = Instance(uuid, worker, self)
        self._loop = loop
        self._directory = directory
        self._owner = owner
        self._stream: Stream | None = None
        # The file that we are connected to.
        self._file: SocketFile | None = None
        self._timers = Timers(loop)
        self._bad_messages = 0
        self._lines = RateLimit(LOG_LINES, LOG_PERIOD_SECS)

    @property
    def dropped_messages(self) -> int:
        """How many messages the present connection had no room for."""
        return self._stream.dropped if self._stream else 0

    @property
    def socket_mark(self) -> str:
        """Which socket file we are connected to, "" for none."""
        return self._file.mark if self._file is not None else ""

    def file_found(self) -> None:
        """The directory has a file for this instance: connect, if it is not what we have."""
        if not self.instance.connection.connected:
            self.instance.file_found()
        elif self._is_replaced():
            self.note("its socket file was replaced")
            # We may see this before the old QEMU has hung up: then nobody tells us that it has.
            self._owner.loss_is_void(self.instance.uuid)
            self.instance.file_replaced()

    def _is_replaced(self) -> bool:
        try:
            file = self._directory.find(self.instance.uuid)
        except OSError:
            return False  # we cannot say, and the connection stands
        return file is None or not file.is_same(self._file)

    def send(self, data: bytes, *, droppable: bool = False) -> None:
        """Queue a whole message for the guest."""
        if self._stream is not None:
            self._stream.send(data, droppable=droppable)

    def connect(self) -> Attempt:
        """Try the socket file; connecting to a UNIX socket ends at once, either way."""
        try:
            file = self._directory.find(self.instance.uuid)
            if file is None:
                return Attempt.GONE
            sock = unix.connect(file.path)
        except OSError as error:
            return self._not_connected(error)
        self._stream = Stream(
            self._loop, sock, on_data=self.instance.received, on_close=self._closed
        )
        self._file = file
        log.debug("instance %s: connected", self.instance.uuid)
        return Attempt.OPENED

    def _not_connected(self, error: OSError) -> Attempt:
        if error.errno in _NO_DESCRIPTORS:
            self._owner.out_of_descriptors()
            return Attempt.STARVED
        if self.instance.connection.failures <= 1:
            self.note("cannot connect: %s; trying again", error.strerror or error)
        return Attempt.REFUSED

    def stuck(self) -> bool:
        """Whether what was sent still waits for the guest to read."""
        return self._stream is not None and self._stream.queued_bytes > 0

    def read(self, wanted: bool) -> None:
        """Read from the channel, or let the guest wait."""
        if self._stream is not None:
            self._stream.read(wanted)

    def _closed(self, reason: str) -> None:
        self._stream = None
        self.note("channel closed (%s)", reason)
        self._owner.loss_is_void(self.instance.uuid)
        self.instance.disconnected()

    def disconnect(self) -> None:
        """Close the channel, if it is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._file = None

    def start_timer(self, name: TimerName, delay: float) -> None:
        """Ring once in `delay` seconds; replaces the running timer of that name."""
        self._timers.start(name.value, delay, self._ring, name, self._loop.time() + delay)

    def cancel_timer(self, name: TimerName) -> None:
        """Stop that timer, if it runs."""
        self._timers.cancel(name.value)

    def _ring(self, name: TimerName, due: float) -> None:
        self.instance.timer_rang(name, self._loop.time() - due)

    def report(self, command: Command, record: Record, why: str = "") -> None:
        """Tell guestAgent, and the log."""
        text = _describe(command, record, why)
        if command in _WHY:
            level = logging.INFO if command is Command.VOTE_NOTIFY else logging.WARNING
            log.log(level, "%s: %s", self.who, text, extra=logs.why(self.instance.uuid))
        elif self._may_log():
            log.info("%s: %s", self.who, text)
        self._owner.report(command, record)

    def forget(self) -> None:
        """No file and nobody named it: nothing is left to know."""
        self._owner.forget(self.instance.uuid)

    def note(self, text: str, *args: object, why: bool = False) -> None:
        """Put a line about this instance into the log; `why` as for `Port.note`."""
        if why or self._may_log():
            extra = logs.why(self.instance.uuid) if why else None
            line = "instance %s: " + text
            log.info(line, self.instance.uuid, *args, extra=extra)

    @property
    def who(self) -> str:
        """The instance as a log line names it: its UUID, and the VM's name if it has one."""
        name = self.instance.name
        return f"instance {self.instance.uuid}" + (f" ({name})" if name else "")

    def _may_log(self) -> bool:
        """Whether one more line about this instance is within its share of the log."""
        left_out = self._lines.excess
        if not self._lines.allows(self._loop.time()):
            return False
        if left_out and not self._lines.excess:
            log.warning("instance %s: %d lines left out", self.instance.uuid, left_out)
        return True

    def bad_message(self, reason: str, excerpt: bytes) -> None:
        """Log a refused message: the first, then every thousandth."""
        if self._bad_messages % BAD_MESSAGE_LOG_EVERY == 0 and self._may_log():
            log.warning(
                "instance %s: bad message (%s; %d before): %s",
                self.instance.uuid,
                reason,
                self._bad_messages,
                printable(excerpt.decode("utf-8", "replace"), EXCERPT_LIMIT),
            )
        self._bad_messages += 1

    def stalled(self, late: float) -> None:
        """Our host was late; that is the server's to log."""
        self._owner.stalled(late)

    def for_operator(self, *, whole: bool = False) -> dict[str, object]:
        """Return the instance as guestctl and the dump show it; `whole`: all that is remembered."""
        return {
            **(self.instance.for_why() if whole else self.instance.for_operator()),
            "bad_messages": self._bad_messages,
            "dropped_messages": self.dropped_messages,
            "queued_bytes": self._stream.queued_bytes if self._stream else 0,
        }


def _describe(command: Command, record: Record, why: str) -> str:
    """Return one line for the log of what is told to guestAgent, and why."""
    text = command.name
    if isinstance(record, VoteAnswer):
        text += f" {record.notification} {record.event}: {record.vote}"
        why = record.reason
    elif command is Command.HEARTBEAT_ILLHEALTH and isinstance(record, InstanceInformation):
        text += f" repair-action {record.corrective_action}"
    return f"{text} ({printable(why)})" if why else text
