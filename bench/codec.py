"""Microseconds to decode and encode one message of the guest channel and one datagram."""

from __future__ import annotations

from bench._measure import microseconds, show
from guestmtce.core.server import guest_protocol
from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.mtc_message import InstanceInformation
from guestmtce.core.shared.vocabulary import Command
from tests.peers import wire

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"


def run() -> None:
    answer = wire.message(
        "challenge_response",
        30,
        heartbeat_response=846930886,
        heartbeat_health="healthy",
        corrective_action="none",
        log_msg="",
    )
    init = wire.message("init", 1, **wire.init_body())
    framer = guest_protocol.Framer()
    show(
        "split a challenge_response off the stream", microseconds(lambda: framer.feed(answer)), "µs"
    )
    for name, message in (("challenge_response", answer), ("init", init)):
        line = message.strip(b"\n")
        show(f"decode {name}", microseconds(lambda line=line: guest_protocol.decode(line)), "µs")
    writer = guest_protocol.Writer()
    show("encode challenge", microseconds(lambda: writer.challenge(8)), "µs")
    terms = Terms()
    information = InstanceInformation(
        "compute-0", UUID, True, True, terms.corrective_action, terms.timeouts
    )

    def encode() -> bytes:
        return mtc_message.encode_server_event(Command.QRY_INST, information.members())

    data = encode()
    show("decode a datagram (QRY_INST)", microseconds(lambda: mtc_message.decode(data)), "µs")
    show("encode a datagram (QRY_INST)", microseconds(encode), "µs")
