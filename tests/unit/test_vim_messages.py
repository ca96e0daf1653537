"""What the VIM is asked and told, and its answers: http-api.md, "Events"."""

from __future__ import annotations

import json

import pytest

from guestmtce.core.agent import vim_messages
from guestmtce.core.agent.vim_messages import InstanceFacts, VimAlarm
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.mtc_message import MtcMessage, VoteAnswer
from guestmtce.core.shared.vocabulary import Command, CorrectiveAction
from tests.unit.agent_support import HOST_0, UUID


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


FACTS = InstanceFacts(UUID, "compute-0", True, True, 301)


def test_service_body_is_as_recorded():
    expected = (
        f'{{"uuid":"{UUID}","hostname":"compute-0","event-type":"service","event-data":{{"services"'
        ':[{"service":"heartbeat","state":"enabled","status":"enabled","restart-timeout":"301"}]}}'
    )
    assert vim_messages.service_body(FACTS) == expected.encode()


def test_alarm_body_is_as_recorded():
    expected = (
        f'{{"uuid":"{UUID}","hostname":"compute-0","event-type":"alarm","event-data":'
        '{"services":[{"service":"heartbeat","state":"failed","repair-action":"reboot"}]}}'
    )
    alarm = VimAlarm(vim_messages.FAILED, CorrectiveAction.REBOOT)
    assert vim_messages.alarm_body(FACTS, alarm) == expected.encode()


def said(notification: str, vote: object, reason: object) -> VoteAnswer:
    """A guest's answer as its guestServer sends it."""
    members = {
        "hostname": "compute-0",
        "uuid": UUID,
        "notification_type": notification,
        "event-type": "stop",
        "vote": vote,
        "reason": reason,
    }
    return VoteAnswer.of(MtcMessage(Command.VOTE_NOTIFY, members=members))


@pytest.mark.parametrize(
    ("notification", "vote", "reason", "expected"),
    [
        ("revocable", "accept", "", ("allow", "")),
        ("revocable", "complete", "", ("allow", "")),
        ("revocable", "reject", "busy", ("reject", "busy")),
        ("irrevocable", "complete", "", ("proceed", "")),
        ("irrevocable", "accept", "", ("proceed", "")),
        ("irrevocable", "reject", "no", ("reject", "no")),
        ("revocable", "error", "script", ("allow", "error: script")),
        ("revocable", "timeout", "", ("allow", "timeout")),
        ("irrevocable", "unknown", "", ("proceed", "unknown")),
        ("revocable", "bogus", "x", ("allow", "bogus: x")),
        ("revocable", None, None, ("allow", "unknown")),
        ("revocable", "reject", None, ("reject", "")),
        ("revocable", "reject", "a\nb\x1b[2Jc", ("reject", "ab[2Jc")),
        ("revocable", "reject", "\ud800", ("reject", "\ufffd")),
    ],
)
def test_guest_response_is_never_empty(notification, vote, reason, expected):
    answer = vim_messages.guest_answer(said(notification, vote, reason))
    assert (answer.response, answer.reason) == expected


def test_action_body_escapes_guest_text():
    reason = 'a "b" \\ c/é'
    answer = vim_messages.guest_answer(said("revocable", "reject", reason))
    body = vim_messages.action_body(UUID, answer)
    assert body.isascii()
    assert json.loads(body) == {
        "uuid": UUID,
        "event-type": "action",
        "event-data": {"action": "stop", "guest-response": "reject", "reason": reason},
    }


@pytest.mark.parametrize(("word", "state"), [("enabled", True), ("disabled", False)])
def test_host_state_answers(word, state):
    body = encode({"uuid": HOST_0, "hostname": "anything", "state": word})
    assert vim_messages.parse_host_state(body, HOST_0) is state


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        encode({"nostate": 1}),
        encode({"state": "bogus"}),
        encode({"state": True}),
        encode({"state": "enabled", "uuid": UUID}),
        encode({"state": "enabled", "uuid": 7}),
    ],
)
def test_host_state_answers_that_are_none(body):
    with pytest.raises(PeerError):
        vim_messages.parse_host_state(body, HOST_0)


def test_instances_answers():
    good = {
        "uuid": UUID.upper(),
        "hostname": "x",
        "services": [{"service": "heartbeat", "state": "enabled"}],
    }
    useless = [
        None,
        {},
        {**good, "uuid": "none"},
        {**good, "uuid": 1},
        {**good, "services": []},
        {**good, "services": [{"service": "heartbeat", "state": 1}]},
        {**good, "services": None},
    ]
    states, bad = vim_messages.parse_instances(encode({"instances": [good, *useless]}))
    assert states == [(UUID, True)]
    assert bad == len(useless)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", encode({"instances": {}})])
def test_instances_answers_that_are_none(body):
    with pytest.raises(PeerError):
        vim_messages.parse_instances(body)
