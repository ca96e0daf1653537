"""Who is at the other end of a TCP connection: security.md, "The command port"."""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from guestmtce.runtime import local_user
from guestmtce.runtime.local_user import UNKNOWN, LocalUser, LocalUsers
from tests.peers.root import free_ports

ME = LocalUser(os.getuid(), pwd.getpwuid(os.getuid()).pw_name)
# A netlink protocol that no kernel has: as where AF_NETLINK is refused.
NO_SUCH_PROTOCOL = 31


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["netlink", "proc"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either way to ask the kernel; this machine may have more sockets than are read."""
    if request.param == "proc":
        monkeypatch.setattr(local_user, "NETLINK_SOCK_DIAG", NO_SUCH_PROTOCOL)
        monkeypatch.setattr(local_user, "PROC_BYTES", 1 << 30)
    return request.param


def connect(
    stack: ExitStack, server: str = "127.0.0.1", client: str = "", client_port: int = 0
) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection, the server's first."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    listener = stack.enter_context(socket.create_server((server, 0), family=family))
    theirs = socket.socket(socket.AF_INET6 if ":" in client + server else socket.AF_INET)
    stack.enter_context(theirs)
    if client_port:
        theirs.bind((client or server, client_port))
    theirs.connect((client or server, listener.getsockname()[1]))
    return stack.enter_context(listener.accept()[0]), theirs


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("server", "client"),
    [("127.0.0.1", ""), ("127.0.0.1", "::ffff:127.0.0.1"), ("::1", "")],
    ids=["IPv4", "IPv4 of an IPv6 socket", "IPv6"],
)
def test_the_user_is_found(sockets, server, client):
    try:
        ours, _theirs = connect(sockets, server, client)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert LocalUsers().at_other_end(ours) == ME


@pytest.mark.usefixtures("way")
def test_who_has_hung_up_is_not_root(sockets):
    """The kernel shows uid 0 for a socket that nobody has open any more."""
    ours, theirs = connect(sockets)
    theirs.close()
    assert LocalUsers().at_other_end(ours) == UNKNOWN


@pytest.mark.usefixtures("way")
def test_who_waits_for_the_answer_only_is_still_known(sockets):
    ours, theirs = connect(sockets)
    theirs.shutdown(socket.SHUT_WR)
    assert LocalUsers().at_other_end(ours) == ME


@pytest.mark.usefixtures("way")
def test_a_listener_at_the_port_of_one_who_left_is_not_taken_for_him(sockets):
    (port,) = free_ports(1, socket.SOCK_STREAM)  # one that the kernel gives to nobody meanwhile
    ours, theirs = connect(sockets, client_port=port)
    address = theirs.getsockname()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer = ours.getpeername()
    theirs.close()  # with a reset: nothing of it is left, and our end is gone as well
    assert LocalUsers().at_other_end(ours) == UNKNOWN
    sockets.enter_context(socket.create_server(address))
    assert LocalUsers().at_other_end(_Pretended(ours, peer)) == UNKNOWN


class _Pretended:
    """A connection that still says who its peer was."""

    def __init__(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.family, self._sock, self._peer = sock.family, sock, peer

    def getsockname(self) -> tuple[str, int]:
        return self._sock.getsockname()

    def getpeername(self) -> tuple[str, int]:
        return self._peer


def test_one_that_the_lists_do_not_show_within_the_bound_is_unknown(sockets, monkeypatch):
    monkeypatch.setattr(local_user, "NETLINK_SOCK_DIAG", NO_SUCH_PROTOCOL)
    monkeypatch.setattr(local_user, "PROC_BYTES", 100)
    ours, _theirs = connect(sockets)
    assert LocalUsers().at_other_end(ours) == UNKNOWN


def test_a_look_up_does_not_wait_for_the_number_of_sockets(sockets):
    """With 2,000 sockets more, 200 look-ups: 0.1 s would be one read of the lists for each."""
    ours, _theirs = connect(sockets)
    for _ in range(1000):
        sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
    users = LocalUsers()
    began = time.process_time()
    for _ in range(200):
        assert users.at_other_end(ours) == ME
    assert time.process_time() - began < 0.4


@pytest.mark.parametrize(
    ("uid", "name"),
    [(0, "root"), (1002, "vim"), (1003, "first"), (7, "uid 7"), (9, "uid 9")],
)
def test_names(tmp_path: Path, uid, name):
    """The first line of a uid counts; what is no line of a user is passed over."""
    file = tmp_path / "passwd"
    file.write_text(
        "root:x:0:0::/:/bin/sh\nvim:x:1002:1::/:\nfirst:x:1003:1::/:\nsecond:x:1003:1::/:\n"
        "rubbish\n:x:7:1::/:\nx:y:seven:\nx:y:77777777777777777:\na\x1b[2J:x:9:9::/:\n",
        "utf-8",
    )
    assert LocalUsers(str(file)).name(uid) == name


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_without_the_file_there_are_numbers(tmp_path: Path, path):
    users = LocalUsers(str(tmp_path / path))
    assert (users.name(0), users.name(1000)) == ("root", "uid 1000")
    assert not users.has("root")
