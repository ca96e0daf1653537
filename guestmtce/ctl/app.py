"""guestctl: what the daemons on this host say of themselves (operations.md, guestctl).

Talks to whichever of guestServer and guestAgent run here, by way of their control sockets.
May block: it is a command, not a daemon.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from guestmtce import __version__
from guestmtce.ctl.table import Style, cell, fields, table
from guestmtce.runtime import control, files

DAEMONS = ("guestServer", "guestAgent")

OK, FAILED, NOTHING_RUNS = 0, 1, 3

_INSTANCE_COLUMNS = (
    "uuid",
    "host",
    "name",
    "state",
    "connected",
    "reporting",
    "heartbeating",
    "interval_ms",
)
_HOST_COLUMNS = ("hostname", "uuid", "ip", "personality", "reporting", "instances")

# What only a daemon that was not stopped leaves in /var/run. A daemon that was, by SM on a
# controller that is standby now, is not missed.
_RUN_FILES = ("pid", "ctl")

# Written out, because argparse breaks the longer names off from their texts.
_EPILOG = """\
commands:
  status      state, version and numbers of each daemon
  instances   the instances, in a table
  hosts       the hosts that guestAgent knows, in a table
  show UUID   all that is known of one instance

exit status:
  0  done; for status: every daemon that was started here, and not stopped, is healthy
  1  status: a daemon is down or degraded; otherwise: not found, or no answer
  2  wrong usage
  3  neither daemon runs
"""


class Reply(NamedTuple):
    """What came of asking one daemon. `answer` is None unless it answered.

    `state` is "answered"; "silent" (runs, but does not answer, or not to us); "down" (it
    ended without having been stopped); or "absent".
    """

    daemon: str
    state: str
    answer: dict[str, Any] | None
    reason: str


def ask_daemon(root: str, daemon: str, request: Mapping[str, Any]) -> Reply:
    """Ask one daemon; what goes wrong is in the reply."""
    path = files.under(root, f"/var/run/{daemon}.ctl")
    try:
        answer = control.ask(path, dict(request))
    except (FileNotFoundError, ConnectionRefusedError):
        known = any(
            os.path.exists(files.under(root, f"/var/run/{daemon}.{suffix}"))
            for suffix in _RUN_FILES
        )
        if known:
            return Reply(daemon, "down", None, "it ended without having been stopped")
        return Reply(daemon, "absent", None, "does not run")
    except OSError as error:
        return Reply(daemon, "silent", None, error.strerror or str(error))
    except ValueError as error:
        return Reply(daemon, "silent", None, str(error))
    return Reply(daemon, "answered", answer, "")


def status(replies: Sequence[Reply]) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and by daemon what it said of itself and its state.

    The state is "healthy", "degraded", or, of one that did not answer, that of the reply.
    """
    shown: dict[str, Any] = {}
    for reply in replies:
        if reply.answer is None:
            shown[reply.daemon] = {"state": reply.state, "reason": reply.reason}
        else:
            state = "healthy" if reply.answer.get("healthy") is True else "degraded"
            shown[reply.daemon] = {"state": state, **reply.answer}
    healthy = all(entry["state"] in ("healthy", "absent") for entry in shown.values())
    return (OK if healthy else FAILED), shown


def listed(replies: Sequence[Reply], member: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and by daemon what it has under `member` of its answer."""
    shown = {
        reply.daemon: reply.answer[member]
        for reply in replies
        if reply.answer is not None and member in reply.answer
    }
    return (OK if shown else FAILED), shown


def status_lines(shown: Mapping[str, Any], style: Style) -> list[str]:
    """Return `status` as text: a line for each daemon, its numbers below."""
    lines: list[str] = []
    for daemon, entry in shown.items():
        if lines:
            lines.append("")
        state = entry["state"]
        about = cell(entry.get("reason"))
        if "pid" in entry:
            uptime = duration(entry.get("uptime_secs"))
            about = f"pid {cell(entry['pid'])}, version {cell(entry.get('version'))}, up {uptime}"
        lines.append(f"{style.mark('heading', daemon)}: {style.mark(state, state)} ({about})")
        lines += [f"  problem: {cell(problem)}" for problem in entry.get("problems", ())]
        lines += fields(entry.get("summary", {}), "  ")
    return lines


def duration(seconds: object) -> str:
    """Return a number of seconds as an operator would say it: `3 d 4 h`, `5 min 6 s`."""
    if not isinstance(seconds, (int, float)):
        return "?"
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (secs, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])


def instance_lines(shown: Mapping[str, Any], style: Style) -> list[str]:
    """Return `instances` as text: a table for each daemon, as they may differ."""
    return _tables(shown, _INSTANCE_COLUMNS, style)


def host_lines(shown: Mapping[str, Any], style: Style) -> list[str]:
    """Return `hosts` as text."""
    return _tables(shown, _HOST_COLUMNS, style)


def _tables(shown: Mapping[str, Any], columns: Sequence[str], style: Style) -> list[str]:
    lines: list[str] = []
    for daemon, rows in shown.items():
        if lines:
            lines.append("")
        lines.append(f"{style.mark('heading', daemon)}: {len(rows)}")
        lines += table(rows, columns, style) if rows else []
    return lines


def show_lines(shown: Mapping[str, Any], style: Style) -> list[str]:
    """Return `show` as text: all that each daemon knows of the instance."""
    lines: list[str] = []
    for daemon, entry in shown.items():
        if lines:
            lines.append("")
        lines += [style.mark("heading", daemon), *fields(entry, "  ")]
    return lines


class Command(NamedTuple):
    """How to make something of the replies: as data, and the data as text."""

    data: Callable[[Sequence[Reply]], tuple[int, dict[str, Any]]]
    text: Callable[[Mapping[str, Any], Style], list[str]]


COMMANDS = {
    "status": Command(status, status_lines),
    "instances": Command(lambda replies: listed(replies, "instances"), instance_lines),
    "hosts": Command(lambda replies: listed(replies, "hosts"), host_lines),
    "show": Command(lambda replies: listed(replies, "instance"), show_lines),
}


def build_parser() -> argparse.ArgumentParser:
    """Return guestctl's parser; --root and --json may stand before or after the command."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--root", metavar="DIR", help="prefix of every path, as of the daemons")
    common.add_argument("--json", action="store_true", help="print JSON, a member for each daemon")
    parser = argparse.ArgumentParser(
        prog="guestctl",
        usage="guestctl [-h] [--version] [--root DIR] [--json] COMMAND",
        description="Show what guestServer and guestAgent on this host know.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"guestctl {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="guestctl", help=argparse.SUPPRESS
    )
    for name in COMMANDS:
        command = commands.add_parser(name, parents=[common])
        if name == "show":
            command.add_argument("uuid", metavar="UUID")
    return parser


def run(arguments: argparse.Namespace, style: Style) -> tuple[int, str, str]:
    """Do what the command line says; return exit status, output, and complaint."""
    request = {"command": arguments.command}
    if arguments.command == "show":
        request["uuid"] = arguments.uuid.lower()
    root = os.path.abspath(arguments.root) if "root" in arguments else ""
    replies = [ask_daemon(root, daemon, request) for daemon in DAEMONS]
    command = COMMANDS[arguments.command]
    code, shown = command.data(replies)
    if all(reply.state in ("down", "absent") for reply in replies):
        code = NOTHING_RUNS
    lines = [_json(shown)] if "json" in arguments else command.text(shown, style)
    output = "".join(line + "\n" for line in lines)
    return code, output, "" if shown else _complaint(replies)


def _json(value: object) -> str:
    # ASCII, so that a terminal is safe from all but DEL, which JSON leaves as it is.
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def _complaint(replies: Sequence[Reply]) -> str:
    """Return why there is nothing to show, a line for each daemon."""
    return "".join(
        f"guestctl: {reply.daemon}: {cell(reason)}\n"
        for reply in replies
        for reason in [reply.answer.get("error") if reply.answer else reply.reason]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run guestctl; return its exit status."""
    chosen = build_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    code, output, complaint = run(chosen, Style(colour=_wants_colour()))
    sys.stderr.write(complaint)
    try:
        sys.stdout.write(output)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`); nor may the exit handlers write to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _wants_colour() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain
