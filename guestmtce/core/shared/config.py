"""Settings: ini text in, one typed object for each daemon out.

Replaces daemon_config and the ini handlers. The dataclass fields are the table of settings:
each says section, key, converter, default, and whether SIGHUP may change it. Reading,
checking, `--check-config` and the health file all go by that table. Files are read elsewhere;
here they are text with a path.
"""

from __future__ import annotations

import configparser
import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from guestmtce.core.shared.errors import ConfigError

SERVER_INI = "/etc/mtc/guestServer.ini"
AGENT_INI = "/etc/mtc/guestAgent.ini"
MTC_CONF = "/etc/mtc.conf"
NFV_CONF = "/etc/nfv/nfv_plugins/nfvi_plugins/config.ini"
PLATFORM_CONF = "/etc/platform/platform.conf"

_REQUIRED = object()
_MAX_PORT = 65535
_MAX_PERIOD_MS = 86_400_000

S = TypeVar("S", "ServerSettings", "AgentSettings")


class Source(NamedTuple):
    """A file's text, and the path to name in messages."""

    path: str
    text: str


# Returns what is at this absolute path, as a Source has it; raises OSError.
Reader = Callable[[str], tuple[str, str]]


def _port(text: str) -> int:
    return _number(text, 1, _MAX_PORT)


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


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("not an absolute path")
    return text


def _setting(
    section: str,
    key: str,
    convert: Callable[[str], Any],
    default: Any = _REQUIRED,
    *,
    live: bool = False,
    also: tuple[str, str, str] | None = None,
) -> Any:
    """Return the dataclass field for one row of the table.

    `live`: SIGHUP may change it. `also`: (file, section, key) of another file that is asked
    when the daemon's own ini does not set it.
    """
    row = {"section": section, "key": key, "convert": convert, "live": live, "also": also}
    if default is _REQUIRED:
        return dataclasses.field(metadata={**row, "required": True})
    return dataclasses.field(default=default, metadata={**row, "required": False})


_DEBUG_KEYS = ("timer", "json", "fsm", "http", "alive", "msg", "state", "work", "level", "all")
_flag = _between(0, 255)


@dataclass(frozen=True)
class ServerSettings:
    """What guestServer goes by (operations.md, Configuration). Times in the unit of the name."""

    agent_rx_port: int = _setting("agent", "rx_port", _port)
    rx_port: int = _setting("client", "rx_port", _port)
    hbs_failure_threshold: int = _setting(
        "client", "hbs_failure_threshold", _between(0, 1000), 1, live=True
    )
    hbs_pulse_period_ms: int = _setting(
        "client", "hbs_pulse_period", _between(10, _MAX_PERIOD_MS), 400, live=True
    )
    start_delay_secs: int = _setting("timeouts", "start_delay", _between(0, 3600), 1)
    address: str | None = _setting("client", "address", _word, None)
    agent_peers: tuple[str, ...] = _setting(
        "client", "agent_peers", _words, ("controller", "controller-0", "controller-1"), live=True
    )
    metrics_file: str | None = _setting("client", "metrics_file", _path, None, live=True)
    hostname: str | None = _setting("host", "name", _word, None)
    channel_directory: str = _setting("channels", "directory", _path, "/var/lib/libvirt/qemu")
    debug: int = _setting("debug", "debug_level", _flag, 0, live=True)


@dataclass(frozen=True)
class AgentSettings:
    """What guestAgent goes by (operations.md, Configuration)."""

    rx_port: int = _setting("agent", "rx_port", _port)
    vim_cmd_port: int = _setting("agent", "vim_cmd_port", _port)
    server_rx_port: int = _setting("client", "rx_port", _port)
    hbs_failure_threshold: int = _setting(
        "agent", "hbs_failure_threshold", _between(0, 1000), 1, live=True
    )
    address: str | None = _setting("agent", "address", _word, None)
    local_address: str | None = _setting("agent", "local_address", _word, None)
    vim_cmd_address: str = _setting("agent", "vim_cmd_address", _word, "127.0.0.1")
    vim_address: str = _setting("vim", "address", _word, "127.0.0.1")
    vim_port: int = _setting("vim", "port", _port, 30002, also=(NFV_CONF, "guest-rest-api", "port"))
    mtc_cmd_port: int = _setting(
        "mtc", "cmd_port", _port, 2108, also=(MTC_CONF, "agent", "mtc_to_guest_cmd_port")
    )
    mtc_event_port: int = _setting(
        "mtc", "event_port", _port, 2107, also=(MTC_CONF, "agent", "hbs_to_mtc_event_port")
    )
    start_delay_secs: int = _setting("timeouts", "start_delay", _between(0, 3600), 1)
    hostname: str | None = _setting("host", "name", _word, None)
    debug: int = _setting("debug", "debug_level", _flag, 0, live=True)


# Shared ini keys that are accepted and checked, and select nothing of their own.
_ACCEPTED: dict[tuple[str, str], Callable[[str], Any]] = {
    **{("debug", f"debug_{word}"): _flag for word in _DEBUG_KEYS},
    ("debug", "flush"): _flag,
    ("debug", "flush_thld"): _between(0, 1_000_000),
}


def _known_keys() -> dict[tuple[str, str], Callable[[str], Any]]:
    known = dict(_ACCEPTED)
    for settings in (ServerSettings, AgentSettings):
        for row in dataclasses.fields(settings):
            known[row.metadata["section"], row.metadata["key"]] = row.metadata["convert"]
    return known


_KNOWN = _known_keys()
_KNOWN_SECTIONS = frozenset(section for section, _key in _KNOWN)


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """The outcome of reading: settings if there is no problem, and what to tell the operator."""

    settings: S | None
    problems: list[ConfigError]
    warnings: list[str]

    @property
    def effective(self) -> str:
        """The settings as ini text; empty if there are none."""
        return describe(self.settings) if self.settings else ""

    @property
    def hostname(self) -> str | None:
        """The name that `[host] name` gives this host."""
        return self.settings.hostname if self.settings else None

    @property
    def debug(self) -> int:
        """The debug level."""
        return self.settings.debug if self.settings else 0

    def require(self) -> S:
        """Return the settings; raises the first ConfigError if there is any."""
        if self.problems or self.settings is None:
            raise self.problems[0]
        return self.settings


class _IniFile:
    """One parsed ini file that knows at which line each key stands."""

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self._parser = configparser.RawConfigParser(
            comment_prefixes=(";", "#"),
            inline_comment_prefixes=(";",),
            default_section="",
            empty_lines_in_values=False,
        )
        try:
            self._parser.read_string(source.text, source.path)
        except configparser.MissingSectionHeaderError as error:
            raise ConfigError(
                "a line before any [section]", path=self.path, line=error.lineno
            ) from None
        except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
            what = getattr(error, "option", None) or f"[{error.section}]"
            raise ConfigError(
                f"{what} is given twice", path=self.path, line=error.lineno or 0
            ) from None
        except configparser.ParsingError as error:
            line = error.errors[0][0] if error.errors else 0
            raise ConfigError(
                "neither [section] nor key = value", path=self.path, line=line
            ) from None
        self._lines = _index_lines(source.text)

    def get(self, section: str, key: str) -> str | None:
        return self._parser.get(section, key, fallback=None)

    def items(self) -> list[tuple[str, str, str]]:
        """Return (section, key, value) of everything in the file, in its order."""
        return [
            (section, key, value)
            for section in self._parser.sections()
            for key, value in self._parser.items(section)
        ]

    def line_of(self, section: str, key: str) -> int:
        return self._lines.get((section, key), 0)


def _index_lines(text: str) -> dict[tuple[str, str], int]:
    """Return the line number of each (section, key)."""
    lines: dict[tuple[str, str], int] = {}
    section = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        header = re.match(r"\[(?P<name>[^]]+)\]", line)
        if header:
            section = header["name"]
            lines.setdefault((section, ""), number)
        elif line[:1] not in {"", ";", "#"}:
            key = re.split(r"[=:]", line, maxsplit=1)[0].strip().lower()
            lines.setdefault((section, key), number)
    return lines


class PlatformConf(NamedTuple):
    """What the daemons use of /etc/platform/platform.conf; empty where it says nothing."""

    management_interface: str = ""
    subfunction: str = ""
    nodetype: str = ""


def parse_platform_conf(text: str) -> PlatformConf:
    """Read shell-style `key=value` lines; what is not one of ours, or not a line, is skipped."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not equals or key.strip() not in PlatformConf._fields:
            continue
        try:
            words = shlex.split(value, comments=True)
        except ValueError:
            continue
        values[key.strip()] = words[0] if words else ""
    return PlatformConf(**values)


def load_server(read: Reader) -> Loaded[ServerSettings]:
    """Read guestServer's settings from its ini."""
    return _load(ServerSettings, SERVER_INI, read)


def load_agent(read: Reader) -> Loaded[AgentSettings]:
    """Read guestAgent's settings from its ini, and the ports that others' files name."""
    return _load(AgentSettings, AGENT_INI, read)


def load_platform(read: Reader) -> PlatformConf:
    """Read /etc/platform/platform.conf; one that cannot be read says nothing."""
    try:
        return parse_platform_conf(Source(*read(PLATFORM_CONF)).text)
    except OSError:
        return PlatformConf()


def _load(settings: type[S], ini: str, read: Reader) -> Loaded[S]:
    try:
        own = _IniFile(Source(*read(ini)))
    except OSError as error:
        problem = f"cannot read it: {error.strerror}"
        return Loaded(None, [ConfigError(problem, path=str(error.filename or ini))], [])
    except ConfigError as error:
        return Loaded(None, [error], [])
    problems: list[ConfigError] = []
    warnings: list[str] = []
    foreign = _read_foreign(settings, read, warnings)
    _check_all(own, problems, warnings)
    values: dict[str, Any] = {}
    for row in dataclasses.fields(settings):
        _read_row(row, own, foreign, values, problems)
    if problems:
        return Loaded(None, problems, warnings)
    return Loaded(settings(**values), problems, warnings)


def _read_foreign(settings: type[S], read: Reader, warnings: list[str]) -> dict[str, _IniFile]:
    """Return the other services' files that the table names; a missing one is no matter."""
    rows = dataclasses.fields(settings)
    foreign: dict[str, _IniFile] = {}
    for path in dict.fromkeys(row.metadata["also"][0] for row in rows if row.metadata["also"]):
        try:
            foreign[path] = _IniFile(Source(*read(path)))
        except FileNotFoundError:
            continue
        except OSError as error:
            warnings.append(f"{error.filename or path}: cannot read it: {error.strerror}")
        except ConfigError as error:
            # Only one key of it is ours to read.
            warnings.append(f"{error}; using the default")
    return foreign


def _check_all(own: _IniFile, problems: list[ConfigError], warnings: list[str]) -> None:
    """Check every key of the shared file, those of the other daemon too."""
    for section in dict.fromkeys(section for section, _key, _value in own.items()):
        if section not in _KNOWN_SECTIONS:
            line = own.line_of(section, "")
            warnings.append(f"{own.path}:{line}: unknown section [{section}]")
    for section, key, value in own.items():
        convert = _KNOWN.get((section, key))
        line = own.line_of(section, key)
        if convert is not None:
            try:
                convert(value)
            except ValueError as error:
                problem = f"[{section}] {key} = {value!r}: {error}"
                problems.append(ConfigError(problem, path=own.path, line=line))
        elif section in _KNOWN_SECTIONS:
            warnings.append(f"{own.path}:{line}: unknown key [{section}] {key}")


def _read_row(
    row: dataclasses.Field[Any],
    own: _IniFile,
    foreign: Mapping[str, _IniFile],
    values: dict[str, Any],
    problems: list[ConfigError],
) -> None:
    """Put one setting into `values`, from the daemon's ini or the other file that has it."""
    meta = row.metadata
    text = own.get(meta["section"], meta["key"])
    if text is not None:
        try:
            values[row.name] = meta["convert"](text)
        except ValueError:
            return  # named by _check_all already
        return
    if meta["required"]:
        problem = f"[{meta['section']}] {meta['key']} is missing"
        problems.append(ConfigError(problem, path=own.path, line=own.line_of(meta["section"], "")))
        return
    if meta["also"] is None:
        return
    name, section, key = meta["also"]
    file = foreign.get(name)
    text = file.get(section, key) if file else None
    if file is None or text is None:
        return
    try:
        values[row.name] = meta["convert"](text)
    except ValueError as error:
        problem = f"[{section}] {key} = {text!r}: {error}"
        problems.append(ConfigError(problem, path=file.path, line=file.line_of(section, key)))


def describe(settings: ServerSettings | AgentSettings) -> str:
    """Return the effective configuration as ini text, a section at a time."""
    sections: dict[str, list[str]] = {}
    for row in dataclasses.fields(settings):
        value = getattr(settings, row.name)
        if value is None:
            text = "(by host name)" if row.metadata["key"] != "metrics_file" else "(none)"
        elif isinstance(value, tuple):
            text = ", ".join(value)
        else:
            text = str(value)
        sections.setdefault(row.metadata["section"], []).append(f"{row.metadata['key']} = {text}")
    return "\n".join(line for section, rows in sections.items() for line in (f"[{section}]", *rows))


def changes(old: S, new: S) -> tuple[S, list[str], list[str]]:
    """Return what SIGHUP makes of `new`: settings to go by, keys applied, keys that need a restart.

    Only live settings are taken over; the others keep their old value.
    """
    applied: list[str] = []
    deferred: list[str] = []
    taken: dict[str, Any] = {}
    for row in dataclasses.fields(old):
        value = getattr(new, row.name)
        if value == getattr(old, row.name):
            continue
        name = f"[{row.metadata['section']}] {row.metadata['key']}"
        if row.metadata["live"]:
            taken[row.name] = value
            applied.append(name)
        else:
            deferred.append(name)
    return dataclasses.replace(old, **taken), applied, deferred
