"""Which local user is at the other end of a TCP connection on this host.

The kernel knows it as the owner of the client's socket. sock_diag(7) answers for one connection
in some microseconds, however many there are; /proc/net/tcp and tcp6 list every socket of the
host, 1 s and more where there are 60,000, so they are asked only where netlink is refused, and
read no further than a bound.

The uid of a socket that its process has closed already reads as 0, which is root's: such a one,
known by its inode 0, has no user any more.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from guestmtce.runtime import files

USERS_FILE = "/etc/passwd"
# What is read of each list in /proc: some 6,900 sockets, 50 ms.
PROC_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_LISTS = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}
# What these lines are made of: number, both ends, state, five more, uid, timeout, inode.
_ENDS, _UID, _INODE = slice(1, 3), 7, 9

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, pid
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2: family, protocol, extensions, states
_ID = struct.Struct(">HH16s16s")  # struct inet_diag_sockid: source and destination
_ANY = struct.pack("=3I", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, any cookie
_ANSWER = struct.Struct("=4x48x12xII")  # struct inet_diag_msg: uid and inode
_ID_AT = _HEADER.size + 4
_ANSWER_BYTES = 4096

_NLMSG_ERROR = 2
_ERROR = struct.Struct("=i")
# An IPv4 address as an IPv6 socket has it.
_MAPPED = bytes(10) + b"\xff\xff"

_USER = re.compile(r"(?P<name>[A-Za-z0-9_.@-]+\$?):[^:]*:(?P<uid>[0-9]{1,10}):")

Address = tuple[str, int]


class LocalUser(NamedTuple):
    """A user of this host; without a uid it is not known who it is."""

    uid: int | None
    name: str


UNKNOWN = LocalUser(None, "unknown")


class _Owner(NamedTuple):
    """A socket's owner; the inode is 0 when its process has closed it."""

    uid: int
    inode: int


class LocalUsers:
    """Finds who is connected; `passwd` is the path of the file that names the users.

    The file is read itself: the C library would ask a directory service too, and wait for it.
    """

    def __init__(self, passwd: str = USERS_FILE) -> None:
        self._passwd = passwd

    def at_other_end(self, connection: socket.socket) -> LocalUser:
        """Return who made the socket at the other end of `connection`; never raises OSError."""
        try:
            ours, theirs = connection.getsockname()[:2], connection.getpeername()[:2]
        except OSError:
            return UNKNOWN
        owner = _owner(connection.family, theirs, ours)
        if owner is None or not owner.inode:
            return UNKNOWN
        return LocalUser(owner.uid, self.name(owner.uid))

    def name(self, uid: int) -> str:
        """Return a uid's name, `uid N` if it has none."""
        found = (name for name, number in self._users() if number == uid)
        return next(found, "root" if uid == 0 else f"uid {uid}")

    def has(self, name: str) -> bool:
        """Whether there is a user of that name."""
        return any(name == known for known, _number in self._users())

    def _users(self) -> Iterator[tuple[str, int]]:
        try:
            text = files.read_text(self._passwd)
        except OSError:
            return
        for line in text.splitlines():
            match = _USER.match(line)
            if match is not None:
                yield match["name"], int(match["uid"])


def _owner(family: int, theirs: Address, ours: Address) -> _Owner | None:
    try:
        owner = _ask_netlink(family, theirs, ours)
        # The kernel says the same of a connection that is gone and of a missing module.
        # Our own end is there for certain.
        works = owner is not None or _ask_netlink(family, ours, theirs) is not None
    except OSError:
        works = False
    return owner if works else _ask_proc(family, theirs, ours)


def _ask_netlink(family: int, source: Address, destination: Address) -> _Owner | None:
    """Return the owner of the socket at `source`, None if there is none; raises OSError.

    It does not wait: the kernel answers while the request is sent.
    """
    wanted = _ID.pack(source[1], destination[1], _raw(family, source), _raw(family, destination))
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + wanted + _ANY
    head = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG) as netlink:
        netlink.sendto(head + request, (0, 0))
        answer = netlink.recv(_ANSWER_BYTES)
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        _refused(answer)
        return None
    # A listening socket at that port would be named as well: it has no such other end.
    if answer[_ID_AT : _ID_AT + 4] != wanted[:4]:
        return None
    return _Owner(*_ANSWER.unpack_from(answer, _HEADER.size))


def _refused(answer: bytes) -> None:
    """Raise OSError, unless the kernel only says that there is no such socket."""
    kind = _HEADER.unpack_from(answer)[1]
    number = -_ERROR.unpack_from(answer, _HEADER.size)[0] if kind == _NLMSG_ERROR else errno.EPROTO
    if number != errno.ENOENT:
        raise OSError(number, os.strerror(number))


def _raw(family: int, address: Address) -> bytes:
    return socket.inet_pton(family, address[0])


def _ask_proc(family: int, theirs: Address, ours: Address) -> _Owner | None:
    """Return the owner of the socket at `theirs`, as far as the lists are read."""
    ends = [(_raw(family, each), each[1]) for each in (theirs, ours)]
    found = _look_in_list(_LISTS[socket.AddressFamily(family)], ends)
    if found is None and family == socket.AF_INET:
        mapped = [(_MAPPED + raw, port) for raw, port in ends]
        found = _look_in_list(_LISTS[socket.AF_INET6], mapped)
    return found


def _look_in_list(path: str, ends: list[tuple[bytes, int]]) -> _Owner | None:
    wanted = [f"{_words(raw)}:{port:04X}".encode("ascii") for raw, port in ends]
    for line in _lines(path):
        fields = line.split()
        if fields[_ENDS] == wanted and len(fields) > _INODE:
            return _Owner(int(fields[_UID]), int(fields[_INODE]))
    return None


def _words(raw: bytes) -> str:
    """Return an address as /proc prints it: words of 32 bits in the host's order."""
    return "".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", raw))


def _lines(path: str) -> Iterator[bytes]:
    """Yield the first lines of a list, PROC_BYTES at most; none if it cannot be read."""
    rest, left = b"", PROC_BYTES
    try:
        with open(path, "rb", buffering=0) as file:
            while left > 0 and (data := file.read(min(left, _READ_BYTES))):
                left -= len(data)
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
    except OSError:
        return
