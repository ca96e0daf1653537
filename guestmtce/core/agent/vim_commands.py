"""The VIM's commands: a request comes out as a typed Command, or as the error it deserves.

Everything is checked here, before anything is changed (vim.md, "Commands"). Replaces the
string handling of guestHttpSvr.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from guestmtce.core.agent.vim_messages import heartbeat_service, load_object, switch
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.vocabulary import EVENTS, HEARTBEAT_SERVICE, Event, canonical_uuid

USER_AGENT = "vim/1.0"
HOSTNAME_LIMIT = 255

_ABSOLUTE = re.compile(r"https?://[^/?]*", re.IGNORECASE)


class Reason(str, Enum):
    """Why a command failed, in the words of vim.md, "Errors"."""

    PARSE_ERROR = "command parse error"
    NO_BUFFER = "no buffer"
    NOT_FOUND = "entity not found"
    INVALID_DATA = "invalid data"
    BAD_STATE = "bad state"
    UNSUPPORTED = "unsupported http command"


class CommandError(PeerError):
    """A command that is answered with an error; `allow` are the methods that a 405 offers."""

    def __init__(self, status: int, reason: Reason, allow: tuple[str, ...] | None = None) -> None:
        super().__init__(f"http_{status}", reason.value)
        self.status = status
        self.word = reason
        self.allow = allow


class Action(Enum):
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


class Command(NamedTuple):
    """A checked request. `hostname`, `reporting`, `event` are set where the action has them."""

    action: Action
    uuid: str = ""
    hostname: str = ""
    reporting: bool = False
    event: Event | None = None


# path below /v1 with the UUID left out → method → action
_ROUTES: dict[tuple[str, str], dict[str, Action]] = {
    ("hosts", ""): {
        "GET": Action.HOST_QUERY,
        "POST": Action.HOST_CREATE,
        "DELETE": Action.HOST_DELETE,
    },
    ("hosts", "enable"): {"PUT": Action.HOST_ENABLE},
    ("hosts", "disable"): {"PUT": Action.HOST_DISABLE, "GET": Action.HOST_QUERY},
    ("instances", ""): {
        "GET": Action.INSTANCE_QUERY,
        "POST": Action.INSTANCE_CREATE,
        "PATCH": Action.INSTANCE_SET,
        "DELETE": Action.INSTANCE_DELETE,
    },
    ("instances", "vote"): {"POST": Action.INSTANCE_VOTE},
    ("instances", "notify"): {"POST": Action.INSTANCE_NOTIFY},
}
_LISTS = {
    "/v1/hosts": Action.LIST_HOSTS,
    "/v1/instances": Action.LIST_INSTANCES,
    "/metrics": Action.METRICS,
}
_NEED_BODY = frozenset(
    {
        Action.HOST_ENABLE,
        Action.HOST_DISABLE,
        Action.INSTANCE_CREATE,
        Action.INSTANCE_SET,
        Action.INSTANCE_VOTE,
        Action.INSTANCE_NOTIFY,
    }
)


def parse_command(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Command:
    """Return the command in a request; raises CommandError. HEAD is read as GET."""
    path = _ABSOLUTE.sub("", target, count=1) if target[:1] != "/" else target
    path = path.partition("?")[0]
    method = "GET" if method == "HEAD" else method
    if path in _LISTS:
        if method != "GET":
            raise CommandError(405, Reason.UNSUPPORTED, _allowed({"GET"}))
        return Command(_LISTS[path])
    if headers.get("user-agent", USER_AGENT) != USER_AGENT:
        raise CommandError(403, Reason.UNSUPPORTED)
    collection, uuid, verb = _split(path)
    methods = _ROUTES.get((collection, verb), {})
    action = methods.get(method)
    if action is None:
        raise CommandError(405, Reason.UNSUPPORTED, _allowed(set(methods)))
    if action in _NEED_BODY:
        if not body:
            raise CommandError(411, Reason.NO_BUFFER)
    elif action is not Action.HOST_CREATE or not body:
        return Command(action, uuid)
    return _BODIES[action](Command(action, uuid), _object_about(uuid, body))


def _allowed(methods: set[str]) -> tuple[str, ...]:
    return tuple(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _split(path: str) -> tuple[str, str, str]:
    """Return collection, UUID and verb of /v1/COLLECTION/UUID[/VERB]."""
    parts = path.split("/", 4)
    if len(parts) < len(("", "v1", "hosts", "UUID")) or parts[:2] != ["", "v1"]:
        raise CommandError(403, Reason.UNSUPPORTED)
    collection, name = parts[2], parts[3]
    if collection not in ("hosts", "instances"):
        raise CommandError(403, Reason.UNSUPPORTED)
    uuid = canonical_uuid(name)
    if uuid is None:
        raise CommandError(400, Reason.INVALID_DATA)
    return collection, uuid, "/".join(parts[4:])


def _object_about(uuid: str, body: bytes) -> dict[str, Any]:
    try:
        members = load_object(body)
    except PeerError:
        raise CommandError(400, Reason.PARSE_ERROR) from None
    if canonical_uuid(_text(members, "uuid")) != uuid:
        raise CommandError(400, Reason.INVALID_DATA)
    return members


def _text(members: Mapping[str, Any], key: str) -> str:
    value = members.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= HOSTNAME_LIMIT:
        raise CommandError(400, Reason.PARSE_ERROR)
    return value


def _list(members: Mapping[str, Any], key: str) -> list[Any]:
    value = members.get(key)
    if not isinstance(value, list):
        raise CommandError(400, Reason.PARSE_ERROR)
    return value


def _host_body(command: Command, members: dict[str, Any]) -> Command:
    return command._replace(hostname=_text(members, "hostname"))


def _create_body(command: Command, members: dict[str, Any]) -> Command:
    hostname = _text(members, "hostname")
    names = [
        service.get("service") if isinstance(service, dict) else service
        for service in _list(members, "services")
    ]
    if HEARTBEAT_SERVICE not in names:
        raise CommandError(400, Reason.INVALID_DATA)
    return command._replace(hostname=hostname)


def _set_body(command: Command, members: dict[str, Any]) -> Command:
    hostname = _text(members, "hostname")
    service = heartbeat_service(_list(members, "services"))
    if service is None:
        raise CommandError(400, Reason.INVALID_DATA)
    reporting = switch(service.get("state"))
    if reporting is None:
        raise CommandError(400, Reason.BAD_STATE)
    return command._replace(hostname=hostname, reporting=reporting)


def _vote_body(command: Command, members: dict[str, Any]) -> Command:
    hostname = _text(members, "hostname")
    event = EVENTS.get(_text(members, "action"))
    if event is None:
        raise CommandError(400, Reason.INVALID_DATA)
    return command._replace(hostname=hostname, event=event)


_BODIES = {
    Action.HOST_CREATE: _host_body,
    Action.HOST_ENABLE: _host_body,
    Action.HOST_DISABLE: _host_body,
    Action.INSTANCE_CREATE: _create_body,
    Action.INSTANCE_SET: _set_body,
    Action.INSTANCE_VOTE: _vote_body,
    Action.INSTANCE_NOTIFY: _vote_body,
}
