"""protocol.md: framing, messages, bytes on the wire, bad input."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmtce.core.server import guest_protocol
from guestmtce.core.server.guest_protocol import (
    MESSAGE_LIMIT,
    ActionResponse,
    ChallengeResponse,
    Exit,
    Framer,
    Init,
    Terms,
    Writer,
    decode,
)
from guestmtce.core.shared.errors import ProtocolError
from guestmtce.core.shared.limits import RateLimit
from guestmtce.core.shared.vocabulary import (
    CorrectiveAction,
    Event,
    Health,
    Notification,
    Timeouts,
    VoteResult,
)
from tests.unit.core_support import action_response, answer, init, leaving, message

# The exchange of protocol.md, "Messages", as bytes on the wire.
INIT = (
    b'{"version":3,"revision":1,"msg_type":"init","sequence":29,"invocation_id":1804289383,'
    b'"name":"vm-1","heartbeat_interval_ms":1000,"vote_secs":9,"shutdown_notice_secs":9,'
    b'"suspend_notice_secs":9,"resume_notice_secs":14,"restart_secs":301,'
    b'"corrective_action":"reboot"}'
)
INIT_ACK = (
    b'{"version":3,"revision":1,"msg_type":"init_ack","sequence":1,"invocation_id":1804289383}'
)
CHALLENGE = (
    b'{"version":3,"revision":1,"msg_type":"challenge","sequence":2,'
    b'"heartbeat_challenge":846930886}'
)
CHALLENGE_RESPONSE = (
    b'{"version":3,"revision":1,"msg_type":"challenge_response","sequence":30,'
    b'"heartbeat_response":846930886,"heartbeat_health":"healthy","corrective_action":"none",'
    b'"log_msg":""}'
)
ACTION_NOTIFY = (
    b'{"version":3,"revision":1,"msg_type":"action_notify","sequence":7,'
    b'"invocation_id":1804289383,"event_type":"pause","notification_type":"revocable",'
    b'"timeout_ms":9000}'
)
ACTION_RESPONSE = (
    b'{"version":3,"revision":1,"msg_type":"action_response","sequence":36,'
    b'"invocation_id":1804289383,"event_type":"pause","notification_type":"revocable",'
    b'"vote_result":"reject","log_msg":"busy"}'
)
NACK = (
    b'{"version":3,"revision":1,"msg_type":"nack","sequence":8,"invocation_id":1804289383,'
    b'"log_msg":"failed to parse heartbeat_health"}'
)

GUEST_MESSAGES = {
    "init": init(),
    "challenge_response": answer(846930886),
    "action_response": action_response("pause", "revocable", "reject", "busy"),
    "exit": leaving(),
}
BODY_KEYS = [
    (msg_type, key)
    for msg_type, members in GUEST_MESSAGES.items()
    for key in list(members)[4:]
]  # fmt: skip


def line(members: object) -> bytes:
    return json.dumps(members).encode()


def refusal(data: bytes) -> tuple[str, str | None]:
    """Return what a bad message counts as, and what is answered."""
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    return caught.value.reason, caught.value.answer


def nack(members: object) -> str | None:
    return refusal(line(members))[1]


# Bytes on the wire


def test_examples_of_what_we_send():
    """The spec's example bytes, `\\n` before and after."""
    writer = Writer(1804289383)
    assert writer.init_ack() == b"\n" + INIT_ACK + b"\n"
    assert writer.challenge(846930886) == b"\n" + CHALLENGE + b"\n"
    writer = Writer(1804289383, 6)
    notify = writer.action_notify(Event.PAUSE, Notification.REVOCABLE, 9000)
    assert notify == b"\n" + ACTION_NOTIFY + b"\n"
    refused = writer.nack("failed to parse heartbeat_health")
    assert refused == b"\n" + NACK + b"\n"
    assert writer.sequence == 8


def test_examples_of_what_a_guest_sends():
    """The spec's example lines, typed."""
    timeouts = Timeouts(restart=301, shutdown=9, suspend=9, resume=14, vote=9)
    terms = Terms("vm-1", 1000, timeouts, CorrectiveAction.REBOOT)
    assert decode(INIT) == Init(1804289383, terms)
    assert decode(CHALLENGE_RESPONSE) == ChallengeResponse(
        846930886, Health.HEALTHY, True, CorrectiveAction.NONE, ""
    )
    assert decode(ACTION_RESPONSE) == ActionResponse(
        1804289383, Event.PAUSE, Notification.REVOCABLE, VoteResult.REJECT, "busy"
    )
    assert decode(line(leaving())) == Exit("bye")


RECORDED = json.loads(
    (Path(__file__).parents[1] / "data" / "host_messages.json").read_text("utf-8")
)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: r["recording"])
def test_same_bytes_as_the_old_daemon(recorded):
    """The wire format of the recording stands."""
    members = json.loads(recorded["text"])
    writer = Writer(members.get("invocation_id", 0), members["sequence"] - 1)
    ours = {
        "init_ack": writer.init_ack,
        "challenge": lambda: writer.challenge(members["heartbeat_challenge"]),
        "nack": lambda: writer.nack(members["log_msg"]),
        "action_notify": lambda: writer.action_notify(
            Event(members["event_type"]),
            Notification(members["notification_type"]),
            members["timeout_ms"],
        ),
    }
    assert ours[members["msg_type"]]() == recorded["text"].encode()


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x00", "\x7f", "é", "\ud800", "\U0001f600"])
def test_a_nack_cannot_be_broken_out_of(text):
    """Nothing a guest says may break out of a JSON string, or be more than one line."""
    encoded = Writer().nack(f"unsupported message type: {text}")
    assert encoded.isascii()
    assert encoded.count(b"\n") == 2
    assert json.loads(encoded)["log_msg"].startswith("unsupported message type: ")


def test_a_nack_is_a_valid_message_itself():
    """`log_msg` string of at most 224; a message longer than 1056 bytes is invalid."""
    version = "-" + "9" * 1000
    _, text = refusal(b'{"version":' + version.encode() + b"}")
    assert text is not None
    encoded = Writer(2**62, 2**40).nack(text)
    assert len(encoded) - 2 <= MESSAGE_LIMIT
    assert len(json.loads(encoded)["log_msg"]) <= 224


def test_a_long_type_makes_no_long_nack():
    """The type comes back cut."""
    text = nack(message("x" * 900))
    assert text is not None
    assert text.startswith("unsupported message type: xxx")
    assert len(text) <= 224


# Header


def test_order_of_the_complaints_is_that_of_the_header():
    """`version` first, since the header is the contract."""
    assert nack({}) == "failed to parse version"
    assert nack({"version": 3}) == "failed to parse revision"
    assert nack({"version": 3, "revision": 1}) == "failed to parse msg_type"
    assert nack({"version": 3, "revision": 1, "msg_type": "init"}) == "failed to parse sequence"


@pytest.mark.parametrize("msg_type", GUEST_MESSAGES)
@pytest.mark.parametrize("key", ["version", "revision", "msg_type", "sequence"])
def test_each_header_key_missing(msg_type, key):
    """No `version`, `msg_type`, `revision` or `sequence`: nack "failed to parse" that key."""
    members = {k: v for k, v in GUEST_MESSAGES[msg_type].items() if k != key}
    assert nack(members) == f"failed to parse {key}"


@pytest.mark.parametrize("value", ["3", 3.0, 3.9, True, None, [], {}, 1e400])
@pytest.mark.parametrize("key", ["version", "revision", "sequence"])
def test_non_integer_header(key, value):
    """JSON integers only, not booleans, floats (decision 16)."""
    data = line({**leaving(), key: value}).replace(b"Infinity", b"1e400")
    assert refusal(data)[1] == f"failed to parse {key}"


@pytest.mark.parametrize("value", [5, None, True, [], {}])
def test_type_that_is_no_string(value):
    """`msg_type` (string)."""
    assert nack({**leaving(), "msg_type": value}) == "failed to parse msg_type"


@pytest.mark.parametrize("version", [-1, 0, 1, 2])
def test_old_version(version):
    """`version` < 3: nack "Bad version: 2, expect version: 3"."""
    text = f"Bad version: {version}, expect version: 3"
    assert nack({**leaving(), "version": version}) == text


@pytest.mark.parametrize("version", [3, 4, 2**31, 2**70])
def test_newer_version_is_accepted(version):
    """`version` > 3 is accepted (the header is the contract)."""
    assert decode(line({**leaving(), "version": version})) == Exit("bye")


@pytest.mark.parametrize("word", ["frobnicate", "", "INIT", "challenge", "init_ack", "é"])
def test_unknown_type(word):
    """Unknown `msg_type`: nack "unsupported message type: X"; our own types are unknown, too."""
    assert nack(message(word)) == f"unsupported message type: {word}"


def test_of_an_unknown_type_64_characters_are_said_back():
    assert nack(message("x" * 65)) == f"unsupported message type: {'x' * 64}"


def test_unknown_extra_keys_are_ignored():
    """Unknown extra keys are ignored."""
    for members in GUEST_MESSAGES.values():
        assert decode(line({**members, "extra": {"a": [1]}})) == decode(line(members))


def test_any_order_and_spacing_is_json():
    """A message is one JSON object: its keys come in any order, and \\r is white space."""
    shuffled = dict(reversed(list(init().items())))
    data = json.dumps(shuffled, indent=1).replace("\n", "\t").encode() + b"\r"
    assert decode(data) == decode(line(init()))


# Body keys


def test_every_body_key_is_walked():
    """The table of Messages: 9 keys of init, 4, 5 and 1."""
    assert len(BODY_KEYS) == 9 + 4 + 5 + 1


@pytest.mark.parametrize(("msg_type", "key"), BODY_KEYS)
def test_each_body_key_missing(msg_type, key):
    """A missing body key: nack "failed to parse KEY"."""
    members = {k: v for k, v in GUEST_MESSAGES[msg_type].items() if k != key}
    assert nack(members) == f"failed to parse {key}"


@pytest.mark.parametrize("value", [None, True, 1.0, [], {}, "other"])
@pytest.mark.parametrize(("msg_type", "key"), BODY_KEYS)
def test_each_body_key_wrong_typed(msg_type, key, value):
    """A wrong-typed body key: nack "failed to parse KEY"."""
    right = GUEST_MESSAGES[msg_type][key]
    if isinstance(right, str):
        value = 5 if value == "other" else value
    assert nack({**GUEST_MESSAGES[msg_type], key: value}) == f"failed to parse {key}"


SECS = [
    "vote_secs",
    "shutdown_notice_secs",
    "suspend_notice_secs",
    "resume_notice_secs",
    "restart_secs",
]


@pytest.mark.parametrize("key", SECS)
def test_seconds_in_and_out_of_range(key):
    """`*_secs` 0…86,400, else nack."""
    for value in (0, 1, 86_400):
        message_ = decode(line({**init(), key: value}))
        assert isinstance(message_, Init)
        assert getattr(message_.terms.timeouts, key.split("_")[0]) == value
    for value in (-1, 86_401, 2**31, -(2**70), 10**300):
        assert nack({**init(), key: value}) == f"failed to parse {key}"


@pytest.mark.parametrize(
    ("members", "key"),
    [
        (init(), "invocation_id"),
        (answer(1), "heartbeat_response"),
        (action_response("stop", "revocable", "accept"), "invocation_id"),
    ],
)
def test_numbers_in_and_out_of_range(members, key):
    """A number out of range (negative, …): nack "failed to parse KEY"."""
    for value in (0, 1, 2**31 - 1, 2**31, 2**32):
        assert decode(line({**members, key: value}))[0] == value
    for value in (-1, -(2**31), 10**300):
        assert nack({**members, key: value}) == f"failed to parse {key}"


def test_interval_out_of_range():
    """Over one day: nack; below a minimum it is clamped, which is not the codec's to do."""
    for value in (-(10**300), -1, 0, 400, 86_400_000):
        message_ = decode(line(init(heartbeat_interval_ms=value)))
        assert isinstance(message_, Init)
        assert message_.terms.interval_ms == value
    for value in (86_400_001, 2**64):
        assert nack(init(heartbeat_interval_ms=value)) == "failed to parse heartbeat_interval_ms"


@pytest.mark.parametrize(
    ("word", "action"),
    [
        ("none", CorrectiveAction.NONE),
        ("reboot", CorrectiveAction.REBOOT),
        ("stop", CorrectiveAction.STOP),
        ("log", CorrectiveAction.LOG),
        ("unknown", CorrectiveAction.UNKNOWN),
        ("explode", CorrectiveAction.UNKNOWN),
        ("", CorrectiveAction.UNKNOWN),
        ("Reboot", CorrectiveAction.UNKNOWN),
        ("reboot\n", CorrectiveAction.UNKNOWN),
    ],
)
def test_corrective_actions(word, action):
    """Unknown corrective action at init is `unknown`."""
    message_ = decode(line(init(corrective_action=word)))
    assert isinstance(message_, Init)
    assert message_.terms.corrective_action is action
    response = decode(line(answer(1, "unhealthy", word)))
    assert isinstance(response, ChallengeResponse)
    assert response.corrective_action is action


@pytest.mark.parametrize(
    ("word", "health", "known"),
    [
        ("healthy", Health.HEALTHY, True),
        ("unhealthy", Health.UNHEALTHY, True),
        ("Healthy", Health.UNHEALTHY, False),
        ("", Health.UNHEALTHY, False),
        ("healthy ", Health.UNHEALTHY, False),
    ],
)
def test_health_words(word, health, known):
    """An unknown health word counts as unhealthy."""
    response = decode(line(answer(1, word)))
    assert isinstance(response, ChallengeResponse)
    assert (response.health, response.health_known) == (health, known)


def test_every_word_of_an_action_response():
    """Vocabularies (strings, as sent); a word outside, `unknown` as event too, is None."""
    for event in Event:
        assert decode(line(action_response(event.value, "revocable", "accept")))[1] is event
    for notification in Notification:
        assert decode(line(action_response("stop", notification.value, "accept")))[2] is (
            notification
        )
    for vote in VoteResult:
        assert decode(line(action_response("stop", "revocable", vote.value)))[3] is vote
    odd = decode(line(action_response("unknown", "both", "yes")))
    assert odd[1:4] == (None, None, None)


# Texts


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("", ""),
        ("n" * 64, "n" * 64),
        ("n" * 65, "n" * 64),
        ("é" * 32, "é" * 32),
        ("n" + "é" * 32, "n" + "é" * 31),
        ("\U0001f600" * 17, "\U0001f600" * 16),
        ("a\x00b\nc\x1bd\x7fe\x9ff", "abcdef"),
        ("\ud800x", "\ufffdx"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_name(name, kept):
    """String ≤ 64, cut at a character; lone surrogates become U+FFFD."""
    message_ = decode(line(init(name=name)))
    assert isinstance(message_, Init)
    assert message_.terms.name == kept


def test_control_characters_in_any_text_are_taken():
    """They are cleaned as ever, whichever string they stand in (decision 21)."""
    message_ = decode(line(init(name="a-b")).replace(b"a-b", b"a\t\x1bb"))
    assert isinstance(message_, Init)
    assert message_.terms.name == "ab"


@pytest.mark.parametrize(
    "members",
    [answer(1), action_response("stop", "revocable", "reject"), leaving()],
    ids=lambda members: members["msg_type"],
)
def test_log_msg(members):
    """String ≤ 224; control characters removed; cut at a character."""
    for text, kept in (
        ("x" * 224, "x" * 224),
        ("x" * 225, "x" * 224),
        ("x" * 223 + "é", "x" * 223),
        ('say "no"\r\n\x1b[2J\\', 'say "no"[2J\\'),
        ("\udfff", "\ufffd"),
    ):
        assert decode(line({**members, "log_msg": text})).log_msg == kept


# Not a message at all


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"this is not json at all but longer than 32 bytes", "not_json"),
        (b'{"version":3,"revision":1,"msg_type":"init",', "not_json"),
        (b"{", "not_json"),
        (b"}", "not_json"),
        (b"{}{}", "not_json"),
        (b"\r", "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"log_msg":"un"quoted"', "not_json"),
        (b'{"log_msg":"un"quoted", "x":1}', "not_json"),
        (b'{"version":"un"quoted"}', "not_json"),
        (b'{"version":NaN}', "not_json"),
        (b'{"version":3,"x":Infinity}', "not_json"),
        (b'{"version":3,"x":[-Infinity]}', "not_json"),
        (b"[" * 1056, "not_json"),
        (b'{"a":' * 200, "not_json"),
        (b"[1,2,3,4,5]", "not_object"),
        (b'"a string"', "not_object"),
        (b"null", "not_object"),
        (b"true", "not_object"),
        (b"12345678901234567890123456789012345", "not_object"),
        (b"[" * 500 + b"]" * 500, "not_object"),
        (b"\xff\xfe{}", "not_json"),
    ],
)
def test_dropped_and_counted(data, reason):
    """Not JSON even after decision 21, or not an object: dropped, counted, no answer."""
    counted, text = refusal(data)
    assert text is None
    assert counted == reason or (reason == "not_object" and counted == "not_json")


def nested(levels: int, opening: str, closing: str) -> bytes:
    """Return an exit whose JSON is `levels` deep, the message itself being the first."""
    inner = opening * (levels - 1) + "1" + closing * (levels - 1)
    return line(leaving())[:-1] + b', "x": ' + inner.encode() + b"}"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth(opening, closing):
    """Deeper than 8 levels: dropped, counted."""
    per = len(opening.replace('"a":', ""))
    for count in range(1, 20):
        data = nested(count + 1, opening, closing)
        if 1 + count * per <= 8:
            assert decode(data) == Exit("bye")
        else:
            assert refusal(data) == ("too_deep", None)


def test_wide_is_not_deep():
    """Brackets inside a text, or side by side, are no levels."""
    eighth = nested(8, "[", "]")
    assert decode(eighth[:-1] + b', "y": [[], {}, []]}') == Exit("bye")
    assert isinstance(decode(line({**leaving(), "log_msg": "[{" * 100})), Exit)
    assert isinstance(decode(line({**leaving(), "x": [[]] * 100})), Exit)


@given(st.binary(max_size=1100))
@settings(max_examples=80)
def test_any_line_is_a_message_or_refused(data):
    """Never a crash: ProtocolError is the only way out."""
    with contextlib.suppress(ProtocolError):
        decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(list(GUEST_MESSAGES)), st.data())
@settings(max_examples=80)
def test_any_value_under_any_key(msg_type, data):
    """Validated once at the border: typed and in range, or refused with that key's name."""
    members = dict(GUEST_MESSAGES[msg_type])
    key = data.draw(st.sampled_from(list(members)))
    members[key] = data.draw(JSON)
    try:
        message_ = decode(json.dumps(members).encode())
    except ProtocolError as error:
        complaint = error.answer
    else:
        complaint = None
        _check_types(message_)
    assert complaint is None or key in complaint or key in ("version", "msg_type")


def _check_types(message_: guest_protocol.GuestMessage) -> None:
    if isinstance(message_, Init):
        assert all(0 <= secs <= 86_400 for secs in message_.terms.timeouts)
        assert len(message_.terms.name.encode()) <= 64
    else:
        text = message_.log_msg
        assert len(text.encode()) <= 224
        assert not any(char < " " for char in text)


# Framing


def frames(pieces: list[bytes]) -> list[bytes | None]:
    framer = Framer()
    return [frame for piece in pieces for frame in framer.feed(piece)]


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"\nA\n\nB\n", [b"A", b"B"]),
        (b"A\nB\n", [b"A", b"B"]),
        (b"\n\n\n\n", []),
        (b"\nA", []),
        (b"\nA\nB", [b"A"]),
        (b"\n" + b"x" * 1056 + b"\nB\n", [b"x" * 1056, b"B"]),
        (b"\n" + b"x" * 1057 + b"\nB\n", [None, b"B"]),
        (b"\n" + b"x" * 9000 + b"\nB\n", [None, b"B"]),
        (b"\n" + b"x" * 9000 + b"\n" + b"y" * 2000 + b"\nB\n", [None, None, b"B"]),
        (b"\n" + b"x" * 9000, [None]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_framing(stream, expected, size):
    """Splits on newline, drops empty lines; over 1056 bytes discarded up to the next newline."""
    assert frames(split(stream, size)) == expected


@given(
    st.lists(
        st.sampled_from([b"\n", b"{}", b"x" * 1000, b"y" * 60, b"\xff", b"x" * 3000])
        | st.binary(max_size=30),
        max_size=20,
    ).map(b"".join),
    st.data(),
)
@settings(max_examples=80)
def test_framing_does_not_depend_on_the_split(stream, data):
    """The same result however the bytes are split."""
    whole = frames([stream])
    for size in (1, 2, 7):
        assert frames(split(stream, size)) == whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = [0, *cuts, len(stream)]
    assert frames([stream[a:b] for a, b in zip(edges, edges[1:])]) == whole
    # And it is what the rule says, told in another way.
    lines = stream.split(b"\n")
    expected = [None if len(part) > MESSAGE_LIMIT else part for part in lines[:-1] if part]
    if len(lines[-1]) > MESSAGE_LIMIT:
        expected.append(None)
    assert whole == expected


def test_more_lines_at_once_than_anybody_sends():
    """The last line of a long read is a tail all the same."""
    lines = [b"%d" % number for number in range(1000)]
    assert frames([b"\n".join(lines) + b"tail", b" and its end\n"]) == [
        *lines[:-1],
        b"999tail and its end",
    ]


def test_a_tail_that_never_ends_does_not_grow():
    """At most one message's worth is kept."""
    framer = Framer()
    for _ in range(1000):
        framer.feed(b"x" * 1000)
        assert len(framer.tail) <= MESSAGE_LIMIT
    assert framer.feed(b"\nA\n") == [b"A"]


# Rate


def test_five_hundred_messages_in_a_second():
    """More than 500 messages in a second from one guest: the excess is dropped."""
    rate = RateLimit(500)
    assert [rate.allows(100.0) for _ in range(501)] == [True] * 500 + [False]
    assert not rate.allows(100.999)
    assert rate.allows(101.0)
    assert sum(rate.allows(101.5) for _ in range(600)) == 499
