"""guestctl: what the daemons on this host know, and why (operations.md, guestctl).

Talks to whichever of guestServer and guestAgent run here, by way of their control sockets.
May block: it is a command, not a daemon.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress

from guestmtce.ctl import events, instances
from guestmtce.ctl.ask import FAILED, OK, Reply, ask_all
from guestmtce.ctl.commands import COMMANDS, Context, Shown
from guestmtce.ctl.screen import Screen
from guestmtce.ctl.table import Style, wrapped
from guestmtce.runtime.options import root as existing_root
from guestmtce.runtime.version import ShowVersion

# Written out, because argparse breaks the longer names off from their texts.
_EPILOG = """\
commands:
  status              state, version and numbers of each daemon
  instances           the instances, what is wrong first: [--lost] [--ill]
                      [--host NAME] [-o wide | -o COLUMN,...]
  hosts               the hosts that guestAgent knows
  show INSTANCE       all that is known of one instance
  why INSTANCE        what happened to it, as a story with times
  events [INSTANCE]   what happened, [-f] as it happens, [--since 1h]
  watch               the instances, again every two seconds
  stats               the daemons' metrics
  log-level N         debug level of the daemons, until their next start
  doctor              what has to be right on this host, and what to do if not
  try-guest SOCKET    plays a host against the guest client at SOCKET, or
  try-guest -- COMMAND  against one that it starts; {socket} or {device} in
                      COMMAND is its port

An INSTANCE is named by its name, its UUID, or the beginning of either.

exit status:
  0  done; status: every daemon that was started here, and not stopped, is
     healthy
  1  status: a daemon is down or degraded; doctor: a warning;
     try-guest: a rule is broken; otherwise: not found, no answer, or the
     output cannot be written
  2  wrong usage; doctor: something that must be right is wrong
  3  neither daemon runs
  4  permission denied: run it as root
"""


def build_parser() -> argparse.ArgumentParser:
    """Return guestctl's parser; --root and --json may stand before or after the command."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--root", type=existing_root, metavar="DIR", help="prefix of every path, as of the daemons"
    )
    common.add_argument("--json", action="store_true", help="print JSON, a member for each daemon")
    parser = argparse.ArgumentParser(
        prog="guestctl",
        usage="guestctl [-h] [--version] [--root DIR] [--json] COMMAND",
        description="Show what guestServer and guestAgent on this host know.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="guestctl", help=argparse.SUPPRESS
    )
    parsers = {name: commands.add_parser(name, parents=[common]) for name in COMMANDS}
    for name in ("show", "why"):
        parsers[name].add_argument("instance", metavar="INSTANCE")
    for name in ("instances", "watch"):
        add = parsers[name].add_argument
        add("--lost", action="store_true", help="only those that are lost")
        add("--ill", action="store_true", help="only those that say that they are ill")
        add("--host", metavar="NAME", help="only those on this host")
        add("-o", dest="columns", metavar="COLUMNS", type=_columns, help="wide, or column names")
    parsers["events"].add_argument("instance", metavar="INSTANCE", nargs="?")
    parsers["events"].add_argument("-f", "--follow", action="store_true", help="as they happen")
    parsers["events"].add_argument(
        "--since", metavar="SPAN", type=_span, help="such as 90s, 10m, 1h, 2d"
    )
    parsers["try-guest"].add_argument("target", nargs=argparse.REMAINDER)
    parsers["log-level"].add_argument("level", metavar="N", type=int, choices=range(8))
    return parser


def _columns(text: str) -> str:
    try:
        instances.columns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _span(text: str) -> float:
    try:
        return events.parse_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(options: argparse.Namespace, style: Style, screen: Screen | None = None) -> Shown:
    """Do what the command line says."""
    root = options.root if "root" in options else ""

    def ask(request: Mapping[str, object]) -> list[Reply]:
        return ask_all(root, request)

    context = Context(options, root, ask, style, time.time, screen)
    return COMMANDS[options.command](context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run guestctl; return its exit status."""
    chosen = build_parser().parse_args(arguments)
    if sys.stdout is None:  # Python's, where the descriptor is closed
        _complain("guestctl: cannot write the output: it is closed\n")
        return FAILED
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    screen = Screen() if sys.stdout.isatty() and "json" not in chosen else None
    shown = Shown(OK, iter(()))
    try:
        shown = run(chosen, Style(colour=_wants_colour()), screen)
        _complain(shown.complaint)
        with screen.taken_over(sys.stdout) if screen and shown.in_place else nullcontext():
            for line in shown.lines:
                _print(line, screen, shown)
                if chosen.command in ("events", "watch"):
                    sys.stdout.flush()
            sys.stdout.flush()
    except KeyboardInterrupt:
        return OK
    except BrokenPipeError:
        _drop_output()  # the reader has seen enough (`| head`)
        return shown.status
    except OSError as error:
        _drop_output()
        _complain(f"guestctl: cannot write the output: {error.strerror}\n")
        return FAILED
    return shown.status


def _complain(text: str) -> None:
    """Write to stderr, if that takes it: nobody can be told otherwise."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _print(line: str, screen: Screen | None, shown: Shown) -> None:
    """Print a line; on a terminal that is too narrow for it, break it between words."""
    parts = [line] if screen is None or shown.in_place else wrapped(line, screen.columns)
    sys.stdout.writelines(part + "\n" for part in parts)


def _drop_output() -> None:
    """Let the exit handlers not write to an output that does not take it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wants_colour() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain
