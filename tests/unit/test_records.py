"""What is said in the datagrams: each record writes the old daemons' keys and reads them back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.mtc_message import (
    Ask,
    HostEntry,
    HostState,
    InstanceInformation,
    InstanceState,
    Loss,
    MtcMessage,
    Ready,
    VoteAnswer,
    decode,
)
from guestmtce.core.shared.stamp import Stamp
from guestmtce.core.shared.vocabulary import (
    Command,
    CorrectiveAction,
    Event,
    Notification,
    Timeouts,
)
from tests.unit.core_support import UUID

INFORMATION = InstanceInformation(
    "compute-0", UUID, True, False, CorrectiveAction.REBOOT, Timeouts(301, 9, 9, 14, 9)
)
VOTE = VoteAnswer("compute-0", UUID, Notification.REVOCABLE, Event.PAUSE, "accept", "")

# Each record beside its JSON as the specification prints it.
RECORDS = [
    (Ready("compute-0"), '{"hostname":"compute-0"}'),
    (Loss("compute-0", UUID), f'{{"hostname":"compute-0","uuid":"{UUID}"}}'),
    (
        INFORMATION,
        f'{{"hostname":"compute-0","uuid":"{UUID}","reporting":"enabled",'
        '"heartbeating":"disabled","repair-action":"reboot","restart-to":"301","shutdown-to":"9",'
        '"suspend-to":"9","resume-to":"14","vote-to":"9"}',
    ),
    (
        INFORMATION._replace(name="web-1"),
        f'{{"hostname":"compute-0","uuid":"{UUID}","reporting":"enabled",'
        '"heartbeating":"disabled","repair-action":"reboot","restart-to":"301","shutdown-to":"9",'
        '"suspend-to":"9","resume-to":"14","vote-to":"9","name":"web-1"}',
    ),
    (
        VOTE,
        f'{{"hostname":"compute-0","uuid":"{UUID}","notification_type":"revocable",'
        '"event-type":"pause","vote":"accept","reason":""}',
    ),
    (
        InstanceState(UUID, True),
        f'{{"uuid":"{UUID}","service":"heartbeat","state":"enabled"}}',
    ),
    (HostState(UUID, False), f'{{"uuid":"{UUID}","heartbeat":"disabled"}}'),
    (Ask(UUID, Event.PAUSE), f'{{"uuid":"{UUID}","event":"pause"}}'),
    (
        HostEntry("compute-0", UUID, "192.168.204.50", "worker"),
        f'{{"hostname":"compute-0","uuid":"{UUID}","ip":"192.168.204.50","personality":"worker"}}',
    ),
]


@pytest.mark.parametrize(("record", "text"), RECORDS, ids=lambda value: type(value).__name__)
def test_a_record_is_its_json(record, text):
    """Keys in the order of the specification, all values strings; read back it is the same."""
    data = mtc_message.encode_agent_command(Command.ADD_INST, record.members())
    assert data[100:].decode("ascii") == text
    assert type(record).of(decode(data)) == record


@pytest.mark.parametrize(("record", "text"), RECORDS, ids=lambda value: type(value).__name__)
def test_what_a_record_must_have_is_checked(record, text):
    """A key that is missing or of the wrong type is refused, or means what is said of it."""
    members = json.loads(text)
    tolerated = {"vote", "reason", "service", "ip", "personality", "name"}
    if isinstance(record, HostState):
        tolerated.add("uuid")
    for key in members.keys() - tolerated:
        for wrong in ({}, {key: 5}, {key: ""}):
            rest = {name: value for name, value in members.items() if name != key}
            with pytest.raises(ProtocolError, match=f"failed to parse {key}"):
                type(record).of(MtcMessage(Command.ADD_INST, members={**rest, **wrong}))


def test_an_instance_without_a_service_means_the_one_there_is():
    """The old daemon never looked at the service; another one is refused."""
    members = {"uuid": UUID, "state": "enabled"}
    assert InstanceState.of(MtcMessage(Command.ADD_INST, members=members)).reporting
    members["service"] = "backup"
    with pytest.raises(ProtocolError, match="unknown service"):
        InstanceState.of(MtcMessage(Command.ADD_INST, members=members))


def test_a_vote_says_any_word_and_any_reason():
    """An old server passes any word on; what is missing is `unknown` and empty."""
    members = {**VOTE.members(), "vote": "per\x07haps", "reason": "a\tb\u202ec"}
    answer = VoteAnswer.of(MtcMessage(Command.VOTE_NOTIFY, members=members))
    assert answer.vote == "perhaps"
    assert "\t" not in answer.reason
    del members["vote"], members["reason"]
    answer = VoteAnswer.of(MtcMessage(Command.VOTE_NOTIFY, members=members))
    assert (answer.vote, answer.reason) == ("unknown", "")


@pytest.mark.parametrize("name", ["\U0001f600" * 16, "é" * 32, '"' * 64, "x" * 64])
def test_the_longest_name_fits_beside_the_rest(name):
    """Of a host with the longest name, with all that delivery adds; cut between characters."""
    said = INFORMATION._replace(hostname="h" * 255, name=name)
    added = Stamp(2**31 - 1, 2**53 - 1, "i" * 64, 2**53 - 1, 2**53 - 1).members()
    data = mtc_message.encode_server_event(Command.QRY_INST, {**said.members(), **added})
    read = InstanceInformation.of(decode(data))
    assert name.startswith(read.name)
    assert len(read.name) >= 10


def test_a_name_from_the_wire_is_bounded_and_cleaned():
    """Whoever sends it."""
    for raw, read in (("a\x1b[2Jb\u202e", "a[2Jb"), ("x" * 500, "x" * 64), (5, ""), (None, "")):
        members = {**INFORMATION.members(), "name": raw}
        message = MtcMessage(Command.QRY_INST, members=members)
        assert InstanceInformation.of(message).name == read


def datagram(text: bytes) -> bytes:
    frame = mtc_message.encode_agent_command(Command.VOTE_NOTIFY, {})
    return frame[:100] + text


HEAD = json.dumps(VOTE.members())[: -len('"}')].encode()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"a\tb", "ab"),
        (b"a\r\x1b[31mb", "a[31mb"),
        (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
        (b'the "fan" is broken', 'the "fan" is broken'),
        (b'a "', 'a "'),
        (b'"', '"'),
        (b"back\\slash", "back\\slash"),
        (b'a","uuid":"00000000-0000-0000-0000-000000000000', "a"),
    ],
)
def test_a_reason_pasted_raw_by_the_old_server(raw, reason):
    """Decision 21: what a guest's text does to the JSON around it costs no vote its answer."""
    answer = VoteAnswer.of(decode(datagram(HEAD + raw + b'"}')))
    assert answer == VOTE._replace(reason=reason)


@pytest.mark.parametrize("text", [b'{"a":"b"c"}', HEAD, HEAD + b'x"', HEAD + b'x"]', b'"}'])
def test_what_is_no_json_even_so_is_refused(text):
    """What is none of this stays a bad message."""
    with pytest.raises(ProtocolError):
        decode(datagram(text))


@given(st.binary(max_size=700).filter(lambda raw: b"\0" not in raw))
def test_no_pasted_text_changes_what_stands_before_it(raw):
    """A guest's text must not name another instance, or another vote."""
    answer = VoteAnswer.of(decode(datagram(HEAD + raw + b'"}')))
    assert answer._replace(reason="") == VOTE
