"""Mutated inputs: bytes changed, left out, doubled, spliced, and words that have been trouble."""

from __future__ import annotations

import random
from collections.abc import Iterator

WORDS = [
    *(b"\0", b"\n", b"\r\n", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\x1b[31m"),
    *(b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-1", b"0", b"1.5", b"9" * 400),
    *(b"\\ud800", b"\xff\xfe", b"\xc3\x28", "\u2028".encode(), b"%s%n", b"../..", b"A" * 2000),
]


def mutants(inputs: list[bytes], seed: int) -> Iterator[bytes]:
    """Yield inputs without end; which follows from the seed."""
    dice = random.Random(seed)
    while True:
        yield mutant(inputs, dice)


def mutant(inputs: list[bytes], dice: random.Random) -> bytes:
    """Return one of the inputs, changed in some places."""
    data = dice.choice(inputs)
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        data = _mutate(data, dice, inputs)
    return data


def _mutate(data: bytes, dice: random.Random, inputs: list[bytes]) -> bytes:
    begin = dice.randrange(len(data) + 1)
    end = min(len(data), begin + dice.choice((0, 1, 1, 4, 30)))
    how = dice.randrange(5)
    if how == 0:
        return data[:begin] + bytes([dice.randrange(256)]) + data[end:]
    if how == 1:
        return data[:begin] + dice.choice(WORDS) + data[end:]
    if how == 2:
        return data[:begin] + data[end:]
    if how == 3:
        return data[:end] + data[begin:]
    other = dice.choice(inputs)
    return data[:begin] + other[dice.randrange(len(other) + 1) :]
