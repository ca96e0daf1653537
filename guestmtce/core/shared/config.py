"""How settings are read, checked, shown and changed; which ones there are is `settings`.

Replaces daemon_config and the ini handlers. The fields of a settings dataclass are the table:
each says section, key, converter, default, and whether SIGHUP may change it. Reading,
checking, `--check-config` and the health file all go by that table. Files are read elsewhere;
here they are text with a path.
"""

from __future__ import annotations

import configparser
import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from guestmtce.core.shared.errors import ConfigError

_REQUIRED = object()


class Settings(Protocol):
    """A frozen dataclass whose fields are made by `setting`, these two among them."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def hostname(self) -> str | None:
        """The name that this host is to have; None for its own."""

    @property
    def debug(self) -> int:
        """The debug level."""


S = TypeVar("S", bound=Settings)


class Source(NamedTuple):
    """A file's text, and the path to name in messages."""

    path: str
    text: str


# Returns what is at this absolute path, as a Source has it; raises OSError.
Reader = Callable[[str], tuple[str, str]]
# Returns a setting's value; raises ValueError that says what is wrong with the text.
Converter = Callable[[str], object]
# Section and key.
Key = tuple[str, str]


def setting(
    section: str,
    key: str,
    convert: Converter,
    default: Any = _REQUIRED,
    *,
    live: bool = False,
    also: tuple[str, str, str] | None = None,
    unset: str = "(none)",
) -> Any:
    """Return the dataclass field for one row of the table.

    `live`: SIGHUP may change it. `also`: (file, section, key) of another file that is asked
    when the daemon's own ini does not set it. `unset`: how a value of None is shown.
    """
    row = {
        "at": (section, key),
        "convert": convert,
        "live": live,
        "also": also,
        "unset": unset,
        "required": default is _REQUIRED,
    }
    if default is _REQUIRED:
        return dataclasses.field(metadata=row)
    return dataclasses.field(default=default, metadata=row)


@dataclass(frozen=True)
class Configuration(Generic[S]):
    """What reading the files came to. `settings` is None if there are problems.

    `problems` keep the daemon from starting, `warnings` do not; both name file, line and key.
    """

    settings: S | None
    problems: list[ConfigError]
    warnings: list[str]

    @property
    def effective(self) -> str:
        """The settings as ini text; empty if there are none."""
        return describe(self.settings) if self.settings is not None else ""


class _IniFile:
    """One parsed ini file that knows at which line each key stands, and what is wrong where.

    A line that cannot be read is passed over, so that one slip of the pen hides no other.
    """

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.problems: list[ConfigError] = []
        self._parser = self._parse(source.text.split("\n"))
        self._lines: dict[Key, int] = {}
        self._index(source.text)

    def get(self, section: str, key: str) -> str | None:
        return self._parser.get(section, key, fallback=None)

    def items(self) -> list[tuple[Key, str]]:
        """Return ((section, key), value) of everything in the file, in its order."""
        return [
            ((section, key), value)
            for section in self._parser.sections()
            for key, value in self._parser.items(section)
        ]

    def sections(self) -> list[str]:
        return self._parser.sections()

    def line_of(self, section: str, key: str = "") -> int:
        return self._lines.get((section, key), 0)

    def fault(self, section: str, key: str, value: str, error: ValueError) -> ConfigError:
        """Return the problem of a value that its converter refused."""
        problem = f"[{section}] {key} = {value!r}: {error}"
        return ConfigError(problem, path=self.path, line=self.line_of(section, key))

    def _parse(self, lines: list[str]) -> configparser.RawConfigParser:
        """Parse what can be parsed: lines that the parser stumbles over are taken out first."""
        while True:
            parser = configparser.RawConfigParser(
                comment_prefixes=(";", "#"),
                inline_comment_prefixes=(";",),
                default_section="",
                empty_lines_in_values=False,
                strict=False,
            )
            try:
                parser.read_string("\n".join(lines), self.path)
            except configparser.MissingSectionHeaderError as error:
                self._problem("a line before any [section]", error.lineno)
                # Told once, for all lines up to the next that may be a header.
                end = error.lineno
                while end < len(lines) and lines[end][:1] != "[":
                    end += 1
                lines[:end] = [""] * end
            except configparser.ParsingError as error:
                # Python 3.13 has one kind that tells of a single line.
                for number, _line in error.errors or [(getattr(error, "lineno", 1), "")]:
                    self._problem("neither [section] nor key = value", number)
                    lines[number - 1] = ""
            else:
                return parser

    def _index(self, text: str) -> None:
        """Note the line of each section and key, and which of them are given twice."""
        section = ""
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.strip()
            header = re.match(r"\[(?P<name>[^]]+)\]", line)
            if header:
                section = header["name"]
                self._note((section, ""), f"[{section}]", number)
            elif line[:1] not in {"", ";", "#"}:
                key = re.split(r"[=:]", line, maxsplit=1)[0].strip().lower()
                if self._parser.has_option(section, key):
                    self._note((section, key), key, number)

    def _note(self, key: Key, name: str, number: int) -> None:
        if key in self._lines:
            self._problem(f"{name} is given twice", number)
        else:
            self._lines[key] = number

    def _problem(self, problem: str, line: int) -> None:
        self.problems.append(ConfigError(problem, path=self.path, line=line))


def load(
    settings: type[S], ini: str, read: Reader, others: Mapping[Key, Converter]
) -> Configuration[S]:
    """Read the ini file at `ini` into `settings`, and the ports that others' files name.

    `others` are the keys of that file that it has for other readers: they are checked, no more.
    """
    try:
        own = _IniFile(Source(*read(ini)))
    except OSError as error:
        problem = f"cannot read it: {error.strerror}"
        return Configuration(None, [ConfigError(problem, path=str(error.filename or ini))], [])
    rows = dataclasses.fields(settings)
    problems = own.problems
    warnings: list[str] = []
    known = {**others, **{row.metadata["at"]: row.metadata["convert"] for row in rows}}
    foreign = _read_foreign(rows, read, warnings)
    converted = _convert_all(own, known, problems, warnings)
    values: dict[str, object] = {}
    for row in rows:
        try:
            _take(row, own, foreign, converted, values)
        except ConfigError as problem:
            problems.append(problem)
    if problems:
        problems.sort(key=lambda problem: (problem.path != own.path, problem.line))
        return Configuration(None, problems, warnings)
    return Configuration(settings(**values), problems, warnings)


def _read_foreign(
    rows: tuple[dataclasses.Field[Any], ...], read: Reader, warnings: list[str]
) -> dict[str, _IniFile]:
    """Return the other services' files that the table names; a missing one is no matter."""
    foreign: dict[str, _IniFile] = {}
    for path in dict.fromkeys(row.metadata["also"][0] for row in rows if row.metadata["also"]):
        try:
            foreign[path] = _IniFile(Source(*read(path)))
        except FileNotFoundError:
            continue
        except OSError as error:
            warnings.append(f"{error.filename or path}: cannot read it: {error.strerror}")
        else:
            # It is another service's to mend, and only one key of it is ours to read.
            warnings += [f"{problem}; passed over" for problem in foreign[path].problems]
    return foreign


def _convert_all(
    own: _IniFile,
    known: Mapping[Key, Converter],
    problems: list[ConfigError],
    warnings: list[str],
) -> dict[Key, object]:
    """Return the value of every key of the shared file, those of the other daemon too.

    A value that its converter refuses is a problem, and has no entry.
    """
    sections = {section for section, _key in known}
    for section in own.sections():
        if section not in sections:
            line = own.line_of(section)
            warnings.append(f"{own.path}:{line}: unknown section [{section}]")
    converted: dict[Key, object] = {}
    for (section, key), text in own.items():
        convert = known.get((section, key))
        if convert is not None:
            try:
                converted[section, key] = convert(text)
            except ValueError as error:
                problems.append(own.fault(section, key, text, error))
        elif section in sections:
            line = own.line_of(section, key)
            warnings.append(f"{own.path}:{line}: unknown key [{section}] {key}")
    return converted


def _take(
    row: dataclasses.Field[Any],
    own: _IniFile,
    foreign: Mapping[str, _IniFile],
    converted: Mapping[Key, object],
    values: dict[str, object],
) -> None:
    """Put one setting into `values`, from the daemon's ini or the other file that has it.

    Raises ConfigError if it is missing, or wrong in the other file.
    """
    meta = row.metadata
    section, key = meta["at"]
    if meta["at"] in converted:
        values[row.name] = converted[meta["at"]]
    elif own.get(section, key) is not None:
        pass  # refused: a problem already
    elif meta["required"]:
        problem = f"[{section}] {key} is missing"
        raise ConfigError(problem, path=own.path, line=own.line_of(section))
    elif meta["also"] is not None:
        name, section, key = meta["also"]
        file = foreign.get(name)
        text = file.get(section, key) if file else None
        if file is None or text is None:
            return
        try:
            values[row.name] = meta["convert"](text)
        except ValueError as error:
            raise file.fault(section, key, text, error) from None


def describe(settings: Settings) -> str:
    """Return the settings as ini text, a section at a time."""
    sections: dict[str, list[str]] = {}
    for row in dataclasses.fields(settings):
        section, key = row.metadata["at"]
        value = getattr(settings, row.name)
        if isinstance(value, tuple):
            value = ", ".join(value)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        text = row.metadata["unset"] if value is None else value
        sections.setdefault(section, []).append(f"{key} = {text}")
    return "\n".join(line for section, rows in sections.items() for line in (f"[{section}]", *rows))


def changes(old: S, new: S) -> tuple[S, list[str], list[str]]:
    """Return what SIGHUP makes of `new`: settings to go by, keys applied, keys that need a restart.

    Only live settings are taken over; the others keep their old value.
    """
    applied: list[str] = []
    deferred: list[str] = []
    taken: dict[str, object] = {}
    for row in dataclasses.fields(old):
        value = getattr(new, row.name)
        if value == getattr(old, row.name):
            continue
        section, key = row.metadata["at"]
        if row.metadata["live"]:
            taken[row.name] = value
            applied.append(f"[{section}] {key}")
        else:
            deferred.append(f"[{section}] {key}")
    return dataclasses.replace(old, **taken), applied, deferred
