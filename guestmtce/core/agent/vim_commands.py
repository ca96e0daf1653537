"""The VIM's commands: a request comes out as a typed VimCommand, or as the error it deserves.

The one home of the command API's paths, methods and reasons: `ROUTES` is what the parser goes by,
and what docs/openapi.json describes. Everything is checked here, before anything is changed
(http-api.md, "Commands"). Replaces the string handling of guestHttpSvr.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple
from urllib.parse import urlsplit

from guestmtce.core.agent.vim_messages import heartbeat_service, load_object, switch
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import EVENTS, HEARTBEAT_SERVICE, Event, canonical_uuid

USER_AGENT = "vim/1.0"
HOSTNAME_LIMIT = 255
DETAIL_LIMIT = 300


class Reason(str, Enum):
    """Why a command failed, in the words of http-api.md, "Errors"."""

    PARSE_ERROR = "command parse error"
    NO_BUFFER = "no buffer"
    NOT_FOUND = "entity not found"
    INVALID_DATA = "invalid data"
    BAD_STATE = "bad state"
    UNSUPPORTED = "unsupported http command"


class CommandError(PeerError):
    """A command that is answered with the error `status` and the `reason` that the VIM knows.

    `detail` says to people what is wrong, `allow` are the methods that a 405 offers.
    """

    reason: Reason

    def __init__(
        self, status: int, reason: Reason, detail: str, allow: tuple[str, ...] | None = None
    ) -> None:
        self.detail = printable(detail, DETAIL_LIMIT)
        super().__init__(reason, self.detail)
        self.status = status
        self.allow = allow


class Operation(Enum):
    """What the VIM (or an operator) wants."""

    HOST_CREATE = "host create"
    HOST_ENABLE = "host enable"
    HOST_DISABLE = "host disable"
    HOST_QUERY = "host query"
    HOST_DELETE = "host delete"
    INSTANCE_CREATE = "instance create"
    INSTANCE_SET = "instance set"
    INSTANCE_QUERY = "instance query"
    INSTANCE_DELETE = "instance delete"
    INSTANCE_VOTE = "instance vote"
    INSTANCE_NOTIFY = "instance notify"
    LIST_HOSTS = "hosts"
    LIST_INSTANCES = "instances"
    METRICS = "metrics"
    PAGE = "page"
    EVENTS = "events"


class VimCommand(NamedTuple):
    """A checked request. What its operation has no use for is left at the default.

    `everything`: the status page shows all instances, not the worst alone (`/?all`).
    `last_event`: the last one that a follower of the events got before it lost them. `by`: which
    local user sends it, if that was looked up.
    """

    operation: Operation
    uuid: str = ""
    hostname: str = ""
    reporting: bool = False
    event: Event | None = None
    everything: bool = False
    last_event: str = ""
    by: str = "unknown"

    def __str__(self) -> str:
        """Return what is set to what, for the log."""
        words = [f"{self.operation.value} {self.uuid}"]
        if self.hostname:
            words.append(f"host {printable(self.hostname)}")
        if self.operation is Operation.INSTANCE_SET:
            words.append(f"reporting {'on' if self.reporting else 'off'}")
        if self.event is not None:
            words.append(self.event.value)
        return ", ".join(words)


class Body(Enum):
    """Whether a request has a body that is read."""

    IGNORED = "ignored"
    OPTIONAL = "optional"
    NEEDED = "needed"


class Route(NamedTuple):
    """A method at a path, the operation that it means, and the `answers` of that operation.

    `{uuid}` stands for a UUID.
    """

    method: str
    path: str
    operation: Operation
    body: Body
    answers: tuple[int, ...]

    @property
    def statuses(self) -> frozenset[int]:
        """What a request of this method and path can be answered with.

        Besides, any request may be answered 500 or 503, or be refused by
        `core.shared.http_framing`.
        """
        checked = {400} if "{uuid}" in self.path else set()
        missing = {411} if self.body is Body.NEEDED else set()
        return frozenset({*self.answers, 403, *checked, *missing})


_HOST = "/v1/hosts/{uuid}"
_INSTANCE = "/v1/instances/{uuid}"
ROUTES = (
    Route("GET", "/v1/hosts", Operation.LIST_HOSTS, Body.IGNORED, (200,)),
    Route("GET", "/v1/instances", Operation.LIST_INSTANCES, Body.IGNORED, (200,)),
    Route("GET", "/metrics", Operation.METRICS, Body.IGNORED, (200,)),
    Route("GET", "/", Operation.PAGE, Body.IGNORED, (200,)),
    Route("GET", "/v1/events", Operation.EVENTS, Body.IGNORED, (200,)),
    Route("GET", _HOST, Operation.HOST_QUERY, Body.IGNORED, (200, 404)),
    Route("POST", _HOST, Operation.HOST_CREATE, Body.OPTIONAL, (200, 404)),
    Route("DELETE", _HOST, Operation.HOST_DELETE, Body.IGNORED, (204,)),
    Route("PUT", f"{_HOST}/enable", Operation.HOST_ENABLE, Body.NEEDED, (200, 404)),
    Route("PUT", f"{_HOST}/disable", Operation.HOST_DISABLE, Body.NEEDED, (200, 404)),
    # The VIM's query really uses this path.
    Route("GET", f"{_HOST}/disable", Operation.HOST_QUERY, Body.IGNORED, (200, 404)),
    Route("GET", _INSTANCE, Operation.INSTANCE_QUERY, Body.IGNORED, (200, 404)),
    Route("POST", _INSTANCE, Operation.INSTANCE_CREATE, Body.NEEDED, (200,)),
    Route("PATCH", _INSTANCE, Operation.INSTANCE_SET, Body.NEEDED, (200, 404)),
    Route("DELETE", _INSTANCE, Operation.INSTANCE_DELETE, Body.IGNORED, (204, 404)),
    Route("POST", f"{_INSTANCE}/vote", Operation.INSTANCE_VOTE, Body.NEEDED, (200, 404)),
    Route("POST", f"{_INSTANCE}/notify", Operation.INSTANCE_NOTIFY, Body.NEEDED, (200, 404)),
)

_METHODS: dict[str, dict[str, Route]] = {}  # path → method → route
for _each in ROUTES:
    _METHODS.setdefault(_each.path, {})[_each.method] = _each

_OUR_HOST = re.compile(
    r"(?:[^.:\[\]/\s]+|(?:[^:/\s]+\.)?localhost|[0-9.]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?",
    re.IGNORECASE,
)
_ONE = re.compile(r"(?P<all>/v1/(?:hosts|instances))/(?P<name>[^/]*)(?:/(?P<verb>.*))?", re.DOTALL)


def parse_command(method: str, target: str, headers: Mapping[str, str], body: bytes) -> VimCommand:
    """Return the command in a request; raises CommandError. HEAD is read as GET."""
    _check_host(headers.get("host", ""))
    path, query = _split(target)
    if path in _METHODS:
        operation = _route(path, method).operation
        last_event = headers.get("last-event-id", "")
        return VimCommand(operation, everything=query == "all", last_event=last_event)
    agent = headers.get("user-agent", USER_AGENT)
    if agent != USER_AGENT:
        detail = f"unsupported User-Agent {agent}: {USER_AGENT} or none is taken"
        raise CommandError(403, Reason.UNSUPPORTED, detail)
    match = _ONE.fullmatch(path)
    if match is None:
        raise CommandError(403, Reason.UNSUPPORTED, f"no such path: {path}")
    uuid = canonical_uuid(match["name"])
    if uuid is None:
        raise CommandError(400, Reason.INVALID_DATA, f"not a UUID in the path: {match['name']}")
    verb = f"/{match['verb']}" if match["verb"] else ""
    route = _route(f"{match['all']}/{{uuid}}{verb}", method)
    if route.body is Body.NEEDED and not body:
        raise CommandError(411, Reason.NO_BUFFER, "no body: a JSON object is needed")
    command = VimCommand(route.operation, uuid)
    if route.body is Body.IGNORED or not body:
        return command
    return _BODIES[route.operation](command, _object_about(uuid, body))


def _check_host(host: str) -> None:
    """Refuse a Host that is a stranger's name.

    A web page whose name was made to lead to this port (DNS rebinding) would have a browser on
    this host read the lists, and command. Such a name has a dot; the VIM calls `localhost`.
    """
    if host and _OUR_HOST.fullmatch(host) is None:
        detail = f"unknown Host {host}: an address, localhost or a name without a dot is taken"
        raise CommandError(403, Reason.UNSUPPORTED, detail)


def _split(target: str) -> tuple[str, str]:
    """Return path and query of a request's target, "" where it has none of ours.

    The target is a path or a URL, either with or without a query.
    """
    try:
        url = urlsplit(target)
    except ValueError:
        return "", ""
    return (url.path, url.query) if url.scheme in ("", "http", "https") else ("", "")


def _route(path: str, method: str) -> Route:
    routes = _METHODS.get(path, {})
    route = routes.get("GET" if method == "HEAD" else method)
    if route is None:
        allow = sorted([*routes, "HEAD"] if "GET" in routes else routes)
        detail = f"{method} is not taken here, but {', '.join(allow)}" if allow else "no such path"
        raise CommandError(405, Reason.UNSUPPORTED, detail, tuple(allow))
    return route


_NO_SERVICE = f"no {HEARTBEAT_SERVICE} among the services"


def _object_about(uuid: str, body: bytes) -> dict[str, object]:
    try:
        members = load_object(body)
    except PeerError:
        raise CommandError(400, Reason.PARSE_ERROR, "the body is no JSON object") from None
    if canonical_uuid(_text(members, "uuid")) != uuid:
        raise CommandError(400, Reason.INVALID_DATA, "uuid differs from the path's")
    return members


def _text(members: Mapping[str, object], key: str) -> str:
    value = members.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= HOSTNAME_LIMIT:
        detail = f"{key} is no text of 1 to {HOSTNAME_LIMIT} characters"
        raise CommandError(400, Reason.PARSE_ERROR, detail)
    return value


def _list(members: Mapping[str, object], key: str) -> list[object]:
    value = members.get(key)
    if not isinstance(value, list):
        raise CommandError(400, Reason.PARSE_ERROR, f"{key} is no list")
    return value


def _host_body(command: VimCommand, members: dict[str, object]) -> VimCommand:
    return command._replace(hostname=_text(members, "hostname"))


def _create_body(command: VimCommand, members: dict[str, object]) -> VimCommand:
    hostname = _text(members, "hostname")
    names = [
        service.get("service") if isinstance(service, dict) else service
        for service in _list(members, "services")
    ]
    if HEARTBEAT_SERVICE not in names:
        raise CommandError(400, Reason.INVALID_DATA, _NO_SERVICE)
    return command._replace(hostname=hostname)


def _set_body(command: VimCommand, members: dict[str, object]) -> VimCommand:
    hostname = _text(members, "hostname")
    service = heartbeat_service(_list(members, "services"))
    if service is None:
        raise CommandError(400, Reason.INVALID_DATA, _NO_SERVICE)
    reporting = switch(service.get("state"))
    if reporting is None:
        raise CommandError(400, Reason.BAD_STATE, "state is neither enabled nor disabled")
    return command._replace(hostname=hostname, reporting=reporting)


def _vote_body(command: VimCommand, members: dict[str, object]) -> VimCommand:
    hostname = _text(members, "hostname")
    action = _text(members, "action")
    event = EVENTS.get(action)
    if event is None:
        raise CommandError(400, Reason.INVALID_DATA, f"unknown action {action}")
    return command._replace(hostname=hostname, event=event)


_BODIES = {
    Operation.HOST_CREATE: _host_body,
    Operation.HOST_ENABLE: _host_body,
    Operation.HOST_DISABLE: _host_body,
    Operation.INSTANCE_CREATE: _create_body,
    Operation.INSTANCE_SET: _set_body,
    Operation.INSTANCE_VOTE: _vote_body,
    Operation.INSTANCE_NOTIFY: _vote_body,
}
