"""The terminal that guestctl writes to: how large it is, and a picture drawn in place on it.

Nothing else of guestctl moves a cursor. A picture is drawn on the terminal's other screen, as
`less` and `top` do, so that what stood there before is there again afterwards.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn, TextIO

from guestmtce.ctl.table import cut

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_END_LINE = "\x1b[K"
_END_SCREEN = "\x1b[J"


class Screen:
    """A terminal."""

    @property
    def columns(self) -> int:
        """How many columns it has now."""
        return shutil.get_terminal_size().columns

    @contextlib.contextmanager
    def taken_over(self, out: TextIO) -> Iterator[None]:
        """Show pictures meanwhile, and afterwards what was there before, however that ends."""
        before = signal.signal(signal.SIGTERM, _end)
        out.write(_ENTER)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            out.write(_LEAVE)
            out.flush()

    def drawn(self, lines: Sequence[str]) -> str:
        """Return what draws these lines in place of the last picture.

        What does not fit is left out below, and counted.
        """
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 1)  # the cursor has a line for itself
        shown = [cut(line, size.columns) for line in lines[:room]]
        if len(lines) > room:
            shown[-1] = cut(f"… and {len(lines) - room + 1:,} lines more", size.columns)
        return _HOME + f"{_END_LINE}\n".join(shown) + _END_LINE + _END_SCREEN


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
