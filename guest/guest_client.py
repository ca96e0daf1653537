#!/usr/bin/python3
"""The in-guest heartbeat client: one file to copy into a guest image, nothing to install.

It speaks protocol 3.1 of the guest channel (protocol.md) on the virtio-serial port
`cgcs.heartbeat`: says `init` until the host acknowledges it, answers each challenge with the
guest's health, and answers votes and notifications, all through two optional scripts of the
guest's owner:

    HEALTH_SCRIPT                             exit status 0: healthy
    EVENT_SCRIPT revocable|irrevocable EVENT  0: yes/done, 1: no, else: error

The first line of a script's standard output travels with the answer as its reason.

A challenge that is answered late gets a healthy guest rebooted, so answers come before all else.
One thread, one loop, and nothing in it blocks: what may hang (a script, its exec, a log file) is
done in a child that is never waited for; the log is a bounded queue that counts what it loses.

In this order: `Framer` and `decode` (bytes to messages), `SETTINGS` (what can be configured),
`GuestProtocol` (what to say and when; no I/O, the time is an argument), `Channel` (the port or, for
tests, a UNIX socket), `Child`, `Runner` and `Supervisor` (what runs in children, each under a
deadline), `LogQueue` and its sinks, `HealthMonitor` (scripts to health), `GuestClient` (the loop),
`claim` (one client a port), `check` and `self_test` (for whoever builds an image), `main`.

CPython 3.6 or later, standard library, Linux.
"""

import abc
import argparse
import binascii
import collections
import configparser
import contextlib
import enum
import errno
import functools
import io
import itertools
import json
import logging
import math
import os
import re
import select
import selectors
import signal
import socket
import stat
import struct
import sys
import time
from typing import (
    Any,
    Callable,
    Container,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

VERSION = "1.1.0"
DEFAULT_CONFIG = "/etc/guest-client/guest-client.conf"
CONFIG_SECTION = "guest-client"
SYSLOG_SOCKET = "/dev/log"
OOM_SCORE_ADJ = "/proc/self/oom_score_adj"
LOG_WITHOUT_SYSLOG = "/var/log/guest-client.log"
LOG_FORMAT = "guest-client[%(process)d]: %(levelname)s: %(message)s"
STDOUT_FILENO = 1
STDERR_FILENO = 2

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
# How often an absent port is looked for: where inotify cannot tell of it, and where it should (it
# does not tell of a file system that is mounted over the directory).
ABSENT_BLIND_SECS = 10.0
ABSENT_SECS = 60.0
FLUSH_AT_EXIT_SECS = 1.0
# How long a start waits for the client that has the port to say who it is.
CLAIM_SECS = 2.0
# So many turns in a row in which something failed, and the client ends, to be started again.
FAILURES_TO_END = 100
OUTPUT_LIMIT = 65536
READ_BYTES = 65536
SCRIPT_OUTPUT_LIMIT = 4096
# Lines of a script's standard error that are logged; the same text again is not.
SCRIPT_COMPLAINT_LINES = 5
# What was killed is gone in no time, or hangs: when to look for it, first and at most.
LOOK_FOR_KILLED_SECS = (0.05, 1.0)
EX_UNKNOWN = 255

# The bounds of the log: lines that may wait, bytes of each, and lines of one kind in a minute, lest
# a host that repeats itself fills the guest's disk.
LOG_LINES = 256
LOG_LINE_BYTES = 2000
LOG_LINES_A_MINUTE = 100
# When to try a sink again that takes nothing just now (first, and at most), and one that failed;
# and how long a file may take for a batch of lines.
LOG_WAIT_SECS = (0.05, 1.0)
LOG_RETRY_SECS = 5.0
LOG_FILE_SECS = 5.0
SYSLOG_DAEMON = 3 << 3
SYSLOG_SEVERITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

SELF_TEST_CHALLENGES = 6
SELF_TEST_INTERVAL_MS = 400
SELF_TEST_WAIT_SECS = 5.0

# Whatever anybody may send: without a handler it would end without its `exit`.
STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
WATCHED_SIGNALS = (*STOP_SIGNALS, signal.SIGCHLD)
# struct ucred of unix(7): pid, uid, gid; and the room for a name in a UNIX address.
UCRED = struct.Struct("iII")
SOCKET_NAME_LIMIT = 107

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
    """Cuts the byte stream into messages, however it arrives (protocol.md, Framing).

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
    try:
        usable = b"\0" not in os.fsencode(text)
        path = os.path.abspath(text) if text else ""
    except UnicodeEncodeError:
        usable = False
    except OSError:
        raise ValueError("expected an absolute path: the working directory is gone") from None
    if not usable:
        # An old Python under LANG=C; a newer one takes UTF-8 all the same.
        raise ValueError("expected a path of this locale's characters; try LC_ALL=C.UTF-8")
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
    Setting("event_script", absolute_path, "votes and is notified; without it: consent"),
    Setting("health_script", absolute_path, "tells the guest's health; without it: healthy"),
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
        # What to ask of the host for this illness; None: healthy.
        self._illness: Optional[str] = None
        self._health_text = ""
        self._name_action_at = -math.inf
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

    def set_health(self, healthy: bool, text: str, action: Optional[str] = None) -> None:
        """Use this in the next answers; `text` goes along as log_msg.

        `action` is what an illness asks of the host, if it is not the configured action. A new
        illness, or one that asks for something else, names it again.
        """
        text = clean_text(text, LOG_MSG_LIMIT)
        illness = None if healthy else action or self._settings.unhealthy_corrective_action
        if illness != self._illness:
            self._illness = illness
            self._name_action_at = -math.inf
            log.warning("the guest is %s: %s", "healthy" if healthy else "unhealthy", text)
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
        self._name_action_at = -math.inf
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
            ("heartbeat_health", "healthy" if self._illness is None else "unhealthy"),
            ("corrective_action", self._action_to_name(now)),
            ("log_msg", self._health_text),
        )

    def _action_to_name(self, now: float) -> str:
        if self._illness is None or now < self._name_action_at:
            return "none"
        self._name_action_at = now + NAME_ACTION_AGAIN_SECS
        return self._illness

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


class NotAPortError(OSError):
    """A path that leads to something that is no port, and never will be one."""


def open_device(path: str) -> int:
    """Open the virtio-serial port, which one process at a time may have. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISCHR(os.fstat(fd).st_mode):
            raise NotAPortError(errno.ENODEV, "is not a device")
        with select.epoll() as poll:
            poll.register(fd, 0)
    except PermissionError:
        os.close(fd)
        raise NotAPortError(errno.ENODEV, "is not a device that one can wait for") from None
    except OSError:
        os.close(fd)
        raise
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


def how_to_add(path: str) -> str:
    """Say what a virtual machine without the port at `path` needs."""
    name = os.path.basename(path)
    if os.path.dirname(path) != "/dev/virtio-ports":
        return ""
    return (
        "Add a virtio-serial port of that name to the VM: in libvirt, a <channel type='unix'> with "
        "<target type='virtio' name='{0}'/>; for QEMU, -device virtio-serial -device "
        "virtserialport,chardev=ID,name={0}".format(name)
    )


def who_has(path: str) -> str:
    """Return "; NAME (pid N) has it open" of the first other process that has; or nothing."""
    path = os.path.realpath(path)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        directory = "/proc/{}/".format(pid)
        # Other users' processes, and those that end meanwhile, cannot be looked into.
        with contextlib.suppress(OSError):
            for name in os.listdir(directory + "fd"):
                if os.readlink(directory + "fd/" + name) == path and int(pid) != os.getpid():
                    with open(directory + "comm", encoding="utf-8", errors="replace") as file:
                        return "; {} (pid {}) has it open".format(file.read().strip(), pid)
    return ""


class PathWatch:
    """Waits by inotify(7) until something happens where a path is to appear.

    Watches the nearest directory on the way to it that exists. Without ctypes or inotify it is
    `blind`, and the caller has to look for itself.
    """

    IN_ATTRIB, IN_MOVED_TO, IN_CREATE = 0x4, 0x80, 0x100
    IN_DELETE_SELF, IN_MOVE_SELF, IN_UNMOUNT = 0x400, 0x800, 0x2000
    IN_ONLYDIR = 0x1000000
    # What may make the path appear, and what happens to the directory itself.
    MASK = IN_ATTRIB | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT
    # struct inotify_event { int wd; uint32_t mask, cookie, len; char name[len]; }
    RECORD = struct.Struct("=iIII")

    def __init__(self, selector: selectors.BaseSelector, path: str) -> None:
        self.blind = False
        self._selector = selector
        self._path = path
        self._fd = -1
        self._awaited = b""

    def start(self, on_change: Callable[[], None]) -> None:
        """Call `on_change`, once, when the path may be there; look at it after this call."""
        self.stop()
        directory, awaited = os.path.split(self._path)
        try:
            # Rare in a guest that is set up well, so those need not pay for it.
            import ctypes  # noqa: PLC0415

            libc = ctypes.CDLL(None, use_errno=True)
            self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            add_watch = libc.inotify_add_watch
            add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
        except (ImportError, OSError, AttributeError):
            self._fd = -1
        if self._fd < 0:
            self.blind = True
            return
        while add_watch(self._fd, os.fsencode(directory), self.MASK | self.IN_ONLYDIR) < 0:
            if ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR) or directory in ("", "/"):
                self.blind = True
                self.stop()
                return
            directory, awaited = os.path.split(directory)
        self.blind = False
        self._awaited = os.fsencode(awaited)

        def changed(_mask: int) -> None:
            if self._concerns_us(os.read(self._fd, READ_BYTES)):
                self.stop()
                on_change()

        self._selector.register(self._fd, selectors.EVENT_READ, changed)

    def stop(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _concerns_us(self, data: bytes) -> bool:
        """Tell whether the records are about the awaited name, or the directory itself."""
        position = 0
        while position < len(data):
            _watch, _mask, _cookie, length = self.RECORD.unpack_from(data, position)
            position += self.RECORD.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            if name in (b"", self._awaited):
                return True
        return False


class Channel:
    """The way to the host: opened, and opened again, without ever spinning.

    A port that is absent is waited for by inotify. A virtio-serial port outlives the host's end
    of it: reading then gives end of file and polling POLLHUP, for ever. So it stays open,
    unwatched, and is looked at each RETRY_SECS until the host is back. Anything else that ends is
    closed and opened again.
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
        self._watch = PathWatch(selector, path)
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
        if self._fd < 0 and not self._open(now):
            return
        if hung_up(self._fd):
            self._problem("the host is not connected; looking each {:g} s".format(RETRY_SECS))
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
        self._watch.stop()
        self._lose_host()
        self._close_fd()

    def _open(self, now: float) -> bool:
        try:
            try:
                self._fd = self._opener(self._path)
            except (FileNotFoundError, NotADirectoryError):
                # Once more under watch, so that what has appeared meanwhile is noticed.
                self._watch.start(self._appeared)
                self._fd = self._opener(self._path)
        except (FileNotFoundError, NotADirectoryError):
            self._absent(now)
            return False
        except OSError as error:
            self._watch.stop()
            text = "{}; trying each {:g} s".format(describe(error), RETRY_SECS)
            self._problem(text, who_has if error.errno == errno.EBUSY else None)
            return False
        self._watch.stop()
        return True

    def _absent(self, now: float) -> None:
        # A link that leads nowhere yet: nothing tells when its target appears.
        blind = self._watch.blind or os.path.islink(self._path)
        self.deadline = now + (ABSENT_BLIND_SECS if blind else ABSENT_SECS)
        self._problem("No such file or directory; waiting until it appears. ", how_to_add)

    def _appeared(self) -> None:
        self.deadline = time.monotonic()

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
            self._went_down(describe(error))
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
                self._went_down(describe(error))
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

    def _problem(self, why: str, more: Optional[Callable[[str], str]] = None) -> None:
        """Log why the host cannot be reached, once per reason, with `more(path)` about it."""
        if why != self._last_problem:
            log.warning("%s: %s%s", self._path, why, more(self._path) if more else "")
        self._last_problem = why


class Outcome(NamedTuple):
    """How the work of a child ended.

    `status` is its exit status (negative: killed by that signal), or None when it could not be
    begun or was too slow, which `problem` then tells. `line` is the first line that it printed.
    """

    status: Optional[int]
    line: str
    problem: str
    timed_out: bool


def describe(error: OSError) -> str:
    """Return what the system says of an error, without the path."""
    return error.strerror or str(error)


class Pipe:
    """What a child prints: read as it comes, so that the child never waits; its beginning kept."""

    def __init__(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        self.text = b""
        self._selector = selector
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        selector.register(descriptor, selectors.EVENT_READ, self.read)
        self._watched = True

    def read(self, _mask: int = 0) -> None:
        """Take what is there; at its end, look at it no more."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        self.text = (self.text + data)[:SCRIPT_OUTPUT_LIMIT]
        if not data:
            self._unwatch()

    def close(self) -> None:
        """Close it."""
        self._unwatch()
        os.close(self._descriptor)

    def _unwatch(self) -> None:
        if self._watched:
            self._selector.unregister(self._descriptor)
            self._watched = False


class Child:
    """A forked process that does `work()`: runs a script, writes to a file, looks at a path.

    All that may hang is done in one, the exec of a script included: it may lie on a file system
    that is gone. (`subprocess.Popen` waits for the exec; this waits for nothing.) `work` returns,
    raises OSError, or becomes another program. Raises OSError when there can be no child.
    """

    def __init__(self, work: Callable[[], None], selector: selectors.BaseSelector) -> None:
        pipes: List[Tuple[int, int]] = []
        # No signal meanwhile: the child would tell this process of one that was meant for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED_SIGNALS)
        try:
            for _ in range(3):
                pipes.append(os.pipe())
            self.pid = os.fork()
            if self.pid == 0:
                _be_child(work, *(writer for _, writer in pipes))
        except OSError:
            for reader, _ in pipes:
                os.close(reader)
            raise
        finally:
            for _, writer in pipes:
                os.close(writer)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.output, self.errors, self._report = (Pipe(selector, reader) for reader, _ in pipes)

    def poll(self) -> Optional[int]:
        """Return the exit status (negative: killed by that signal), None while it lives."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return EX_UNKNOWN
        if pid == 0:
            return None
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def problem(self) -> str:
        """Return why its work could not be done, of one that has ended; nothing if it was."""
        # A background child of a script may keep the pipes open: their end is not waited for.
        for pipe in (self.output, self.errors, self._report):
            pipe.read()
        return self._report.text.decode("utf-8", "replace")

    def kill(self) -> None:
        """Kill it and its whole process group; what they print is nobody's concern any more."""
        self.close()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            # Just forked: it has no group of its own yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        except PermissionError:
            # It has become another user: one more that cannot be killed.
            return

    def close(self) -> None:
        """Close the pipes."""
        for pipe in (self.output, self.errors, self._report):
            pipe.close()


def _be_child(work: Callable[[], None], output: int, errors: int, report: int) -> None:
    """Do `work` in the process just forked, and end it."""
    status = EX_UNKNOWN
    try:
        # A session of its own: its process group dies with it, and the terminal's ^C spares it.
        os.setsid()
        signal.set_wakeup_fd(-1)
        for signum in WATCHED_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(open_null(), 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        # What an exec would close, now: even one that hangs must keep neither the port nor the
        # claim to it from the next client.
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                if descriptor != report and not os.get_inheritable(descriptor):
                    os.close(descriptor)
        work()
        status = 0
    except OSError as error:
        os.write(report, describe(error).encode("utf-8", "replace"))
    finally:
        os._exit(status)


def open_null() -> int:
    """Open /dev/null; early in a boot, before there is one, something just as empty."""
    try:
        return os.open(os.devnull, os.O_RDWR)
    except FileNotFoundError:
        return os.open("/", os.O_RDONLY)


def give_up_oom_protection() -> None:
    """The unit spares the client when memory is short; a script that eats it is not spared."""
    with contextlib.suppress(OSError):
        with open(OOM_SCORE_ADJ, encoding="ascii") as file:
            spared = int(file.read()) < 0
        if spared:
            with open(OOM_SCORE_ADJ, "w", encoding="ascii") as file:
                file.write("0")


def run_program(argv: Sequence[str]) -> Callable[[], None]:
    """Return the work of becoming that program."""

    def become() -> None:
        give_up_oom_protection()
        # It gets nothing but its three, whatever whoever started the client has left open.
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, descriptor <= STDERR_FILENO)
        # Python ignores two of them, and whoever started the client perhaps more (a shell's `&`
        # ignores SIGINT and SIGQUIT); a program expects them as they are everywhere.
        for signum in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):  # some cannot be set
                signal.signal(signum, signal.SIG_DFL)
        os.execv(argv[0], list(argv))  # noqa: S606 - the guest's owner named the program

    return become


def group_lives(group: int) -> bool:
    """Tell whether the process group has a member that has not ended."""
    try:
        os.killpg(group, 0)
        names = os.listdir("/proc")
    except ProcessLookupError:
        return False
    except OSError:
        # Another user's, or nothing can be opened just now.
        return True
    for name in filter(str.isdigit, names):
        with contextlib.suppress(OSError), open("/proc/{}/stat".format(name), "rb") as file:
            state, _parent, its_group = file.read().rpartition(b")")[2].split()[:3]
            # A zombie has ended: that nobody asks for its status is not the script's doing.
            if int(its_group) == group and state not in (b"Z", b"X"):
                return True
    return False


class Run(NamedTuple):
    """A piece of work that a Runner was given."""

    work: Callable[[], None]
    timeout: float
    deadline: float
    on_done: Callable[[Outcome], None]


class Runner:
    """Does one thing at a time in a child, each under a deadline, without waiting for it.

    What is superseded or too slow is killed with its process group. While something of it lives
    on all the same (it hangs in the kernel), nothing is begun: the next run waits for its end,
    and has had no answer when its own time is over first. `name` is what log and host are told.
    """

    def __init__(self, selector: selectors.BaseSelector, name: str) -> None:
        self.deadline: Optional[float] = None
        self.name = name
        self._selector = selector
        self._run: Optional[Run] = None
        self._child: Optional[Child] = None
        self._killed: Optional[Child] = None
        self._killed_group = 0
        self._look_at = -math.inf
        self._look_secs = LOOK_FOR_KILLED_SECS[0]
        self._complaint = b""

    @property
    def running(self) -> bool:
        """True while a run has not ended."""
        return self._run is not None

    @property
    def pids(self) -> List[int]:
        """Its processes that have not been collected."""
        return [child.pid for child in (self._child, self._killed) if child is not None]

    def start(
        self, work: Callable[[], None], timeout: float, on_done: Callable[[Outcome], None]
    ) -> None:
        """Have `work()` done in at most `timeout` seconds, then call `on_done`.

        A run still going is killed, and its `on_done` is not called.
        """
        self.kill()
        self._run = Run(work, timeout, time.monotonic() + timeout, on_done)
        self._begin()

    def kill(self) -> None:
        """End a run that is going; nobody hears of it."""
        child, self._child = self._child, None
        self._run = None
        self.deadline = None
        if child is not None:
            child.kill()
            self._killed = child
            self._killed_group = child.pid
            self._look_secs = LOOK_FOR_KILLED_SECS[0]

    def reap(self) -> None:
        """Collect what has exited (call it upon SIGCHLD), and begin what waited for that."""
        if self._killed is not None and self._killed.poll() is not None:
            self._killed = None
            self._look_at = -math.inf
        if self._child is None:
            self._begin()
            return
        status = self._child.poll()
        if status is not None:
            self._ended(self._child, status)

    def tick(self, now: float) -> None:
        """Begin what waited, or kill a run that is over its time and report it."""
        if self.deadline is None or now < self.deadline:
            return
        self.reap()
        run = self._run
        if run is None or now < run.deadline:
            return
        problem = "no answer from {} in {:g} s".format(self.name, run.timeout)
        line = ""
        if self._child is not None:
            line = _first_line(self._child.output.text)
        elif self._killed_group:
            problem += ": process {} of an earlier run cannot be killed".format(self._killed_group)
        self.kill()
        run.on_done(Outcome(None, line, problem, True))

    def _begin(self) -> None:
        """Begin the run that waits, if nothing that was killed is still alive."""
        run = self._run
        if run is None:
            return
        if self._something_lives(time.monotonic()):
            self.deadline = min(run.deadline, self._look_at)
            return
        self.deadline = run.deadline
        try:
            self._child = Child(run.work, self._selector)
        except OSError as error:
            self._finish(Outcome(None, "", describe(error), False))

    def _something_lives(self, now: float) -> bool:
        """Tell whether something that was killed is still alive.

        To look through all processes takes time: it is done now and then, not for each new run.
        """
        if self._killed_group and now >= self._look_at:
            if self._killed is None and not group_lives(self._killed_group):
                self._killed_group = 0
            self._look_at = now + self._look_secs
            self._look_secs = min(2 * self._look_secs, LOOK_FOR_KILLED_SECS[1])
        return self._killed_group != 0

    def _ended(self, child: Child, status: int) -> None:
        problem = child.problem()
        line, complaint = _first_line(child.output.text), child.errors.text
        child.close()
        self._child = None
        if complaint != self._complaint:
            self._complaint = complaint
            for text in complaint.decode("utf-8", "replace").splitlines()[:SCRIPT_COMPLAINT_LINES]:
                log.warning("%s complains: %s", self.name, text)
        self._finish(Outcome(None if problem else status, line, problem, False))

    def _finish(self, outcome: Outcome) -> None:
        run, self._run = self._run, None
        self.deadline = None
        if run is not None:
            run.on_done(outcome)


def _first_line(printed: bytes) -> str:
    return printed.split(b"\n", 1)[0].decode("utf-8", "replace").strip()


class Supervisor:
    """All runners of the client: the one place that knows of children."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._runners: List[Runner] = []

    @property
    def deadline(self) -> Optional[float]:
        """When `tick` must be called next, or None."""
        return earliest(runner.deadline for runner in self._runners)

    def runner(self, name: str) -> Runner:
        """Return a new runner; `name` says in words what it runs."""
        self._runners.append(Runner(self._selector, name))
        return self._runners[-1]

    def reap(self) -> None:
        """Collect what has exited (call it upon SIGCHLD)."""
        for runner in self._runners:
            runner.reap()
        self._reap_strangers()

    def _reap_strangers(self) -> None:
        """Collect who else has exited: process 1 of a container gets what scripts leave behind."""
        ours = [pid for runner in self._runners for pid in runner.pids]
        with contextlib.suppress(ChildProcessError):
            while True:
                exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if exited is None or exited.si_pid in ours:
                    return
                os.waitpid(exited.si_pid, 0)

    def tick(self, now: float) -> None:
        """Do what is due."""
        for runner in self._runners:
            runner.tick(now)

    def kill(self) -> None:
        """End whatever runs."""
        for runner in self._runners:
            runner.kill()


def earliest(times: Iterable[Optional[float]]) -> Optional[float]:
    """Return the earliest of some times, of which None never comes."""
    return min((when for when in times if when is not None), default=None)


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


class LogLine(NamedTuple):
    """A line of the log: its severity (of `logging`), when it was written, its text."""

    level: int
    created: float
    text: str

    def timed(self) -> bytes:
        """Return it as it stands in a file: with its time, and a newline."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.created))
        return "{} {}\n".format(when, self.text).encode("utf-8", "replace")


class Sink(abc.ABC):
    """Somewhere that log lines can go. `name` is for messages."""

    name = ""

    @abc.abstractmethod
    def write(self, lines: Sequence[LogLine], done: Callable[[int, str], None]) -> None:
        """Write as many of `lines` as goes without waiting.

        Then, now or later, call `done(how many were written, why not the next one)`; the reason
        is empty when the next one only has to wait. Never blocks, never raises.
        """


class PromptSink(Sink):
    """A sink that can tell at once whether it takes a line."""

    def write(self, lines: Sequence[LogLine], done: Callable[[int, str], None]) -> None:
        """See Sink."""
        count = 0
        try:
            while count < len(lines) and self.take(lines[count]):
                count += 1
        except OSError as error:
            done(count, describe(error))
        else:
            done(count, "")

    @abc.abstractmethod
    def take(self, line: LogLine) -> bool:
        """Write one line; return False if it must wait. Raises OSError. Never blocks."""


class SyslogSink(PromptSink):
    """The syslog socket, facility daemon."""

    name = "syslog"

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: Optional[socket.socket] = None
        self._end = b""

    def take(self, line: LogLine) -> bool:
        """See PromptSink."""
        if self._socket is not None:
            try:
                return self._send(self._socket, line)
            except OSError:
                # A syslogd that was restarted has a new socket at the same path.
                self._close()
        return self._send(self._connect(), line)

    def _send(self, connection: socket.socket, line: LogLine) -> bool:
        priority = SYSLOG_DAEMON | SYSLOG_SEVERITIES.get(
            line.level, SYSLOG_SEVERITIES[logging.INFO]
        )
        data = "<{}>{}".format(priority, line.text).encode("utf-8", "replace") + self._end
        try:
            sent = connection.send(data)
        except BlockingIOError:
            return False
        if sent < len(data):
            # Half a record on a stream: the other half can only be lost with the connection.
            self._close()
        return sent == len(data)

    def _connect(self) -> socket.socket:
        # On a stream, a NUL ends the record.
        for kind, self._end in ((socket.SOCK_DGRAM, b""), (socket.SOCK_STREAM, b"\0")):
            self._close()
            self._socket = connection = socket.socket(socket.AF_UNIX, kind)
            # Before it connects: a full queue must not be waited for.
            connection.setblocking(False)
            problem = connection.connect_ex(self._path)
            if problem == 0:
                return connection
            if problem != errno.EPROTOTYPE:
                break
        self._close()
        raise OSError(problem, os.strerror(problem))

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class StderrSink(PromptSink):
    """Standard error where it is a pipe, a socket or a terminal, which nobody may be reading."""

    name = "stderr"

    def __init__(self) -> None:
        self._rest = b""
        self._socket: Optional[socket.socket] = None
        self._fd = STDERR_FILENO
        self._poll = select.poll()
        self._poll.register(STDERR_FILENO, select.POLLOUT)
        if stat.S_ISSOCK(os.fstat(STDERR_FILENO).st_mode):
            self._socket = socket.socket(fileno=os.dup(STDERR_FILENO))
            return
        # Opened anew: not to block on the first one would be a change for all who have it. Where
        # that is not allowed, poll tells whether a write would block, but for a race with them.
        with contextlib.suppress(OSError):
            self._fd = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def take(self, line: LogLine) -> bool:
        """See PromptSink."""
        try:
            if self._rest:
                self._rest = self._rest[self._write(self._rest) :]
            if self._rest:
                return False
            data = line.timed()
            self._rest = data[self._write(data) :]
        except BlockingIOError:
            return False
        return True

    def _write(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        ready = self._poll.poll(0)
        return os.write(self._fd, data) if ready and ready[0][1] & ~select.POLLIN else 0


class FileSink(Sink):
    """A file, appended to in a child: a full disk is an error, but a frozen one hangs.

    It is opened for each batch of lines, so it can be rotated at any time.
    """

    def __init__(self, name: str, open_file: Callable[[], int], runner: Runner) -> None:
        self.name = name
        self._open_file = open_file
        self._runner = runner

    def write(self, lines: Sequence[LogLine], done: Callable[[int, str], None]) -> None:
        """See Sink."""
        data = b"".join(line.timed() for line in lines)

        def append() -> None:
            descriptor, rest = self._open_file(), data
            while rest:
                rest = rest[os.write(descriptor, rest) :]

        def ended(outcome: Outcome) -> None:
            if outcome.status == 0:
                done(len(lines), "")
            else:
                done(0, outcome.problem or how_it_ended(outcome.status or 0))

        self._runner.start(append, LOG_FILE_SECS, ended)


class Route:
    """A sink, and what is known of it: why it failed last, and when to try it again."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.problem = ""
        self.retry_at = -math.inf


class LogQueue(logging.Handler):
    """One bounded queue between the program and wherever its log goes. Never blocks or raises.

    Lines go to the first sink that does not fail, so a full disk is told to syslog; the first one
    is tried again and again. What does not fit the queue while a sink is stuck, or is one too many
    of its kind, is counted, and one line says how many were lost. Before `open`, lines only wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deadline: Optional[float] = None
        self._lines: Deque[LogLine] = collections.deque()
        self._lost = 0
        self._minute_ends = -math.inf
        self._this_minute: collections.Counter[str] = collections.Counter()
        self._routes: List[Route] = []
        self._busy = False
        self._wait_secs = LOG_WAIT_SECS[0]
        self.setFormatter(logging.Formatter(LOG_FORMAT))

    @property
    def idle(self) -> bool:
        """True when nothing waits to be written."""
        return not self._lines and not self._busy

    def open(self, sinks: Iterable[Sink]) -> None:
        """Write to the first of `sinks` that works, from now on."""
        self._routes = [Route(sink) for sink in sinks]
        self.move()

    def take_all(self) -> List[LogLine]:
        """Return the lines that wait, for the caller to write, and forget them."""
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record as one line."""
        try:
            text = self.format(record)
        except (TypeError, ValueError):
            # A mistake in the log call must not lose what it wanted to say.
            text = "{} {!r}".format(record.msg, record.args)
        if self._too_many_of(record.msg) or len(self._lines) >= LOG_LINES:
            self._lost += 1
            if self.deadline is None:
                self.deadline = self._minute_ends
            return
        text = clean_text(" | ".join(text.splitlines()), LOG_LINE_BYTES)
        self._lines.append(LogLine(record.levelno, record.created, text))
        self.move()

    def _too_many_of(self, kind: str) -> bool:
        """Count a line of that kind, which is known by its text before it is filled in."""
        now = time.monotonic()
        if now >= self._minute_ends:
            self._minute_ends = now + 60
            self._this_minute.clear()
        self._this_minute[kind] += 1
        return self._this_minute[kind] > LOG_LINES_A_MINUTE

    def tick(self, now: float) -> None:
        """Try again, if that is due."""
        if self.deadline is not None and now >= self.deadline:
            if not self._lines:
                self._tell_lost()
            self.move()

    def move(self) -> None:
        """Hand what waits to the first sink that is not known to fail."""
        self.deadline = None
        if self._busy or not self._lines or not self._routes:
            return
        now = time.monotonic()
        for route in self._routes:
            if route.retry_at <= now:
                self._busy = True
                route.sink.write(list(self._lines), functools.partial(self._written, route))
                return
        self.deadline = min(route.retry_at for route in self._routes)

    def _written(self, route: Route, count: int, problem: str) -> None:
        self._busy = False
        for _ in range(count):
            self._lines.popleft()
        if problem:
            route.retry_at = time.monotonic() + LOG_RETRY_SECS
        if problem and problem != route.problem:
            self._say(logging.ERROR, "cannot log to {}: {}".format(route.sink.name, problem))
        if count and not problem and route.problem:
            self._say(logging.WARNING, "logging to {} again".format(route.sink.name))
        if problem or count:
            route.problem = problem
        if count:
            self._tell_lost()
        if problem or count:
            self._wait_secs = LOG_WAIT_SECS[0]
            self.move()
        elif self._lines:
            self.deadline = time.monotonic() + self._wait_secs
            self._wait_secs = min(2 * self._wait_secs, LOG_WAIT_SECS[1])

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            self._say(logging.WARNING, "{} lines of this log were lost here".format(lost))

    def _say(self, level: int, text: str) -> None:
        """Queue a line about the log itself."""
        record = logging.LogRecord(log.name, level, __file__, 0, text, None, None)
        self._lines.append(LogLine(level, record.created, self.format(record)))


def open_log(path: str) -> int:
    """Open a log file, in a child, to append to it. May hang. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o640)


def log_sinks(target: str, supervisor: Supervisor) -> List[Sink]:
    """Return where the log goes: to `target`, and where else when that fails."""
    runner = supervisor.runner("the log file")
    syslog = SyslogSink(SYSLOG_SOCKET)
    kind = os.fstat(STDERR_FILENO).st_mode
    stderr: List[Sink] = []
    if stat.S_ISREG(kind):
        # For the children that write to it.
        descriptor = os.dup(STDERR_FILENO)
        os.set_inheritable(descriptor, True)
        stderr = [FileSink("stderr", lambda: descriptor, runner)]
    elif not stat.S_ISCHR(kind) or os.isatty(STDERR_FILENO):
        # What is neither is /dev/null: nothing would ever fail there, nor be read.
        stderr = [StderrSink()]
    if target == "stderr":
        return [*stderr, syslog]
    path = LOG_WITHOUT_SYSLOG if target == "syslog" else target
    file = FileSink(path, functools.partial(open_log, path), runner)
    return [syslog, file, *stderr] if target == "syslog" else [file, syslog, *stderr]


class Verdict(NamedTuple):
    """What a check found: `action` is what to ask of the host, None for the configured one."""

    healthy: bool
    text: str
    action: Optional[str]


HEALTHY = Verdict(True, "", None)


class Check:
    """One thing that is looked at each `interval` seconds, in a child; its latest verdict."""

    def __init__(
        self,
        runner: Runner,
        work: Callable[[], None],
        settings: Settings,
        judge: Callable[[Outcome], Verdict],
    ) -> None:
        self.verdict = HEALTHY
        self._runner = runner
        self._work = work
        self._interval = settings.health_interval_ms / 1000
        self._timeout = settings.health_timeout_ms / 1000
        self._judge = judge
        self._next = -math.inf

    @property
    def deadline(self) -> Optional[float]:
        """When `tick` must be called next, or None while it is being looked at."""
        return None if self._runner.running else self._next

    def tick(self, now: float, on_change: Callable[[], None]) -> None:
        """Look at it, if that is due; `on_change` is called when there is a verdict."""
        if now < self._next or self._runner.running:
            return
        self._next = now + self._interval

        def done(outcome: Outcome) -> None:
            self.verdict = self._judge(outcome)
            on_change()

        self._runner.start(self._work, self._timeout, done)


def judge_health(path: str) -> Callable[[Outcome], Verdict]:
    """Return what makes a verdict of the end of the health script at `path`."""

    def judge(outcome: Outcome) -> Verdict:
        if outcome.status == 0:
            return Verdict(True, outcome.line, None)
        if outcome.timed_out:
            return Verdict(False, outcome.problem, None)
        if outcome.status is None:
            return cannot_run(path, outcome.problem)
        ended = "the health script {}".format(how_it_ended(outcome.status))
        return Verdict(False, outcome.line or ended, None)

    return judge


def judge_runnable(path: str) -> Callable[[Outcome], Verdict]:
    """Return what makes a verdict of `require_runnable(path)`."""
    return lambda outcome: cannot_run(path, outcome.problem) if outcome.problem else HEALTHY


def cannot_run(path: str, why: str) -> Verdict:
    """Return the verdict on a script that cannot be run: a mistake, no reason to reboot."""
    return Verdict(False, "cannot run {}: {}".format(path, why), "log")


def require_runnable(path: str) -> None:
    """Raise OSError if `path` is nothing that can be executed."""
    if stat.S_ISDIR(os.stat(path).st_mode) or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class HealthMonitor:
    """The guest's health: what the health script says, and that the event script can be run."""

    def __init__(
        self, settings: Settings, supervisor: Supervisor, on_verdict: Callable[[Verdict], None]
    ) -> None:
        self._on_verdict = on_verdict
        self._checks: List[Check] = []
        health, event = settings.health_script, settings.event_script
        if health:
            runner = supervisor.runner("the script")
            work = run_program([health])
            self._checks.append(Check(runner, work, settings, judge_health(health)))
        if event:
            runner = supervisor.runner("its file system")
            look = functools.partial(require_runnable, event)
            self._checks.append(Check(runner, look, settings, judge_runnable(event)))

    @property
    def deadline(self) -> Optional[float]:
        """When `tick` must be called next, or None."""
        return earliest(check.deadline for check in self._checks)

    def tick(self, now: float) -> None:
        """Look at what is due."""
        for check in self._checks:
            check.tick(now, self._judge)

    def _judge(self) -> None:
        """Tell the first illness, or else what the health script said."""
        verdicts = [check.verdict for check in self._checks]
        self._on_verdict(next((one for one in verdicts if not one.healthy), verdicts[0]))


class GuestClient(Actions):
    """Ties protocol, channel, scripts and log to one loop of descriptors, timers and signals.

    Nothing in it waits for anything but the next event. `_guarded` is the only place where
    callbacks are called: what one raises is logged and counted, and the heartbeat goes on.
    `opener`, if given, opens the channel in place of what the settings say.
    """

    def __init__(
        self,
        settings: Settings,
        queue: LogQueue,
        opener: Optional[Callable[[str], int]] = None,
    ) -> None:
        self.selector = selectors.DefaultSelector()
        self.supervisor = Supervisor(self.selector)
        # It tells one init from the next, and from those of the client before this one.
        ids = itertools.count(int(time.time() * 1000))
        self._settings = settings
        self._queue = queue
        self._protocol = GuestProtocol(settings, self, lambda: next(ids) % INT32_MAX + 1)
        self._channel = Channel(
            self.selector,
            settings.socket or settings.device,
            opener or (open_socket if settings.socket else open_device),
            on_up=lambda: self._protocol.connected(time.monotonic()),
            on_down=self._protocol.disconnected,
            # Each by itself: one that fails must not take those behind it along.
            on_message=lambda line: self._guarded(self._receive, line),
        )
        self._event = self.supervisor.runner("the script")
        self._health = HealthMonitor(
            settings, self.supervisor, lambda verdict: self._protocol.set_health(*verdict)
        )
        # What has a `deadline` and a `tick`.
        self._timers: Tuple[Any, ...] = (
            self._health,
            self._channel,
            self._protocol,
            self._queue,
            self.supervisor,
        )
        self._stop_reason = ""
        self._failures = 0

    def send(self, message: bytes) -> None:
        """See Actions."""
        self._channel.send(message)

    def _receive(self, line: bytes) -> None:
        self._protocol.receive(line, time.monotonic())

    def start_event(self, notification: Notification) -> None:
        """See Actions: the event script decides."""
        path = self._settings.event_script

        def done(outcome: Outcome) -> None:
            if outcome.status is None and not outcome.timed_out:
                outcome = outcome._replace(problem=cannot_run(path, outcome.problem).text)
            self._protocol.event_answered(*vote_of(outcome, notification))

        work = run_program([path, notification.notification_type, notification.event])
        self._event.start(work, notification.answer_within(), done)

    def hold(self, lock: Optional[socket.socket]) -> None:
        """Keep the claim to the port, and show who has it to whoever asks."""
        if lock is None:
            return

        def asked(_mask: int) -> None:
            try:
                lock.accept()[0].close()
            except OSError:
                # No descriptor is left: let them wait in the queue, which tells them as much.
                self.selector.unregister(lock)

        lock.setblocking(False)
        self.selector.register(lock, selectors.EVENT_READ, asked)

    def stop(self, reason: str) -> None:
        """Have `run` say exit to the host, and return."""
        self._stop_reason = reason

    def run(self) -> int:
        """Serve until a stop signal, `stop`, or the client's own failure; return 0, or then 1.

        However it ends, the host has been told.
        """
        with watched_signals(self.selector, self._signalled):
            self._queue.open(log_sinks(self._settings.log, self.supervisor))
            self._channel.deadline = time.monotonic()
            in_a_row = 0
            while not self._stop_reason and in_a_row < FAILURES_TO_END:
                before = self._failures
                self._turn()
                in_a_row = in_a_row + 1 if self._failures != before else 0
            failed = not self._stop_reason
            if failed:
                log.error("giving up after %d failures in a row", in_a_row)
            self._say_goodbye(self._stop_reason or "guest client failed")
        self.selector.close()
        return 1 if failed else 0

    def _turn(self, until: Optional[float] = None) -> None:
        """Handle what has arrived, then what is due: an answer counts before its deadline."""
        for key, mask in self._guarded(self._wait, until) or ():
            # An earlier callback of this turn may have stopped watching this one.
            if self.selector.get_map().get(key.fd) == key:
                self._guarded(key.data, mask)
        now = time.monotonic()
        for part in self._timers:
            self._guarded(part.tick, now)

    def _wait(self, until: Optional[float]) -> List[Tuple[selectors.SelectorKey, int]]:
        when = earliest([until, *(part.deadline for part in self._timers)])
        pause = None if when is None else max(0.0, when - time.monotonic())
        return self.selector.select(pause)

    def _guarded(self, callback: Callable[..., Any], argument: Any) -> Any:
        """Return `callback(argument)`: the last resort for what it raises."""
        try:
            return callback(argument)
        except Exception as error:  # noqa: BLE001 - whatever it is, the host needs its answers
            self._failures += 1
            log.error("failure %d, going on: %r at %s", self._failures, error, where(error))
            return None

    def _say_goodbye(self, reason: str) -> None:
        log.info("stopping: %s", reason)
        self._protocol.stop(reason)
        self._event.kill()
        self._timers = (self._queue, self.supervisor)
        until = time.monotonic() + FLUSH_AT_EXIT_SECS
        while not (self._channel.idle and self._queue.idle) and time.monotonic() < until:
            self._turn(until)
        self._channel.close()
        self.supervisor.kill()

    def _signalled(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            self.supervisor.reap()
        else:
            name = signal.Signals(signum).name
            self.stop("guest client stopped by {}".format(name))


def where(error: BaseException) -> str:
    """Return where in this file it was raised; reads no file for that, unlike a traceback."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append("{}:{}".format(trace.tb_frame.f_code.co_name, trace.tb_lineno))
        trace = trace.tb_next
    return " > ".join(places)


@contextlib.contextmanager
def watched_signals(
    selector: selectors.BaseSelector, on_signal: Callable[[int], None]
) -> Iterator[None]:
    """Have the signals that concern us arrive in the loop; whoever started us may block them."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def arrived(_mask: int) -> None:
        for signum in set(reader.recv(READ_BYTES)):
            on_signal(signum)

    selector.register(reader, selectors.EVENT_READ, arrived)
    before = [(signum, signal.signal(signum, _no_handler)) for signum in WATCHED_SIGNALS]
    wakeup_before = signal.set_wakeup_fd(writer.fileno())
    mask_before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask_before)
        signal.set_wakeup_fd(wakeup_before)
        for signum, handler in before:
            signal.signal(signum, handler)
        selector.unregister(reader)
        reader.close()
        writer.close()


def _no_handler(_signum: int, _frame: object) -> None:
    """Let the byte in the wake-up socket do the work."""


def claim(path: str) -> Optional[socket.socket]:
    """Become the one client of the port at `path`; keep what is returned.

    The claim is a name in the kernel, free again when this process ends however it ends. Raises
    SettingError saying who has it. No other user can keep us out: theirs is ignored, with None,
    and so is one that nobody answers for. (The port itself lets one in at a time, too.)
    """
    name = b"\0guest-client:" + os.fsencode(path)
    if len(name) > SOCKET_NAME_LIMIT:
        name = name[: SOCKET_NAME_LIMIT - 8] + b"%08x" % binascii.crc32(name)
    until = time.monotonic() + CLAIM_SECS
    while True:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(name)
            lock.listen(1)
            return lock
        except OSError as error:
            lock.close()
            if error.errno != errno.EADDRINUSE:
                raise SettingError("cannot claim {}: {}".format(path, describe(error))) from None
        pid, uid = _claimed_by(name)
        if pid and uid in (0, os.geteuid()):
            raise SettingError("already running (pid {}) for {}".format(pid, path))
        if pid:
            log.warning("process %d of user %d claims to be the client; ignored", pid, uid)
            return None
        if time.monotonic() > until:
            log.warning("somebody claims to be the client, and does not answer; ignored")
            return None
        # It may be just starting, or ending.
        time.sleep(0.01)


def _claimed_by(name: bytes) -> Tuple[int, int]:
    """Return pid and uid of the process that listens there, or zeros."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.setblocking(False)
        try:
            other.connect(name)
        except OSError:
            return 0, 0
        credentials = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, uid, _gid = UCRED.unpack(credentials)
    return pid, uid


class Findings:
    """Prints sentences as they are found, and counts the problems among them."""

    def __init__(self) -> None:
        self.problems = 0

    def note(self, good: bool, text: str) -> None:
        """Print one sentence, and remember if it is a problem."""
        self.problems += not good
        say("{:8}{}".format("ok" if good else "PROBLEM", clean_text(text, LOG_LINE_BYTES)))

    def status(self) -> int:
        """Print the last sentence and return the exit status."""
        say("{} problem{}".format(self.problems or "no", "" if self.problems == 1 else "s"))
        return 1 if self.problems else 0


def say(text: str) -> None:
    """Print a line, in UTF-8 whatever the locale; end with a sentence if nobody takes it."""
    try:
        os.write(STDOUT_FILENO, text.encode("utf-8", "replace") + b"\n")
    except OSError as error:
        sys.exit("guest-client: cannot print what it found: {}".format(describe(error)))


def check(arguments: argparse.Namespace, queue: LogQueue) -> int:
    """Look at all that a start depends on, run each script once; return the exit status."""
    findings = Findings()
    try:
        settings = load_settings(arguments)
    except SettingError as error:
        findings.note(False, str(error))
        return findings.status()
    for line in queue.take_all():
        findings.note(False, line.text)
    path = arguments.config or DEFAULT_CONFIG
    used = path if os.path.exists(path) else "the defaults ({} is not there)".format(path)
    findings.note(True, "settings: {}, for guest {}".format(used, settings.name))
    check_port(settings, findings)
    check_log(settings, findings)
    # So that a script can tell, and leave out what it would do in earnest.
    os.environ["GUEST_CLIENT_CHECK"] = "1"
    if settings.health_script:
        check_health_script(settings, findings)
    if settings.event_script:
        check_event_script(settings, findings)
    for trusted in filter(None, (path, settings.health_script, settings.event_script)):
        check_writers(trusted, findings)
    return findings.status()


def check_port(settings: Settings, findings: Findings) -> None:
    """Say whether the channel is there, is one, and can be opened."""
    path = settings.socket or settings.device
    what = "socket" if settings.socket else "device"
    try:
        require_port(settings)
    except SettingError as error:
        findings.note(False, str(error))
        return
    if not os.path.exists(path):
        findings.note(False, "{} {} is not there. {}".format(what, path, how_to_add(path)))
    elif not os.access(path, os.R_OK | os.W_OK):
        findings.note(False, "{} {}: no right to read and write it".format(what, path))
    else:
        findings.note(True, "{} {} is there{}".format(what, path, who_has(path)))


def check_log(settings: Settings, findings: Findings) -> None:
    """Say whether the log can be written."""
    path = settings.log
    if path == "syslog" and not os.path.exists(SYSLOG_SOCKET):
        path = LOG_WITHOUT_SYSLOG
    if path in ("syslog", "stderr"):
        findings.note(True, "log: {}".format(path))
        return
    target = path if os.path.exists(path) else os.path.dirname(path)
    good = os.access(target, os.W_OK) and not os.path.isdir(path)
    findings.note(
        good, "log: {} {}".format(path, "can be written" if good else "cannot be written")
    )


def check_health_script(settings: Settings, findings: Findings) -> None:
    """Run the health script once; say how long that took and what came out."""
    path, timeout = settings.health_script, settings.health_timeout_ms / 1000
    outcome, seconds = run_once([path], timeout)
    verdict = judge_health(path)(outcome)
    word = "healthy" if verdict.healthy else "unhealthy"
    text = "health script {}: {} in {:.2f} s".format(path, word, seconds)
    findings.note(verdict.healthy, ": ".join(filter(None, (text, verdict.text))))
    if verdict.healthy and seconds > timeout / 2:
        findings.note(False, "that is over half of the {:g} s that it has".format(timeout))


def check_event_script(settings: Settings, findings: Findings) -> None:
    """Ask the event script once for a vote on `unknown`; say what came out."""
    path = settings.event_script
    asked = Notification(0, "unknown", "revocable", settings.vote_secs * 1000)
    argv = [path, asked.notification_type, asked.event]
    outcome, seconds = run_once(argv, asked.answer_within())
    vote, reason = vote_of(outcome, asked)
    text = "event script {}: {} in {:.2f} s".format(path, vote, seconds)
    findings.note(vote in ("accept", "reject"), ": ".join(filter(None, (text, reason))))


def run_once(argv: Sequence[str], timeout: float) -> Tuple[Outcome, float]:
    """Run a program as the client does; return how it ended and after how many seconds."""
    outcomes: List[Outcome] = []
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        runner = Runner(selector, "the script")
        runner.start(run_program(argv), timeout, outcomes.append)
        try:
            while not outcomes:
                for key, mask in selector.select(LOOK_FOR_KILLED_SECS[0]):
                    key.data(mask)
                runner.reap()
                runner.tick(time.monotonic())
        finally:
            runner.kill()
    return outcomes[0], time.monotonic() - began


def check_writers(path: str, findings: Findings) -> None:
    """Say who else can change a file that this client trusts; silent about one that is absent."""
    with contextlib.suppress(OSError):
        about = os.stat(path)
        if about.st_mode & stat.S_IWOTH:
            findings.note(False, "{} can be changed by every user".format(path))
        if about.st_uid not in (0, os.geteuid()):
            findings.note(False, "{} belongs to user {}".format(path, about.st_uid))


class SelfTestError(Exception):
    """The client did not do what the protocol asks of it; the text says what."""


class SelfTestHost:
    """The host's half of the protocol, for a few seconds, at the other end of a socket pair.

    It may wait: the client is another process. Raises SelfTestError.
    """

    def __init__(self, connection: socket.socket, settings: Settings, findings: Findings) -> None:
        self._connection = connection
        self._connection.settimeout(SELF_TEST_WAIT_SECS)
        self._findings = findings
        self._settings = settings
        self._interval = min(settings.interval_ms, SELF_TEST_INTERVAL_MS) / 1000
        self._framer = Framer()
        self._received: Deque[bytes] = collections.deque()
        self._sequence = 0

    def play(self) -> None:
        """Go through a session, but for its end."""
        init = self._receive("init")
        invocation_id = init["invocation_id"]
        self._findings.note(True, "init from guest {}".format(init["name"]))
        self._send("init_ack", ("invocation_id", invocation_id))
        self._challenges()
        for kind in NOTIFICATION_TYPES:
            self._ask(invocation_id, kind)

    def expect_exit(self) -> None:
        """Wait for the exit that a stopped client says."""
        self._findings.note(True, "exit: {}".format(self._receive("exit")["log_msg"]))

    def _challenges(self) -> None:
        slowest = 0.0
        for value in range(SELF_TEST_CHALLENGES):
            began = time.monotonic()
            self._send("challenge", ("heartbeat_challenge", value))
            answer = self._receive("challenge_response")
            took = time.monotonic() - began
            if answer["heartbeat_response"] != value:
                raise SelfTestError("a challenge was answered with another number")
            slowest = max(slowest, took)
            time.sleep(max(0.0, self._interval - took))
        text = "{} challenges each {:g} s answered, the slowest after {:.0f} ms".format(
            SELF_TEST_CHALLENGES, self._interval, slowest * 1000
        )
        self._findings.note(slowest < self._interval, text)
        health = ": ".join(filter(None, (answer["heartbeat_health"], answer["log_msg"])))
        self._findings.note(answer["heartbeat_health"] == "healthy", "the guest is " + health)

    def _ask(self, invocation_id: int, kind: str) -> None:
        self._send(
            "action_notify",
            ("invocation_id", invocation_id),
            ("event_type", "unknown"),
            ("notification_type", kind),
            ("timeout_ms", self._settings.vote_secs * 1000),
        )
        self._connection.settimeout(self._settings.vote_secs + SELF_TEST_WAIT_SECS)
        answer = self._receive("action_response")
        good = answer["vote_result"] in ("accept", "reject", "complete")
        said = ": ".join(filter(None, (answer["vote_result"], answer["log_msg"])))
        self._findings.note(good, "{} unknown is answered: {}".format(kind, said))

    def _send(self, msg_type: str, *body: Tuple[str, object]) -> None:
        self._sequence += 1
        self._connection.sendall(encode(msg_type, self._sequence, body))

    def _receive(self, msg_type: str) -> Dict[str, Any]:
        while not self._received:
            try:
                data = self._connection.recv(READ_BYTES)
            except socket.timeout:
                raise SelfTestError("no {} in time".format(msg_type)) from None
            if not data:
                raise SelfTestError("the client ended before its {}".format(msg_type))
            self._received.extend(self._framer.feed(data))
        message = decode(self._received.popleft())
        if message.get("msg_type") != msg_type:
            raise SelfTestError("{} in place of {}".format(message.get("msg_type"), msg_type))
        return message


def self_test(settings: Settings, queue: LogQueue) -> int:
    """Play a host against this client, with its settings and scripts; return the exit status."""
    findings = Findings()
    os.environ["GUEST_CLIENT_CHECK"] = "1"
    host, guest = socket.socketpair()
    client = os.fork()
    if client == 0:
        host.close()
        guest.setblocking(False)
        settings = settings._replace(device="/self-test", log="stderr")
        os._exit(GuestClient(settings, queue, lambda _path: guest.detach()).run())
    guest.close()
    play = SelfTestHost(host, settings, findings)
    try:
        play.play()
        os.kill(client, signal.SIGTERM)
        play.expect_exit()
    except (SelfTestError, MessageError, OSError, KeyError) as error:
        os.kill(client, signal.SIGKILL)
        findings.note(False, str(error))
    except (KeyboardInterrupt, SystemExit):
        os.kill(client, signal.SIGTERM)
        raise
    _, status = os.waitpid(client, 0)
    if status != 0:
        findings.note(False, "the client did not end well")
    return findings.status()


def parse_arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line: an option for each of SETTINGS and a few of its own."""
    parser = argparse.ArgumentParser(
        prog="guest-client", description="Answers the host's heartbeat from inside a guest."
    )
    parser.add_argument("--config", metavar="FILE", help="default: " + DEFAULT_CONFIG)
    parser.add_argument("-f", "--foreground", action="store_true", help="stay, log to stderr")
    parser.add_argument("--pid-file", metavar="FILE", help="write the process id there, without -f")
    parser.add_argument("--version", action="version", version="%(prog)s " + VERSION)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--check",
        action="store_true",
        help="look at settings, port, log and permissions, run each script once, and end",
    )
    modes.add_argument(
        "--selftest",
        action="store_true",
        help="play a host against the client for a few seconds, without the port, and end",
    )
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


def require_port(settings: Settings) -> None:
    """Raise SettingError if what is to be the channel is there and is something else."""
    path = settings.socket or settings.device
    try:
        about = os.stat(path)
    except OSError:
        return
    if settings.socket:
        if not stat.S_ISSOCK(about.st_mode):
            raise SettingError("socket = {}: is not a socket".format(path))
        return
    # A port of the kernel's is known, and not opened: the host would see that.
    device = os.major(about.st_rdev), os.minor(about.st_rdev)
    if stat.S_ISCHR(about.st_mode) and os.path.exists("/sys/dev/char/{}:{}/name".format(*device)):
        return
    try:
        os.close(open_device(path))
    except NotAPortError as error:
        raise SettingError("device = {}: {}".format(path, error.strerror)) from None
    except OSError:
        return


def write_pid_file(path: str) -> None:
    """Write this process's id there. Raises SettingError."""
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write("{}\n".format(os.getpid()))
    except OSError as error:
        raise SettingError("{}: {}".format(path, error.strerror)) from None


def start_clean() -> None:
    """Undo what whoever started the client may have left behind.

    With SIGCHLD ignored no child can be waited for. What is missing of the descriptors 0 to 2 is
    opened, so that nothing of ours takes their place.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in range(STDERR_FILENO + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free.
            open_null()


def leave_terminal() -> None:
    """Leave the terminal and the directory of whoever started us behind."""
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    null = open_null()
    for descriptor in range(STDERR_FILENO + 1):
        os.dup2(null, descriptor)
    os.close(null)


class LogStream(io.TextIOBase):
    """Stands in for `sys.stderr`: what Python itself says goes to the log, without waiting."""

    def write(self, text: str) -> int:
        """Log the text."""
        if text.strip():
            log.error("%s", text.strip())
        return len(text)


def serve(arguments: argparse.Namespace, settings: Settings, queue: LogQueue) -> int:
    """Be the client of the port until a stop signal; return the exit status.

    In the background a child is; its parent returns when the child has begun, or could not.
    """
    require_port(settings)
    reader, writer = os.pipe()
    if not arguments.foreground and os.fork():
        os.close(writer)
        return 0 if os.read(reader, 1) else 1
    lock = claim(settings.socket or settings.device)
    client = GuestClient(settings, queue)
    if not arguments.foreground:
        if arguments.pid_file:
            write_pid_file(arguments.pid_file)
        leave_terminal()
    client.hold(lock)
    os.write(writer, b"+")
    os.close(reader)
    os.close(writer)
    log.info("version %s, for guest %s", VERSION, settings.name)
    with contextlib.redirect_stderr(LogStream()):
        return client.run()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the client; return 0 after a stop signal, 1 with the reason on stderr."""
    start_clean()
    arguments = parse_arguments(argv)
    queue = LogQueue()
    log.handlers[:] = [queue]
    log.propagate = False
    try:
        if arguments.check:
            return check(arguments, queue)
        settings = load_settings(arguments)
        log.setLevel(settings.log_level.upper())
        if arguments.selftest:
            return self_test(settings, queue)
        return serve(arguments, settings, queue)
    except SettingError as error:
        problem = str(error)
    except OSError as error:
        problem = "{} at {}".format(error, where(error))
    except KeyboardInterrupt:
        problem = "interrupted"
    for line in queue.take_all():
        print(line.text, file=sys.stderr)
    print("guest-client: {}".format(problem), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
