"""The command line that both daemons share (operations.md, Command line).

Replaces daemon_option and its getopt string.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from guestmtce.runtime.version import ShowVersion

# Of the old daemons; scripts still pass them.
LEGACY_LETTERS = "apVtgmncui"
_OWN_LETTERS = "flvh"
_OWN_WITH_VALUE = ("-d", "--debug", "--root")

_EPILOG = """\
Of the old daemon's options -a -p -V -t -g -m -n -c -u -i are accepted, with or without a
value, and ignored with a warning.

files:
{files}

signals:
  SIGTERM, SIGINT  stop within 2 seconds, exit status 0
  SIGHUP           read the configuration again; a broken one changes nothing
  SIGUSR1          write the health file
  SIGUSR2          write the state dump, and log it

exit status:
  0  the daemon has started (the parent's), or was stopped (the daemon's), or the
     configuration is right (--check-config)
  1  it cannot start, with the reason on stderr, or the configuration is wrong
  2  wrong usage
  3  the daemon does not run (--pid)
"""

_FILES = (
    ("/etc/mtc/{name}.ini", "configuration"),
    ("/etc/platform/platform.conf", "management_interface of this host"),
    ("/etc/hosts", "names; no other look-up is made"),
    ("/var/run/{name}.pid", "process id"),
    ("/var/run/{name}.lock", "locked while the daemon runs"),
    ("/var/run/{name}.info", "health file: configuration and summary"),
    ("/var/run/{name}.dump", "state as JSON, on request"),
    ("/var/run/{name}.ctl", "control socket, for guestctl"),
    ("/var/log/{name}.log", "log, by way of syslog (local5) if there is /dev/log"),
    ("/var/log/mtce-guest", "what happened to instances; guestctl why tells it"),
)


@dataclass(frozen=True)
class Options:
    """What the command line says. `debug` is None where the ini decides."""

    foreground: bool = False
    syslog: bool = False
    debug: int | None = None
    verbose: bool = False
    root: str = ""
    check_config: bool = False
    pid: bool = False
    ignored: tuple[str, ...] = ()


def build_parser(name: str, purpose: str = "") -> argparse.ArgumentParser:
    """Return the parser of daemon `name`; `purpose` is what it is for, in a sentence or two."""
    parser = argparse.ArgumentParser(
        prog=name,
        description=purpose or None,
        epilog=_EPILOG.format(files=_files(name)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    add("-f", "--foreground", action="store_true", help="stay in the foreground, log to stderr")
    add("-l", "--log", action="store_true", dest="syslog", help="log to syslog as well with -f")
    add("-d", "--debug", type=_level, metavar="N", help="debug level, over that of the ini")
    add("-v", "--verbose", action="store_true", help="print the effective configuration first")
    add("-h", "--help", action="help", help="print this and exit")
    add("--version", action=ShowVersion, help="print version and commit, and exit")
    add("--root", type=root, metavar="DIR", help="prefix of every path below (default: /)")
    add(
        "--check-config",
        action="store_true",
        help="read everything, print the configuration and every problem, exit 0 or 1",
    )
    add(
        "--pid",
        action="store_true",
        help="print the pid of the daemon that runs, by its lock, and exit 0; 3 if none runs",
    )
    return parser


def _files(name: str) -> str:
    rows = [(path.format(name=name), text) for path, text in _FILES]
    return "\n".join(f"  {path:<28} {text}" for path, text in rows)


def parse(name: str, arguments: Sequence[str], purpose: str = "") -> Options:
    """Return the options; on wrong usage prints it and raises SystemExit(2)."""
    own, ignored = split_legacy(arguments)
    values = vars(build_parser(name, purpose).parse_args(own))
    # The default is no argument to convert: argparse would apply `root` to "", the directory
    # that we were started in.
    values["root"] = values["root"] or ""
    return Options(ignored=tuple(ignored), **values)


def split_legacy(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (our arguments, the old daemon's options), the values of the latter left out.

    The old daemons took no operand, so what follows one of their options and does not begin
    with a dash is its value. In a cluster (`-alf`) each letter counts for itself; letters
    that are no options are the value of the one before them (`-n5`).
    """
    own: list[str] = []
    ignored: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in _OWN_WITH_VALUE:
            own += [argument, *rest[:1]]
            del rest[:1]
        elif argument == "-" or argument[:1] != "-" or argument[:2] == "--":
            own.append(argument)
        elif _take_cluster(argument[1:], own, ignored) and rest and not rest[0].startswith("-"):
            del rest[0]
    return own, ignored


def _take_cluster(letters: str, own: list[str], ignored: list[str]) -> bool:
    """Sort a cluster's letters; return whether its last one is the old daemon's, without value."""
    for index, letter in enumerate(letters):
        if letter in LEGACY_LETTERS:
            ignored.append(f"-{letter}")
        elif letter in _OWN_LETTERS:
            own.append(f"-{letter}")
        elif letter != "d" and index and letters[index - 1] in LEGACY_LETTERS:
            return False
        else:
            # -d with its value, or an unknown option for the parser to refuse.
            own.append("-" + letters[index:])
            return False
    return bool(letters) and letters[-1] in LEGACY_LETTERS


def _level(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a debug level: {text!r}")
    return int(text)


def root(text: str) -> str:
    """Return the root that `--root text` means: absolute, as the daemon changes to `/`.

    "" and "/" mean that paths have no prefix. Raises argparse.ArgumentTypeError.
    """
    path = os.path.abspath(text or "/")
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"no such directory: {text!r}")
    return "" if path == "/" else path
