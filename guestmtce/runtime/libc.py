"""The C library, for what Python has no function for: one handle, and its errors as OSError.

Who calls a function gives its `argtypes` beside the constants of its header.
"""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)

LIBC.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def last_error(what: str) -> OSError:
    """Return the error of the call that has just failed, with `what` it was about."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
