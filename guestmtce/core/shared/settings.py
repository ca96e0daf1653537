"""The settings of both daemons: one shared ini file, and what others' files add to it.

Each field of the two dataclasses is a row of the table that `config` reads, checks and shows.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from guestmtce.core.shared.config import Configuration, Converter, Key, Reader, load, setting

SERVER_INI = "/etc/mtc/guestServer.ini"
AGENT_INI = "/etc/mtc/guestAgent.ini"
MTC_CONF = "/etc/mtc.conf"
NFV_CONF = "/etc/nfv/nfv_plugins/nfvi_plugins/config.ini"
PLATFORM_CONF = "/etc/platform/platform.conf"

_MAX_PORT = 65535
_MAX_PERIOD_MS = 86_400_000
_BY_NAME = "(by host name)"


def _number(text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,12}", text):
        raise ValueError("not a number")
    value = int(text)
    if not least <= value <= most:
        raise ValueError(f"out of range: {least} to {most}")
    return value


def _between(least: int, most: int) -> Callable[[str], int]:
    return lambda text: _number(text, least, most)


def _word(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", text):
        raise ValueError("not a name or an address")
    return text


def _words(text: str) -> tuple[str, ...]:
    words = tuple(_word(part.strip()) for part in text.split(",") if part.strip())
    if not words:
        raise ValueError("an empty list")
    return words


def _users(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?", name):
            raise ValueError("not a list of user names or uids")
    return names


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("not an absolute path")
    return text


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("neither yes nor no")
    return text == "yes"


_port = _between(1, _MAX_PORT)
_flag = _between(0, 255)
_threshold = _between(0, 1000)


@dataclass(frozen=True)
class ServerSettings:
    """What guestServer goes by (operations.md, Configuration). Times in the unit of the name."""

    agent_rx_port: int = setting("agent", "rx_port", _port)
    rx_port: int = setting("client", "rx_port", _port)
    hbs_failure_threshold: int = setting(
        "client", "hbs_failure_threshold", _threshold, 1, live=True
    )
    hbs_pulse_period_ms: int = setting(
        "client", "hbs_pulse_period", _between(10, _MAX_PERIOD_MS), 400, live=True
    )
    start_delay_secs: int = setting("timeouts", "start_delay", _between(0, 3600), 1)
    address: str | None = setting("client", "address", _word, None, unset=_BY_NAME)
    agent_peers: tuple[str, ...] = setting(
        "client", "agent_peers", _words, ("controller", "controller-0", "controller-1"), live=True
    )
    metrics_file: str | None = setting("client", "metrics_file", _path, None, live=True)
    hostname: str | None = setting("host", "name", _word, None, unset=_BY_NAME)
    acknowledge: bool = setting("network", "acknowledge", _yes_or_no, True)
    channel_directory: str = setting("channels", "directory", _path, "/var/lib/libvirt/qemu")
    debug: int = setting("debug", "debug_level", _flag, 0, live=True)


@dataclass(frozen=True)
class AgentSettings:
    """What guestAgent goes by (operations.md, Configuration)."""

    rx_port: int = setting("agent", "rx_port", _port)
    vim_cmd_port: int = setting("agent", "vim_cmd_port", _port)
    server_rx_port: int = setting("client", "rx_port", _port)
    address: str | None = setting("agent", "address", _word, None, unset=_BY_NAME)
    local_address: str | None = setting("agent", "local_address", _word, None, unset=_BY_NAME)
    max_hosts: int = setting("agent", "max_hosts", _between(1, 100_000), 5000)
    metrics_file: str | None = setting("agent", "metrics_file", _path, None, live=True)
    vim_cmd_address: str = setting("agent", "vim_cmd_address", _word, "127.0.0.1")
    vim_cmd_users: tuple[str, ...] = setting("agent", "vim_cmd_users", _users, (), live=True)
    vim_address: str = setting("vim", "address", _word, "127.0.0.1")
    vim_port: int = setting("vim", "port", _port, 30002, also=(NFV_CONF, "guest-rest-api", "port"))
    mtc_cmd_port: int = setting(
        "mtc", "cmd_port", _port, 2108, also=(MTC_CONF, "agent", "mtc_to_guest_cmd_port")
    )
    mtc_event_port: int = setting(
        "mtc", "event_port", _port, 2107, also=(MTC_CONF, "agent", "hbs_to_mtc_event_port")
    )
    acknowledge: bool = setting("network", "acknowledge", _yes_or_no, True)
    hostname: str | None = setting("host", "name", _word, None, unset=_BY_NAME)
    debug: int = setting("debug", "debug_level", _flag, 0, live=True)


_DEBUG_KEYS = ("timer", "json", "fsm", "http", "alive", "msg", "state", "work", "level", "all")


def _shared_keys() -> dict[Key, Converter]:
    """Return every key that the shared file may have, with its converter.

    Some of them select nothing any more: they are accepted, as old files have them.
    """
    known: dict[Key, Converter] = {("debug", f"debug_{word}"): _flag for word in _DEBUG_KEYS}
    known["debug", "flush"] = _flag
    known["debug", "flush_thld"] = _between(0, 1_000_000)
    known["agent", "hbs_failure_threshold"] = _threshold
    for row in (*dataclasses.fields(ServerSettings), *dataclasses.fields(AgentSettings)):
        known[row.metadata["at"]] = row.metadata["convert"]
    return known


_SHARED_KEYS = _shared_keys()


def load_server(read: Reader) -> Configuration[ServerSettings]:
    """Read guestServer's settings from its ini."""
    return load(ServerSettings, SERVER_INI, read, _SHARED_KEYS)


def load_agent(read: Reader) -> Configuration[AgentSettings]:
    """Read guestAgent's settings from its ini, and the ports that others' files name."""
    return load(AgentSettings, AGENT_INI, read, _SHARED_KEYS)


def management_interface(read: Reader) -> str:
    """Return the interface that /etc/platform/platform.conf names, "" if it does not say.

    The file has shell-style `key=value` lines; what is no such line is passed over.
    """
    try:
        _path_of, text = read(PLATFORM_CONF)
    except OSError:
        return ""
    found = ""
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip() == "management_interface":
            try:
                words = shlex.split(value, comments=True)
            except ValueError:
                continue
            found = words[0] if words else ""
    return found
