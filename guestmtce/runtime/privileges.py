"""Giving up the rights of root that a daemon does not need, for good: capabilities(7), prctl(2).

The daemons do it themselves, as pmond and SM start them by script, not by a unit. Without
privileges there is nothing to give up, and everything here does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import struct
from collections.abc import Iterable

from guestmtce.runtime.libc import LIBC, last_error

log = logging.getLogger(__name__)

# linux/capability.h
CAP_DAC_OVERRIDE = 1
_LAST_CAP = "/proc/sys/kernel/cap_last_cap"
_VERSION_3 = 0x20080522
# version, pid (0: ourselves); then effective, permitted, inheritable, low words first.
_HEADER = struct.Struct("Ii")
_DATA = struct.Struct("6I")
_WORD = 32

# linux/prctl.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

LIBC.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]

_NAMES = {CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE"}


def drop(keep: Iterable[int] = ()) -> None:
    """Keep no capability but those in `keep`, as far as we have them, nor get any back.

    No program that we start can gain rights either. Raises OSError if the kernel refuses.
    """
    kept = sum(1 << capability for capability in keep)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    with contextlib.suppress(OSError):
        # Not on a kernel before 4.3, which has no ambient capabilities.
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_last_capability() + 1):
        # The bounding set goes first: to shrink it takes CAP_SETPCAP.
        if not kept >> capability & 1 and _prctl(_PR_CAPBSET_READ, capability):
            with contextlib.suppress(PermissionError):
                _prctl(_PR_CAPBSET_DROP, capability)
    # What we do not have cannot be kept: asking for it would be refused.
    _capset(kept & _own("CapPrm"))


def describe() -> str:
    """Return what rights this process has, in a phrase for an operator."""
    own = _own("CapEff")
    names = [
        _NAMES.get(number, f"capability {number}")
        for number in range(own.bit_length())
        if own >> number & 1
    ]
    if len(names) > len(_NAMES):
        return "all of its user's: none given up"
    return f"uid {os.geteuid()}, {', '.join(names) or 'no capabilities'}"


def _own(field: str) -> int:
    """Return a set of capabilities of this process out of /proc/self/status, a bit for each."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
        for line in status:
            name, _colon, value = line.partition(":")
            if name == field:
                return int(value, 16)
    return 0


def _last_capability() -> int:
    try:
        with open(_LAST_CAP, encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 2 * _WORD - 1


def _capset(kept: int) -> None:
    """Make `kept` the effective and the permitted set, and the inheritable one empty."""
    low, high = kept & 0xFFFFFFFF, kept >> _WORD
    data = _DATA.pack(low, low, 0, high, high, 0)
    if LIBC.capset(_HEADER.pack(_VERSION_3, 0), data):
        raise last_error("capset")


def _prctl(option: int, argument: int) -> int:
    result = int(LIBC.prctl(option, argument, 0, 0, 0))
    if result < 0:
        raise last_error(f"prctl {option}")
    return result
