"""Numeric addresses in one spelling, so that two of them can be compared as text."""

from __future__ import annotations

import errno
import functools
import socket
from typing import Union

from guestmtce.core.shared.errors import StartError

_MAPPED_PREFIX = "::ffff:"

SocketAddress = Union[tuple[str, int], tuple[str, int, int, int]]


@functools.lru_cache(maxsize=1024)
def normalise(text: str) -> str | None:
    """Return a numeric address in its usual spelling, None if `text` is not one.

    An IPv4-mapped IPv6 address becomes the IPv4 one; a scope id (`%eth0`) goes.
    """
    bare = text.partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            usual = socket.inet_ntop(family, socket.inet_pton(family, bare))
        except (OSError, ValueError):
            continue
        mapped = usual[len(_MAPPED_PREFIX) :] if usual.startswith(_MAPPED_PREFIX) else ""
        return mapped if "." in mapped else usual
    return None


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of a numeric address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def cannot_bind(protocol: str, address: str, port: int, error: OSError) -> StartError:
    """Return what ends a start: `protocol` (TCP, UDP), and who has the port where it is taken."""
    text = f"cannot bind {protocol} port {port} on {address}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        text += f"; `ss -lntup 'sport = :{port}'` shows who has it"
    return StartError(text)


def is_loopback(address: str) -> bool:
    """Return whether a normalised numeric address is one of this machine's loopback ones."""
    return address == "::1" or address.startswith("127.")


@functools.lru_cache(maxsize=1024)
def socket_address(family: int, host: str, port: int) -> SocketAddress:
    """Return what a socket of `family` takes for a numeric `host`; a scope id is heeded.

    Raises OSError if `host` is not numeric (the system would look it up, and block) or not
    to be reached with this family.
    """
    bare, _percent, scope = host.partition("%")
    if family == socket.AF_INET6 and ":" not in bare:
        bare = _MAPPED_PREFIX + bare
    socket.inet_pton(family, bare)
    if family == socket.AF_INET6:
        return bare, port, 0, socket.if_nametoindex(scope) if scope else 0
    return bare, port
