"""HTTP/1.x framing: vim.md, "Commands" and its error table; issue: same result however split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared.http1 import (
    BODY_LIMIT,
    HEAD_LIMIT,
    HttpError,
    Request,
    RequestParser,
    Response,
    ResponseParser,
    encode_request,
    encode_response,
    host_header,
)

GET = b"GET /v1/hosts/U HTTP/1.1\r\nHost: localhost\r\n\r\n"


def parse(*pieces: bytes) -> list:
    """Return the requests, then the status of the error if there was one."""
    parser = RequestParser()
    results: list = []
    try:
        for piece in pieces:
            parser.receive(piece)
            while (request := parser.next_request()) is not None:
                results.append(request)
    except HttpError as error:
        results.append(error.status)
    return results


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST /x HTTP/" + version, b"Host: a", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_a_plain_request():
    (request,) = parse(GET)
    assert request == Request("GET", "/v1/hosts/U", {"host": "localhost"}, b"", True, False)


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


def test_chunked_bodies_are_decoded():
    chunks = b'4;name="x"\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: dropped\r\n\r\n'
    first, second = parse(post(chunks, b"Transfer-Encoding: Chunked") + GET)
    assert first.body == b"Wikipedia"
    assert second.method == "GET"


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
            400,
            id="length and chunks",
        ),
        pytest.param(
            post(b"", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            400,
            id="coding twice",
        ),
        pytest.param(post(b"", b"Transfer-Encoding: gzip, chunked"), 501, id="another coding"),
        pytest.param(
            post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", version=b"1.0"),
            400,
            id="chunks in 1.0",
        ),
        pytest.param(post(b"", b"Expect: miracles"), 417, id="Expect"),
        pytest.param(post(b"", b"Content-Length: %d" % (BODY_LIMIT + 1)), 413, id="body"),
        pytest.param(
            post(b"%x\r\n" % (BODY_LIMIT + 1), b"Transfer-Encoding: chunked"), 413, id="chunk size"
        ),
        pytest.param(post(b"-1\r\n", b"Transfer-Encoding: chunked"), 400, id="chunk size sign"),
        pytest.param(post(b"0x1\r\n", b"Transfer-Encoding: chunked"), 400, id="chunk size 0x"),
        pytest.param(post(b"1\r\nab\r\n", b"Transfer-Encoding: chunked"), 400, id="chunk overrun"),
        pytest.param(
            post(b"1;" + b"x" * 300, b"Transfer-Encoding: chunked"), 400, id="chunk extension"
        ),
        pytest.param(b"GET /" + b"a" * HEAD_LIMIT, 431, id="endless request line"),
        pytest.param(GET[:-2] + b"X: y\r\n" * HEAD_LIMIT, 431, id="endless headers"),
        pytest.param(GET[:-2] + b"X:\r\n" * 101 + b"\r\n", 431, id="too many headers"),
        pytest.param(b"\r\n" * HEAD_LIMIT, 431, id="endless empty lines"),
    ],
)
def test_what_is_refused(data: bytes, status: int):
    assert parse(data) == [status]
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == [status]


def test_what_came_before_the_fault_is_served():
    requests = parse(GET + b"rubbish\r\n" + GET)
    assert [requests[0].method, *requests[1:]] == ["GET", 400]


def test_a_fault_stays():
    parser = RequestParser()
    parser.receive(b"rubbish\r\n")
    for _ in range(2):
        with pytest.raises(HttpError):
            parser.next_request()


def test_limits_themselves_are_accepted():
    (request,) = parse(post(b"x" * BODY_LIMIT, b"Content-Length: %d" % BODY_LIMIT))
    assert len(request.body) == BODY_LIMIT


def test_chunks_that_together_exceed_the_limit_are_refused():
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    assert parse(post(chunk * 3, b"Transfer-Encoding: chunked")) == [413]


def test_expect_100_continue():
    parser = RequestParser()
    parser.receive(post(b"", b"Expect: 100-continue", b"Content-Length: 2"))
    assert parser.next_request() is None
    assert parser.wants_continue
    parser.receive(b"ok")
    request = parser.next_request()
    assert request is not None
    assert request.body == b"ok"
    assert not parser.wants_continue


def test_expect_is_ignored_in_http_1_0():
    parser = RequestParser()
    parser.receive(post(b"", b"Expect: 100-continue", b"Content-Length: 2", version=b"1.0"))
    assert parser.next_request() is None
    assert not parser.wants_continue


def test_idle_until_a_request_begins():
    parser = RequestParser()
    assert parser.idle
    parser.receive(b"GET")
    assert not parser.idle
    parser.receive(b" / HTTP/1.1\r\n")
    parser.next_request()
    assert not parser.idle
    parser.receive(b"Host: a\r\n\r\n")
    assert parser.next_request() is not None
    assert parser.idle


STREAM = (
    GET
    + post(b"four", b"Content-Length: 4")
    + post(b"3\r\nabc\r\n1;x\r\nd\r\n0\r\nT: x\r\n\r\n", b"Transfer-Encoding: chunked")
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


def answer(data: bytes, *, size: int | None = None) -> tuple:
    parser = ResponseParser(body_limit=100)
    step = size or len(data) or 1
    for start in range(0, len(data), step):
        parser.receive(data[start : start + step])
    parser.end()
    return parser.status, parser.body, parser.complete


OK = b"HTTP/1.0 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", (None, b"", False), id="closed without a byte"),
        pytest.param(OK + b"\r\n{}", (200, b"{}", True), id="up to the end of file"),
        pytest.param(OK + b"Content-Length: 2\r\n\r\n{}", (200, b"{}", True), id="length"),
        pytest.param(OK + b"Content-Length: 2\r\n\r\n{}more", (200, b"{}", True), id="excess"),
        pytest.param(OK + b"Content-Length: 3\r\n\r\n{}", (200, b"{}", False), id="short"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            (200, b"{}", True),
            id="chunks",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\nx", (204, b"", True), id="204"),
        pytest.param(b"HTTP/1.1 200 X\r\n\r\n", (200, b"", True), id="odd reason"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n", (200, b"", True), id="100"),
        pytest.param(OK + b"Content-Le", (None, b"", False), id="cut in the head"),
    ],
)
def test_responses(data: bytes, expected: tuple):
    assert answer(data) == expected
    assert answer(data, size=1) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 99\r\n",
        OK + b"Content-Length: 101\r\n\r\n",
        OK + b"\r\n" + b"x" * 101,
        OK + b"X: " + b"y" * HEAD_LIMIT,
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_responses_that_are_refused(data: bytes):
    with pytest.raises(HttpError):
        answer(data)


def test_encoded_response_comes_back():
    data = encode_response(
        Response(405, b'{"status":"fail"}', headers={"Allow": "GET, HEAD"}), keep_alive=True
    )
    assert data.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET, HEAD\r\nConnection: keep-alive\r\n" in data
    assert answer(data) == (405, b'{"status":"fail"}', True)


def test_204_has_neither_body_nor_length():
    data = encode_response(Response(204, b"ignored"), keep_alive=False)
    assert data == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def test_head_has_the_length_and_no_body():
    data = encode_response(Response(200, b"{}"), keep_alive=True, head_only=True)
    assert b"Content-Length: 2\r\n" in data
    assert data.endswith(b"\r\n\r\n")


def test_encoded_request_comes_back():
    data = encode_request("PATCH", "/nfvi-plugins/v1/instances/U", "[::1]:30002", "a/1", b"{}")
    (request,) = parse(data)
    assert (request.method, request.body, request.keep_alive) == ("PATCH", b"{}", False)
    assert b"Content-Length: 2\r\n" in data
    assert b"Content-Length" not in encode_request("GET", "/", "h", "a/1")


def test_ipv6_addresses_are_bracketed():
    assert host_header("::1", 30002) == "[::1]:30002"
    assert host_header("127.0.0.1", 30002) == "127.0.0.1:30002"
