"""HTTP/1.x framing: http-api.md, "Commands" and its error table; the same result however split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared.http_framing import (
    BODY_LIMIT,
    CONTINUE,
    HEAD_LIMIT,
    HEADER_COUNT_LIMIT,
    HttpError,
    RequestFramer,
)
from guestmtce.runtime.http_message import Request, read_request

GET = b"GET /v1/hosts/U HTTP/1.1\r\nHost: localhost\r\n\r\n"


def parse(*pieces: bytes) -> list:
    """Return the requests, then the status of the error if there was one."""
    framer = RequestFramer()
    results: list = []
    try:
        for piece in pieces:
            framer.receive(piece)
            while (frame := framer.next_request()) is not None:
                results.append(read_request(frame))
    except HttpError as error:
        results.append(error.status)
    return results


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST /x HTTP/" + version, b"Host: a", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_a_plain_request():
    (request,) = parse(GET)
    assert request == Request("GET", "/v1/hosts/U", {"host": "localhost"}, b"", True)


def test_header_names_in_any_case_and_values_without_padding():
    (request,) = parse(b"GET / HTTP/1.1\r\nHOST:a\r\nuSER-aGENT: \t vim/1.0 \r\n\r\n")
    assert request.headers["user-agent"] == "vim/1.0"


def test_repeated_headers_are_joined():
    (request,) = parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\n\r\n")
    assert request.headers["x"] == "1, 2"


def test_pipelined_requests_come_in_order():
    requests = parse(post(b"one", b"Content-Length: 3") + GET + post(b"", b"Content-Length: 0"))
    assert [(r.method, r.body) for r in requests] == [
        ("POST", b"one"),
        ("GET", b""),
        ("POST", b""),
    ]


def test_empty_lines_before_a_request_are_skipped():
    assert len(parse(b"\r\n\r\n" + GET + b"\r\n" + GET)) == 2


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"Upgrade, Close", False),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.2", b"", True),
    ],
)
def test_keep_alive(version: bytes, connection: bytes, keeps: bool):
    (request,) = parse(post(b"", b"Connection: " + connection, version=version))
    assert request.keep_alive is keeps


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"complete rubbish\r\n", 400, id="not a request line, told at once"),
        pytest.param(b"GET  / HTTP/1.1\r\n", 400, id="two spaces"),
        pytest.param(b"GET / HTTP/1.1\n", 400, id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, id="bare LF in headers"),
        pytest.param(b"GET /\xc3\xa9 HTTP/1.1\r\n", 400, id="not ASCII"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, id="version"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, id="obs-fold"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, id="space before colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two Hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400, id="NUL"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, id="bare CR"),
        pytest.param(
            post(b"xx", b"Content-Length: 2", b"Content-Length: 2"), 400, id="length twice"
        ),
        pytest.param(post(b"xx", b"Content-Length: 2, 2"), 400, id="length list"),
        pytest.param(post(b"xx", b"Content-Length: +2"), 400, id="signed length"),
        pytest.param(post(b"xx", b"Content-Length: -2"), 400, id="negative length"),
        pytest.param(post(b"xx", "Content-Length: \u00b2".encode("latin-1")), 400, id="odd digit"),
        pytest.param(
            post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            411,
            id="length and chunks",
        ),
        pytest.param(post(b"0\r\n\r\n", b"Transfer-Encoding: chunked"), 411, id="chunks"),
        pytest.param(post(b"", b"Transfer-Encoding: gzip, chunked"), 411, id="another coding"),
        pytest.param(post(b"xx", b"Content-Length: 2", b"Transfer-Encoding:"), 411, id="no coding"),
        pytest.param(
            post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", version=b"1.0"),
            411,
            id="chunks in 1.0",
        ),
        pytest.param(GET[:-2] + b"no colon\r\n\r\n", 400, id="no colon"),
        pytest.param(post(b"", b"Expect: miracles"), 417, id="Expect"),
        pytest.param(post(b"", b"Content-Length: %d" % (BODY_LIMIT + 1)), 413, id="body"),
        pytest.param(b"GET /" + b"a" * HEAD_LIMIT, 431, id="endless request line"),
        pytest.param(GET[:-2] + b"X: y\r\n" * HEAD_LIMIT, 431, id="endless headers"),
        pytest.param(GET[:-2] + b"X:\r\n" * 101 + b"\r\n", 431, id="too many headers"),
        pytest.param(b"\r\n" * HEAD_LIMIT, 431, id="endless empty lines"),
    ],
)
def test_what_is_refused(data: bytes, status: int):
    assert parse(data) == [status]
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == [status]
    framer = RequestFramer()
    framer.receive(data)
    for _ in range(3):
        with pytest.raises(HttpError) as caught:
            framer.next_request()
        assert caught.value.status == status, "a fault stays"
        framer.receive(GET)


def test_what_came_before_the_fault_is_served():
    requests = parse(GET + b"rubbish\r\n" + GET)
    assert [requests[0].method, *requests[1:]] == ["GET", 400]


def test_limits_themselves_are_accepted():
    (request,) = parse(post(b"x" * BODY_LIMIT, b"Content-Length: %d" % BODY_LIMIT))
    assert len(request.body) == BODY_LIMIT
    lines = b"X:\r\n" * (HEADER_COUNT_LIMIT - 1) + b"\r\n"
    assert len(parse(GET[:-2] + lines)) == 1
    padding = b"X: " + b"y" * (HEAD_LIMIT - len(GET) - 5) + b"\r\n\r\n"
    assert len(parse(GET[:-2] + padding)) == 1
    assert parse(GET[:-2] + b"Y" + padding) == [431]


def test_expect_100_continue():
    framer = RequestFramer()
    framer.receive(post(b"", b"Expect: 100-continue", b"Content-Length: 2"))
    assert framer.next_request() is None
    assert framer.take_continue() == CONTINUE
    assert framer.take_continue() == b"", "said once"
    framer.receive(b"ok")
    frame = framer.next_request()
    assert frame is not None
    assert read_request(frame).body == b"ok"
    assert framer.take_continue() == b""


@pytest.mark.parametrize(("version", "body"), [(b"1.0", b""), (b"1.1", b"o")])
def test_nobody_waits_for_100_continue(version, body):
    """HTTP/1.0 does not know it, and whoever has begun with the body does not wait."""
    framer = RequestFramer()
    framer.receive(post(body, b"Expect: 100-continue", b"Content-Length: 2", version=version))
    assert framer.next_request() is None
    assert framer.take_continue() == b""


def test_idle_until_a_request_begins():
    framer = RequestFramer()
    assert framer.idle
    framer.receive(b"GET")
    assert not framer.idle
    framer.receive(b" / HTTP/1.1\r\n")
    framer.next_request()
    assert not framer.idle
    framer.receive(b"Host: a\r\n\r\n")
    assert framer.next_request() is not None
    assert framer.idle


def test_the_target_is_as_it_was_sent():
    """The library would take one slash for two."""
    (request,) = parse(b"GET //v1/hosts HTTP/1.1\r\nHost: a\r\n\r\n")
    assert request.target == "//v1/hosts"


STREAM = (
    GET
    + post(b"four", b"Content-Length: 4")
    + post(b"\r\n\r\n\n", b"Content-Length: 5")
    + b"\r\n"
    + post(b"", b"Connection: close")
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_the_same_result_however_the_bytes_are_split(size: int):
    pieces = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    assert parse(*pieces) == parse(STREAM)
    assert len(parse(STREAM)) == 4


@given(
    st.lists(
        st.sampled_from(
            [
                GET,
                b"POST / HTTP/1.1\r\nHost: a\r\n",
                b"Content-Length: 3\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Expect: 100-continue\r\n",
                b"\r\n",
                b"abc",
                b"3\r\nabc\r\n",
                b"0\r\n",
                b"\n",
                b"\x00",
                b"HTTP/1.0",
            ]
        )
        | st.binary(max_size=8)
    ).map(b"".join),
    st.lists(st.integers(1, 12), min_size=1),
)
def test_any_bytes_split_anyhow_give_the_same_requests(data: bytes, sizes: list):
    pieces = []
    rest = data
    while rest:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(rest[:size])
        rest = rest[size:]
    assert parse(*pieces) == parse(data)
