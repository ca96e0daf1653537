"""UDP on the loop: bounded, normalised, counted (datagrams.md, Ports and addresses)."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime import datagram
from guestmtce.runtime.address import family_of, is_loopback, normalise, socket_address
from guestmtce.runtime.datagram import RECEIVES_PER_TURN, DatagramSocket, bound_socket
from tests.simulation import SimulatedLoop


class Ends:
    """A DatagramSocket and a plain socket that talks with it."""

    def __init__(self, host: str = "127.0.0.1", wrap=lambda sock: sock) -> None:
        self.loop = SimulatedLoop()
        self.seen = []
        self.ended = []
        self.sock = wrap(bound_socket((host, 0)))
        self.ours = DatagramSocket(self.loop, self.sock, lambda *args: self.seen.append(args))
        self.peer = socket.socket(family_of(host), socket.SOCK_DGRAM)
        self.peer.bind((host, 0))
        self.peer.settimeout(5)

    @property
    def peer_address(self):
        return self.peer.getsockname()[:2]

    def send(self, data: bytes) -> bool:
        """Send to the peer; what became of it is in `ended`."""
        return self.ours.send(
            data, self.peer_address, lambda taken: self.ended.append((data, taken))
        )

    def close(self) -> None:
        self.ours.close()
        self.peer.close()
        self.loop.close()


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.close()


@pytest.fixture
def full():
    """Ends whose socket takes `sock.room` datagrams."""
    made = Ends(wrap=FullSocket)
    yield made
    made.close()


class FullSocket:
    """Stands in for the socket: takes `room` datagrams, then none, as a full buffer does."""

    def __init__(self, sock) -> None:
        self._socket = sock
        self.room = 0
        self.taken = []
        self.error = None
        self.receive_errors = []

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def recvmsg(self, *sizes):
        if self.receive_errors:
            raise self.receive_errors.pop()
        return self._socket.recvmsg(*sizes)

    def sendto(self, data, target):
        if self.error is not None:
            raise self.error
        if self.room == 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        self.room -= 1
        self.taken.append((data, target))
        return len(data)


def test_datagrams_go_both_ways_with_their_source(ends):
    ends.peer.sendto(b"hello", ends.ours.address)
    ends.loop.settle()
    assert ends.seen == [(b"hello", *ends.peer_address)]
    assert ends.ours.send(b"answer", ends.peer_address)
    assert ends.peer.recvfrom(100) == (b"answer", ends.ours.address)


def test_ipv6_as_well():
    ends = Ends("::1")
    ends.peer.sendto(b"hello", ends.ours.address)
    ends.loop.settle()
    assert ends.seen == [(b"hello", *ends.peer_address)]
    assert ends.ours.send(b"answer", ends.peer_address)
    assert ends.peer.recv(100) == b"answer"
    ends.close()


def test_an_ipv4_peer_of_an_ipv6_socket_is_known_by_its_ipv4_address():
    """ "Who is believed" compares addresses as text: one address, one spelling."""
    ends = Ends("::")
    port = ends.ours.address[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        peer.sendto(b"hello", ("127.0.0.1", port))
        ends.loop.settle()
        assert ends.seen == [(b"hello", *peer.getsockname())]
        assert ends.ours.send(b"answer", peer.getsockname())
        assert peer.recv(100) == b"answer"
    ends.close()


def test_oversize_and_empty_datagrams_are_seen_as_they_are(ends):
    """ "drops what is shorter, longer": the receiver must be able to tell."""
    ends.peer.sendto(b"x" * 1061, ends.ours.address)
    ends.peer.sendto(b"", ends.ours.address)
    ends.loop.settle()
    assert [len(data) for data, _host, _port in ends.seen] == [1061, 0]


def test_a_flood_is_received_in_bounded_portions(ends):
    """One ready descriptor handles a bounded amount per turn (architecture.md, "The loop")."""
    for number in range(RECEIVES_PER_TURN + 6):
        ends.peer.sendto(b"%d" % number, ends.ours.address)
    ends.loop.run_once()
    assert len(ends.seen) == RECEIVES_PER_TURN
    ends.loop.settle()
    assert [data for data, _host, _port in ends.seen] == [
        b"%d" % number for number in range(RECEIVES_PER_TURN + 6)
    ]


def test_closing_from_within_the_callback_ends_the_portion():
    loop = SimulatedLoop()
    seen = []
    ours = DatagramSocket(
        loop, bound_socket(("127.0.0.1", 0)), lambda *args: (seen.append(args), ours.close())
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(3):
            peer.sendto(b"x", ours.address)
    loop.settle()
    assert len(seen) == 1
    assert loop.errors == 0
    loop.close()


def test_a_full_socket_queues_and_the_queue_is_sent_in_order(full):
    """A datagram counts as sent only when the kernel took it."""
    for text in (b"1", b"2", b"3"):
        assert full.send(text)
    assert full.ours.backlog == 3
    assert full.ended == []
    full.sock.room = 2
    full.loop.run_once()
    assert full.ended == [(b"1", True), (b"2", True)]
    full.sock.room = 9
    full.loop.run_once()
    assert [data for data, _target in full.sock.taken] == [b"1", b"2", b"3"]
    assert full.ended == [(b"1", True), (b"2", True), (b"3", True)]
    assert full.ours.backlog == 0


def test_a_newcomer_does_not_overtake_the_backlog(full):
    full.send(b"1")
    full.sock.room = 1
    full.send(b"2")
    assert full.sock.taken == []
    full.loop.run_once()
    assert [data for data, _target in full.sock.taken] == [b"1"]


def test_the_backlog_is_bounded(full, monkeypatch):
    monkeypatch.setattr(datagram, "MAX_BACKLOG", 2)
    assert [full.send(b"x") for _ in range(4)] == [True, True, False, False]
    assert full.ended == [(b"x", False)] * 2
    assert full.ours.backlog == 2


def test_an_emptied_backlog_does_not_keep_the_loop_awake(full):
    full.send(b"1")
    full.sock.room = 9
    full.loop.settle()
    before = full.loop.turns
    full.loop.advance(60.0)
    assert full.loop.turns - before < 5


def test_what_the_kernel_refuses_is_told_to_the_sender_and_does_not_raise(full):
    full.sock.error = OSError(errno.ENETUNREACH, "unreachable")
    assert not full.send(b"x")
    assert full.ended == [(b"x", False)]


def test_an_error_in_the_backlog_costs_that_datagram_only(full):
    full.send(b"1")
    full.sock.error = OSError(errno.EPERM, "filtered")
    full.loop.run_once()
    assert full.ended == [(b"1", False)]
    full.sock.error, full.sock.room = None, 1
    assert full.send(b"2")
    assert full.ended[1:] == [(b"2", True)]


def test_what_waits_when_the_socket_is_closed_was_not_sent(full):
    full.send(b"1")
    full.ours.close()
    assert full.ended == [(b"1", False)]


def test_a_sender_may_close_the_socket_when_it_hears(full):
    full.ours.send(b"1", full.peer_address, lambda _taken: full.ours.close())
    full.send(b"2")
    full.sock.room = 9
    full.loop.settle()
    assert full.ended == [(b"2", False)]
    assert full.loop.errors == 0


def test_a_peer_that_is_not_there_does_no_harm(full):
    """ICMP port unreachable of an earlier send must not end the receiving."""
    full.sock.receive_errors = [ConnectionRefusedError(errno.ECONNREFUSED, "refused")]
    full.peer.sendto(b"still here", full.ours.address)
    full.loop.settle()
    assert [data for data, _host, _port in full.seen] == [b"still here"]


@pytest.mark.parametrize("host", ["controller", "", "127.0.0.1.example", "300.1.1.1"])
def test_a_name_is_never_looked_up(ends, host, monkeypatch):
    """A look-up would block the loop (decision 1)."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: pytest.fail("looked up"))
    ended = []
    assert not ends.ours.send(b"x", (host, 2401), ended.append)
    assert ended == [False]


def test_what_the_kernel_dropped_is_counted():
    loop = SimulatedLoop()
    seen = []
    sock = bound_socket(("127.0.0.1", 0), rcvbuf=4096)
    ours = DatagramSocket(loop, sock, lambda *args: seen.append(args))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(200):
            peer.sendto(b"x" * 1000, ours.address)
        loop.settle()
        received = len(seen)
        peer.sendto(b"x", ours.address)
        loop.settle()
    assert received < 200
    assert ours.overruns == 200 - received
    ours.close()
    loop.close()


def test_a_port_in_use_is_an_oserror(ends):
    with pytest.raises(OSError, match="already in use"):
        bound_socket(ends.ours.address)


def test_an_address_that_is_not_ours_is_an_oserror(ends):
    with pytest.raises(OSError, match="Cannot assign"):
        bound_socket(("192.0.2.77", 0))


def test_closed_twice_and_silent_then(ends):
    ends.ours.close()
    ends.ours.close()
    assert not ends.ours.send(b"x", ends.peer_address)


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("FD00:0:0::0002", "fd00::2"),
        ("::", "::"),
        ("controller", None),
        ("10.0.0", None),
        ("010.0.0.1", None),
        ("", None),
        ("1.2.3.4\0", None),
        ("\ud800", None),
    ],
)
def test_one_address_has_one_spelling(text, usual):
    assert normalise(text) == usual


@given(st.text())
def test_normalise_takes_any_text_and_is_stable(text):
    usual = normalise(text)
    assert usual is None or normalise(usual) == usual


def test_loopback_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.10", "::1")))
    assert not any(map(is_loopback, ("10.0.0.1", "fd00::1", "12.7.0.1")))


def test_a_scope_id_is_heeded():
    assert socket_address(socket.AF_INET6, "fe80::1%lo", 9) == ("fe80::1", 9, 0, 1)
