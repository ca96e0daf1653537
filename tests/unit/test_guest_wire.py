"""What guestctl try-guest says of a guest client's bytes."""

from __future__ import annotations

import pytest

from guestmtce.core.server.guest_protocol import Exit
from guestmtce.ctl.guest_wire import RIGHT, TOLERATED, WRONG, Wire
from tests.peers import wire

EXIT = wire.message("exit", 1, log_msg="ends")


def marks(*pieces):
    judge = Wire()
    for piece in pieces:
        judge.feed(piece)
    return {found.rule: found.mark for found in judge.findings() if found.mark != RIGHT}


def test_good_bytes_are_right_however_they_are_cut():
    stream = EXIT + wire.message("exit", 2, log_msg="é" * 100)
    for size in (1, 2, 7, len(stream)):
        assert marks(*(stream[at : at + size] for at in range(0, len(stream), size))) == {}
    assert Wire().feed(EXIT) == [Exit("ends")]


@pytest.mark.parametrize(
    ("stream", "rule", "mark"),
    [
        (EXIT + EXIT[1:], "writes a newline before and after each message", TOLERATED),
        (b"\n" + b"x" * 1057 + b"\n", "writes messages that can be read", WRONG),
        (b"\nrubbish\n", "writes messages that can be read", WRONG),
        (EXIT.replace(b'"ends"', b"7"), "writes messages that can be read", WRONG),
        (EXIT.replace(b"ends", b'it says "no"\t'), "escapes its texts", TOLERATED),
        (
            b'\n{"msg_type":"exit","version":3,"revision":1,"sequence":1,"log_msg":""}\n',
            "writes the keys of each message in their order",
            TOLERATED,
        ),
        (EXIT + EXIT, "counts its messages in `sequence`", TOLERATED),
        (EXIT.replace(b"ends", b"x" * 300), "keeps its texts within their limits", TOLERATED),
    ],
)
def test_a_habit_is_named(stream, rule, mark):
    assert marks(stream)[rule] == mark
