"""What a daemon takes from the world beside descriptors and its loop's clock.

It is passed in, so that a run of a test can be repeated to the last bit.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple


def seconds_since_boot() -> float:
    """Return a time that goes on while the host sleeps and that outlives this process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Outside(NamedTuple):
    """The wall clock's seconds since 1970, seconds since boot, and a random number from 0.

    `number_below(limit)` is less than `limit`, and nobody can predict it.
    """

    wall: Callable[[], float] = time.time
    since_boot: Callable[[], float] = seconds_since_boot
    number_below: Callable[[int], int] = secrets.randbelow


OUTSIDE = Outside()
