"""The doors: what each takes, and the errors that are its own. Anything else is a finding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from http.client import HTTPException
from typing import NamedTuple

from guest import guest_client
from guestmtce.core.agent import vim_messages
from guestmtce.core.agent.vim_commands import parse_command
from guestmtce.core.server import guest_protocol, saved_loss
from guestmtce.core.shared import mtc_message
from guestmtce.core.shared.delivery import Role
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.http_framing import RequestFramer
from guestmtce.core.shared.settings import load_agent, load_server
from guestmtce.core.shared.stamp import Stamp, read_loopback
from guestmtce.runtime.hosts import parse_hosts
from guestmtce.runtime.http_client import read_answer
from guestmtce.server.virtio import parse_name
from tests.fuzz import corpus
from tests.unit.core_support import Rig

_RECORDS = (
    mtc_message.InstanceInformation,
    mtc_message.Loss,
    mtc_message.VoteAnswer,
    mtc_message.InstanceState,
    mtc_message.HostState,
    mtc_message.Ask,
    mtc_message.HostEntry,
    mtc_message.Ready,
)


class Door(NamedTuple):
    """`enter` takes an input and may raise `errors`."""

    corpus: list[bytes]
    enter: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = (PeerError,)


class _Machines:
    """One instance's machines, fed until they have seen enough; they raise nothing at all."""

    def __init__(self) -> None:
        self._left = 0

    def feed(self, data: bytes) -> None:
        if not self._left:
            self._rig, self._left = Rig(), 500
            self._rig.connect()
        self._left -= 1
        self._rig.instance.received(data)
        if not self._rig.instance.connection.connected:
            self._left = 0


def _datagram(data: bytes) -> None:
    message = mtc_message.decode(data)
    for record in _RECORDS:
        with contextlib.suppress(PeerError):
            record.of(message)
    with contextlib.suppress(PeerError):
        stamp = Stamp.of_message(message)
        if stamp is not None:
            _ROLE.heard(message.command, corpus.UUID, stamp, "10.0.0.1", 5.0)
    with contextlib.suppress(PeerError):
        _ROLE.loopback(read_loopback(message), "10.0.0.1", 5.0)
    _ROLE.poll(5.0)


def _request(data: bytes) -> None:
    framer = RequestFramer()
    framer.receive(data)
    while framer.next_request() is not None:
        pass
    head, _, body = data.partition(b"\r\n\r\n")
    method, _, rest = head.decode("latin-1").partition(" ")
    parse_command(method, rest.split(" ")[0], {"user-agent": "vim/1.0"}, body)


def _answer(data: bytes) -> None:
    for at_end in (False, True):
        _status, body = read_answer(data, at_end=at_end)
        if body is not None:
            with contextlib.suppress(PeerError):
                vim_messages.parse_host_state(body, corpus.UUID)
            with contextlib.suppress(PeerError):
                vim_messages.parse_instances(body)


def _ini(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for load in (load_server, load_agent):
        load(lambda path: (path, text))


def _host_message(data: bytes) -> None:
    for line in guest_client.Framer().feed(data):
        with contextlib.suppress(guest_client.MessageError):
            guest_client.decode(line)


_ROLE = Role(77)

DOORS = {
    "guest": Door(corpus.GUEST, _Machines().feed, ()),
    "guest-line": Door(corpus.GUEST, lambda data: guest_protocol.decode(data.strip(b"\n"))),
    "datagram": Door(corpus.DATAGRAMS, _datagram),
    "request": Door(corpus.REQUESTS, _request),
    "answer": Door(corpus.ANSWERS, _answer, (HTTPException,)),
    "losses": Door(
        corpus.LOSSES,
        lambda data: saved_loss.from_text(data.decode("utf-8", "replace"), "b", 60.0),
        (ValueError,),
    ),
    "ini": Door(corpus.INIS, _ini, ()),
    "hosts": Door(corpus.HOSTS, lambda data: parse_hosts(data.decode("utf-8", "replace")), ()),
    "name": Door(corpus.NAMES, parse_name, ()),
    "guest-client": Door(corpus.HOST_MESSAGES, _host_message, ()),
}
