"""What each command of guestctl shows: asks the daemons, and makes lines of what they say."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from guestmtce.core.shared.condition import Condition
from guestmtce.core.shared.vocabulary import canonical_uuid
from guestmtce.ctl import details, doctor, events, hosts, instances, story, try_guest
from guestmtce.ctl.ask import FAILED, NOT_ALLOWED, OK, USAGE, Reply, complaint, exit_status, listed
from guestmtce.ctl.guest_link import Link, LinkError, guest_target
from guestmtce.ctl.guest_wire import WRONG
from guestmtce.ctl.patient import Patient
from guestmtce.ctl.screen import Screen
from guestmtce.ctl.table import Style, cell, wrapped

WATCH_SECS = 2.0
Lines = Iterator[str]

_NO_HOSTS = "knows its own host alone; guestAgent on the active controller knows all"


class Context(NamedTuple):
    """What a command works with.

    `ask` asks both daemons; `now` is the wall clock; `screen` is the terminal, None where the
    output goes elsewhere or is for a program.
    """

    options: argparse.Namespace
    root: str
    ask: Callable[[Mapping[str, object]], list[Reply]]
    style: Style
    now: Callable[[], float]
    screen: Screen | None = None

    @property
    def room(self) -> int | None:
        """How many columns the terminal has, as it is now."""
        return None if self.screen is None else self.screen.columns

    @property
    def as_json(self) -> bool:
        """Whether `--json` was given."""
        return "json" in self.options


class Shown(NamedTuple):
    """What a command prints, in the order of `lines`, and its exit status when all is printed.

    `complaint` goes to stderr. `in_place`: each line is a picture, drawn over the one before.
    """

    status: int
    lines: Lines
    complaint: str = ""
    in_place: bool = False


def _result(
    context: Context, replies: Sequence[Reply], shown: Mapping[str, Any], lines: Lines
) -> Shown:
    """Return what is shown, as JSON where that was asked for; nothing to show is a complaint."""
    return Shown(
        exit_status(replies, shown),
        to_json(shown) if context.as_json else lines,
        "" if shown else complaint(replies),
    )


def to_json(value: object, indent: int | None = 2) -> Lines:
    """Yield JSON in ASCII, so that a terminal is safe from all but DEL, which is escaped too."""
    yield json.dumps(value, indent=indent, default=str).replace("\x7f", "\\u007f")


def run_status(context: Context) -> Shown:
    """Show state, version and numbers of each daemon."""
    replies = context.ask({"command": "status"})
    shown: dict[str, Any] = {}
    for reply in replies:
        if reply.answer is None:
            shown[reply.daemon] = {"state": reply.state, "reason": reply.reason}
        else:
            state = "healthy" if reply.answer.get("healthy") is True else "degraded"
            shown[reply.daemon] = {"state": state, **reply.answer}
    healthy = all(entry["state"] in ("healthy", "absent") for entry in shown.values())
    status = exit_status(replies, listed(replies, "daemon"))
    if status == OK and not healthy:
        status = FAILED
    if context.as_json:
        return Shown(status, to_json(shown))
    return Shown(status, iter(details.status(shown, context.style)))


def run_instances(context: Context) -> Shown:
    """Show the instances of each daemon that knows any, what is wrong first."""
    options = context.options
    wanted = [Condition.LOST] * options.lost + [Condition.ILL] * options.ill
    replies = context.ask({"command": "instances"})
    shown = {
        daemon: instances.worst_first(
            instances.selected(rows, conditions=wanted, host=options.host)
        )
        for daemon, rows in listed(replies, "instances").items()
    }
    now = context.now()
    style, room = context.style, context.room

    def lines() -> Lines:
        for place, (daemon, rows) in enumerate(shown.items()):
            yield from [""] * bool(place)
            yield f"{style.mark('heading', daemon)}: {instances.summary(rows)}"
            if rows:
                yield from instances.lines(rows, options.columns, now, style, room)

    return _result(context, replies, shown, lines())


def run_hosts(context: Context) -> Shown:
    """Show the hosts that guestAgent knows, with when each was last heard."""
    replies = [
        reply._replace(answer={"error": _NO_HOSTS})
        if reply.daemon == "guestServer" and reply.answer is not None
        else reply
        for reply in context.ask({"command": "hosts"})
    ]
    shown = {daemon: hosts.worst_first(rows) for daemon, rows in listed(replies, "hosts").items()}
    now, style = context.now(), context.style

    def lines() -> Lines:
        for daemon, rows in shown.items():
            yield f"{style.mark('heading', daemon)}: {hosts.summary(rows)}"
            if rows:
                yield from hosts.lines(rows, now, style, context.room)

    return _result(context, replies, shown, lines())


class Found(NamedTuple):
    """What each daemon shows of the instance that was meant; or what was wrong, and how badly."""

    status: int
    shown: dict[str, Any]
    complaint: str


def _find(context: Context, asked: str) -> Found:
    uuid = canonical_uuid(asked)
    if uuid is None:
        replies = context.ask({"command": "instances"})
        lists = listed(replies, "instances")
        gone = listed(context.ask({"command": "past"}), "past") if lists else {}
        rows = [row for rows in (*gone.values(), *lists.values()) for row in rows]
        found = {str(row.get("uuid")): row for row in instances.matching(rows, asked)}
        if len(found) != 1:
            wrong = _no_single(asked, [*found.values()]) if lists else complaint(replies)
            return Found(FAILED if lists else exit_status(replies, {}), {}, wrong)
        uuid = next(iter(found))
    replies = context.ask({"command": "show", "uuid": uuid})
    shown = listed(replies, "instance")
    return Found(exit_status(replies, shown), shown, "" if shown else complaint(replies))


def _no_single(asked: str, found: Sequence[Mapping[str, object]]) -> str:
    if not found:
        lacking = f"guestctl: no instance has the name or UUID {cell(asked)}\n"
        return f"{lacking}guestctl: `guestctl instances` lists them\n"
    names = ", ".join(f"{cell(row.get('name'))} ({cell(row.get('uuid'))})" for row in found[:10])
    return f"guestctl: {cell(asked)} may be {len(found)} instances: {names}\n"


def run_show(context: Context) -> Shown:
    """Show all that each daemon knows of one instance."""
    return _about_one(context, details.show)


def _about_one(
    context: Context, render: Callable[[Mapping[str, Any], float, Style], list[str]]
) -> Shown:
    found = _find(context, context.options.instance)
    if context.as_json:
        lines = to_json(found.shown)
    else:
        lines = iter(render(found.shown, context.now(), context.style))
    return Shown(found.status, lines, found.complaint)


def run_why(context: Context) -> Shown:
    """Tell what happened to one instance."""
    return _about_one(context, story.why)


def run_events(context: Context) -> Shown:
    """Show what happened, and with `-f` what happens."""
    options = context.options
    since = context.now() - options.since if options.since is not None else None
    follower = events.Follower(context.ask, options.instance, since)
    teller = events.Teller(context.style, brief=context.screen is not None)
    told = [*follower.poll()]
    status = exit_status(follower.replies, listed(follower.replies, "events"))

    def lines() -> Lines:
        found: Sequence[tuple[str, Mapping[str, Any]]] = told
        while True:
            for daemon, event in found:
                if context.as_json:
                    yield from to_json({"daemon": daemon, **event}, indent=None)
                else:
                    yield from teller.lines(daemon, event)
            if not options.follow or status != OK:
                return
            time.sleep(events.FOLLOW_SECS)
            found = [*follower.poll()]

    return Shown(status, lines(), complaint(follower.replies) if status != OK else "")


def run_watch(context: Context) -> Shown:
    """Show the instances again and again: in place on a terminal, else one after the other."""
    first = run_instances(context)

    screen = context.screen

    def lines() -> Lines:
        shown = first
        # Without a terminal it ends with the daemons; a person who looks sees them come back.
        while shown.status == OK or screen is not None:
            text = [*shown.lines, *shown.complaint.splitlines()]
            yield "\n".join(text) if screen is None else screen.drawn(text)
            time.sleep(WATCH_SECS)
            shown = run_instances(context)

    if screen is None or first.status != OK:
        return Shown(first.status, lines() if first.status == OK else iter(()), first.complaint)
    return Shown(first.status, lines(), in_place=True)


def run_stats(context: Context) -> Shown:
    """Show the daemons' metrics, without the comments that Prometheus wants."""
    replies = context.ask({"command": "metrics"})
    shown = listed(replies, "metrics")
    lines = (
        cell(line)
        for text in shown.values()
        for line in str(text).splitlines()
        if not line.startswith("#")
    )
    return _result(context, replies, shown, lines)


def run_log_level(context: Context) -> Shown:
    """Set the daemons' debug level until they are started again."""
    replies = context.ask({"command": "log-level", "level": context.options.level})
    shown = listed(replies, "level")
    lines = (f"{daemon}: debug level {cell(level)}" for daemon, level in shown.items())
    return _result(context, replies, shown, lines)


def run_doctor(context: Context) -> Shown:
    """Look at everything that has to be right; the exit status is the worst finding's."""
    replies = context.ask({"command": "status"})
    if any(reply.state == "forbidden" for reply in replies):
        return Shown(NOT_ALLOWED, iter(()), complaint(replies))
    fleet = listed(context.ask({"command": "hosts"}), "hosts")
    answers = {
        reply.daemon: {**reply.answer, "hosts": fleet.get(reply.daemon, ())}
        for reply in replies
        if reply.answer is not None
    }
    states = {reply.daemon: reply.state for reply in replies}
    patient = Patient(context.root, answers, states, context.now())
    findings = doctor.examine(patient)
    status = max((int(finding.level) for finding in findings), default=0)
    if context.as_json:
        return Shown(status, to_json([finding.for_operator() for finding in findings]))
    return Shown(status, iter(doctor.report(findings, context.style)))


def run_try_guest(context: Context) -> Shown:
    """Play a host against a guest client; a row is printed when it has been tried."""
    try:
        link = Link(guest_target(context.options.target))
    except LinkError as error:
        return Shown(USAGE, iter(()), f"guestctl: {error}\n")
    rows = []
    try:
        for finding in try_guest.findings(link):
            rows.append(finding._asdict())
            if not context.as_json:
                line = try_guest.line(finding, context.style)
                room = context.room
                print(*(wrapped(line, room) if room else [line]), sep="\n", flush=True)  # noqa: T201 - a row as it comes
    finally:
        link.end()
    status = FAILED if any(row["mark"] == WRONG for row in rows) else OK
    return Shown(status, to_json(rows) if context.as_json else iter(()))


COMMANDS: dict[str, Callable[[Context], Shown]] = {
    "status": run_status,
    "instances": run_instances,
    "hosts": run_hosts,
    "show": run_show,
    "why": run_why,
    "events": run_events,
    "watch": run_watch,
    "stats": run_stats,
    "log-level": run_log_level,
    "doctor": run_doctor,
    "try-guest": run_try_guest,
}
