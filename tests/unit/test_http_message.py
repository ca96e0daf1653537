"""Answers as bytes: http-api.md, "Commands", and decision 36."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from guestmtce.core.shared.http_framing import Frame, HttpError
from guestmtce.runtime.http_message import Answer, Response, read_request


def encode(response: Response, *, keep_alive: bool = True, head_only: bool = False) -> bytes:
    answer = Answer(response, keep_alive=keep_alive, head_only=head_only)
    blocks = []
    while (block := answer.next_block()) is not None:
        blocks.append(block)
    return b"".join(blocks)


def test_an_answer_and_its_headers():
    response = Response(405, b'{"status":"fail"}', headers={"Allow": "GET, HEAD"})
    assert encode(response) == (
        b"HTTP/1.1 405 Method Not Allowed\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: 17\r\n"
        b"Allow: GET, HEAD\r\n"
        b"Connection: keep-alive\r\n"
        b'\r\n{"status":"fail"}'
    )


def test_204_has_neither_body_nor_length():
    data = encode(Response(204, b"ignored"), keep_alive=False)
    assert data == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def test_head_has_the_length_and_no_body():
    data = encode(Response(200, b"{}"), head_only=True)
    assert b"Content-Length: 2\r\n" in data
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [200, 400, 403, 404, 408, 411, 413, 417, 431, 500, 503, 505])
def test_phrases_are_the_librarys(status):
    phrase = HTTPStatus(status).phrase.encode()
    assert encode(Response(status)).startswith(b"HTTP/1.1 %d %s\r\n" % (status, phrase))


def test_what_the_library_alone_refuses_is_an_error_too():
    """The framer lets no such thing pass; if it did, no HTML and no traceback would come of it."""
    with pytest.raises(HttpError) as caught:
        read_request(Frame(b"GET / HTTP/1.1\r\n" + b"X:\r\n" * 200 + b"\r\n", b""))
    assert caught.value.status == 431
