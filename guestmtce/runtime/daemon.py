"""What both daemons do alike: start, signals, health file, dump, control socket, stop.

Start order (decision 19): configuration, detach, pidfile, signals, bind, the parent exits.
Replaces daemon_main and daemon_signal. The daemon proper is an `App`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from guestmtce import __version__
from guestmtce.core.shared.errors import GuestError
from guestmtce.runtime import files, options, process
from guestmtce.runtime import log as logs
from guestmtce.runtime.control import Answer, ControlServer, Handler
from guestmtce.runtime.loop import Loop, Timer
from guestmtce.runtime.options import Options
from guestmtce.runtime.pidfile import PidFile

log = logging.getLogger(__name__)

# What the app has for its last words; SIGTERM to exit takes 2 s at most.
FLUSH_SECS = 1.0

_MAX_LOGGED_LINES = 500
_LINES_AT_ONCE = 5
_LINES_PAUSE_SECS = 0.01
_HEALTHY = "I'm healthy: Here is my config ..."

S = TypeVar("S")
T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)


class Loaded(Protocol[S_co]):
    """What an app's own reading of its configuration returns."""

    @property
    def settings(self) -> S_co | None:
        """The settings, None if there are problems."""

    @property
    def effective(self) -> str:
        """One setting a line; empty without settings."""

    @property
    def problems(self) -> Sequence[Exception]:
        """What keeps the daemon from starting."""

    @property
    def warnings(self) -> Sequence[str]:
        """What does not."""

    @property
    def hostname(self) -> str | None:
        """The host's name, if the configuration gives one."""

    @property
    def debug(self) -> int:
        """The debug level."""


@dataclass(frozen=True)
class Configuration(Generic[S]):
    """What reading the configuration came to. `settings` is None only if there are problems.

    `effective` has one setting a line; `problems` and `warnings` name file, line and key.
    """

    settings: S | None
    effective: str
    problems: Sequence[str]
    warnings: Sequence[str]
    hostname: str
    debug: int = 0

    @classmethod
    def of(cls, loaded: Loaded[S]) -> Configuration[S]:
        """Return it for what was loaded; the host has its own name where none is given."""
        return cls(
            settings=loaded.settings,
            effective=loaded.effective,
            problems=[str(problem) for problem in loaded.problems],
            warnings=loaded.warnings,
            hostname=loaded.hostname or socket.gethostname(),
            debug=loaded.debug,
        )


class App(Protocol[S_contra]):
    """A daemon proper, made on a loop and driven by `run_daemon`. Nothing in it may block."""

    def start(self) -> None:
        """Bind and begin. Raises StartError or OSError: the daemon ends with status 1."""

    def stop(self, done: Callable[[], None]) -> None:
        """Close everything, flush what goes out within FLUSH_SECS, then call `done()`."""

    def reload(self, settings: S_contra) -> None:
        """Take over what can change while running (SIGHUP); log what needs a restart."""

    def configuration(self) -> str:
        """Return the settings in force, one a line."""

    def problems(self) -> list[str]:
        """Return what makes this daemon degraded, one sentence each; [] when healthy."""

    def summary(self) -> dict[str, Any]:
        """Return the numbers that an operator wants first, by name."""

    def dump(self) -> dict[str, Any]:
        """Return the full state: hosts, instances, queues, counters; fit for JSON."""

    def metrics(self) -> str:
        """Return the metrics as Prometheus text."""

    def commands(self) -> Mapping[str, Handler]:
        """Return the control commands beyond status, dump and metrics, by name."""


def run_daemon(
    name: str,
    arguments: Sequence[str],
    *,
    purpose: str,
    configure: Callable[[Options], Configuration[S]],
    build: Callable[[Loop, S, Options], App[S]],
) -> int:
    """Run daemon `name` with command line `arguments` until it is stopped; return its status.

    `configure` reads every file and never raises for what is in them; `build` makes the app
    and does not bind yet. Unless `-f` is given the caller's process exits when the daemon has
    started, and the daemon is a child of it. Raises SystemExit.
    """
    process.open_standard()
    chosen = options.parse(name, arguments, purpose)
    for letter in chosen.ignored:
        _print_error(f"{name}: option {letter} of the old daemon is ignored")
    configuration = configure(chosen)
    if chosen.check_config:
        return check_config(configuration)
    for problem in configuration.problems:
        _print_error(f"{name}: {problem}")
    settings = configuration.settings
    if configuration.problems or settings is None:
        return 1
    if chosen.verbose:
        _print(configuration.effective)
    startup = process.Startup(name) if chosen.foreground else process.daemonise(name)
    _become(name, arguments, chosen, configuration)
    loop = Loop()
    try:
        app = build(loop, settings, chosen)
    except (GuestError, OSError) as error:
        return _cannot_start(startup, error)
    return Daemon(name, chosen, configure, loop, app).run(startup)


def _cannot_start(startup: process.Startup, error: Exception) -> int:
    """Say why, to the log and to whoever started us; return the exit status."""
    reason = _describe(error)
    log.error("cannot start: %s", reason)
    startup.failed(reason)
    return 1


def _become(
    name: str, arguments: Sequence[str], chosen: Options, configuration: Configuration[S]
) -> None:
    """Give the process its name, its limits and its log."""
    process.set_name(name, arguments)
    process.unblock_signals()
    process.raise_descriptor_limit()
    logs.setup(
        name,
        configuration.hostname,
        foreground=chosen.foreground,
        syslog=chosen.syslog,
        root=chosen.root,
        debug=_debug(chosen, configuration),
    )
    for letter in chosen.ignored:
        log.warning("option %s of the old daemon is ignored", letter)
    for warning in configuration.warnings:
        log.warning("%s", warning)


def check_config(configuration: Configuration[S]) -> int:
    """Print the effective configuration, problems and warnings; return 1 if it is wrong."""
    if configuration.effective:
        _print(configuration.effective)
    for warning in configuration.warnings:
        _print_error(f"warning: {warning}")
    for problem in configuration.problems:
        _print_error(f"error: {problem}")
    return 1 if configuration.problems else 0


class Daemon(Generic[S]):
    """One run of an app: from its pidfile to its removal."""

    def __init__(
        self,
        name: str,
        chosen: Options,
        configure: Callable[[Options], Configuration[S]],
        loop: Loop,
        app: App[S],
    ) -> None:
        self._name = name
        self._options = chosen
        self._configure = configure
        self._loop = loop
        self._app = app
        self._started = loop.time()
        self._stopping = False
        self._pidfile = PidFile(self._run_path("pid"))
        self._control: ControlServer | None = None
        self._dumping: Timer | None = None
        self._commands: dict[str, Handler] = {
            "status": lambda _request: self.status(),
            "dump": lambda _request: app.dump(),
            "metrics": lambda _request: {"metrics": app.metrics()},
            **app.commands(),
        }

    def run(self, startup: process.Startup) -> int:
        """Start, say so, run until stopped; return the exit status."""
        try:
            self._start()
        except (GuestError, OSError) as error:
            status = _cannot_start(startup, error)
            self._release()
            return status
        startup.ready()
        log.info("%s %s runs, pid %d", self._name, __version__, os.getpid())
        self._loop.run()
        self._release()
        log.info("stopped")
        return 0

    def status(self) -> Answer:
        """Return the answer to the control command `status`."""
        problems = self._app.problems()
        return {
            "daemon": self._name,
            "version": __version__,
            "pid": os.getpid(),
            "uptime_secs": round(self._loop.time() - self._started),
            "healthy": not problems,
            "problems": problems,
            "summary": self._app.summary(),
        }

    def _start(self) -> None:
        self._pidfile.acquire()
        self._loop.on_signal(signal.SIGTERM, self._stop)
        self._loop.on_signal(signal.SIGINT, self._stop)
        self._loop.on_signal(signal.SIGHUP, self._reload)
        self._loop.on_signal(signal.SIGUSR1, self._write_health)
        self._loop.on_signal(signal.SIGUSR2, self._write_dump)
        self._app.start()
        self._control = ControlServer(self._loop, self._run_path("ctl"), self._answer)
        self._write_health()

    def _release(self) -> None:
        if self._control is not None:
            self._control.close()
        self._pidfile.release()
        self._loop.close()

    def _stop(self) -> None:
        if self._stopping:
            self._loop.stop()
            return
        self._stopping = True
        log.info("stopping")
        self._loop.call_later(FLUSH_SECS, self._loop.stop)
        self._app.stop(self._loop.stop)

    def _reload(self) -> None:
        configuration = self._configure(self._options)
        for warning in configuration.warnings:
            log.warning("%s", warning)
        if configuration.problems or configuration.settings is None:
            for problem in configuration.problems:
                log.error("%s", problem)
            log.error("the configuration is broken; the one in force stays")
            return
        logs.set_debug(_debug(self._options, configuration))
        self._app.reload(configuration.settings)
        log.info("the configuration was read again")

    def _answer(self, request: dict[str, Any]) -> Answer:
        command = self._commands.get(request["command"])
        return command(request) if command else {"error": "unknown command"}

    def _write_health(self) -> None:
        status = self.status()
        lines = [_HEALTHY, self._app.configuration()]
        lines += [f"{key} = {status[key]}" for key in ("daemon", "version", "pid", "uptime_secs")]
        lines += [f"{key} = {_encode(value)}" for key, value in status["summary"].items()]
        lines += [f"problem: {problem}" for problem in status["problems"]]
        self._write("info", lines)

    def _write_dump(self) -> None:
        """Write the state as JSON, an item a line, and log as much of it as is sensible."""
        lines = list(_json_lines(self._app.dump()))
        self._write("dump", lines)
        if len(lines) > _MAX_LOGGED_LINES:
            more = len(lines) - _MAX_LOGGED_LINES
            lines[_MAX_LOGGED_LINES:] = [f"and {more} lines more in the file"]
        if self._dumping is not None:
            self._dumping.cancel()
        self._log_dump(lines)

    def _log_dump(self, lines: list[str]) -> None:
        """Log a few lines at a time: syslog's queue holds ten, and we do not wait for it."""
        for line in lines[:_LINES_AT_ONCE]:
            log.info("dump: %s", line)
        rest = lines[_LINES_AT_ONCE:]
        self._dumping = (
            self._loop.call_later(_LINES_PAUSE_SECS, self._log_dump, rest) if rest else None
        )

    def _write(self, suffix: str, lines: Sequence[str]) -> None:
        path = self._run_path(suffix)
        try:
            files.write_atomic(path, "".join(line + "\n" for line in lines))
        except OSError as error:
            log.error("cannot write %s: %s", path, error.strerror)

    def _run_path(self, suffix: str) -> str:
        return files.under(self._options.root, f"/var/run/{self._name}.{suffix}")


_encode = json.JSONEncoder(default=str).encode


def _json_lines(members: Mapping[str, Any]) -> Iterator[str]:
    """Yield a JSON object with a line for each item of each member, so that grep finds it."""
    yield "{"
    for key, comma in _with_commas(members):
        value = members[key]
        if isinstance(value, Mapping):
            yield f"{_encode(key)}: {{"
            for name, inner in _with_commas(value):
                yield f"  {_encode(str(name))}: {_encode(value[name])}{inner}"
            yield f"}}{comma}"
        elif isinstance(value, (list, tuple)):
            yield f"{_encode(key)}: ["
            for index, inner in _with_commas(range(len(value))):
                yield f"  {_encode(value[index])}{inner}"
            yield f"]{comma}"
        else:
            yield f"{_encode(key)}: {_encode(value)}{comma}"
    yield "}"


def _with_commas(items: Collection[T]) -> Iterator[tuple[T, str]]:
    """Yield each item with the comma that follows it, the last one without."""
    last = len(items) - 1
    for index, item in enumerate(items):
        yield item, "," if index < last else ""


def _debug(chosen: Options, configuration: Configuration[S]) -> int:
    return configuration.debug if chosen.debug is None else chosen.debug


def _describe(error: Exception) -> str:
    """Return an error as a sentence for an operator: no errno number, the path first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _print(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _print_error(text: str) -> None:
    sys.stderr.write(text + "\n")
