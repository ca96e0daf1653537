"""The doors: what each takes, and the errors that are its own. Anything else is a finding."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from guestmtce.core.server import guest_protocol, saved_loss
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.settings import load_agent, load_server
from guestmtce.runtime.hosts import parse_hosts
from guestmtce.server.virtio import parse_name
from tests.fuzz import corpus, rooms
from tests.fuzz.rooms import Enter

LEARNED = Path(__file__).parent / "learned"


class Door(NamedTuple):
    """`open` gives a function that takes an input and may raise `errors`.

    `inputs` are the first of the corpus; those that were found to reach something new are kept
    beside them.
    """

    inputs: list[bytes]
    open: Callable[[], AbstractContextManager[Enter]]
    errors: tuple[type[Exception], ...] = ()


def corpus_of(name: str) -> list[bytes]:
    """Return what mutation starts from at a door."""
    return [*DOORS[name].inputs, *learned(name)]


def learned(name: str) -> list[bytes]:
    """Return the inputs that were found by `python3 -m tests.fuzz.learn`."""
    path = LEARNED / f"{name}.json"
    if not path.exists():
        return []
    return [text.encode("latin-1") for text in json.loads(path.read_text())]


def _by(function: Enter) -> Callable[[], AbstractContextManager[Enter]]:
    """Return how to open what keeps nothing from one input to the next."""

    @contextlib.contextmanager
    def opened() -> Iterator[Enter]:
        yield function

    return opened


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _ini(data: bytes) -> None:
    for load in (load_server, load_agent):
        load(lambda path: (path, _text(data)))


DOORS = {
    "guest": Door(corpus.GUEST, rooms.guest_channel),
    "guest-line": Door(
        corpus.GUEST, _by(lambda data: guest_protocol.decode(data.strip(b"\n"))), (PeerError,)
    ),
    "server-datagram": Door(corpus.TO_SERVER, rooms.guest_server),
    "agent-datagram": Door(corpus.TO_AGENT, rooms.guest_agent),
    "request": Door(corpus.REQUESTS, rooms.command_port),
    "answer": Door(corpus.ANSWERS, rooms.vim_answer),
    "control": Door(corpus.CONTROL, rooms.control_socket),
    "losses": Door(
        corpus.LOSSES,
        _by(lambda data: saved_loss.from_text(_text(data), "b", 60.0)),
        (ValueError,),
    ),
    "ini": Door(corpus.INIS, _by(_ini)),
    "hosts": Door(corpus.HOSTS, _by(lambda data: parse_hosts(_text(data)))),
    "name": Door(corpus.NAMES, _by(parse_name)),
    "guest-client": Door(corpus.HOST_MESSAGES, rooms.client),
}
