"""Bodies of what guestAgent asks and tells the VIM, and of the answers both give (http-api.md).

Replaces guestVimApi's string handling. No other module knows the keys of this JSON, except
`vim_commands`, which reads the other direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.mtc_message import InstanceState, VoteAnswer
from guestmtce.core.shared.text import decode_json, encode_json
from guestmtce.core.shared.vocabulary import (
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

OUR_USER_AGENT = "guest-agent/1.0"


def load_object(body: bytes) -> dict[str, object]:
    """Return the JSON object in a body; raises PeerError."""
    try:
        members = decode_json(body.decode("utf-8"))
    except ValueError:
        raise PeerError("not_json") from None
    if not isinstance(members, dict):
        raise PeerError("not_object")
    return members


def heartbeat_service(services: list[object]) -> dict[str, object] | None:
    """Return the entry of the heartbeat service, None if there is none."""
    for service in services:
        if isinstance(service, dict) and service.get("service") == HEARTBEAT_SERVICE:
            return service
    return None


def switch(word: object) -> bool | None:
    """Return what `enabled` or `disabled` means, None for anything else."""
    return SWITCHES.get(word) if isinstance(word, str) else None


def parse_host_state(body: bytes, uuid: str) -> bool:
    """Return whether the VIM wants faults of the host `uuid` reported; raises PeerError.

    An answer without a state, or about another host, is none: it is asked again.
    """
    members = load_object(body)
    state = switch(members.get("state"))
    about = members.get("uuid", uuid)
    if state is None or not isinstance(about, str) or canonical_uuid(about) != uuid:
        raise PeerError("bad_member")
    return state


def parse_instances(body: bytes) -> tuple[list[InstanceState], int]:
    """Return the instances in an answer, and how many entries were no use; raises PeerError."""
    entries = load_object(body).get("instances")
    if not isinstance(entries, list):
        raise PeerError("bad_member")
    states = [state for entry in entries if (state := _instance_state(entry)) is not None]
    return states, len(entries) - len(states)


def _instance_state(entry: object) -> InstanceState | None:
    if not isinstance(entry, dict):
        return None
    uuid, services = entry.get("uuid"), entry.get("services")
    known = canonical_uuid(uuid) if isinstance(uuid, str) else None
    service = heartbeat_service(services) if isinstance(services, list) else None
    reporting = switch(service.get("state")) if service is not None else None
    if known is None or reporting is None:
        return None
    return InstanceState(known, reporting)


def host_state_body(hostname: str, host_uuid: str) -> bytes:
    """Return the body of the host state query (a GET with a body)."""
    return _encode({"hostname": hostname, "uuid": host_uuid})


class InstanceFacts(NamedTuple):
    """What the VIM is told of an instance, in answers and events."""

    uuid: str
    hostname: str
    reporting: bool
    heartbeating: bool
    restart_timeout: int


class VimAlarm(NamedTuple):
    """What an alarm says: `failed` or `unhealthy`, and the repair action."""

    state: str
    action: CorrectiveAction

    def in_words(self) -> str:
        """Return it as a log line and a history tell it."""
        return f"alarm {self.state}, action {self.action}"


FAILED = "failed"
UNHEALTHY = "unhealthy"


class GuestAnswer(NamedTuple):
    """What an `action` event says."""

    event: Event
    response: str
    reason: str

    def in_words(self) -> str:
        """Return it as a log line and a history tell it; the reason is a guest's text."""
        said = f" ({self.reason})" if self.reason else ""
        return f"answer to {self.event}: {self.response}{said}"


def host_members(uuid: str, hostname: str, reporting: bool) -> dict[str, object]:
    """Return the members of the answer to a query of a host's state."""
    return {"uuid": uuid, "hostname": hostname, "state": Switch.of(reporting)}


def ask_members(uuid: str, hostname: str, event: Event, timeout: int) -> dict[str, object]:
    """Return the members of the answer to a vote or notify: the guest has `timeout` seconds."""
    return {"uuid": uuid, "hostname": hostname, "action": event, "timeout": str(timeout)}


def services_members(facts: InstanceFacts) -> dict[str, object]:
    """Return the members of a services body: the answer to a query or a set."""
    service = {
        "service": HEARTBEAT_SERVICE,
        "state": Switch.of(facts.reporting),
        "restart-timeout": str(facts.restart_timeout),
        "status": Switch.of(facts.heartbeating),
    }
    return {"uuid": facts.uuid, "hostname": facts.hostname, "services": [service]}


def service_body(facts: InstanceFacts) -> bytes:
    """Return the body of a `service` event."""
    service = {
        "service": HEARTBEAT_SERVICE,
        "state": Switch.of(facts.reporting),
        "status": Switch.of(facts.heartbeating),
        "restart-timeout": str(facts.restart_timeout),
    }
    return _instance_event(facts, "service", service)


def alarm_body(facts: InstanceFacts, alarm: VimAlarm) -> bytes:
    """Return the body of an `alarm` event."""
    service = {
        "service": HEARTBEAT_SERVICE,
        "state": alarm.state,
        "repair-action": alarm.action,
    }
    return _instance_event(facts, "alarm", service)


def _instance_event(facts: InstanceFacts, kind: str, service: Mapping[str, object]) -> bytes:
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


def guest_answer(said: VoteAnswer) -> GuestAnswer:
    """Return what the VIM is told of a guest's answer.

    Whatever is neither accept, complete nor reject is consent, with the vote's name before the
    guest's reason: an empty `guest-response` is never sent (http-api.md).
    """
    result = VOTE_RESULTS.get(said.vote)
    if result is VoteResult.REJECT:
        return GuestAnswer(said.event, "reject", said.reason)
    consent = "allow" if said.notification is Notification.REVOCABLE else "proceed"
    if result in (VoteResult.ACCEPT, VoteResult.COMPLETE):
        return GuestAnswer(said.event, consent, said.reason)
    word = said.vote
    return GuestAnswer(said.event, consent, f"{word}: {said.reason}" if said.reason else str(word))


def _encode(members: dict[str, object]) -> bytes:
    return encode_json(members).encode("ascii")
