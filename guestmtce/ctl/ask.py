"""Asking the daemons of this host, by way of their control sockets.

May block, for a few seconds at most: guestctl is a command, not a daemon.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from guestmtce.ctl.table import cell
from guestmtce.runtime import control
from guestmtce.runtime.own_files import run_path

DAEMONS = ("guestServer", "guestAgent")

OK, FAILED, USAGE, NOTHING_RUNS, NOT_ALLOWED = 0, 1, 2, 3, 4

# What only a daemon that was not stopped leaves in /var/run. A daemon that was, by SM on a
# controller that is standby now, is not missed.
_RUN_FILES = ("pid", "ctl")
# Of seconds since 1970: beyond the year 9999.
_LARGEST = 1e12


class Reply(NamedTuple):
    """What came of asking one daemon. `answer` is None unless it answered.

    `state` is "answered"; "silent" (runs, but does not answer); "forbidden" (only root may
    ask); "down" (it ended without having been stopped); or "absent".
    """

    daemon: str
    state: str
    answer: dict[str, Any] | None
    reason: str


def ask_daemon(root: str, daemon: str, request: Mapping[str, object]) -> Reply:
    """Ask one daemon; what goes wrong is in the reply."""
    path = run_path(root, daemon, "ctl")
    try:
        answer = control.ask(path, request)
    except (FileNotFoundError, ConnectionRefusedError):
        if any(os.path.exists(run_path(root, daemon, suffix)) for suffix in _RUN_FILES):
            return Reply(daemon, "down", None, "it ended without having been stopped")
        return Reply(daemon, "absent", None, "does not run")
    except PermissionError as error:
        return Reply(daemon, "forbidden", None, f"{error.strerror}: run guestctl as root")
    except OSError as error:
        return Reply(daemon, "silent", None, error.strerror or str(error))
    except ValueError as error:
        return Reply(daemon, "silent", None, str(error))
    return Reply(daemon, "answered", checked(answer), "")


def ask_all(root: str, request: Mapping[str, object]) -> list[Reply]:
    """Ask both daemons the same."""
    return [ask_daemon(root, daemon, request) for daemon in DAEMONS]


# What guestctl goes by in an answer. What is of another type is passed over: the daemon may be of
# another version.
_ANSWER: dict[str, type] = {
    "problems": list,
    "summary": dict,
    "instances": list,
    "hosts": list,
    "past": list,
    "events": list,
    "instance": dict,
    "next": int,
    "metrics": str,
    "level": int,
}
_INSTANCE: dict[str, type] = {"history": list, "exchanges": list}
_ROW: dict[str, type] = {"number": int}
_LISTS_OF_TEXT = frozenset({"problems"})


def checked(answer: Mapping[str, Any], types: Mapping[str, type] = _ANSWER) -> dict[str, Any]:
    """Return an answer without the members, and the rows of its lists, that are of a wrong type."""
    kept: dict[str, Any] = {}
    for key, value in answer.items():
        if not _is_a(value, types.get(key)):
            continue
        if key == "instance":
            kept[key] = checked(value, _INSTANCE)
        elif types.get(key) is list and key not in _LISTS_OF_TEXT:
            kept[key] = [checked(row, _ROW) for row in value if isinstance(row, dict)]
        else:
            kept[key] = value
    return kept


def _is_a(value: object, wanted: type | None) -> bool:
    return wanted is None or isinstance(value, wanted)


def number(value: object) -> float | None:
    """Return a number that a person can be told of, None for anything else."""
    if isinstance(value, (int, float)) and abs(value) < _LARGEST:
        return float(value)
    return None


def listed(replies: Sequence[Reply], member: str) -> dict[str, Any]:
    """Return by daemon what it has under `member` of its answer."""
    return {
        reply.daemon: reply.answer[member]
        for reply in replies
        if reply.answer is not None and member in reply.answer
    }


def exit_status(replies: Sequence[Reply], shown: Mapping[str, object]) -> int:
    """Return the exit status of a command that shows something."""
    if shown:
        return OK
    if any(reply.state == "forbidden" for reply in replies):
        return NOT_ALLOWED
    if all(reply.state in ("down", "absent") for reply in replies):
        return NOTHING_RUNS
    return FAILED


def complaint(replies: Sequence[Reply]) -> str:
    """Return why there is nothing to show, a line for each daemon."""
    return "".join(
        f"guestctl: {reply.daemon}: {cell(reason)}\n"
        for reply in replies
        for reason in [reply.answer.get("error") if reply.answer else reply.reason]
        if reason
    )
