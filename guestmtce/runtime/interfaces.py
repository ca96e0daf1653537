"""The addresses of this host's interfaces, as the kernel has them now: getifaddrs(3).

A bind is no proof that an address is here: `net.ipv4.ip_nonlocal_bind` lets it succeed for any.
"""

from __future__ import annotations

import ctypes
import socket

from guestmtce.runtime.address import is_loopback, normalise
from guestmtce.runtime.libc import LIBC, last_error


class _SockAddr(ctypes.Structure):
    """struct sockaddr, as long as that of IPv6: family, port, flow, address."""

    _fields_ = (("family", ctypes.c_ushort), ("data", ctypes.c_ubyte * 26))


class _IfAddrs(ctypes.Structure):
    """struct ifaddrs as far as it is read here."""


_IfAddrs._fields_ = (
    ("ifa_next", ctypes.POINTER(_IfAddrs)),
    ("ifa_name", ctypes.c_char_p),
    ("ifa_flags", ctypes.c_uint),
    ("ifa_addr", ctypes.POINTER(_SockAddr)),
)

# Where the address is within `data`, and how long it is.
_PLACES = {socket.AF_INET: (2, 4), socket.AF_INET6: (6, 16)}

LIBC.getifaddrs.argtypes = (ctypes.POINTER(ctypes.POINTER(_IfAddrs)),)
LIBC.getifaddrs.restype = ctypes.c_int
LIBC.freeifaddrs.argtypes = (ctypes.POINTER(_IfAddrs),)
LIBC.freeifaddrs.restype = None


def is_here(address: str) -> bool:
    """Return whether a normalised address is one of this host's; raises OSError."""
    return is_loopback(address) or address in addresses_here()


def addresses_here() -> frozenset[str]:
    """Return the addresses of all interfaces in their usual spelling; raises OSError."""
    first = ctypes.POINTER(_IfAddrs)()
    if LIBC.getifaddrs(ctypes.byref(first)) != 0:
        raise last_error("getifaddrs")
    found = set()
    try:
        entry = first
        while entry:
            address = _address_of(entry.contents.ifa_addr)
            if address is not None:
                found.add(address)
            entry = entry.contents.ifa_next
    finally:
        LIBC.freeifaddrs(first)
    return frozenset(found)


def _address_of(pointer: ctypes._Pointer[_SockAddr]) -> str | None:
    if not pointer:
        return None
    family = pointer.contents.family
    if family not in _PLACES:
        return None
    begin, length = _PLACES[socket.AddressFamily(family)]
    start = ctypes.addressof(pointer.contents) + _SockAddr.data.offset + begin
    return normalise(socket.inet_ntop(family, ctypes.string_at(start, length)))
