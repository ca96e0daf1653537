"""Times of the wall clock as people say them, in this host's time zone."""

from __future__ import annotations

import time

_TODAY_SECS = 20 * 3600.0


def moment(at: float, now: float) -> str:
    """Return `03:12`; with its day, if `at` is so far from `now` that it could be another's."""
    form = "%H:%M" if abs(now - at) < _TODAY_SECS else "%Y-%m-%d %H:%M"
    try:
        return time.strftime(form, time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "?"
