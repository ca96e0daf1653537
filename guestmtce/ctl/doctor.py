"""`guestctl doctor`: everything that has to be right on this host, a line each, with its remedy.

Looks at files and asks the daemons; changes nothing and connects to no peer (a client that
connects to the VIM and says nothing blocks it for 15 s). Exit status as Nagios has it.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from guestmtce.core.shared.condition import duration
from guestmtce.core.shared.config import Configuration, Reader
from guestmtce.core.shared.settings import load_agent, load_server
from guestmtce.ctl import hosts
from guestmtce.ctl.ask import number
from guestmtce.ctl.patient import Finding, Level, Patient
from guestmtce.ctl.table import Style, cell
from guestmtce.runtime import files
from guestmtce.runtime.hosts import HOSTS_PATH, HostsFile

SM_DATABASE = "/var/lib/sm/sm.db"
SM_ROWS = "/usr/share/mtce-guest/guest-agent.sql"
VIM_CONF = "/etc/nfv/vim/config.ini"
PMON_DIRECTORY = "/etc/pmon.d"
PMON_FILE = "/usr/share/starlingx/pmon.d/guestServer.conf"
CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
INOTIFY_LIMITS = "/proc/sys/fs/inotify"
TCP_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
# guestServer needs two watches; far fewer than this are left only where others use them up.
FEW_WATCHES = 1024
SPARE_DESCRIPTORS = 64
SILENT_SECS = 60.0
# guestAgent says something each minute to a host that the VIM has enabled, and each 10 s to one
# with instances.
AGENT_SILENT_SECS = 300.0
_FAST_CLOCKS = frozenset({"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"})
_LISTENING = "0A"
_FALSE_WORDS = frozenset({"false", "no", "0", "off"})


def _daemon(daemon: str) -> Callable[[Patient], Iterator[Finding]]:
    def check(patient: Patient) -> Iterator[Finding]:
        answer = patient.answers.get(daemon)
        if answer is None:
            yield _not_running(daemon, patient)
            return
        problems = answer.get("problems", ())
        for problem in problems:
            remedy = f"as the sentence says; /var/log/{daemon}.log has more"
            yield Finding(Level.WARNING, daemon, cell(problem), remedy)
        if not problems:
            yield Finding(Level.OK, daemon, f"healthy, version {cell(answer.get('version'))}")

    return check


def _not_running(daemon: str, patient: Patient) -> Finding:
    remedy = f"/etc/init.d/{daemon} start, and read /var/log/{daemon}.log"
    state = patient.states.get(daemon)
    if state == "down":
        return Finding(Level.CRITICAL, daemon, "it ended without having been stopped", remedy)
    if state == "silent":
        remedy = f"read /var/log/{daemon}.log, then kill it: it is started again"
        return Finding(Level.CRITICAL, daemon, "it runs, and does not answer", remedy)
    if daemon == "guestAgent":
        return Finding(Level.OK, daemon, "does not run: right but on the active controller")
    return Finding(Level.CRITICAL, daemon, "does not run", remedy)


_LOADERS: dict[str, Callable[[Reader], Configuration[Any]]] = {
    "guestServer": load_server,
    "guestAgent": load_agent,
}


def _configuration(daemon: str) -> Callable[[Patient], Iterator[Finding]]:
    def check(patient: Patient) -> Iterator[Finding]:
        loaded = _LOADERS[daemon](files.reader(patient.root))
        path = f"/etc/mtc/{daemon}.ini"
        for problem in loaded.problems:
            yield Finding(Level.CRITICAL, "configuration", str(problem), f"correct {path}")
        for warning in loaded.warnings:
            yield Finding(Level.WARNING, "configuration", warning, f"correct {path}, or ignore it")
        if not (loaded.problems or loaded.warnings):
            yield Finding(Level.OK, "configuration", f"{path} is right")

    return check


def _names(patient: Patient) -> Iterator[Finding]:
    """Both daemons look names up in the hosts file, and nowhere else."""
    hosts_file = HostsFile(patient.path(HOSTS_PATH))
    found = hosts_file.lookup("controller")
    if found:
        yield Finding(Level.OK, "names", f"controller is {', '.join(found)}")
    else:
        remedy = f"add it to {HOSTS_PATH}: names are looked up there and nowhere else"
        yield Finding(Level.CRITICAL, "names", "controller has no address", remedy)
    settings = load_server(files.reader(patient.root)).settings
    if settings and patient.installed("guestServer"):
        peers = {name: hosts_file.lookup(name) for name in settings.agent_peers}
        believed = ", ".join(f"{cell(name)} {cell([*where])}" for name, where in peers.items())
        yield Finding(Level.OK, "names", f"guestServer believes {believed}")


def _channels(patient: Patient) -> Iterator[Finding]:
    loaded = load_server(files.reader(patient.root))
    directory = loaded.settings.channel_directory if loaded.settings else "/var/lib/libvirt/qemu"
    try:
        names = os.listdir(patient.path(directory))
    except OSError as error:
        remedy = "start libvirt, which makes it; guestServer sees it within 2 s"
        yield Finding(Level.CRITICAL, "channels", f"{directory}: {error.strerror}", remedy)
        return
    count = sum(name.endswith(".sock") and ".heartbeat." in name for name in names)
    yield Finding(Level.OK, "channels", f"{directory} has {count} channel files")


def _watches(patient: Patient) -> Iterator[Finding]:
    for name in ("max_user_watches", "max_user_instances"):
        text = patient.text(f"{INOTIFY_LIMITS}/{name}")
        if text is None or not text.isdigit():
            continue
        least = FEW_WATCHES if name == "max_user_watches" else 1
        if int(text) < least:
            remedy = f"sysctl fs.inotify.{name}={FEW_WATCHES * 8}"
            yield Finding(Level.WARNING, "inotify", f"{name} is {text}", remedy)
        else:
            yield Finding(Level.OK, "inotify", f"{name} is {text}")


def _descriptors(patient: Patient) -> Iterator[Finding]:
    answer = patient.answers["guestServer"]
    limits = patient.text(f"/proc/{answer.get('pid')}/limits") or ""
    row = next((line.split() for line in limits.splitlines() if line.startswith("Max open")), None)
    if row is None or not row[3].isdigit():
        return
    limit, instances = int(row[3]), answer.get("summary", {}).get("instances", 0)
    text = f"{limit} descriptors for {instances} instances"
    if limit < instances + SPARE_DESCRIPTORS:
        remedy = "raise LimitNOFILE (systemctl edit guestServer), and restart guestServer"
        yield Finding(Level.CRITICAL, "descriptors", text, remedy)
    else:
        yield Finding(Level.OK, "descriptors", text)


def _syslog(patient: Patient) -> Iterator[Finding]:
    path = patient.path("/dev/log")
    remedy = "start syslog; until then the daemons write to /var/log themselves"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise OSError(0, "is no socket")
            sock.connect(path)
        except OSError as error:
            yield Finding(Level.WARNING, "log", f"/dev/log: {error.strerror}", remedy)
            return
    yield Finding(Level.OK, "log", "/dev/log is listened to")


def _clock(patient: Patient) -> Iterator[Finding]:
    source = patient.text(CLOCK_SOURCE)
    if source is None:
        return
    if source in _FAST_CLOCKS:
        yield Finding(Level.OK, "clock", f"clock source {source}")
    else:
        remedy = "the kernel's log says why it gave up its own; timers are slow and may be late"
        yield Finding(Level.WARNING, "clock", f"clock source {cell(source)}", remedy)


def _pmond(patient: Patient) -> Iterator[Finding]:
    link = f"{PMON_DIRECTORY}/guestServer.conf"
    if patient.exists(link):
        yield Finding(Level.OK, "pmond", f"{link} is there")
    else:
        remedy = f"ln -s {PMON_FILE} {link}"
        yield Finding(Level.WARNING, "pmond", "does not look after guestServer", remedy)


def _service_manager(patient: Patient) -> Iterator[Finding]:
    try:
        import sqlite3  # noqa: PLC0415 - an optional part of the standard library
    except ImportError:
        return
    remedy = f"with SM stopped: sqlite3 {SM_DATABASE} <{SM_ROWS} (sm/README.md has each step)"
    try:
        uri = f"file:{patient.path(SM_DATABASE)}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            query = "SELECT COUNT(*) FROM SERVICES WHERE NAME = 'guest-agent'"
            (count,) = database.execute(query).fetchone()
    except sqlite3.Error as error:
        remedy = "run guestctl as root; if it was, SM's database is not as it has to be"
        yield Finding(Level.WARNING, "SM", f"{SM_DATABASE}: {error}", remedy)
        return
    if count:
        yield Finding(Level.OK, "SM", "has a row for guest-agent")
    else:
        yield Finding(Level.CRITICAL, "SM", "has no row for guest-agent", remedy)


def _vim_plugin(patient: Patient) -> Iterator[Finding]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(files.read_text(patient.path(VIM_CONF)))
    except (OSError, configparser.Error) as error:
        remedy = "run guestctl as root; if it was, correct the file"
        yield Finding(Level.WARNING, "VIM", f"cannot read {VIM_CONF}: {cell(error)}", remedy)
        return
    # Absent means True: the platform disables the plugin by default.
    value = parser.get("nfvi", "guest_plugin_disabled", fallback="True")
    if value.strip().lower() in _FALSE_WORDS:
        yield Finding(Level.OK, "VIM", "its guest plugin is enabled")
    else:
        remedy = f"[nfvi] guest_plugin_disabled=False in {VIM_CONF}, then restart the VIM"
        yield Finding(Level.CRITICAL, "VIM", "its guest plugin is disabled", remedy)


def _vim_port(patient: Patient) -> Iterator[Finding]:
    """Look into the kernel's table; to connect would hold the VIM up."""
    loaded = load_agent(files.reader(patient.root))
    port = loaded.settings.vim_port if loaded.settings else 30002
    wanted = f":{port:04X}"
    tables = [text for path in TCP_TABLES if (text := patient.text(path)) is not None]
    rows = (line.split() for text in tables for line in text.splitlines()[1:])
    if any(row[1].endswith(wanted) and row[3] == _LISTENING for row in rows):
        yield Finding(Level.OK, "VIM", f"listens on port {port}")
    elif tables:
        remedy = "is the VIM running, with its guest plugin? alarms wait until it is"
        yield Finding(Level.CRITICAL, "VIM", f"nobody listens on port {port}", remedy)


def _workers(patient: Patient) -> Iterator[Finding]:
    """Each worker's last word, and what is known of its guestServer."""
    answer = patient.answers["guestAgent"]
    if answer.get("hosts") == [] and (number(answer.get("uptime_secs")) or 0.0) >= SILENT_SECS:
        remedy = "mtcAgent names them: is it running? guestctl status says if this one is active"
        yield Finding(Level.WARNING, "workers", "guestAgent knows no host", remedy)
    for host in hosts.worst_first(answer.get("hosts", ())):
        name, heard = cell(host.get("hostname")), number(host.get("last_heard"))
        level, text = Level.OK, "has never been heard"
        if heard is not None:
            ago = patient.now - heard
            text = f"last heard {duration(ago)} ago, {_version(hosts.version(host))}"
        if host.get("silent") is True:
            level, text = Level.CRITICAL, f"answers no audit; {text}"
        elif not host.get("instances"):
            text += "; it has no instances"
        elif heard is None:
            level = Level.WARNING
        elif ago >= SILENT_SECS:
            level = Level.CRITICAL
        remedy = "" if level is Level.OK else f"guestctl doctor on {name}"
        yield Finding(level, f"worker {name}", text, remedy)


def _version(word: str) -> str:
    """Return what `hosts.version` says, in a sentence."""
    if word == hosts.OLD:
        return "an old version: it acknowledges nothing"
    if word == "acknowledges":
        return "it acknowledges"
    return "its version is not known yet" if word == "-" else f"version {word}, it acknowledges"


def _agent(patient: Patient) -> Iterator[Finding]:
    """GuestAgent's last word, as guestServer heard it, and what is known of it."""
    answer = patient.answers["guestServer"]
    summary = answer.get("summary", {})
    silent, uptime = number(summary.get("agent_silent_secs")), number(answer.get("uptime_secs"))
    if silent is None or uptime is None:
        return
    address = summary.get("agent")
    subject = f"guestAgent at {cell(address)}" if address else "guestAgent"
    remedy = "guestctl doctor on the controller; it audits hosts that the VIM has enabled"
    known = {
        "version": summary.get("agent_version"),
        "acknowledges": summary.get("agent_acknowledges"),
    }
    missed = silent >= AGENT_SILENT_SECS and summary.get("instances")
    level = Level.WARNING if missed else Level.OK
    if summary.get("agent_has_spoken") is True or known["acknowledges"] is not None:
        text = f"last heard {duration(silent)} ago, {_version(hosts.version(known))}"
    else:
        text = f"has not been heard in the {duration(uptime)} since guestServer's start"
    yield Finding(level, subject, text, "" if level is Level.OK else remedy)


def _runs(daemon: str) -> Callable[[Patient], bool]:
    return lambda patient: daemon in patient.answers


def _has(daemon: str) -> Callable[[Patient], bool]:
    return lambda patient: patient.installed(daemon)


def _there(path: str) -> Callable[[Patient], bool]:
    return lambda patient: patient.exists(path)


def _always(_patient: Patient) -> bool:
    return True


# When each check makes sense, and the check.
CHECKS: tuple[tuple[Callable[[Patient], bool], Callable[[Patient], Iterable[Finding]]], ...] = (
    (_has("guestServer"), _daemon("guestServer")),
    (_has("guestServer"), _configuration("guestServer")),
    (_has("guestAgent"), _daemon("guestAgent")),
    (_has("guestAgent"), _configuration("guestAgent")),
    (_always, _names),
    (_has("guestServer"), _channels),
    (_has("guestServer"), _watches),
    (_runs("guestServer"), _descriptors),
    (_always, _syslog),
    (_always, _clock),
    (_there(PMON_DIRECTORY), _pmond),
    (_there(SM_DATABASE), _service_manager),
    (_there(VIM_CONF), _vim_plugin),
    (_runs("guestAgent"), _vim_port),
    (_runs("guestServer"), _agent),
    (_runs("guestAgent"), _workers),
)


def examine(patient: Patient) -> list[Finding]:
    """Return every finding, in the order of CHECKS."""
    if not (patient.installed("guestServer") or patient.installed("guestAgent")):
        remedy = "install mtce-guest-server on a worker, mtce-guest-agent on a controller"
        return [Finding(Level.CRITICAL, "packages", "neither daemon is installed here", remedy)]
    return [finding for applies, check in CHECKS if applies(patient) for finding in check(patient)]


def report(findings: Iterable[Finding], style: Style) -> list[str]:
    """Return the findings as text: a line each, the remedy on the next."""
    marks = {Level.OK: "healthy", Level.WARNING: "degraded", Level.CRITICAL: "down"}
    words = {Level.OK: "ok", Level.WARNING: "warn", Level.CRITICAL: "FAIL"}
    lines = []
    for finding in findings:
        word = style.mark(marks[finding.level], f"{words[finding.level]:<5}")
        lines.append(f"{word} {finding.subject}: {finding.text}")
        if finding.remedy:
            lines.append(f"      do: {finding.remedy}")
    return lines
