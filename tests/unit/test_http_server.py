"""The HTTP server on simulated time and loopback sockets: http-api.md, "Errors"."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmtce.core.shared.http_framing import BODY_LIMIT, HEAD_LIMIT, HttpError
from guestmtce.runtime import http_connection
from guestmtce.runtime.http_connection import ANSWER_BYTES_PER_TURN, Limits
from guestmtce.runtime.http_message import Request, Response, encode_event
from guestmtce.runtime.http_server import HttpServer
from tests.simulation import SimulatedLoop

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Answer:
    """One response as a client sees it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        self.body = body


def split_answers(data: bytes, *, heads_only: bool = False) -> list[Answer]:
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        answer = Answer(head, b"")
        length = 0 if heads_only else int(answer.headers.get("content-length", 0))
        answer.body, data = data[:length], data[length:]
        assert len(answer.body) == length
        answers.append(answer)
    return answers


class Client:
    """A connection to the server under test."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.socket = socket.create_connection(rig.server.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.at_end = False
        rig.clients.append(self)

    def send(self, data: bytes) -> Client:
        self.socket.send(data)
        self.rig.loop.settle()
        return self

    def received(self) -> bytes:
        """Everything that has come so far; `at_end` tells whether the server has hung up."""
        self.rig.loop.settle()
        data = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := self.socket.recv(65536):
                data += chunk
                self.rig.loop.settle()
            self.at_end = True
        return data

    def answers(self) -> list[Answer]:
        return split_answers(self.received())

    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers()]


class Rig:
    """A loop, a server that answers with what it was asked, and its clients."""

    def __init__(self, **limits: Any) -> None:
        self.loop = SimulatedLoop()
        self.requests: list[Request] = []
        self.response = Response(200, b'{"status":"pass"}')
        self.clients: list[Client] = []
        self.server = HttpServer(
            self.loop, ("127.0.0.1", 0), self.answer, self.refuse, limits=Limits(**limits)
        )

    def answer(self, request: Request) -> Response:
        self.requests.append(request)
        if request.target == "/echo":
            return Response(200, request.body)
        if request.target == "/crash":
            raise RuntimeError("a bug of ours")
        return self.response

    def refuse(self, error: HttpError) -> Response:
        return Response(error.status, b'{"status":"fail"}')

    def client(self) -> Client:
        client = Client(self)
        self.loop.settle()
        return client

    def close(self) -> None:
        for client in self.clients:
            client.socket.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture
def make_rig():
    rigs = []

    def make(**limits: Any) -> Rig:
        rigs.append(Rig(**limits))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def post(body: bytes, *headers: bytes, target: bytes = b"/echo") -> bytes:
    length = b"Content-Length: %d" % len(body)
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: a", length, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_a_request_is_answered_and_the_connection_kept(rig):
    client = rig.client().send(GET)
    (answer,) = client.answers()
    assert (answer.status, answer.body) == (200, b'{"status":"pass"}')
    assert answer.headers["connection"] == "keep-alive"
    assert client.send(GET).statuses() == [200]
    assert not client.at_end


def test_connection_close_is_honoured(rig):
    client = rig.client().send(LAST)
    (answer,) = client.answers()
    assert answer.headers["connection"] == "close"
    assert client.at_end


def test_http_1_0_is_answered_and_closed(rig):
    client = rig.client().send(b"GET /x HTTP/1.0\r\n\r\n")
    assert client.statuses() == [200]
    assert client.at_end


def test_pipelined_requests_are_answered_in_order(rig):
    data = b"".join(post(b"%d" % number) for number in range(100))
    client = rig.client().send(data)
    assert [answer.body for answer in client.answers()] == [b"%d" % n for n in range(100)]


def test_long_answers_are_given_one_a_turn(rig):
    """A client that pipelines expensive requests delays nobody: others have their turn between."""
    served = []
    long = bytes(2 * ANSWER_BYTES_PER_TURN)

    def handler(request):
        served.append(rig.loop.turns)
        return Response(200, long)

    rig.server.handler = handler
    client = rig.client().send(GET * 8)
    assert len(client.answers()) == 8
    # The first turn has two: one when the request came, one by the timer that goes on.
    assert len(set(served)) >= 7


def test_a_request_in_single_bytes(rig):
    client = rig.client()
    data = post(b"slowly")
    for index in range(len(data)):
        client.send(data[index : index + 1])
    assert client.answers()[0].body == b"slowly"


def test_a_half_closed_client_is_answered(rig):
    client = rig.client()
    client.socket.send(GET + GET)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.statuses() == [200, 200]
    assert client.at_end


def test_head_gets_the_length_and_no_body(rig):
    client = rig.client().send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
    (answer,) = split_answers(client.received(), heads_only=True)
    assert answer.headers["content-length"] == str(len(rig.response.body))


def test_expect_100_continue_is_told_to_go_on_once(rig):
    client = rig.client()
    client.send(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    assert client.received() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"o")
    assert client.received() == b""
    client.send(b"k")
    assert client.answers()[0].body == b"ok"


def test_a_fault_is_answered_and_ends_the_connection(rig):
    client = rig.client().send(GET + b"rubbish\r\n" + GET)
    assert client.statuses() == [200, 400]
    assert client.at_end
    assert len(rig.requests) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"x" * HEAD_LIMIT, 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT + 1), 413),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ],
)
def test_limits(rig, data, status):
    assert rig.client().send(data).statuses() == [status]


def test_an_answer_to_a_request_that_is_still_being_sent_is_not_lost(rig):
    """Closing with unread input would reset the connection under the answer."""
    client = rig.client()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
    for _ in range(5):
        client.send(b"x" * 10_000)
    assert client.statuses() == [413]
    rig.loop.advance(rig.server.limits.linger + 0.1)
    assert rig.server.connections == 0


@pytest.mark.parametrize("sent", [b"", b"GET /x HT", post(b"half of it")[:-4]])
def test_a_request_not_complete_within_10_s_is_408_and_close(rig, sent):
    client = rig.client()
    if sent:
        client.send(sent)
    rig.loop.advance(9.9)
    assert client.received() == b""
    rig.loop.advance(0.2)
    assert client.statuses() == [408]
    assert client.at_end


def test_a_trickle_does_not_extend_the_deadline(rig):
    client = rig.client()
    for _ in range(19):
        client.send(b"G")
        rig.loop.advance(0.5)
    assert client.received() == b""
    rig.loop.advance(0.6)
    assert client.statuses() == [408]


def test_each_request_on_a_kept_connection_has_its_own_deadline(rig):
    client = rig.client()
    for _ in range(4):
        client.send(GET[:5])
        rig.loop.advance(8)
        client.send(GET[5:])
        assert client.statuses() == [200]


def test_an_idle_kept_connection_is_closed_without_a_word(rig):
    client = rig.client().send(GET)
    client.received()
    rig.loop.advance(rig.server.limits.idle - 1)
    assert client.received() == b""
    assert not client.at_end
    rig.loop.advance(2)
    assert client.received() == b""
    assert client.at_end


def big_answer(rig: Rig) -> None:
    rig.response = Response(200, b"x" * 8_000_000)


def test_a_large_answer_arrives_whole(rig):
    big_answer(rig)
    client = rig.client().send(GET)
    assert len(client.answers()[0].body) == 8_000_000


def test_a_client_that_does_not_read_is_hung_up_on(rig):
    big_answer(rig)
    client = rig.client().send(GET)
    rig.loop.advance(rig.server.limits.response + 1)
    assert rig.server.connections == 0
    assert client is not None


def test_a_client_that_does_not_read_is_not_read_either(rig):
    """Bounded in space: no second answer is made while the first one waits."""
    big_answer(rig)
    rig.client().send(GET * 100)
    assert len(rig.requests) == 1


def in_pieces(*pieces: bytes) -> Response:
    return Response(200, iter(pieces))


def test_an_answer_in_pieces_ends_with_the_connection(rig):
    rig.response = in_pieces(*[b"%d," % number for number in range(1000)])
    client = rig.client().send(GET + GET)
    head, _, body = client.received().partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert b"Content-Length" not in head
    assert body == b"".join(b"%d," % number for number in range(1000))
    assert client.at_end
    assert len(rig.requests) == 1


def test_an_empty_piece_is_not_the_last(rig):
    rig.response = in_pieces(b"one,", b"two,", b"", b"", b"three")
    client = rig.client().send(GET)
    assert client.received().endswith(b"\r\n\r\none,two,three")
    assert client.at_end


@pytest.mark.parametrize("pieces", [(), (b"",), (b"all of it",)])
def test_an_answer_of_one_piece_has_its_length(rig, pieces):
    rig.response = in_pieces(*pieces)
    client = rig.client().send(GET)
    (answer,) = client.answers()
    assert answer.body == b"".join(pieces)
    assert answer.headers["connection"] == "keep-alive"
    assert not client.at_end


def test_head_of_an_answer_in_pieces(rig):
    rig.response = in_pieces(b"one", b"two", b"three")
    client = rig.client().send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.received().endswith(b"Connection: close\r\n\r\n")
    assert client.at_end


def test_pieces_are_made_as_they_are_read(rig):
    made = []

    def pieces():
        for number in range(200):
            made.append(number)
            yield bytes(100_000)

    rig.response = Response(200, pieces())
    client = rig.client().send(GET)
    rig.loop.settle()
    first = len(made)
    assert 1 < first < 200
    client.socket.recv(100_000)
    rig.loop.settle()
    assert len(client.received()) > 19_900_000
    assert client.at_end


def test_long_answers_are_made_one_at_a_time_and_requests_are_answered_between(rig):
    """A client that does not read its long answer holds up no other."""
    made = []

    def pieces(name: int):
        for _ in range(50):
            made.append((name, rig.loop.turns))
            yield bytes(1000 if name else 300_000)

    answers = [pieces(name) for name in range(4)]
    rig.server.handler = lambda request: (
        Response(200, answers.pop(0)) if request.target == "/x" else Response(200, b"short")
    )
    clients = [Client(rig) for _ in range(4)]
    for client in clients:
        client.socket.send(GET)
        rig.loop.settle()
    rig.loop.advance(1)
    names = [name for name, _ in made]
    assert names.count(0) < 50, "this one is not read"
    assert names[-150:] == [1] * 50 + [2] * 50 + [3] * 50
    turns = [turn for _, turn in made]
    assert max(turns.count(turn) for turn in turns) <= 2, "the first two go out together"
    assert all(len(client.received()) > 50_000 for client in clients)


def test_a_piece_that_is_not_read_ends_the_answer(rig):
    rig.response = Response(200, (bytes(1_000_000) for _ in range(100)))
    rig.client().send(GET)
    rig.loop.advance(rig.server.limits.response - 1)
    assert rig.server.connections == 1
    rig.loop.advance(2)
    assert rig.server.connections == 0


def test_pieces_that_fail_end_the_connection_and_nothing_else(rig):
    def pieces():
        yield b"one"
        yield b"two"
        raise RuntimeError("a bug of ours")

    rig.response = Response(200, pieces())
    client, other = rig.client().send(GET), rig.client()
    assert client.received().endswith(b"onetwo")
    assert client.at_end
    assert rig.loop.errors == 1
    rig.response = Response(200, b"well")
    assert other.send(GET).statuses() == [200]


def test_a_client_that_goes_in_the_midst_of_pieces_is_forgotten(rig):
    rig.response = Response(200, (bytes(1_000_000) for _ in range(100)))
    client = rig.client().send(GET)
    client.socket.close()
    rig.loop.settle()
    assert rig.server.connections == 0
    assert rig.loop.errors == 0


def follow(rig: Rig) -> Client:
    rig.response = Response(200, b": welcome\n\n", "text/event-stream", follows=True)
    return rig.client().send(GET)


def test_who_follows_gets_each_event_as_it_is_published(rig):
    first = follow(rig)
    head, _, begun = first.received().partition(b"\r\n\r\n")
    assert b"Content-Type: text/event-stream" in head
    assert b"Content-Length" not in head
    assert begun == b": welcome\n\n"
    rig.server.publish(encode_event('{"what":"loss"}', "7-1"))
    second = follow(rig)
    second.received()
    rig.server.publish(encode_event("two\nlines", "7-2"))
    assert first.received() == (
        b'id: 7-1\ndata: {"what":"loss"}\n\nid: 7-2\ndata: two\ndata: lines\n\n'
    )
    assert second.received() == b"id: 7-2\ndata: two\ndata: lines\n\n"
    rig.loop.advance(3600)
    assert not first.at_end, "no deadline ends it while there is nothing to tell"
    assert rig.server.connections == 0, "they are not counted"


def test_who_follows_hears_something_every_15_s(rig):
    """A proxy between, or a browser, that hears nothing takes the stream for dead."""
    client = follow(rig)
    client.received()
    rig.loop.advance(14.9)
    assert client.received() == b""
    rig.loop.advance(0.2)
    assert client.received() == b":\n\n"
    rig.loop.advance(30.0)
    assert client.received() == b":\n\n:\n\n"
    client.socket.close()
    rig.loop.advance(30.0)
    assert follow(rig).received().endswith(b"welcome\n\n")
    assert rig.server.followers == 1


def test_so_many_may_follow_and_no_more(make_rig):
    rig = make_rig(followers=2, connections=1)
    followers = [follow(rig) for _ in range(2)]
    assert follow(rig).statuses() == [503]
    rig.response = Response(200, b"{}")
    assert rig.client().send(GET).statuses() == [200]
    followers[0].socket.close()
    rig.loop.settle()
    assert b"welcome" in follow(rig).received()


def test_who_follows_and_does_not_read_is_hung_up_on(rig):
    slow, well = follow(rig), follow(rig)
    for _ in range(1000):
        rig.server.publish(encode_event("x" * 10_000, "7-2"))
        assert well.received()
    assert slow.received()
    assert slow.at_end
    assert not well.at_end


def test_what_a_follower_says_is_not_heard(rig):
    client = follow(rig)
    client.received()
    client.send(GET * 100)
    assert client.received() == b""
    assert len(rig.requests) == 1


def test_head_of_a_stream(rig):
    rig.response = Response(200, b"", "text/event-stream", follows=True)
    client = rig.client().send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.received().endswith(b"Connection: close\r\n\r\n")
    assert client.at_end


def test_many_requests_at_once_leave_others_their_turn(rig):
    flood, other = rig.client(), rig.client()
    flood.socket.send(GET * 1000)
    other.socket.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
    rig.loop.settle()
    position = [request.target for request in rig.requests].index("/other")
    assert position <= 2 * http_connection.REQUESTS_PER_TURN


def test_beyond_64_connections_the_oldest_idle_one_is_closed(make_rig):
    rig = make_rig(connections=3)
    busy, oldest, newest = rig.client(), rig.client(), rig.client()
    oldest.send(GET).received()
    newest.send(GET).received()
    busy.send(GET[:5])
    extra = rig.client().send(GET)
    assert extra.statuses() == [200]
    assert oldest.received() == b""
    assert oldest.at_end
    assert newest.send(GET).statuses() == [200]
    assert busy.send(GET[5:]).statuses() == [200]


def full_rig(make_rig, **limits: Any) -> Rig:
    """A server whose every place is taken by the beginning of a request, a moment ago."""
    rig = make_rig(connections=2, **limits)
    for _ in range(2):
        rig.client().send(GET[:5])
    return rig


def test_without_an_idle_one_a_whole_request_is_answered_all_the_same(make_rig):
    rig = full_rig(make_rig)
    extra = rig.client().send(GET + GET)
    (answer,) = extra.answers()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert extra.at_end
    assert rig.server.connections == 2


def test_without_an_idle_one_who_brings_no_request_in_time_is_told_503(make_rig):
    rig = full_rig(make_rig)
    refused = rig.client().send(GET[:5])
    rig.loop.advance(rig.server.limits.grace - 0.1)
    assert refused.received() == b""
    rig.loop.advance(0.2)
    assert refused.statuses() == [503]
    assert refused.at_end


def test_those_told_503_are_bounded_too(make_rig):
    rig = full_rig(make_rig, refused=2)
    clients = [rig.client().send(GET[:5]) for _ in range(4)]
    assert [client.received() for client in clients] == [b""] * 4
    assert [client.at_end for client in clients] == [True, True, False, False]
    rig.loop.advance(rig.server.limits.grace)
    assert [client.statuses() for client in clients[2:]] == [[503], [503]]
    assert rig.server.counts["refused"] == 4


def test_the_slowest_makes_room_after_2_s(make_rig):
    """Decision 40. What is young, and what is answered, stays."""
    rig = make_rig(connections=3)
    slowest, slow = rig.client().send(GET[:5]), None
    rig.loop.advance(1)
    slow = rig.client().send(GET[:5])
    rig.loop.advance(1.5)
    young = rig.client().send(GET[:5])
    newcomer = rig.client()
    assert newcomer.send(GET).statuses() == [200]
    assert slowest.received() == b""
    assert [each.at_end for each in (slowest, slow, young)] == [True, False, False]
    assert not newcomer.at_end, "it has a place of its own"
    assert rig.server.connections == 3


def test_who_has_just_come_is_not_pushed_out_by_the_next(make_rig):
    """His request may be on its way: he is not idle."""
    rig = make_rig(connections=1, refused=2)
    rig.client().send(GET[:5])
    rig.loop.advance(2.1)
    vim = rig.client()
    for _ in range(5):
        rig.client()
    assert vim.send(GET).statuses() == [200]
    assert rig.server.counts["evicted"] == 1


def test_a_client_that_does_not_read_makes_room_too(make_rig):
    rig = make_rig(connections=1)
    big_answer(rig)
    rig.client().send(GET)
    rig.loop.advance(2.1)
    rig.client()
    assert rig.server.counts["evicted"] == 1


def test_200_slow_clients_do_not_keep_the_vim_out(rig):
    """They come back whenever they are hung up on; the VIM connects once for each command."""

    slow_ones: list[Client] = []
    answered = 0
    for _ in range(40):
        for client in slow_ones:
            with contextlib.suppress(OSError):
                client.socket.send(b"x")
        rig.loop.settle()
        for client in [client for client in slow_ones if client.received() or client.at_end]:
            slow_ones.remove(client)
            client.socket.close()
        while len(slow_ones) < 200:
            slow_ones.append(Client(rig))
            slow_ones[-1].socket.send(b"G")
        vim = Client(rig).send(LAST)
        answered += vim.statuses() == [200]
        rig.loop.advance(0.3)
    assert answered == 40
    assert rig.server.connections <= rig.server.limits.connections
    assert rig.server.counts["refused"] > 100, "there was no room for them all"


def test_silent_clients_do_not_keep_the_vim_out(make_rig):
    rig = make_rig(connections=4)
    for _ in range(20):
        rig.client()
    assert rig.client().send(GET).statuses() == [200]


def test_without_descriptors_accepting_rests_and_begins_again(rig, monkeypatch):
    tries = []

    def out_of_descriptors(listener: socket.socket) -> Any:
        tries.append(listener)
        raise OSError(errno.EMFILE, "Too many open files")

    client, accept = Client(rig), socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", out_of_descriptors)
    rig.loop.settle()
    rig.loop.advance(2)
    assert 1 < len(tries) <= 1 + 2 / rig.server.limits.accept_retry
    monkeypatch.setattr(socket.socket, "accept", accept)
    rig.loop.advance(1)
    assert client.send(GET).statuses() == [200]


def test_a_handler_that_fails_costs_a_500_and_nothing_else(rig):
    client, other = rig.client(), rig.client()
    assert client.send(b"GET /crash HTTP/1.1\r\nHost: a\r\n\r\n").statuses() == [500]
    assert client.at_end
    assert rig.loop.errors == 1
    assert other.send(GET).statuses() == [200]


def test_a_client_that_resets_is_forgotten(rig):
    client = rig.client().send(GET[:5])
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()
    rig.loop.settle()
    assert rig.server.connections == 0
    assert rig.loop.errors == 0


def test_closing_hangs_up_on_everybody(rig):
    clients = [rig.client() for _ in range(3)]
    rig.server.close()
    for client in clients:
        assert client.received() == b""
        assert client.at_end


def test_ipv6(make_rig):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    rig = make_rig()
    server = HttpServer(rig.loop, ("::1", 0), rig.answer, rig.refuse)
    with socket.create_connection(server.address) as client:
        client.send(LAST)
        rig.loop.settle()
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    server.close()


REQUEST_PARTS = st.sampled_from(
    [
        GET,
        LAST,
        post(b"body"),
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b"\r\n",
        b"\xff\xfe",
        b"GET /crash HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)


@settings(max_examples=80)
@given(
    st.lists(REQUEST_PARTS | st.binary(max_size=40), max_size=8).map(b"".join),
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    st.booleans(),
)
def test_whatever_is_sent_is_answered_or_ends_and_others_are_served(data, sizes, half_close):
    """It never raises, never outlives its deadline, and another client is always answered."""
    rig = Rig()
    try:
        client, other = rig.client(), rig.client()
        rest, turn = data, 0
        with contextlib.suppress(OSError):
            while rest:
                size = sizes[turn % len(sizes)]
                client.send(rest[:size])
                rest, turn = rest[size:], turn + 1
            if half_close:
                client.socket.shutdown(socket.SHUT_WR)
        assert other.send(GET).statuses() == [200]
        crashes = sum(1 for request in rig.requests if request.target == "/crash")
        assert rig.loop.errors == crashes
        limits = rig.server.limits
        rig.loop.advance(limits.request + limits.linger + 1)
        assert rig.server.connections <= 2, "only kept ones are left"
        rig.loop.advance(limits.idle + 1)
        assert rig.server.connections == 0
    finally:
        rig.close()
