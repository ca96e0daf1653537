"""The stream: bounded queue of whole messages, hang-ups (protocol.md, Connecting, Framing)."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime import unix
from guestmtce.runtime.stream import READ_BYTES, Stream
from tests.simulation import SimulatedLoop


class FakeSocket:
    """A socket that takes as many bytes as it is told to, and keeps them."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop()
        self.pair = socket.socketpair()
        self.room = 0
        self.taken = bytearray()

    def send(self, data):
        if self.room == 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        count = min(self.room, len(data))
        self.room -= count
        self.taken += data[:count]
        return count

    def fileno(self):
        return self.pair[0].fileno()

    def setblocking(self, _flag):
        pass

    def recv(self, _size):
        raise BlockingIOError(errno.EAGAIN, "nothing")

    def close(self):
        for end in self.pair:
            end.close()


class Peers:
    """A Stream, the other end of its socket, and what it said."""

    def __init__(self, **options) -> None:
        self.loop = SimulatedLoop()
        near, self.far = socket.socketpair()
        self.data = []
        self.closed = []
        self.stream = Stream(
            self.loop, near, on_data=self.data.append, on_close=self.closed.append, **options
        )

    def fill(self) -> int:
        """Send until the socket is full; return how many bytes went."""
        sent = 0
        while self.stream.queued_bytes == 0:
            self.stream.send(b"f" * 1000)
            sent += 1000
        return sent

    def close(self) -> None:
        self.stream.close()
        self.far.close()
        self.loop.close()


@pytest.fixture
def peers():
    made = Peers()
    yield made
    made.close()


def test_what_arrives_is_handed_on(peers):
    peers.far.send(b"hello")
    peers.loop.settle()
    assert peers.data == [b"hello"]


def test_what_is_sent_arrives(peers):
    assert peers.stream.send(b"hello")
    assert peers.far.recv(100) == b"hello"
    assert peers.stream.queued_bytes == 0


def test_a_flood_is_read_in_bounded_bites_one_a_turn(peers):
    """One ready descriptor handles a bounded amount per turn (architecture.md, "The loop")."""
    peers.far.send(b"x" * (3 * READ_BYTES))
    peers.loop.run_once()
    assert [len(data) for data in peers.data] == [READ_BYTES]
    peers.loop.settle()
    assert sum(map(len, peers.data)) == 3 * READ_BYTES


def test_a_partial_write_is_continued_from_where_it_stopped(peers):
    sent = peers.fill()
    peers.stream.send(b"last")
    received = b""
    while len(received) < sent + 4:
        received += peers.far.recv(65536)
        peers.loop.settle()
    assert received == b"f" * sent + b"last"
    assert peers.stream.dropped == 0


def test_a_drained_queue_does_not_keep_the_loop_awake(peers):
    """Interest in writing is given up again: otherwise the loop would spin."""
    sent = peers.fill()
    received = 0
    while received < sent:
        received += len(peers.far.recv(65536))
        peers.loop.settle()
    before = peers.loop.turns
    peers.loop.advance(60.0)
    assert peers.loop.turns - before < 5


def test_when_full_the_oldest_droppable_message_goes_first():
    """ "drop whole messages, oldest challenge first, never half a message"."""
    sock = FakeSocket()
    stream = _stream(sock, max_buffer=40)
    assert stream.send(b"a" * 10)
    assert stream.send(b"1" * 10, droppable=True)
    assert stream.send(b"2" * 10, droppable=True)
    assert stream.send(b"b" * 10)
    assert stream.send(b"3" * 10, droppable=True)
    assert stream.dropped == 1
    assert drain(stream, sock) == b"a" * 10 + b"2" * 10 + b"b" * 10 + b"3" * 10


def test_without_droppable_ones_the_oldest_goes():
    sock = FakeSocket()
    stream = _stream(sock, max_buffer=20)
    for name in (b"a", b"b", b"c"):
        assert stream.send(name * 10)
    assert stream.dropped == 1
    assert drain(stream, sock) == b"b" * 10 + b"c" * 10


def test_a_message_partly_written_is_never_dropped():
    sock = FakeSocket()
    stream = _stream(sock, max_buffer=20)
    sock.room = 5
    assert stream.send(b"a" * 10, droppable=True)
    assert stream.queued_bytes == 5
    assert stream.send(b"b" * 15, droppable=True)
    assert not stream.send(b"c" * 16)
    assert stream.send(b"d" * 15)
    assert stream.dropped == 2
    assert drain(stream, sock) == b"a" * 10 + b"d" * 15


def test_a_challenge_does_not_push_out_an_acknowledgement():
    sock = FakeSocket()
    stream = _stream(sock, max_buffer=20)
    assert stream.send(b"a" * 10)
    assert stream.send(b"b" * 10)
    assert not stream.send(b"c" * 10, droppable=True)
    assert drain(stream, sock) == b"a" * 10 + b"b" * 10


def test_a_message_larger_than_the_buffer_is_refused_and_nothing_else_goes():
    sock = FakeSocket()
    stream = _stream(sock, max_buffer=20)
    stream.send(b"a" * 10)
    assert not stream.send(b"b" * 21)
    assert drain(stream, sock) == b"a" * 10


MESSAGES = st.tuples(st.integers(1, 30), st.booleans())
STEPS = st.lists(st.one_of(MESSAGES, st.integers(1, 60)), max_size=60)


@given(STEPS, st.integers(10, 80))
def test_the_queue_against_a_model(steps, cap):
    """Messages (size, droppable) are sent and bytes are let through, in any order.

    Whatever happens: the queue stays within its cap; what comes out are whole messages in
    their order; none is lost that is not counted; and one that cannot be dropped is lost
    only to another such one.
    """
    sock = FakeSocket()
    stream = _stream(sock, max_buffer=cap)
    sent = []
    for step in steps:
        if isinstance(step, tuple):
            size, droppable = step
            # Each message is numbered, and says where it begins and ends.
            number = len(sent)
            text = b"<%d%s" % (number, b"." * size) + b">"
            refused = not stream.send(text, droppable=droppable)
            sent.append((text, droppable, refused))
        else:
            sock.room = step
            sock.loop.run_once()
            sock.room = 0
        assert stream.queued_bytes <= cap
    out = drain(stream, sock)
    arrived = [part + b">" for part in out.split(b">")[:-1]]
    assert out.endswith(b">") or not out
    texts = [text for text, _droppable, _refused in sent]
    assert arrived == [text for text in texts if text in set(arrived)]
    assert stream.dropped == len(sent) - len(arrived)
    assert all(text not in arrived for text, _droppable, refused in sent if refused)
    for index, (text, droppable, refused) in enumerate(sent):
        if text not in arrived and not droppable and not refused:
            assert any(not other[1] and not other[2] for other in sent[index + 1 :])


def test_end_of_file_is_told_once(peers):
    peers.far.close()
    peers.loop.settle()
    assert peers.closed == ["end of file"]
    assert peers.stream.closed
    assert not peers.stream.send(b"x")
    peers.stream.close()
    peers.loop.settle()
    assert peers.closed == ["end of file"]


def test_last_words_are_heard_before_the_end(peers):
    peers.far.send(b"bye")
    peers.far.close()
    peers.loop.settle()
    assert peers.data == [b"bye"]
    assert peers.closed == ["end of file"]


def test_a_reset_is_told_once():
    loop = SimulatedLoop()
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _address = listener.accept()
    closed = []
    stream = Stream(loop, near, on_data=lambda _data: None, on_close=closed.append)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    loop.settle()
    assert closed == ["ECONNRESET"]
    assert stream.closed
    listener.close()
    loop.close()


def test_a_broken_pipe_in_send_is_told_later_not_from_inside(peers):
    """The caller of `send` is in the midst of something of its own."""
    peers.far.close()
    assert not peers.stream.send(b"x")
    assert peers.closed == []
    peers.loop.settle()
    assert peers.closed == ["EPIPE"]


def test_closing_after_a_broken_pipe_cancels_the_telling(peers):
    peers.far.close()
    peers.stream.send(b"x")
    peers.stream.close()
    peers.loop.settle()
    assert peers.closed == []


def test_close_is_silent_and_may_be_repeated(peers):
    peers.stream.close()
    peers.stream.close()
    peers.loop.settle()
    assert peers.closed == []
    assert peers.far.recv(1) == b""


def test_closing_from_within_on_data_stops_at_once():
    loop = SimulatedLoop()
    near, far = socket.socketpair()
    seen = []
    stream = Stream(
        loop,
        near,
        on_data=lambda data: (seen.append(data), stream.send(b"answer"), stream.close()),
        on_close=seen.append,
    )
    far.send(b"x" * (2 * READ_BYTES))
    loop.settle()
    assert [len(data) for data in seen] == [READ_BYTES]
    assert loop.errors == 0
    far.close()
    loop.close()


def test_finish_sends_what_is_queued_then_closes(peers):
    sent = peers.fill()
    peers.stream.finish()
    assert not peers.stream.send(b"too late")
    received = b""
    while chunk := _receive(peers):
        received += chunk
    assert received == b"f" * sent
    assert peers.closed == ["finished"]


def test_finish_with_nothing_queued_closes(peers):
    peers.stream.finish()
    peers.stream.finish()
    peers.loop.settle()
    assert peers.closed == ["finished"]
    assert peers.far.recv(1) == b""


def test_sending_nothing_is_nothing(peers):
    assert peers.stream.send(b"")
    assert peers.stream.queued_bytes == 0


def _receive(peers):
    peers.loop.settle()
    return peers.far.recv(65536)


def _stream(sock, max_buffer):
    return Stream(
        sock.loop,
        sock,
        on_data=lambda _data: None,
        on_close=lambda _reason: None,
        max_buffer=max_buffer,
    )


def drain(stream, sock) -> bytes:
    """Let everything out, return all that ever came out, and close."""
    sock.room = 1_000_000
    sock.loop.run_once()
    assert stream.queued_bytes == 0
    stream.close()
    sock.loop.close()
    return bytes(sock.taken)


# Connecting by path


def _listen(directory, name="s") -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(directory, os.O_PATH)
    listener.bind(f"/proc/self/fd/{here}/{name}")
    os.close(here)
    listener.listen(0)
    return listener


def test_connects_and_is_non_blocking_and_close_on_exec(tmp_path):
    with _listen(tmp_path) as listener, unix.connect(os.path.join(tmp_path, "s")) as sock:
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        with listener.accept()[0] as far:
            sock.send(b"x")
            assert far.recv(1) == b"x"


def test_a_path_longer_than_sun_path_is_connected_to(tmp_path):
    """ "The path can exceed sun_path (108 bytes) under a test root: handle it"."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with _listen(deep), unix.connect(os.path.join(deep, "s")) as sock:
        assert sock.fileno() >= 0


def test_no_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        unix.connect(os.path.join(tmp_path, "s"))
    assert caught.value.filename == str(tmp_path / "s")


def test_nobody_listening_is_refused(tmp_path):
    _listen(tmp_path).close()
    with pytest.raises(ConnectionRefusedError) as caught:
        unix.connect(os.path.join(tmp_path, "s"))
    assert caught.value.filename == str(tmp_path / "s")


def test_a_full_listen_queue_is_a_failure_at_once(tmp_path):
    """ "EAGAIN on connect (listen queue full: QEMU serves one client) is a failure"."""
    with (
        _listen(tmp_path),
        unix.connect(os.path.join(tmp_path, "s")),
        pytest.raises(BlockingIOError),
    ):
        unix.connect(os.path.join(tmp_path, "s"))


@pytest.mark.parametrize("kind", ["file", "directory", "fifo"])
def test_what_is_not_a_socket_is_refused(tmp_path, kind):
    """ "only a path that is a socket"; opening a FIFO would block."""
    make = {"file": "touch", "directory": "mkdir"}
    if kind == "fifo":
        os.mkfifo(tmp_path / "s")
    else:
        getattr(tmp_path / "s", make[kind])()
    with pytest.raises(OSError, match="non-socket"):
        unix.connect(os.path.join(tmp_path, "s"))


def test_a_symbolic_link_to_a_socket_is_refused(tmp_path):
    """ "no symlink followed": it could lead to any socket of the host."""
    with _listen(tmp_path, "real"):
        (tmp_path / "s").symlink_to(tmp_path / "real")
        with pytest.raises(OSError, match="non-socket"):
            unix.connect(os.path.join(tmp_path, "s"))


def test_a_failure_leaves_no_descriptor_open(tmp_path):
    (tmp_path / "s").touch()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("s", "missing"):
        with pytest.raises(OSError, match=r"non-socket|No such file"):
            unix.connect(os.path.join(tmp_path, name))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_stream_that_is_not_read_has_it_later(peers):
    """Nothing is lost; it is just not read before."""
    peers.stream.read(False)
    peers.far.sendall(b"later")
    peers.loop.advance(0.4)
    assert not peers.data
    peers.stream.read(True)
    peers.loop.advance(0.2)
    assert peers.data == [b"later"]


def test_a_closed_stream_is_not_read_again(peers):
    peers.stream.read(False)
    peers.stream.close()
    peers.stream.read(True)
    peers.loop.advance(1)
    assert peers.stream.closed
