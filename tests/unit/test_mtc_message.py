"""datagrams.md: the maintenance datagram and what is said with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.mtc_message import (
    AGENT_SIGNATURE,
    MTC_SIGNATURE,
    SERVER_SIGNATURE,
    InstanceInformation,
    decode,
)
from guestmtce.core.shared.text import clean
from guestmtce.core.shared.vocabulary import (
    NAME_LIMIT,
    Command,
    CorrectiveAction,
    Event,
    Notification,
    Timeouts,
)
from tests.unit.core_support import UUID, Rig

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "datagrams.json").read_text("utf-8"))

CODES = {
    "ADD_HOST": 0x11110010,
    "DEL_HOST": 0x11110011,
    "MOD_HOST": 0x11110012,
    "QRY_HOST": 0x11110013,
    "ADD_INST": 0x11110020,
    "DEL_INST": 0x11110021,
    "MOD_INST": 0x11110022,
    "QRY_INST": 0x11110023,
    "VOTE_INST": 0x11110024,
    "NOTIFY_INST": 0x11110025,
    "LOOPBACK": 0x01010101,
    "MONITOR_READY": 0xF0F0F0F0,
    "HEARTBEAT_LOSS": 0x0000FEAD,
    "HEARTBEAT_RUNNING": 0x0110FEAD,
    "HEARTBEAT_STOPPED": 0x0100FEAD,
    "HEARTBEAT_ILLHEALTH": 0x0001FEAD,
    "VOTE_NOTIFY": 0xFEEDFEED,
}


def datagram(buf: bytes, *, hdr: bytes = b"", cmd: int = 0x11110020) -> bytes:
    """Return a datagram laid out by the table of offsets, independently of the codec."""
    whole = bytearray(100)
    whole[0 : len(hdr)] = hdr
    whole[72:76] = cmd.to_bytes(4, "little")
    return bytes(whole) + buf


def refused(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert caught.value.answer is None, "a datagram is dropped, not answered"
    return caught.value.reason


def test_codes():
    """The table of commands and events."""
    assert {command.name: command.value for command in Command} == CODES


def test_layout():
    """The offsets and sizes of the table; full size 1060."""
    whole = mtc_message.encode_server_event(Command.HEARTBEAT_LOSS, {"uuid": "U"})
    assert len(whole) == mtc_message.MTC_MESSAGE.size == 1060
    assert whole[:72] == bytes(72)
    assert whole[72:76] == b"\xad\xfe\x00\x00"
    assert whole[76:100] == bytes(24)
    assert whole[100:] == b'{"uuid":"U"}'.ljust(960, b"\0")


def test_signatures():
    """17 characters and a NUL: 18 bytes; guestServer sends an all-zero hdr."""
    assert AGENT_SIGNATURE == b"guest msg header:\0"
    assert MTC_SIGNATURE == b"cgts mtc cmd req:\0"
    assert bytes(18) == SERVER_SIGNATURE
    for signature in (AGENT_SIGNATURE, MTC_SIGNATURE, SERVER_SIGNATURE):
        assert decode(datagram(b"{}", hdr=signature)).signature == signature


def test_ready_for_mtc_agent():
    """hdr, then `guestAgent` at offset 18, empty buf, 100 bytes."""
    ready = mtc_message.encode_ready_for_mtc_agent()
    hdr = (b"guest msg header:\0" + b"guestAgent").ljust(64, b"\0")
    assert ready == hdr + bytes(8) + b"\xf0\xf0\xf0\xf0" + bytes(24)
    assert decode(ready).members == {}


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: f"{r['cmd_name']}-{r['dir']}")
def test_same_bytes_as_the_old_daemons(recorded):
    """Bytes on every wire stay compatible; recordings of full size keep the first 100 bytes."""
    data = bytes.fromhex(recorded["hex"])
    buf = recorded["buf"].encode()
    command = Command[recorded["cmd_name"]]
    if not buf:
        assert mtc_message.encode_ready_for_mtc_agent() == data
        return
    members = json.loads(buf)
    if recorded["length"] == 1060:
        ours = mtc_message.encode_server_event(command, members)
        assert len(ours) == 1060
        assert ours[:100] == data
        assert json.loads(ours[100:].rstrip(b"\0")) == members
        assert decode(data + buf.ljust(960, b"\0")).members == members
    else:
        assert decode(data).members == members
        if recorded["dir"] == "agent->server":
            assert mtc_message.encode_agent_command(command, members) == data
        else:
            ours = mtc_message.encode(command, members, signature=MTC_SIGNATURE)
            assert decode(ours) == decode(data)


def test_instance_information_as_recorded():
    """RUNNING: the bytes of buf are those of the recording, but for the instance's own values."""
    rig = Rig().beat()
    (recorded,) = (r for r in RECORDED if r["cmd_name"] == "HEARTBEAT_RUNNING")
    ours = mtc_message.encode_server_event(Command.HEARTBEAT_RUNNING, rig.last_report)
    assert list(decode(ours).members) == list(json.loads(recorded["buf"]))
    assert ours[100:].startswith(b'{"hostname":"compute-0","uuid":"8d80875b-')


@pytest.mark.parametrize("length", [0, 1, 99, 1061, 1500, 65_000])
def test_too_short_or_too_long(length):
    """Drops what is shorter than 100 or longer than 1060."""
    whole = datagram(b'{"a":1}'.ljust(65_000, b"\0"))
    assert refused(whole[:length]) == "bad_length"


@pytest.mark.parametrize("length", [107, 108, 109, 500, 1059, 1060])
def test_any_length_between(length):
    """A receiver accepts any length from 100 to 1060, `buf` up to the first NUL or the end."""
    whole = datagram(b'{"a":1}'.ljust(960, b"\0"))
    assert decode(whole[:length]).members == {"a": 1}


def test_what_follows_the_nul_is_nothing():
    """`buf` up to the first NUL."""
    assert decode(datagram(b'{"a":1}\0garbage\xff')).members == {"a": 1}
    assert decode(datagram(b'{"a":"' + b"x" * 952 + b'"}')).members == {"a": "x" * 952}


@pytest.mark.parametrize(
    "buf",
    [
        b"not json",
        b'{"a":1',
        b"[1]",
        b'"text"',
        b"null",
        b"5",
        b"\xff",
        b"[" * 960,
        b'{"a":' * 190,
        b'{"a":NaN}',
        b'{"a":-Infinity}',
    ],
)
def test_not_json_or_not_an_object(buf):
    """Drops what is not JSON, or not an object."""
    assert refused(datagram(buf)) in {"not_json", "not_object"}


def test_unknown_command_is_a_number():
    """What to make of a code is the receiver's: decoding does not raise."""
    assert decode(datagram(b"{}", cmd=0xDEADBEEF)).command == 0xDEADBEEF


READERS = {
    "text": ("U", [None, 5, True, [], {}, "", "x" * 256]),
    "uuid": (UUID.upper(), [None, 5, "", "U", UUID + "\n", UUID[:-1]]),
    "switch": ("enabled", [None, True, "", "on", "Enabled", "enabled\n"]),
    "event": ("live_migrate_begin", [None, 5, "", "unknown", "party"]),
    "notification": ("revocable", [None, 5, "", "both"]),
}


@pytest.mark.parametrize("reader", READERS)
def test_members_are_checked_when_taken(reader):
    """Input is validated at the border: of the right type and vocabulary, or ProtocolError."""
    good, bad = READERS[reader]
    message = mtc_message.MtcMessage(Command.ADD_INST, members={"key": good})
    assert getattr(message, reader)("key") is not None
    with pytest.raises(ProtocolError, match="failed to parse other"):
        getattr(message, reader)("other")
    for value in bad:
        message = mtc_message.MtcMessage(Command.ADD_INST, members={"key": value})
        with pytest.raises(ProtocolError, match="failed to parse key"):
            getattr(message, reader)("key")


def test_members_are_typed():
    """UUIDs are lower-cased; words become members of their vocabulary."""
    members = {
        "uuid": UUID.upper(),
        "state": "disabled",
        "event": "pause",
        "notification_type": "irrevocable",
    }
    message = mtc_message.MtcMessage(Command.NOTIFY_INST, members=members)
    assert message.uuid() == UUID
    assert message.switch("state") is False
    assert message.event() is Event.PAUSE
    assert message.notification() is Notification.IRREVOCABLE


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=1500))
def test_long_reason_is_shortened_never_cut_in_mid_json(reason):
    """A payload that would not fit 959 bytes is shortened in its free-text member."""
    members = {"hostname": "compute-0", "uuid": UUID, "vote": "reject", "reason": reason}
    whole = mtc_message.encode_server_event(Command.VOTE_NOTIFY, members)
    assert len(whole) == 1060
    assert whole[-1] == 0
    decoded = decode(whole).members
    assert {**decoded, "reason": ""} == {**members, "reason": ""}
    if len(json.dumps(members, separators=(",", ":"))) <= 959:
        assert json.dumps(decoded) == json.dumps(members)


@pytest.mark.parametrize("character", ["x", "é", "€", "😀", '"'])
def test_a_name_leaves_the_rest_its_room(character):
    """64 bytes at most, and in JSON 128."""
    name = clean(character * 64, NAME_LIMIT)
    info = InstanceInformation(
        "h" * 255, UUID, True, True, CorrectiveAction.UNKNOWN, Timeouts(*[86_400] * 5), name
    )
    told = info.members()["name"]
    assert name.startswith(told)
    assert told
    assert len(json.dumps(told)) - 2 <= 128
    mtc_message.encode_server_event(Command.HEARTBEAT_RUNNING, info.members())


def test_payload_of_exactly_the_limit():
    """959 bytes fit, with their NUL."""
    filler = 959 - len('{"reason":""}')
    whole = mtc_message.encode_server_event(Command.VOTE_NOTIFY, {"reason": "x" * filler})
    assert decode(whole).members == {"reason": "x" * filler}
    longer = mtc_message.encode_server_event(Command.VOTE_NOTIFY, {"reason": "x" * (filler + 1)})
    assert decode(longer).members == {"reason": "x" * filler}


def test_what_cannot_be_shortened_is_refused():
    """Never sent cut."""
    with pytest.raises(ProtocolError):
        mtc_message.encode_server_event(Command.HEARTBEAT_LOSS, {"uuid": "x" * 1000})


@given(st.binary(max_size=1100), st.booleans())
def test_any_bytes_are_a_message_or_refused(data, framed):
    """Everything else is dropped: nothing raises but ProtocolError."""
    whole = datagram(data) if framed else data
    try:
        message = decode(whole)
    except ProtocolError:
        return
    assert isinstance(message.members, dict)


@given(
    st.sampled_from(list(Command)),
    st.dictionaries(st.text(max_size=5), st.text(max_size=10) | st.integers(), max_size=5),
    st.booleans(),
)
def test_round_trip(command, members, full_size):
    """What is sent is what is read."""
    data = mtc_message.encode(command, members, signature=AGENT_SIGNATURE, full_size=full_size)
    assert decode(data) == mtc_message.MtcMessage(command, AGENT_SIGNATURE, members)
