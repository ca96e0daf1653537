"""Names and own addresses without DNS: /etc/hosts, and the management interface.

Names are looked up in `/etc/hosts` only (decision 1): a DNS look-up would block the loop.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Callable

from guestmtce.runtime import address as addresses
from guestmtce.runtime import files

log = logging.getLogger(__name__)

HOSTS_PATH = "/etc/hosts"

_MAX_NAME = 255
_MAX_INTERFACE = 15
_SIOCGIFADDR = 0x8915
# struct ifreq: the interface's name, then a sockaddr_in whose address stands 20 bytes in.
_IFREQ = struct.Struct("16s24x")
_IFREQ_ADDRESS = slice(20, 24)
_IF_INET6 = "/proc/net/if_inet6"
_GLOBAL_SCOPE = "00"

# How long a name that has vanished from the file keeps its addresses.
KEPT_SECS = 60.0


class HostsFile:
    """The hosts file at `path`, read when asked to. A missing or unreadable one is empty.

    A name that vanishes keeps its last addresses for KEPT_SECS, as files are rewritten by
    truncating them first (decision 23). `clock` returns monotonic seconds.
    """

    def __init__(self, path: str = HOSTS_PATH, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._names: dict[str, list[str]] = {}
        # Names that have vanished: their last addresses, and until when they are kept.
        self._kept: dict[str, tuple[list[str], float]] = {}
        self._version: tuple[int, ...] | None = None
        self.reload_if_changed()

    @property
    def look_again_soon(self) -> bool:
        """True while names that have vanished are kept: read the file every 3 s, not 60."""
        return any(self._clock() < until for _addresses, until in self._kept.values())

    def reload_if_changed(self) -> bool:
        """Read the file again if it was touched; return whether any name changed."""
        before = self._known()
        version = _version(self._path)
        if version != self._version:
            try:
                names = parse_hosts(files.read_text(self._path)) if version else {}
            except OSError as error:
                # What is known stays, and the file is read again next time: without descriptors
                # for a moment is no reason to be deaf for good.
                log.warning("cannot read %s: %s", self._path, error.strerror)
            else:
                self._take(names)
                self._version = version
        return self._known() != before

    def _take(self, names: dict[str, list[str]]) -> None:
        until = self._clock() + KEPT_SECS
        vanished = {
            name: (known, until) for name, known in self._names.items() if name not in names
        }
        if vanished:
            log.warning("%d names are gone from %s; kept for a minute", len(vanished), self._path)
        self._kept = {
            name: kept
            for name, kept in {**self._kept, **vanished}.items()
            if name not in names and self._clock() < kept[1]
        }
        self._names = names

    def _known(self) -> dict[str, list[str]]:
        now = self._clock()
        kept = {name: known for name, (known, until) in self._kept.items() if now < until}
        return {**self._names, **kept}

    def lookup(self, name: str) -> list[str]:
        """Return the addresses of `name` in the file's order; a numeric address is its own."""
        numeric = addresses.normalise(name)
        if numeric is not None:
            return [numeric]
        key = name.lower()
        if key in self._names:
            return list(self._names[key])
        kept, until = self._kept.get(key, ([], 0.0))
        return list(kept) if self._clock() < until else []

    def own_address(self, hostname: str, management_interface: str | None = None) -> str | None:
        """Return this host's address (decision 1), None if there is none yet.

        That is the first address of `hostname` that is not a loopback one, else the first of
        `management_interface`, else the hostname's loopback one.
        """
        named = self.lookup(hostname)
        for found in named:
            if not addresses.is_loopback(found):
                return found
        if management_interface:
            found_on = interface_address(management_interface)
            if found_on is not None:
                return found_on
        return named[0] if named else None


def parse_hosts(text: str) -> dict[str, list[str]]:
    """Return name (lower case) → addresses in the file's order; passes over what is wrong."""
    names: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        address = addresses.normalise(words[0]) if words else None
        if address is None:
            continue
        for name in words[1:]:
            if len(name) > _MAX_NAME:
                continue
            known = names.setdefault(name.lower(), [])
            if address not in known:
                known.append(address)
    return names


def interface_address(interface: str) -> str | None:
    """Return the first IPv4 address of a network interface, else its first IPv6 one, or None.

    Of IPv6 addresses a global one goes before a link-local one.
    """
    if len(interface) > _MAX_INTERFACE:
        return None
    return _ipv4_address(interface) or _ipv6_address(interface)


def _ipv4_address(interface: str) -> str | None:
    try:
        request = _IFREQ.pack(interface.encode("ascii"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request)
    except (OSError, ValueError):
        return None
    return socket.inet_ntoa(answer[_IFREQ_ADDRESS])


def _ipv6_address(interface: str) -> str | None:
    """Look into the kernel's table: address, index, prefix length, scope, flags, name."""
    try:
        with open(_IF_INET6, encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        return None
    own = [row for row in rows if row[-1:] == [interface]]
    own.sort(key=lambda row: row[3] != _GLOBAL_SCOPE)
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(own[0][0])) if own else None


def _version(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
