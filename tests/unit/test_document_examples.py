"""The examples in protocol.md and in datagrams.md go through the codecs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from guestmtce.core.server import guest_protocol
from guestmtce.core.server.guest_protocol import Writer
from guestmtce.core.shared import mtc_message, stamp
from guestmtce.core.shared.vocabulary import EVENTS, NOTIFICATIONS
from tests.documents import DOCS
from tests.peers import wire


def examples(document: str, fence: str) -> list[tuple[str, str]]:
    """Return (first word, rest) of each line in a document's blocks of one kind."""
    text = (DOCS / document).read_text("utf-8")
    blocks = re.findall(rf"^```{fence}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


CHANNEL = examples("protocol.md", "guest-channel")
ENCODERS: dict[str, Callable[[Writer, dict[str, Any]], bytes]] = {
    "init_ack": lambda writer, _m: writer.init_ack(),
    "challenge": lambda writer, m: writer.challenge(m["heartbeat_challenge"]),
    "action_notify": lambda writer, m: writer.action_notify(
        EVENTS[m["event_type"]], NOTIFICATIONS[m["notification_type"]], m["timeout_ms"]
    ),
    "nack": lambda writer, m: writer.nack(m["log_msg"]),
}


def written(members: dict[str, Any]) -> bytes:
    """Return a message as we write it, with that number and invocation id."""
    writer = Writer(members.get("invocation_id", 0), members["sequence"] - 1)
    return ENCODERS[members["msg_type"]](writer, members)


RECORDS: dict[str, Any] = {
    "ADD_INST": mtc_message.InstanceState,
    "MOD_INST": mtc_message.InstanceState,
    "DEL_INST": mtc_message.InstanceState,
    "MOD_HOST": mtc_message.HostState,
    "VOTE_INST": mtc_message.Ask,
    "NOTIFY_INST": mtc_message.Ask,
    "MONITOR_READY": mtc_message.Ready,
    "HEARTBEAT_RUNNING": mtc_message.InstanceInformation,
    "HEARTBEAT_STOPPED": mtc_message.InstanceInformation,
    "HEARTBEAT_ILLHEALTH": mtc_message.InstanceInformation,
    "HEARTBEAT_LOSS": mtc_message.Loss,
    "VOTE_NOTIFY": mtc_message.VoteAnswer,
    "ADD_HOST": mtc_message.HostEntry,
}
# Said without a record: nothing but who asks, and what is to go.
PLAIN = {"QRY_INST", "DEL_HOST"}


@pytest.mark.parametrize(
    "line", [line for who, line in CHANNEL if who == "guest"], ids=lambda line: line[39:56]
)
def test_what_a_guest_says_is_understood(line: str) -> None:
    """protocol.md, "Messages": the guest's side of the exchange."""
    message = guest_protocol.decode(line.encode())
    assert type(message).__name__.lower() == json.loads(line)["msg_type"].replace("_", "")


@pytest.mark.parametrize(
    "line", [line for who, line in CHANNEL if who == "host"], ids=lambda line: line[39:56]
)
def test_what_the_host_says_is_what_we_write(line: str) -> None:
    """protocol.md, "Messages": our side, to the byte."""
    members = json.loads(line)
    assert written(members) == f"\n{line}\n".encode()


def test_every_message_has_an_example() -> None:
    """None is left out."""
    shown = {json.loads(line)["msg_type"] for _, line in CHANNEL}
    assert shown == {*ENCODERS, "init", "challenge_response", "action_response", "exit"}


@pytest.mark.parametrize(("name", "text"), examples("datagrams.md", "datagrams"))
def test_a_datagram_is_read_and_written_so(name: str, text: str) -> None:
    """datagrams.md, "Commands", "Events" and "mtcAgent": members and their order."""
    members = json.loads(text)
    message = mtc_message.decode(wire.pack(name.replace("HEARTBEAT_", ""), members))
    assert message.members == members
    if name in PLAIN:
        return
    written = RECORDS[name].of(message).members()
    expected = [item for item in members.items() if item[0] != "source"]
    assert [(key, str(value)) for key, value in written.items()] == expected


@pytest.mark.parametrize(("name", "text"), examples("datagrams.md", "delivery"))
def test_what_delivery_adds_is_read_and_written_so(name: str, text: str) -> None:
    """datagrams.md, "Probe and acknowledgement": members and their order."""
    members = json.loads(text)
    message = mtc_message.decode(wire.pack(name.replace("HEARTBEAT_", ""), members))
    said = stamp.read_loopback(message) if name == "LOOPBACK" else stamp.Stamp.of_message(message)
    assert said is not None
    added = list(members.items())[list(members).index("epoch") :]
    assert list(said.members().items()) == added


def test_every_datagram_has_an_example() -> None:
    """None is left out."""
    assert {name for name, _ in examples("datagrams.md", "datagrams")} == {*RECORDS, *PLAIN}
