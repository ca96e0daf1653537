"""What both daemons do alike: start, signals, health file, dump, control socket, stop.

Start order (decision 19): configuration, detach, pidfile, signals, bind, the parent exits.
Replaces daemon_main and daemon_signal. The daemon proper is an `App`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from guestmtce import __version__
from guestmtce.core.shared import config
from guestmtce.core.shared.config import Configuration, Reader, Settings
from guestmtce.core.shared.errors import GuestError
from guestmtce.runtime import dump, files, options, privileges, process, vitals
from guestmtce.runtime import log as logs
from guestmtce.runtime.control import Answer, ControlServer, Handler
from guestmtce.runtime.loop import Loop
from guestmtce.runtime.metrics import Registry
from guestmtce.runtime.options import Options
from guestmtce.runtime.own_files import OwnFiles, run_path
from guestmtce.runtime.pidfile import PidFile, running_pid
from guestmtce.runtime.vitals import FILES, LOG, Problems, sentences

log = logging.getLogger(__name__)

MAX_DEBUG = 255
# What the app has for its last words; SIGTERM to exit takes 2 s at most.
FLUSH_SECS = 1.0

# How often it is looked whether somebody has removed the daemon's files.
KEEP_SECS = 60.0
_NOT_RUNNING, _UNKNOWN = 3, 4
_HEALTHY = "I'm healthy: Here is my config ..."

S = TypeVar("S", bound=Settings)
S_contra = TypeVar("S_contra", bound=Settings, contravariant=True)


class App(Protocol[S_contra]):
    """A daemon proper, made on a loop and driven by `run_daemon`. Nothing in it may block.

    `registry` has its metrics; `run_daemon` adds those that every daemon has.
    """

    registry: Registry

    def start(self) -> None:
        """Bind and begin. Raises StartError or OSError: the daemon ends with status 1."""

    def stop(self, done: Callable[[], None]) -> None:
        """Close everything, flush what goes out within FLUSH_SECS, then call `done()`."""

    def reload(self, settings: S_contra) -> None:
        """Go by these settings from now on; only those have changed that may (SIGHUP)."""

    def problems(self) -> Problems:
        """Return what makes this daemon degraded: each kind that there can be, also the quiet."""

    def summary(self) -> dict[str, object]:
        """Return the numbers that an operator wants first, by name."""

    def dump(self) -> dict[str, object]:
        """Return the full state: hosts, instances, queues, counters; fit for JSON."""

    def commands(self) -> Mapping[str, Handler]:
        """Return the control commands beyond status, dump and metrics, by name."""


@dataclass(frozen=True)
class Program(Generic[S]):
    """One of the daemons, as `run_daemon` runs it.

    `load` reads the configuration with the reader that it is given, and never raises for what
    is in the files; `app(loop, settings, hostname, root)` makes the daemon proper and does not
    bind yet. `capabilities` are those of root's that it keeps once it runs.
    """

    name: str
    purpose: str
    load: Callable[[Reader], Configuration[S]]
    app: Callable[[Loop, S, str, str], App[S]]
    capabilities: Sequence[int] = ()


def run_daemon(program: Program[S], arguments: Sequence[str]) -> int:
    """Run a program with command line `arguments` until it is stopped; return its status.

    Unless `-f` is given the caller's process exits when the daemon has started, and the daemon
    is a child of it. Raises SystemExit.
    """
    process.open_standard()
    name = program.name
    chosen = options.parse(name, arguments, program.purpose)
    for letter in chosen.ignored:
        _print_error(f"{name}: option {letter} of the old daemon is ignored")
    if chosen.pid:
        return print_pid(name, chosen.root)
    configuration = program.load(files.reader(chosen.root))
    if chosen.check_config:
        return check_config(configuration)
    for problem in configuration.problems:
        _print_error(f"{name}: {problem}")
    settings = configuration.settings
    if settings is None:
        return 1
    if chosen.verbose:
        _print(configuration.effective)
    startup = process.Startup(name) if chosen.foreground else process.daemonise(name)
    hostname = settings.hostname or socket.gethostname()
    _become(name, arguments)
    loop = Loop()
    _open_log(name, hostname, chosen, settings.debug, loop)
    for warning in configuration.warnings:
        log.warning("%s", warning)
    try:
        app = program.app(loop, settings, hostname, chosen.root)
    except (GuestError, OSError) as error:
        return _cannot_start(startup, error)
    return Daemon(program, chosen, settings, loop, app).run(startup)


def _cannot_start(startup: process.Startup, error: Exception) -> int:
    """Say why, to the log and to whoever started us; return the exit status."""
    reason = _describe(error)
    log.error("cannot start: %s", reason)
    startup.failed(reason)
    return 1


def _become(name: str, arguments: Sequence[str]) -> None:
    """Give the process its name and its limits; its signals wait for their handlers."""
    process.set_name(name, arguments)
    process.hold_signals()
    process.raise_descriptor_limit()
    process.calm_collector()


def _open_log(name: str, hostname: str, chosen: Options, debug: int, loop: Loop) -> None:
    logs.setup(
        name,
        hostname,
        foreground=chosen.foreground,
        syslog=chosen.syslog,
        root=chosen.root,
        debug=debug if chosen.debug is None else chosen.debug,
        later=loop.call_later,
    )
    for letter in chosen.ignored:
        log.warning("option %s of the old daemon is ignored", letter)


def _set_log_level(request: Mapping[str, object]) -> Answer:
    """Set the debug level until the next start, or until SIGHUP finds another in the ini."""
    level = request.get("level")
    if not isinstance(level, int) or not 0 <= level <= MAX_DEBUG:
        return {"error": f"the level is not a number from 0 to {MAX_DEBUG}"}
    logs.set_debug(level)
    log.info("debug level %d, by guestctl", level)
    return {"level": level}


def print_pid(name: str, root: str) -> int:
    """Print the pid of the daemon that runs; return the exit status, as LSB's `status` has it.

    By the lock that the daemon holds, so that it is found without its pidfile too.
    """
    try:
        pid = running_pid(run_path(root, name, "lock"))
    except OSError as error:
        _print_error(f"{name}: {_describe(error)}")
        return _UNKNOWN
    if pid is None:
        return _NOT_RUNNING
    _print(str(pid))
    return 0


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
        self, program: Program[S], chosen: Options, settings: S, loop: Loop, app: App[S]
    ) -> None:
        self._program = program
        self._options = chosen
        self._settings = settings
        self._loop = loop
        self._app = app
        self._started = loop.time()
        self._stopping = False
        self._files = OwnFiles(chosen.root, program.name)
        self._pidfile = PidFile(self._files.path("pid"), self._files.path("lock"))
        self._control: ControlServer | None = None
        self._dump_log = dump.DumpLog(loop)
        self._commands: dict[str, Handler] = {
            "status": lambda _request: self.status(),
            "dump": lambda _request: self.dump(),
            "metrics": lambda _request: {"metrics": app.registry.render()},
            "log-level": _set_log_level,
            **app.commands(),
        }
        vitals.register(app.registry, loop, time.time(), self._problems)

    def run(self, startup: process.Startup) -> int:
        """Start, say so, run until stopped; return the exit status."""
        try:
            self._start()
        except (GuestError, OSError) as error:
            status = _cannot_start(startup, error)
            self._release()
            return status
        startup.ready()
        log.info("%s %s runs, pid %d", self._program.name, __version__, os.getpid())
        self._loop.run()
        self._release()
        log.info("stopped")
        return 0

    def status(self) -> Answer:
        """Return the answer to the control command `status`."""
        problems = sentences(self._problems())
        return {
            "daemon": self._program.name,
            "version": __version__,
            "pid": os.getpid(),
            "uptime_secs": round(self._loop.time() - self._started),
            "healthy": not problems,
            "problems": problems,
            "summary": {**self._app.summary(), "rights": privileges.describe()},
        }

    def _problems(self) -> Problems:
        """Return the app's problems, with those of the files that we keep for it."""
        found = dict(self._app.problems())
        found[FILES] = [*found.get(FILES, ()), *self._files.problems]
        found[LOG] = logs.problems()
        return found

    def dump(self) -> Answer:
        """Return the answer to the control command `dump`."""
        return {"configuration": config.describe(self._settings).splitlines(), **self._app.dump()}

    def _start(self) -> None:
        self._pidfile.acquire()
        for signum, callback in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGHUP, self._reload),
            (signal.SIGUSR1, self._show_health),
            (signal.SIGUSR2, self._write_dump),
        ):
            self._loop.on_signal(signum, callback)
        process.unblock_signals()
        self._app.start()
        self._control = ControlServer(self._loop, self._files.path("ctl"), self._answer)
        self._give_up_rights()
        self._write_health()
        self._loop.call_later(KEEP_SECS, self._keep_files)

    def _give_up_rights(self) -> None:
        """Keep no more rights than the daemon needs from now on; without that it runs too."""
        try:
            privileges.drop(self._program.capabilities)
        except OSError as error:
            log.warning("cannot give up rights: %s", error)
        log.info("runs as %s", privileges.describe())

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
        """Read the configuration again; what may change while running changes (SIGHUP)."""
        configuration = self._program.load(files.reader(self._options.root))
        for warning in configuration.warnings:
            log.warning("%s", warning)
        if configuration.settings is None:
            for problem in configuration.problems:
                log.error("%s", problem)
            log.error("the configuration is broken; the one in force stays")
            return
        self._settings, applied, deferred = config.changes(self._settings, configuration.settings)
        for name in applied:
            log.info("%s changed", name)
        for name in deferred:
            log.warning("%s changed: it needs a restart", name)
        if self._options.debug is None:
            logs.set_debug(self._settings.debug)
        self._app.reload(self._settings)
        log.info("the configuration was read again")

    def _answer(self, request: dict[str, Any]) -> Answer:
        command = self._commands.get(request["command"])
        return command(request) if command else {"error": "unknown command"}

    def _show_health(self) -> None:
        """Write the health file, and what else of ours may have gone with it (SIGUSR1)."""
        self._put_back()
        self._write_health()

    def _keep_files(self) -> None:
        self._put_back()
        self._files.retry()
        self._loop.call_later(KEEP_SECS, self._keep_files)

    def _put_back(self) -> None:
        """Have the pidfile and the control socket again, if a cleaner has removed them."""
        keepers = {"pid": self._pidfile.keep}
        if self._control is not None:
            keepers["ctl"] = self._control.keep
        for suffix, keep in keepers.items():
            self._files.attempt(suffix, keep)

    def _write_health(self) -> None:
        status = self.status()
        lines = [_HEALTHY, config.describe(self._settings)]
        lines += [f"{key} = {status[key]}" for key in ("daemon", "version", "pid", "uptime_secs")]
        lines += [f"{key} = {dump.encode(value)}" for key, value in status["summary"].items()]
        lines += [f"problem: {problem}" for problem in status["problems"]]
        self._files.replace("info", lines)

    def _write_dump(self) -> None:
        """Write the state as JSON, an item a line, and log as much of it as is sensible."""
        lines = list(dump.lines(self.dump()))
        self._files.replace("dump", lines)
        self._dump_log.begin(lines)


def _describe(error: Exception) -> str:
    """Return an error as a sentence for an operator: no errno number, the path first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _print(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _print_error(text: str) -> None:
    sys.stderr.write(text + "\n")
