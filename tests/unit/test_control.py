"""The control socket (operations.md, Files and signals): bounded, private, never blocking."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
import time

import pytest

from guestmtce.core.shared.errors import PeerError
from guestmtce.runtime import control, unix
from guestmtce.runtime.control import ControlServer
from guestmtce.runtime.loop import Loop
from tests.simulation import SimulatedLoop


def answer(request):
    if request["command"] == "fail":
        raise PeerError("unknown_instance", "no such instance")
    if request["command"] == "big":
        return {"text": "x" * request["size"]}
    return {"you_said": request}


class Rig:
    def __init__(self, directory) -> None:
        self.path = str(directory / "run" / "d.ctl")
        self.loop = SimulatedLoop()
        self.server = ControlServer(self.loop, self.path, answer)
        self.clients = []

    def connect(self) -> socket.socket:
        client = unix.connect(self.path)
        client.settimeout(5)
        self.clients.append(client)
        return client

    def ask(self, line: bytes) -> dict:
        client = self.connect()
        client.sendall(line)
        self.loop.settle()
        return json.loads(client.makefile().read())

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.close()


def test_one_request_line_one_answer_line_then_the_end(rig):
    client = rig.connect()
    client.sendall(b'{"command":"status"}\n')
    rig.loop.settle()
    assert client.recv(4096) == b'{"you_said": {"command": "status"}}\n'
    assert client.recv(4096) == b""


def test_the_socket_is_private_to_its_owner(rig):
    """Mode 0600."""
    assert stat.S_IMODE(os.stat(rig.path).st_mode) == 0o600


def test_the_mode_does_not_depend_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        rig = Rig(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(rig.path).st_mode) == 0o600
    rig.close()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"status\n", "the request is not JSON"),
        (b"\xff\xfe\n", "the request is not JSON"),
        (b"[" * 4000 + b"\n", "the request is not JSON"),
        (b"[]\n", "the request is not an object with a command"),
        (b"{}\n", "the request is not an object with a command"),
        (b'{"command":5}\n', "the request is not an object with a command"),
        (b'{"command":"fail"}\n', "no such instance"),
        (b"x" * 5000, "the request is too long"),
    ],
)
def test_a_bad_request_is_answered_with_an_error(rig, line, error):
    assert rig.ask(line) == {"error": error}


def test_a_request_may_come_in_pieces(rig):
    client = rig.connect()
    for byte in b'{"command":"x"}\n':
        client.sendall(bytes([byte]))
        rig.loop.settle()
    assert json.loads(client.recv(4096)) == {"you_said": {"command": "x"}}


def test_a_second_request_on_the_same_connection_is_not_heard(rig):
    assert rig.ask(b'{"command":"a"}\n{"command":"b"}\n') == {"you_said": {"command": "a"}}


def test_a_client_that_says_nothing_is_hung_up_on(rig):
    client = rig.connect()
    rig.loop.advance(4.9)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    rig.loop.advance(0.2)
    assert client.recv(1) == b""


def test_a_large_answer_does_not_block_and_arrives_whole(rig):
    size = 5_000_000
    client = rig.connect()
    client.sendall(b'{"command":"big","size":%d}\n' % size)
    rig.loop.settle()
    received = 0
    while chunk := client.recv(1 << 20):
        received += len(chunk)
        rig.loop.settle()
    assert received == size + len('{"text": ""}\n')


def test_a_client_that_does_not_read_its_answer_is_hung_up_on(rig):
    client = rig.connect()
    client.sendall(b'{"command":"big","size":5000000}\n')
    rig.loop.advance(6.0)
    received = 0
    while chunk := client.recv(1 << 20):
        received += len(chunk)
    assert received < 5_000_000


def test_an_answer_beyond_the_bound_is_an_error(rig, monkeypatch):
    monkeypatch.setattr(control, "MAX_ANSWER_BYTES", 1000)
    assert rig.ask(b'{"command":"big","size":2000}\n') == {"error": "the answer is too long"}


def test_a_client_that_shuts_its_half_down_gets_its_answer(rig):
    client = rig.connect()
    client.sendall(b'{"command":"x"}\n')
    client.shutdown(socket.SHUT_WR)
    rig.loop.settle()
    assert json.loads(client.recv(4096)) == {"you_said": {"command": "x"}}


def test_clients_beyond_the_bound_wait_for_their_turn(rig):
    idle = [rig.connect() for _ in range(control.MAX_CLIENTS)]
    rig.loop.settle()
    late = rig.connect()
    late.sendall(b'{"command":"late"}\n')
    rig.loop.settle()
    late.setblocking(False)
    with pytest.raises(BlockingIOError):
        late.recv(4096)
    idle[0].close()
    rig.loop.settle()
    assert json.loads(late.recv(4096)) == {"you_said": {"command": "late"}}


def test_without_descriptors_accepting_is_tried_again_later(rig, monkeypatch):
    """ "EMFILE stops accepting and tries again by timer" (architecture.md, "The loop")."""

    def out_of_descriptors(_socket):
        raise OSError(errno.EMFILE, "Too many open files")

    accept = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", out_of_descriptors)
    client = rig.connect()
    client.sendall(b'{"command":"x"}\n')
    rig.loop.advance(0.5)
    turns = rig.loop.turns
    rig.loop.advance(0.4)
    assert rig.loop.turns - turns < 10
    monkeypatch.setattr(socket.socket, "accept", accept)
    rig.loop.advance(1.0)
    assert json.loads(client.recv(4096)) == {"you_said": {"command": "x"}}


def test_a_handler_that_fails_does_not_end_the_daemon(tmp_path):
    loop = SimulatedLoop()
    server = ControlServer(loop, str(tmp_path / "c"), lambda _request: 1 / 0)
    with unix.connect(str(tmp_path / "c")) as client:
        client.sendall(b'{"command":"x"}\n')
        loop.settle()
        assert loop.errors == 1
        loop.advance(6.0)
        assert client.recv(1) == b""
    server.close()
    loop.close()


def test_a_stale_socket_is_replaced_and_ours_is_removed(rig, tmp_path):
    stale = str(tmp_path / "stale")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(stale)
    server = ControlServer(rig.loop, stale, answer)
    unix.connect(stale).close()
    server.close()
    server.close()
    assert not os.path.exists(stale)


def test_closing_hangs_up_on_clients(rig):
    client = rig.connect()
    rig.loop.settle()
    rig.server.close()
    assert client.recv(1) == b""


def test_a_path_longer_than_sun_path(tmp_path):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    rig = Rig(deep)
    assert rig.ask(b'{"command":"x"}\n') == {"you_said": {"command": "x"}}
    rig.close()


# ask, the client's side


@pytest.fixture
def served(tmp_path):
    """A server on a loop of its own, in a thread of the test's."""
    loop = Loop()
    path = str(tmp_path / "d.ctl")
    server = ControlServer(loop, path, answer)
    wake, woken = socket.socketpair()
    loop.watch(woken, 1, lambda _ready: loop.stop())
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield path
    wake.send(b"x")
    thread.join()
    server.close()
    loop.close()
    wake.close()
    woken.close()


def test_ask_returns_the_answer(served):
    assert control.ask(served, {"command": "x"}) == {"you_said": {"command": "x"}}
    assert len(control.ask(served, {"command": "big", "size": 3_000_000})["text"]) == 3_000_000


def test_ask_without_a_daemon(tmp_path):
    with pytest.raises(FileNotFoundError):
        control.ask(str(tmp_path / "d.ctl"), {"command": "x"})


@pytest.fixture
def silent(tmp_path):
    """A daemon that accepts and says only what it is told to."""
    path = str(tmp_path / "d.ctl")
    listener = unix.listen(path, mode=0o600, backlog=1)
    yield path, listener
    listener.close()


def test_ask_gives_up_in_time(silent):
    path, _listener = silent
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        control.ask(path, {"command": "x"}, timeout=0.2)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", [b"", b"x\n", b"[]\n", b'{"half'])
def test_ask_of_something_that_is_no_daemon_of_ours(silent, text):
    path, listener = silent

    def reply():
        listener.setblocking(True)
        with listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(text)

    thread = threading.Thread(target=reply)
    thread.start()
    with pytest.raises(ValueError, match="not a JSON object"):
        control.ask(path, {"command": "x"})
    thread.join()
