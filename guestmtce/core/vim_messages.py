"""URLs and bodies between the VIM and guestAgent, in both directions (vim.md).

Replaces guestHttpSvr's and guestVimApi's string handling. Everything is checked here, before
anything is changed: a request comes out as a typed Command, or as the error it deserves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from guestmtce.core.errors import PeerError
from guestmtce.core.text import clean, decode_json, encode_json
from guestmtce.core.vocabulary import (
    EVENTS,
    HEARTBEAT_SERVICE,
    SWITCHES,
    VOTE_RESULTS,
    CorrectiveAction,
    Event,
    Notification,
    Switch,
    VoteResult,
    canonical_uuid,
)

USER_AGENT = "vim/1.0"
OUR_USER_AGENT = "guest-agent/1.0"
HOSTNAME_LIMIT = 255
REASON_LIMIT = 224
_WORD_LIMIT = 32

_EVENT_BASE = "/nfvi-plugins/v1"
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


def _load_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; raises PeerError."""
    try:
        members = decode_json(body.decode("utf-8"))
    except ValueError:
        raise PeerError("not_json") from None
    if not isinstance(members, dict):
        raise PeerError("not_object")
    return members


def _object_about(uuid: str, body: bytes) -> dict[str, Any]:
    try:
        members = _load_object(body)
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
    service = _heartbeat_service(_list(members, "services"))
    if service is None:
        raise CommandError(400, Reason.INVALID_DATA)
    reporting = _switch(service.get("state"))
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


def _heartbeat_service(services: list[Any]) -> dict[str, Any] | None:
    for service in services:
        if isinstance(service, dict) and service.get("service") == HEARTBEAT_SERVICE:
            return service
    return None


def _switch(word: object) -> bool | None:
    return SWITCHES.get(word) if isinstance(word, str) else None


class InstanceState(NamedTuple):
    """An instance in the VIM's answer to the instances query."""

    uuid: str
    reporting: bool


def parse_host_state(body: bytes, uuid: str) -> bool:
    """Return whether the VIM wants faults of the host `uuid` reported; raises PeerError.

    An answer without a state, or about another host, is none: it is asked again.
    """
    members = _load_object(body)
    state = _switch(members.get("state"))
    about = members.get("uuid", uuid)
    if state is None or not isinstance(about, str) or canonical_uuid(about) != uuid:
        raise PeerError("bad_member")
    return state


def parse_instances(body: bytes) -> tuple[list[InstanceState], int]:
    """Return the instances in an answer, and how many entries were no use; raises PeerError."""
    entries = _load_object(body).get("instances")
    if not isinstance(entries, list):
        raise PeerError("bad_member")
    states = [state for entry in entries if (state := _instance_state(entry)) is not None]
    return states, len(entries) - len(states)


def _instance_state(entry: object) -> InstanceState | None:
    if not isinstance(entry, dict):
        return None
    uuid, services = entry.get("uuid"), entry.get("services")
    known = canonical_uuid(uuid) if isinstance(uuid, str) else None
    service = _heartbeat_service(services) if isinstance(services, list) else None
    reporting = _switch(service.get("state")) if service is not None else None
    if known is None or reporting is None:
        return None
    return InstanceState(known, reporting)


def host_state_target(host_uuid: str) -> str:
    """Return the path of the host state query."""
    return f"{_EVENT_BASE}/hosts/{host_uuid}"


def instances_target(host_uuid: str) -> str:
    """Return the path of the instances query."""
    return f"{_EVENT_BASE}/instances/?host_uuid={host_uuid}"


def instance_target(uuid: str) -> str:
    """Return the path of an instance's events."""
    return f"{_EVENT_BASE}/instances/{uuid}"


def host_state_body(hostname: str, host_uuid: str) -> bytes:
    """Return the body of the host state query (a GET with a body)."""
    return _encode({"hostname": hostname, "uuid": host_uuid})


class InstanceFacts(NamedTuple):
    """What the VIM is told of an instance, in answers and events."""

    uuid: str
    hostname: str
    reporting: bool
    heartbeating: bool
    restart_timeout: str


class Alarm(NamedTuple):
    """What an alarm says: `failed` or `unhealthy`, and the repair action."""

    state: str
    action: CorrectiveAction


FAILED = "failed"
UNHEALTHY = "unhealthy"


class GuestAnswer(NamedTuple):
    """What an `action` event says."""

    event: Event
    response: str
    reason: str


def services_members(facts: InstanceFacts) -> dict[str, Any]:
    """Return the members of a services body: the answer to a query or a set."""
    service = {
        "service": HEARTBEAT_SERVICE,
        "state": Switch.of(facts.reporting),
        "restart-timeout": facts.restart_timeout,
        "status": Switch.of(facts.heartbeating),
    }
    return {"uuid": facts.uuid, "hostname": facts.hostname, "services": [service]}


def service_body(facts: InstanceFacts) -> bytes:
    """Return the body of a `service` event."""
    service = {
        "service": HEARTBEAT_SERVICE,
        "state": Switch.of(facts.reporting),
        "status": Switch.of(facts.heartbeating),
        "restart-timeout": facts.restart_timeout,
    }
    return _instance_event(facts, "service", service)


def alarm_body(facts: InstanceFacts, alarm: Alarm) -> bytes:
    """Return the body of an `alarm` event."""
    service = {
        "service": HEARTBEAT_SERVICE,
        "state": alarm.state,
        "repair-action": alarm.action,
    }
    return _instance_event(facts, "alarm", service)


def _instance_event(facts: InstanceFacts, kind: str, service: dict[str, Any]) -> bytes:
    return _encode(
        {
            "uuid": facts.uuid,
            "hostname": facts.hostname,
            "event-type": kind,
            "event-data": {"services": [service]},
        }
    )


def action_body(uuid: str, answer: GuestAnswer) -> bytes:
    """Return the body of an `action` event."""
    data = {
        "action": answer.event,
        "guest-response": answer.response,
        "reason": answer.reason,
    }
    return _encode({"uuid": uuid, "event-type": "action", "event-data": data})


def guest_answer(
    event: Event, notification: Notification, vote: object, reason: object
) -> GuestAnswer:
    """Return what the VIM is told of a guest's answer.

    Whatever is neither accept, complete nor reject is consent, with the vote's name before the
    guest's reason: an empty `guest-response` is never sent (vim.md). A missing reason is "".
    """
    said = clean(reason, REASON_LIMIT) if isinstance(reason, str) else ""
    word = clean(vote, _WORD_LIMIT) if isinstance(vote, str) else VoteResult.UNKNOWN.value
    result = VOTE_RESULTS.get(word)
    if result is VoteResult.REJECT:
        return GuestAnswer(event, "reject", said)
    consent = "allow" if notification is Notification.REVOCABLE else "proceed"
    if result in (VoteResult.ACCEPT, VoteResult.COMPLETE):
        return GuestAnswer(event, consent, said)
    return GuestAnswer(event, consent, f"{word}: {said}" if said else word)


def _encode(members: dict[str, Any]) -> bytes:
    return encode_json(members).encode("ascii")
