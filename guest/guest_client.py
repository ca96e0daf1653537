#!/usr/bin/python3
"""The in-guest heartbeat client: one file to copy into a guest image, nothing to install.

It speaks protocol 3.1 of the guest channel (guest-channel.md) on the virtio-serial port
`cgcs.heartbeat`: says `init` until the host acknowledges it, answers each challenge with the
guest's health, and answers votes and notifications, all through two optional scripts of the
guest's owner:

    HEALTH_SCRIPT                             exit status 0: healthy
    EVENT_SCRIPT revocable|irrevocable EVENT  0: yes/done, 1: no, else: error

The first line of a script's standard output travels with the answer as its reason.

Inside: `Framer` (bytes to messages), `GuestProtocol` (what to say and when; no I/O, the time is
an argument), `Channel` (the port or, for tests, a UNIX socket), `Script` (one run of a program
under a deadline), `GuestClient` (the loop). One thread; nothing blocks.

CPython 3.6 or later, standard library, Linux.
"""

import abc
import argparse
import collections
import configparser
import contextlib
import enum
import errno
import json
import logging
import logging.handlers
import os
import random
import re
import select
import selectors
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import (
    Any,
    Callable,
    Container,
    Deque,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

VERSION = "1.0.0"
DEFAULT_CONFIG = "/etc/guest-client/guest-client.conf"
CONFIG_SECTION = "guest-client"
SYSLOG_SOCKET = "/dev/log"
LOG_WITHOUT_SYSLOG = "/var/log/guest-client.log"

PROTOCOL_VERSION = 3
PROTOCOL_REVISION = 1
# The longest message either side may send, without its newlines.
MESSAGE_LIMIT = 1056
# The protocol allows 224 bytes; 191 is what clients have always sent at most.
LOG_MSG_LIMIT = 191
NAME_LIMIT = 64
INT32_MAX = 2**31 - 1
MS_PER_DAY = 86400000
SECS_PER_DAY = 86400

CORRECTIVE_ACTIONS = ("none", "reboot", "stop", "log")
NOTIFICATION_TYPES = ("revocable", "irrevocable")
EVENTS = frozenset(
    (
        "stop",
        "reboot",
        "suspend",
        "pause",
        "unpause",
        "resume",
        "resize_begin",
        "resize_end",
        "live_migrate_begin",
        "live_migrate_end",
        "cold_migrate_begin",
        "cold_migrate_end",
        "unknown",
    )
)

INIT_RESEND_SECS = 2.0
# With no challenge for this long, or two intervals if that is longer, the host has lost us.
MIN_PATIENCE_SECS = 5.0
# The answer leaves this much before the host stops waiting for it ...
ANSWER_MARGIN_MS = 1000
# ... or, when the host waits for less than this, at half time.
SHORT_TIMEOUT_MS = 2000
# A repeated unhealthy answer names no action for this long: each one named is an order to act.
NAME_ACTION_AGAIN_SECS = 60.0

# Different complaints that are remembered, so that their repeats can be left out of the log.
COMPLAINT_KINDS = 100
COMPLAINT_EVERY = 100

RETRY_SECS = 1.0
FLUSH_AT_EXIT_SECS = 1.0
OUTPUT_LIMIT = 65536
READ_BYTES = 65536
SCRIPT_OUTPUT_LIMIT = 4096

log = logging.getLogger("guest-client")


class SettingError(Exception):
    """A setting that cannot be used; the text says which, where and why."""


def clean_text(text: str, limit: int) -> str:
    """Return `text` with unprintable characters blanked, cut to `limit` bytes of UTF-8.

    The cut never splits a character.
    """
    printable = "".join(char if char.isprintable() else " " for char in text[: limit + 1])
    return printable.strip().encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def encode(msg_type: str, sequence: int, body: Sequence[Tuple[str, object]]) -> bytes:
    """Return one message as it goes on the wire: a newline, the JSON object, a newline."""
    header = [
        ("version", PROTOCOL_VERSION),
        ("revision", PROTOCOL_REVISION),
        ("msg_type", msg_type),
        ("sequence", sequence),
    ]
    message = collections.OrderedDict([*header, *body])
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    return b"\n" + text.encode("utf-8") + b"\n"


class Framer:
    """Cuts the byte stream into messages, however it arrives (guest-channel.md, Framing).

    Keeps at most one message's worth; what is longer is skipped up to the next newline and
    counted in `discarded`.
    """

    def __init__(self) -> None:
        self.discarded = 0
        self._tail = b""
        self._skipping = False

    def feed(self, data: bytes) -> List[bytes]:
        """Take the next bytes; return the messages that they complete, without newlines."""
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        whole = [line for line in lines if line and len(line) <= MESSAGE_LIMIT]
        self.discarded += sum(len(line) > MESSAGE_LIMIT for line in lines)
        if self._skipping:
            self._tail = b""
        elif len(self._tail) > MESSAGE_LIMIT:
            self.discarded += 1
            self._skipping = True
            self._tail = b""
        return whole


class MessageError(Exception):
    """The host sent something that is not a message of this protocol."""


def decode(line: bytes) -> Dict[str, Any]:
    """Return the message in `line`; raise MessageError if it is none that we understand."""
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MessageError("not JSON: {}".format(error)) from None
    if not isinstance(message, dict):
        raise MessageError("not a JSON object")
    if number(message, "version", INT32_MAX) < PROTOCOL_VERSION:
        raise MessageError("version {} is too old".format(message["version"]))
    return message


def number(message: Dict[str, Any], key: str, most: int) -> int:
    """Return the integer 0 ... `most` under `key`; raise MessageError if there is none."""
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise MessageError("no usable {}".format(key))
    return value


def word(message: Dict[str, Any], key: str, vocabulary: Container[str]) -> str:
    """Return the word of `vocabulary` under `key`; raise MessageError if there is none."""
    value = message.get(key)
    if not isinstance(value, str) or value not in vocabulary:
        raise MessageError("no usable {}".format(key))
    return value


class Settings(NamedTuple):
    """Everything that can be configured; SETTINGS says what each one means."""

    device: str = "/dev/virtio-ports/cgcs.heartbeat"
    socket: str = ""
    name: str = ""
    interval_ms: int = 1000
    vote_secs: int = 10
    shutdown_notice_secs: int = 10
    suspend_notice_secs: int = 10
    resume_notice_secs: int = 15
    restart_secs: int = 300
    corrective_action: str = "log"
    unhealthy_corrective_action: str = "log"
    event_script: str = ""
    health_script: str = ""
    health_interval_ms: int = 5000
    health_timeout_ms: int = 5000
    log: str = "syslog"
    log_level: str = "info"


class Setting(NamedTuple):
    """One row of SETTINGS: `convert` raises ValueError saying what it expects."""

    key: str
    convert: Callable[[str], object]
    help: str

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return "--" + self.key.replace("_", "-")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a converter to an integer in `low` ... `high`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise ValueError("expected a whole number from {} to {}".format(low, high))
        return int(text)

    return convert


def one_of(*words: str) -> Callable[[str], str]:
    """Return a converter that accepts exactly `words`."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError("expected one of: " + ", ".join(words))
        return text

    return convert


def absolute_path(text: str) -> str:
    """Make a path independent of the working directory; empty stays empty."""
    return os.path.abspath(text) if text else ""


def program(text: str) -> str:
    """Accept the path of something that can be executed, or nothing."""
    path = absolute_path(text)
    if path and not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise ValueError("expected an executable file")
    return path


def log_target(text: str) -> str:
    """Accept `syslog`, `stderr` or the path of a file."""
    return text if text in ("syslog", "stderr") else absolute_path(text) or "syslog"


def guest_name(text: str) -> str:
    """Accept any text; the protocol limits its length."""
    return clean_text(text, NAME_LIMIT)


_ms = whole_number(1, MS_PER_DAY)
_secs = whole_number(0, SECS_PER_DAY)
_action = one_of(*CORRECTIVE_ACTIONS)
_level = one_of("debug", "info", "warning", "error")

SETTINGS = (
    Setting("device", absolute_path, "the virtio-serial port"),
    Setting("socket", absolute_path, "a UNIX socket to use instead of the port, for tests"),
    Setting("name", guest_name, "this guest's name in the host's logs; default: the hostname"),
    Setting("interval_ms", _ms, "time between two challenges; the host may enlarge it"),
    Setting("vote_secs", _secs, "time to answer a vote"),
    Setting("shutdown_notice_secs", _secs, "time to prepare for a stop or reboot"),
    Setting("suspend_notice_secs", _secs, "time to prepare for pause, suspend, resize, migration"),
    Setting("resume_notice_secs", _secs, "time to recover after those"),
    Setting("restart_secs", _secs, "time that a restart of this guest takes"),
    Setting("corrective_action", _action, "what to do to a guest that stops answering"),
    Setting("unhealthy_corrective_action", _action, "what to do to one that says it is unhealthy"),
    Setting("event_script", program, "votes and is notified; without it: consent"),
    Setting("health_script", program, "tells the guest's health; without it: healthy"),
    Setting("health_interval_ms", _ms, "time from one health check to the next"),
    Setting("health_timeout_ms", _ms, "a health check that takes longer means unhealthy"),
    Setting("log", log_target, "syslog, stderr, or the path of a file"),
    Setting("log_level", _level, "debug, info, warning or error"),
)


def read_config(path: str, text: str) -> Dict[str, object]:
    """Return the settings in the INI `text`; raise SettingError naming file, line and key."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    try:
        parser.read_string(text, source=path)
    except configparser.Error as error:
        raise SettingError(" ".join(str(error).split())) from None
    if not parser.has_section(CONFIG_SECTION):
        raise SettingError("{}: no section [{}]".format(path, CONFIG_SECTION))
    rows = {setting.key: setting for setting in SETTINGS}
    values = {}
    for key, value in parser.items(CONFIG_SECTION):
        where = "{}:{}: [{}] {}".format(path, line_of(text, key), CONFIG_SECTION, key)
        if key not in rows:
            log.warning("%s: unknown setting, ignored", where)
            continue
        try:
            values[key] = rows[key].convert(value)
        except ValueError as error:
            raise SettingError("{} = {!r}: {}".format(where, value, error)) from None
    return values


def line_of(text: str, key: str) -> int:
    """Return the number of the line that sets `key` (configparser does not tell), or 0."""
    pattern = re.compile(r"\s*{}\s*[=:]".format(re.escape(key)), re.IGNORECASE)
    for count, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return count
    return 0


def load_settings(arguments: argparse.Namespace) -> Settings:
    """Combine defaults, configuration file and command line; the later ones win.

    Raises SettingError. Without --config a missing file is no error.
    """
    values: Dict[str, object] = {}
    path = arguments.config or DEFAULT_CONFIG
    try:
        with open(path, encoding="utf-8") as file:
            values.update(read_config(path, file.read()))
    except FileNotFoundError as error:
        if arguments.config:
            raise SettingError("{}: {}".format(path, error.strerror)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("{}: {}".format(path, error)) from None
    given = vars(arguments)
    values.update((row.key, given[row.key]) for row in SETTINGS if given[row.key] is not None)
    if "corrective_action" in values:
        values.setdefault("unhealthy_corrective_action", values["corrective_action"])
    if not values.get("name"):
        values["name"] = guest_name(socket.gethostname())
    if arguments.foreground and not arguments.log:
        values["log"] = "stderr"
    return Settings()._replace(**values)  # type: ignore[arg-type]


class Notification(NamedTuple):
    """A vote or notification that the host waits for (`action_notify`)."""

    invocation_id: int
    event: str
    notification_type: str
    timeout_ms: int

    def answer_within(self) -> float:
        """Seconds within which the answer must leave so that the host still waits for it."""
        if self.timeout_ms < SHORT_TIMEOUT_MS:
            return self.timeout_ms / 2000
        return (self.timeout_ms - ANSWER_MARGIN_MS) / 1000

    def consent(self) -> str:
        """Return the vote that says yes, or that it is done."""
        return "accept" if self.notification_type == "revocable" else "complete"


class Actions(abc.ABC):
    """What the protocol asks of the world around it."""

    @abc.abstractmethod
    def send(self, message: bytes) -> None:
        """Put one framed message on the channel."""

    @abc.abstractmethod
    def start_event(self, notification: Notification) -> None:
        """Have the event handled, dropping an earlier one unanswered.

        Its outcome goes to `GuestProtocol.event_answered`, perhaps before this returns.
        """


class State(enum.Enum):
    """Where the conversation with the host stands."""

    DISCONNECTED = "disconnected"
    WAITING_ACK = "waiting for init_ack"
    ACTIVE = "active"


class GuestProtocol:
    """The guest's half of protocol 3.1. Does no I/O; `now` is any monotonic time in seconds.

    `deadline` is when `tick` must be called next, or None.
    """

    def __init__(self, settings: Settings, actions: Actions, new_id: Callable[[], int]) -> None:
        self.state = State.DISCONNECTED
        self.deadline: Optional[float] = None
        self._settings = settings
        self._actions = actions
        self._new_id = new_id
        self._invocation_id = 0
        self._sequence = 0
        self._pending: Optional[Notification] = None
        self._healthy = True
        self._health_text = ""
        self._action_named_at: Optional[float] = None
        self._complaints: collections.Counter[str] = collections.Counter()
        self._patience = max(2 * settings.interval_ms / 1000, MIN_PATIENCE_SECS)
        self._handlers = {
            "init_ack": self._init_ack,
            "challenge": self._challenge,
            "action_notify": self._action_notify,
            "nack": self._nack,
        }

    def connected(self, now: float) -> None:
        """The host can hear us: introduce ourselves."""
        self._begin(now)

    def disconnected(self) -> None:
        """The host is gone: an answer still to come has nobody to go to."""
        self.state = State.DISCONNECTED
        self.deadline = None
        self._pending = None

    def receive(self, line: bytes, now: float) -> None:
        """Handle one message of the host. A bad one is logged and changes nothing.

        Nor does one that was read before the host was found gone.
        """
        if self.state is State.DISCONNECTED:
            return
        try:
            message = decode(line)
            self._handlers[word(message, "msg_type", self._handlers)](message, now)
        except MessageError as error:
            self._complain("bad message from the host: {}".format(error))

    def tick(self, now: float) -> None:
        """Do what is due: repeat an init, or start again when the challenges have stopped."""
        if self.deadline is None or now < self.deadline:
            return
        if self.state is State.ACTIVE:
            log.warning("no challenge for %.1f s: starting again with init", self._patience)
            self._begin(now)
        else:
            self._send_init(now)

    def set_health(self, healthy: bool, text: str) -> None:
        """Use this in the next answers; `text` goes along as log_msg."""
        text = clean_text(text, LOG_MSG_LIMIT)
        if healthy != self._healthy:
            log.warning("the guest is %s: %s", "healthy" if healthy else "unhealthy", text)
        self._healthy = healthy
        self._health_text = text

    def event_answered(self, vote: str, reason: str) -> None:
        """Answer the pending vote or notification; without one, do nothing."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        reason = clean_text(reason, LOG_MSG_LIMIT)
        log.info("%s %s: %s %s", pending.notification_type, pending.event, vote, reason)
        self._send(
            "action_response",
            ("invocation_id", pending.invocation_id),
            ("event_type", pending.event),
            ("notification_type", pending.notification_type),
            ("vote_result", vote),
            ("log_msg", reason),
        )

    def stop(self, reason: str) -> None:
        """Tell the host that our silence from now on is meant."""
        if self.state is not State.DISCONNECTED:
            self._send("exit", ("log_msg", clean_text(reason, LOG_MSG_LIMIT)))
        self.disconnected()

    def _begin(self, now: float) -> None:
        self.state = State.WAITING_ACK
        self._pending = None
        self._action_named_at = None
        self._invocation_id = self._new_id()
        self._send_init(now)

    def _send_init(self, now: float) -> None:
        self.deadline = now + INIT_RESEND_SECS
        settings = self._settings
        self._send(
            "init",
            ("invocation_id", self._invocation_id),
            ("name", settings.name),
            ("heartbeat_interval_ms", settings.interval_ms),
            ("vote_secs", settings.vote_secs),
            ("shutdown_notice_secs", settings.shutdown_notice_secs),
            ("suspend_notice_secs", settings.suspend_notice_secs),
            ("resume_notice_secs", settings.resume_notice_secs),
            ("restart_secs", settings.restart_secs),
            ("corrective_action", settings.corrective_action),
        )

    def _init_ack(self, message: Dict[str, Any], now: float) -> None:
        if number(message, "invocation_id", INT32_MAX) != self._invocation_id:
            raise MessageError("init_ack for another init")
        if self.state is State.WAITING_ACK:
            log.info("the host acknowledged the init")
            self.state = State.ACTIVE
            self.deadline = now + self._patience

    def _challenge(self, message: Dict[str, Any], now: float) -> None:
        """Answer it in any state: before the init_ack it belongs to an earlier session."""
        challenge = number(message, "heartbeat_challenge", INT32_MAX)
        if self.state is State.ACTIVE:
            self.deadline = now + self._patience
        self._send(
            "challenge_response",
            ("heartbeat_response", challenge),
            ("heartbeat_health", "healthy" if self._healthy else "unhealthy"),
            ("corrective_action", self._action_to_name(now)),
            ("log_msg", self._health_text),
        )

    def _action_to_name(self, now: float) -> str:
        if self._healthy:
            self._action_named_at = None
            return "none"
        named_at = self._action_named_at
        if named_at is not None and now - named_at < NAME_ACTION_AGAIN_SECS:
            return "none"
        self._action_named_at = now
        return self._settings.unhealthy_corrective_action

    def _action_notify(self, message: Dict[str, Any], _now: float) -> None:
        notification = Notification(
            number(message, "invocation_id", INT32_MAX),
            word(message, "event_type", EVENTS),
            word(message, "notification_type", NOTIFICATION_TYPES),
            number(message, "timeout_ms", MS_PER_DAY),
        )
        if notification.invocation_id != self._invocation_id:
            raise MessageError("action_notify for another init")
        if self._pending is not None:
            log.info("%s is superseded by %s", self._pending.event, notification.event)
        self._pending = notification
        if self._settings.event_script:
            self._actions.start_event(notification)
        else:
            self.event_answered(notification.consent(), "")

    def _nack(self, message: Dict[str, Any], _now: float) -> None:
        text = message.get("log_msg")
        reason = clean_text(text, LOG_MSG_LIMIT) if isinstance(text, str) else ""
        self._complain("the host refused a message: {}".format(reason))

    def _send(self, msg_type: str, *body: Tuple[str, object]) -> None:
        self._sequence = self._sequence % INT32_MAX + 1
        self._actions.send(encode(msg_type, self._sequence, body))

    def _complain(self, text: str) -> None:
        """Log the first of a kind and a few of its repeats: the host can go on for ever."""
        if len(self._complaints) >= COMPLAINT_KINDS:
            self._complaints.clear()
        if self._complaints[text] % COMPLAINT_EVERY == 0:
            log.warning("%s (%d times before)", text, self._complaints[text])
        self._complaints[text] += 1


def open_device(path: str) -> int:
    """Open the virtio-serial port, which one process at a time may have. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISCHR(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENODEV, "is not a device")
    return fd


def open_socket(path: str) -> int:
    """Connect to a UNIX socket. Raises OSError, also when its queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        connection.connect(path)
        return connection.detach()


def hung_up(fd: int) -> bool:
    """Tell whether nobody is at the other end of `fd`."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    gone = select.POLLHUP | select.POLLERR | select.POLLNVAL
    return any(events & gone for _, events in poller.poll(0))


class Channel:
    """The way to the host: opened, and opened again, without ever spinning.

    A virtio-serial port outlives the host's end of it: reading then gives end of file and
    polling POLLHUP, for ever. So it stays open, unwatched, and is looked at each RETRY_SECS
    until the host is back. Anything else that ends is closed and opened again.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        path: str,
        opener: Callable[[str], int],
        *,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_message: Callable[[bytes], None],
    ) -> None:
        self.deadline: Optional[float] = None
        self._selector = selector
        self._path = path
        self._opener = opener
        self._on_up = on_up
        self._on_down = on_down
        self._on_message = on_message
        self._fd = -1
        self._up = False
        self._framer = Framer()
        self._discards_logged = 0
        self._output: Deque[bytes] = collections.deque()
        self._output_size = 0
        self._partly_sent = False
        self._last_problem = ""

    @property
    def idle(self) -> bool:
        """True when nothing waits to be written."""
        return not self._output

    def tick(self, now: float) -> None:
        """Try to reach the host, if that is due."""
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = now + RETRY_SECS
        if self._fd >= 0 and not self._is_still_the_port():
            self._close_fd()
        if self._fd < 0 and not self._open():
            return
        if hung_up(self._fd):
            self._problem("the host is not connected")
            return
        self._selector.register(self._fd, selectors.EVENT_READ, self._ready)
        self.deadline = None
        self._up = True
        self._last_problem = ""
        log.info("connected to the host through %s", self._path)
        self._on_up()

    def send(self, message: bytes) -> None:
        """Queue one message and write what can be written.

        Beyond OUTPUT_LIMIT the oldest messages that are still whole make room.
        """
        if not self._up:
            return
        self._output.append(message)
        self._output_size += len(message)
        while self._output_size > OUTPUT_LIMIT:
            oldest = self._output[self._partly_sent]
            del self._output[self._partly_sent]
            self._output_size -= len(oldest)
        self._write()

    def close(self) -> None:
        """Close for good."""
        self.deadline = None
        self._lose_host()
        self._close_fd()

    def _open(self) -> bool:
        try:
            self._fd = self._opener(self._path)
        except OSError as error:
            self._problem(error.strerror or str(error))
            return False
        return True

    def _is_still_the_port(self) -> bool:
        """Tell whether our descriptor is what the path names: never so for a socket."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            self._read()
        if self._up and mask & selectors.EVENT_WRITE:
            self._write()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._went_down(error.strerror or str(error))
            return
        if not data:
            self._went_down("closed by the host")
            return
        for line in self._framer.feed(data):
            self._on_message(line)
        if self._framer.discarded != self._discards_logged:
            self._discards_logged = self._framer.discarded
            log.warning("%d overlong messages from the host so far", self._discards_logged)

    def _write(self) -> None:
        while self._output:
            message = self._output[0]
            try:
                sent = os.write(self._fd, message)
            except BlockingIOError:
                break
            except OSError as error:
                self._went_down(error.strerror or str(error))
                return
            self._output_size -= sent
            self._partly_sent = sent < len(message)
            if self._partly_sent:
                self._output[0] = message[sent:]
            else:
                self._output.popleft()
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._output else 0)
        if self._selector.get_key(self._fd).events != interest:
            self._selector.modify(self._fd, interest, self._ready)

    def _went_down(self, why: str) -> None:
        self._problem(why)
        self._lose_host()
        self.deadline = time.monotonic() + RETRY_SECS
        if not self._is_still_the_port():
            self._close_fd()
        self._on_down()

    def _lose_host(self) -> None:
        if self._up:
            self._selector.unregister(self._fd)
        self._up = False
        self._framer = Framer()
        self._discards_logged = 0
        self._output.clear()
        self._output_size = 0
        self._partly_sent = False

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _problem(self, why: str) -> None:
        """Log why the host cannot be reached, once per reason."""
        if why != self._last_problem:
            log.warning("%s: %s; trying each %g s", self._path, why, RETRY_SECS)
        self._last_problem = why


class Outcome(NamedTuple):
    """How a script ended.

    `status` is its exit status (negative: killed by that signal), or None when it could not be
    started or was too slow, which `problem` then tells. `line` is the first line it printed.
    """

    status: Optional[int]
    line: str
    problem: str
    timed_out: bool


class Script:
    """Runs a program, one run at a time, each under a deadline, without waiting for it.

    A run that is superseded or too slow is killed with its whole process group.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.deadline: Optional[float] = None
        self._selector = selector
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._killed: List[subprocess.Popen[bytes]] = []
        self._output = b""
        self._timeout = 0.0
        self._watching = False
        self._on_done: Callable[[Outcome], None] = _nobody

    @property
    def running(self) -> bool:
        """True while a run has not ended."""
        return self._process is not None

    def start(
        self, argv: Sequence[str], timeout: float, on_done: Callable[[Outcome], None]
    ) -> None:
        """Run `argv` for at most `timeout` seconds, then call `on_done`.

        A run still going is killed, and its `on_done` is not called.
        """
        self.kill()
        try:
            # A session of its own: its process group dies with it, and the terminal's ^C spares it.
            process = subprocess.Popen(  # noqa: S603 - the guest's owner named the program
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            log.error("cannot run %s: %s", argv[0], error.strerror)
            on_done(Outcome(None, "", "cannot run the script: {}".format(error.strerror), False))
            return
        self._process = process
        self._output = b""
        self._timeout = timeout
        self._on_done = on_done
        self.deadline = time.monotonic() + timeout
        os.set_blocking(self._pipe(), False)
        self._selector.register(self._pipe(), selectors.EVENT_READ, self._readable)
        self._watching = True

    def kill(self) -> None:
        """End a run that is going; nobody hears of it."""
        process = self._process
        if process is None:
            return
        self._forget()
        with contextlib.suppress(ProcessLookupError):
            # Not reaped yet, so the number is still this process's.
            os.killpg(process.pid, signal.SIGKILL)
        self._killed.append(process)

    def reap(self) -> None:
        """Collect what has exited (call it upon SIGCHLD)."""
        self._killed = [process for process in self._killed if process.poll() is None]
        process = self._process
        if process is None:
            return
        status = process.poll()
        if status is None:
            return
        # A background child may keep the pipe open, so its end of file is not waited for.
        self._read()
        on_done, line = self._on_done, self._first_line()
        self._forget()
        on_done(Outcome(status, line, "", False))

    def tick(self, now: float) -> None:
        """Kill a run that is over its time, and report it."""
        if self.deadline is None or now < self.deadline:
            return
        on_done, line, timeout = self._on_done, self._first_line(), self._timeout
        self.kill()
        problem = "no answer from the script in {:g} s".format(timeout)
        on_done(Outcome(None, line, problem, True))

    def _pipe(self) -> int:
        assert self._process is not None and self._process.stdout is not None  # noqa: PT018, S101
        return self._process.stdout.fileno()

    def _readable(self, _mask: int) -> None:
        if self._process is not None and not self._read():
            self._unwatch()

    def _read(self) -> bool:
        """Take what the script printed, keeping its beginning; False at its end."""
        try:
            data = os.read(self._pipe(), READ_BYTES)
        except BlockingIOError:
            return True
        self._output = (self._output + data)[:SCRIPT_OUTPUT_LIMIT]
        return bool(data)

    def _first_line(self) -> str:
        return self._output.split(b"\n", 1)[0].decode("utf-8", "replace").strip()

    def _unwatch(self) -> None:
        if self._watching:
            self._selector.unregister(self._pipe())
            self._watching = False

    def _forget(self) -> None:
        self._unwatch()
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        self.deadline = None
        self._on_done = _nobody


def _nobody(_outcome: Outcome) -> None:
    """Stand in for the listener of a script that does not run."""


def vote_of(outcome: Outcome, notification: Notification) -> Tuple[str, str]:
    """Return vote and reason for the end of an event script.

    Status 0 is consent; 1 is a reject where that is possible; anything else is an error.
    """
    if outcome.timed_out:
        return "timeout", outcome.problem
    if outcome.status is None:
        return "error", outcome.problem
    if outcome.status == 0:
        return notification.consent(), outcome.line
    if outcome.status == 1 and notification.notification_type == "revocable":
        return "reject", outcome.line
    return "error", outcome.line or "the event script {}".format(how_it_ended(outcome.status))


def how_it_ended(status: int) -> str:
    """Say an exit status in words."""
    if status < 0:
        return "was killed by signal {}".format(-status)
    return "ended with status {}".format(status)


class GuestClient(Actions):
    """Ties protocol, channel and scripts to one loop of descriptors, timers and signals."""

    STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._selector = selectors.DefaultSelector()
        draw = random.SystemRandom()
        self._protocol = GuestProtocol(settings, self, lambda: draw.randint(1, INT32_MAX))
        self._channel = Channel(
            self._selector,
            settings.socket or settings.device,
            open_socket if settings.socket else open_device,
            on_up=lambda: self._protocol.connected(time.monotonic()),
            on_down=self._protocol.disconnected,
            on_message=lambda line: self._protocol.receive(line, time.monotonic()),
        )
        self._event = Script(self._selector)
        self._health = Script(self._selector)
        self._next_health: Optional[float] = None
        self._stop_signal = 0

    def send(self, message: bytes) -> None:
        """See Actions."""
        self._channel.send(message)

    def start_event(self, notification: Notification) -> None:
        """See Actions: the event script decides."""
        argv = [self._settings.event_script, notification.notification_type, notification.event]
        self._event.start(
            argv,
            notification.answer_within(),
            lambda outcome: self._protocol.event_answered(*vote_of(outcome, notification)),
        )

    def run(self) -> None:
        """Serve until a stop signal."""
        with self._signals():
            now = time.monotonic()
            self._channel.deadline = now
            if self._settings.health_script:
                self._next_health = now
            while not self._stop_signal:
                self._turn(self._deadline())
            self._say_goodbye()
        self._selector.close()

    def _turn(self, until: Optional[float]) -> None:
        """Handle what has arrived, then what is due: an answer counts before its deadline."""
        pause = None if until is None else max(0.0, until - time.monotonic())
        for key, mask in self._selector.select(pause):
            # An earlier callback of this turn may have stopped watching this one.
            if self._selector.get_map().get(key.fd) == key:
                key.data(mask)
        now = time.monotonic()
        self._event.tick(now)
        self._health.tick(now)
        self._check_health(now)
        self._channel.tick(now)
        self._protocol.tick(now)

    def _deadline(self) -> Optional[float]:
        candidates = (
            self._protocol.deadline,
            self._channel.deadline,
            self._event.deadline,
            self._health.deadline,
            None if self._health.running else self._next_health,
        )
        return min((when for when in candidates if when is not None), default=None)

    def _check_health(self, now: float) -> None:
        if self._next_health is None or now < self._next_health or self._health.running:
            return
        self._next_health = now + self._settings.health_interval_ms / 1000
        timeout = self._settings.health_timeout_ms / 1000
        self._health.start([self._settings.health_script], timeout, self._health_checked)

    def _health_checked(self, outcome: Outcome) -> None:
        """Use the result; a check that could not even be started says nothing about health."""
        if outcome.timed_out:
            self._protocol.set_health(False, outcome.problem)
        elif outcome.status == 0:
            self._protocol.set_health(True, outcome.line)
        elif outcome.status is not None:
            ended = "the health script {}".format(how_it_ended(outcome.status))
            self._protocol.set_health(False, outcome.line or ended)

    def _say_goodbye(self) -> None:
        name = signal.Signals(self._stop_signal).name
        log.info("stopping upon %s", name)
        self._event.kill()
        self._health.kill()
        self._next_health = None
        self._protocol.stop("guest client stopped by {}".format(name))
        until = time.monotonic() + FLUSH_AT_EXIT_SECS
        while not self._channel.idle and time.monotonic() < until:
            self._turn(until)
        self._channel.close()

    @contextlib.contextmanager
    def _signals(self) -> Any:
        """Have signals arrive as bytes in a socket that the loop watches."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._selector.register(reader, selectors.EVENT_READ, lambda _mask: self._arrived(reader))
        signals = (*self.STOP_SIGNALS, signal.SIGCHLD)
        before = [(number, signal.signal(number, _no_handler)) for number in signals]
        wakeup_before = signal.set_wakeup_fd(writer.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before:
                signal.signal(number, handler)
            reader.close()
            writer.close()

    def _arrived(self, reader: socket.socket) -> None:
        try:
            numbers = reader.recv(READ_BYTES)
        except BlockingIOError:
            return
        if signal.SIGCHLD in numbers:
            self._event.reap()
            self._health.reap()
        for number in self.STOP_SIGNALS:
            if number in numbers:
                self._stop_signal = number


def _no_handler(_number: int, _frame: object) -> None:
    """Let the byte in the wake-up socket do the work."""


def parse_arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line: an option for each of SETTINGS and a few of its own."""
    parser = argparse.ArgumentParser(
        prog="guest-client", description="Answers the host's heartbeat from inside a guest."
    )
    parser.add_argument("--config", metavar="FILE", help="default: " + DEFAULT_CONFIG)
    parser.add_argument("-f", "--foreground", action="store_true", help="stay, log to stderr")
    parser.add_argument("--pid-file", metavar="FILE", help="write the process id there, without -f")
    parser.add_argument("--version", action="version", version="%(prog)s " + VERSION)
    defaults = Settings()
    for row in SETTINGS:
        default = getattr(defaults, row.key)
        text = "{} (default: {})".format(row.help, default) if default else row.help
        parser.add_argument(row.option, type=option_type(row), metavar="VALUE", help=text)
    return parser.parse_args(argv)


def option_type(row: Setting) -> Callable[[str], object]:
    """Wrap the row's converter so that argparse repeats what it expects."""

    def convert(text: str) -> object:
        try:
            return row.convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError("{!r}: {}".format(text, error)) from None

    return convert


def set_up_logging(settings: Settings) -> None:
    """Log where the settings say; raises SettingError when that is impossible."""
    plain = "guest-client[%(process)d]: %(levelname)s: %(message)s"
    try:
        if settings.log == "stderr":
            handler: logging.Handler = logging.StreamHandler()
            plain = "%(asctime)s " + plain
        elif settings.log == "syslog" and os.path.exists(SYSLOG_SOCKET):
            handler = logging.handlers.SysLogHandler(
                SYSLOG_SOCKET, logging.handlers.SysLogHandler.LOG_DAEMON
            )
            # A stuck logger must not stop the heartbeat: a line is lost instead.
            handler.socket.setblocking(False)  # type: ignore[attr-defined]
        else:
            path = LOG_WITHOUT_SYSLOG if settings.log == "syslog" else settings.log
            handler = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
            plain = "%(asctime)s " + plain
    except OSError as error:
        raise SettingError("cannot log to {}: {}".format(settings.log, error)) from None
    handler.setFormatter(logging.Formatter(plain))
    logging.raiseExceptions = False
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(settings.log_level.upper())


def become_daemon(pid_file: Optional[str]) -> None:
    """Leave the terminal and the parent behind, which writes `pid_file` before it ends.

    Raises SettingError, and stays, if that file cannot be written.
    """
    try:
        file = os.open(pid_file or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError as error:
        raise SettingError("{}: {}".format(pid_file, error.strerror)) from None
    child = os.fork()
    if child:
        os.write(file, b"%d\n" % child)
        os._exit(0)
    os.close(file)
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the client; return 0 after a stop signal, 1 with the reason on stderr."""
    logging.basicConfig(format="guest-client: %(message)s")
    arguments = parse_arguments(argv)
    try:
        settings = load_settings(arguments)
        set_up_logging(settings)
        if not arguments.foreground:
            become_daemon(arguments.pid_file)
    except SettingError as error:
        print("guest-client: {}".format(error), file=sys.stderr)
        return 1
    log.info("version %s, for guest %s", VERSION, settings.name)
    GuestClient(settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
