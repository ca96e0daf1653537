"""One request per connection: http-api.md, "How the VIM really behaves" and "Rules for events"."""

from __future__ import annotations

import socket
import struct
from http.client import HTTPException
from urllib.request import Request

import pytest

from guestmtce.runtime import http_client
from guestmtce.runtime.http_client import (
    ANSWER_LIMIT,
    HttpExchange,
    Outcome,
    encode_request,
    host_header,
    read_answer,
)
from tests.simulation import SimulatedLoop

REQUEST = b"PATCH /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


class Rig:
    """A loop, a listening socket played by the test, and the outcomes."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.loop = SimulatedLoop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind((address, 0))
        self.listener.listen(8)
        self.outcomes: list[Outcome] = []

    @property
    def address(self) -> tuple[str, int]:
        return self.listener.getsockname()[:2]

    def request(self, data: bytes = REQUEST) -> HttpExchange:
        return HttpExchange(self.loop, self.address, data, self.outcomes.append)

    def accept(self) -> socket.socket:
        self.loop.settle()
        self.listener.settimeout(5)
        connection, _ = self.listener.accept()
        connection.settimeout(5)
        self.loop.settle()
        return connection

    def outcome(self) -> Outcome:
        self.loop.settle()
        (outcome,) = self.outcomes
        return outcome

    def close(self) -> None:
        self.listener.close()
        self.loop.close()


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_head_and_body_go_out_in_one_piece_right_after_the_connect(rig):
    rig.request()
    connection = rig.accept()
    assert connection.recv(65536) == REQUEST


def test_an_answer_up_to_the_end_of_file(rig):
    rig.request()
    connection = rig.accept()
    connection.recv(65536)
    connection.send(OK + b'{"state":')
    rig.loop.settle()
    connection.send(b'"enabled"}')
    connection.close()
    outcome = rig.outcome()
    assert outcome == (True, 200, b'{"state":"enabled"}', "")


def test_an_answer_with_a_length_is_not_waited_out(rig):
    rig.request()
    connection = rig.accept()
    connection.recv(65536)
    connection.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    assert rig.outcome() == (True, 200, b"{}", "")


def test_a_vim_that_closes_without_a_byte_has_taken_the_event(rig):
    """A VIM on Python 3 answers events with no bytes at all."""
    rig.request()
    connection = rig.accept()
    connection.recv(65536)
    connection.close()
    assert rig.outcome() == (True, None, b"", http_client.CLOSED)


def test_a_reset_right_after_the_answer_is_its_end(rig):
    """Its answers end with FIN and at once RST: read to the end before looking at the error."""
    rig.request()
    connection = rig.accept()
    connection.recv(65536)
    connection.send(OK + b"{}")
    rig.loop.settle()
    reset(connection)
    assert rig.outcome() == (True, 200, b"{}", "")


def test_a_reset_without_an_answer(rig):
    rig.request()
    connection = rig.accept()
    connection.recv(65536)
    reset(connection)
    assert rig.outcome() == (True, None, b"", http_client.RESET)


def test_refused(rig):
    address = rig.address
    rig.listener.close()
    HttpExchange(rig.loop, address, REQUEST, rig.outcomes.append)
    assert rig.outcomes == [], "never called back from inside"
    assert rig.outcome() == (False, None, b"", "refused")


def test_silence_ends_at_the_deadline(rig):
    rig.request()
    connection = rig.accept()
    rig.loop.advance(19.9)
    assert rig.outcomes == []
    assert connection.recv(65536) == REQUEST
    rig.loop.advance(0.2)
    outcome = rig.outcome()
    assert outcome == (True, None, b"", http_client.TIMEOUT)


def test_an_answer_byte_by_byte_ends_at_the_deadline(rig):
    rig.request()
    connection = rig.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in OK + b"x" * 60:
        if rig.outcomes:
            break
        connection.send(bytes([byte]))
        rig.loop.settle()
        rig.loop.advance(0.2)
    assert rig.outcome()[:2] == (True, 200)
    assert rig.outcome().error == http_client.TIMEOUT


def test_a_request_that_was_not_written_entirely_says_so(rig):
    rig.request(REQUEST + b"x" * 20_000_000)
    connection = rig.accept()
    reset(connection)
    assert rig.outcome() == (False, None, b"", http_client.RESET)


def test_a_large_request_is_written_as_the_peer_reads(rig):
    data = REQUEST + b"x" * 5_000_000
    rig.request(data)
    connection = rig.accept()
    received = 0
    while received < len(data):
        received += len(connection.recv(1_000_000))
        rig.loop.settle()
    connection.close()
    assert rig.outcome() == (True, None, b"", http_client.CLOSED)


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_8.0\r\n", b"\x00" * 100 + b"\n", OK + b"x" * (4 * 1024 * 1024 + 1)],
    ids=["another protocol", "binary", "endless body"],
)
def test_garbage_is_given_up_on(rig, answer):
    rig.request()
    connection = rig.accept()
    connection.recv(65536)
    sent = 0
    connection.settimeout(0.2)
    try:
        while sent < len(answer):
            sent += connection.send(answer[sent:])
            rig.loop.settle()
    except OSError:
        pass  # it has hung up, as it should
    outcome = rig.outcome()
    assert (outcome.written, outcome.body, outcome.error) == (True, b"", "garbage")


def test_an_answer_cut_short_is_no_answer(rig):
    rig.request()
    connection = rig.accept()
    connection.recv(65536)
    connection.send(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}")
    connection.close()
    assert rig.outcome() == (True, 200, b"", http_client.CLOSED)


def test_cancel_calls_nobody(rig):
    exchange = rig.request()
    connection = rig.accept()
    exchange.cancel()
    connection.close()
    rig.loop.advance(30)
    assert rig.outcomes == []


def test_cancel_before_a_refusal_is_told(rig):
    address = rig.address
    rig.listener.close()
    HttpExchange(rig.loop, address, REQUEST, rig.outcomes.append).cancel()
    rig.loop.advance(30)
    assert rig.outcomes == []


def test_an_address_that_is_none(rig):
    HttpExchange(rig.loop, ("vim.example", 80), REQUEST, rig.outcomes.append)
    assert rig.outcome() == (False, None, b"", "unreachable")


def test_ipv6():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    rig = Rig("::1")
    rig.request()
    connection = rig.accept()
    assert connection.recv(65536) == REQUEST
    connection.close()
    assert rig.outcome().written
    rig.close()


def test_a_request_says_what_urllib_describes():
    headers = {"Content-Type": "application/json", "User-Agent": "a/1"}
    url = f"http://{host_header('::1', 30002)}/nfvi-plugins/v1/instances/?host_uuid=U"
    assert encode_request(Request(url, b"{}", headers, method="PATCH")) == (
        b"PATCH /nfvi-plugins/v1/instances/?host_uuid=U HTTP/1.1\r\n"
        b"Host: [::1]:30002\r\n"
        b"Content-Type: application/json\r\n"
        b"User-Agent: a/1\r\n"
        b"Connection: close\r\n"
        b"Content-Length: 2\r\n"
        b"\r\n{}"
    )
    assert b"Content-Length" not in encode_request(Request(url, method="GET"))


def test_ipv6_addresses_are_bracketed():
    assert host_header("::1", 30002) == "[::1]:30002"
    assert host_header("127.0.0.1", 30002) == "127.0.0.1:30002"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", (None, None), id="closed without a byte"),
        pytest.param(OK + b"{}", (200, b"{}"), id="up to the end of file"),
        pytest.param(OK[:-2] + b"Content-Length: 2\r\n\r\n{}", (200, b"{}"), id="length"),
        pytest.param(OK[:-2] + b"Content-Length: 2\r\n\r\n{}more", (200, b"{}"), id="excess"),
        pytest.param(OK[:-2] + b"Content-Length: 3\r\n\r\n{}", (200, None), id="short"),
        pytest.param(
            OK[:-2] + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            (200, b"{}"),
            id="chunks",
        ),
        pytest.param(
            OK[:-2] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (200, None), id="bad chunks"
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\nx", (204, b""), id="204"),
        pytest.param(b"HTTP/1.1 200 X\r\n\r\n", (200, b""), id="odd reason"),
        pytest.param(b"HTTP/1.1 200\r\n\r\n", (200, b""), id="no reason"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b""), id="100"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", (None, None), id="100 alone"),
        pytest.param(OK[:-2] + b"Content-Le", (None, None), id="cut in the head"),
    ],
)
def test_answers(data, expected):
    assert read_answer(data, at_end=True) == expected
    status, body = expected
    for size in range(len(data)):
        early = read_answer(data[:size], at_end=False)
        assert early[0] in (None, status)
        assert early[1] in (None, body)


def test_only_an_answer_with_a_length_is_whole_before_the_end():
    assert read_answer(OK + b"{}", at_end=False) == (200, None)
    sized = OK[:-2] + b"Content-Length: 2\r\n\r\n{}"
    assert read_answer(sized, at_end=False) == (200, b"{}")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 99\r\n", id="status"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", id="version"),
        pytest.param(OK + b"x" * ANSWER_LIMIT, id="too long"),
        pytest.param(OK[:-2] + b"Content-Length: %d\r\n\r\n" % (ANSWER_LIMIT + 1), id="will be"),
        pytest.param(OK[:-2] + b"X: " + b"y" * 70_000 + b"\r\n", id="a long line"),
        pytest.param(OK[:-2] + b"X:\r\n" * 200, id="many headers"),
    ],
)
def test_answers_that_are_refused(data):
    with pytest.raises(HTTPException):
        read_answer(data, at_end=False)
