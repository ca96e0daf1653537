"""What the VIM has done to guests: it asks them and moves them, in its order and with its waits."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.real.ledger import Ledger
from tests.chaos.real.plan import WORKERS, Member
from tests.peers.vim import Vim

# How long the VIM waits for a guest that it has moved.
BACK_SECS = 15.0
# How soon it says again what was not taken.
AGAIN_SECS = 1.0
# As many guests as are asked or moved at once: each waits for its answers in a thread.
AT_ONCE = 8
FAILED = "harness failed"
# What a command ends in when guestAgent is not there, or dies meanwhile.
NOBODY = (OSError, http.client.HTTPException)


class Orders:
    """The VIM's work on guests, each piece in the background; `move` is what libvirt does.

    `where` is the worker that each is on.
    """

    def __init__(
        self,
        vim: Vim,
        ledger: Ledger,
        members: Mapping[str, Member],
        uuids: Mapping[str, str],
        move: Callable[[str, str], None],
    ) -> None:
        self._move = move
        self._vim = vim
        self._ledger = ledger
        self._uuids = uuids
        self.where = {name: member.worker for name, member in members.items()}
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def vote(self, who: str) -> None:
        """Ask whether the guest may be rebooted, and do nothing then."""
        self._start(lambda: self._ask(who, "reboot", "allow"))

    def migrate(self, who: str) -> None:
        """Move the guest to the other worker."""
        self._start(lambda: self._migrate(who))

    def close(self) -> None:
        """End what waits, and wait for its end."""
        self._ending.set()
        self._pool.shutdown()

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # a future would keep it to itself
                self._ledger.begin(FAILED, lasts=0.0, about=repr(error))

        self._pool.submit(guarded)

    def _ask(self, who: str, event: str, wanted: str) -> None:
        """Ask, and wait for the answer for as long as it may take.

        A vote's consent is `allow`, a notification's is `proceed`.
        """
        command, uuid = self._vim.command, self._uuids[who]
        ask = command.vote if wanted == "allow" else command.notify
        began, since = time.monotonic(), len(self._vim.requests)
        try:
            answer = ask(uuid, self.where[who], event)
        except NOBODY:
            return  # guestAgent is not there, and then it is not waited for
        seconds = int(answer.body["timeout"]) if answer.status == 200 else 0
        if not seconds:
            return
        asked = self._ledger.begin(
            "vote", who, lasts=float(seconds), about=f"{event} {wanted}", since=began
        )
        while time.monotonic() < asked.end and not self._ending.is_set():
            with contextlib.suppress(AssertionError):
                self._vim.wait_event("action", uuid, AGAIN_SECS, since, action=event)
                return

    def _migrate(self, who: str) -> None:
        """Ask, announce, report no more, act, report again, tell that it is done."""
        moves = self._ledger.begin("migrate", who)
        target = WORKERS[1 - WORKERS.index(self.where[who])]
        self._ask(who, "live_migrate_begin", "allow")
        self._ask(who, "live_migrate_begin", "proceed")
        self._report(who, "disabled")
        since = len(self._vim.requests)
        self._move(who, target)
        self.where[who] = target
        self._ledger.tell(f"is on {target}", who)
        self._report(who, "enabled")
        with contextlib.suppress(AssertionError):
            self._vim.wait_event("service", self._uuids[who], BACK_SECS, since, status="enabled")
        self._ask(who, "live_migrate_end", "proceed")
        self._ledger.close(moves)

    def _report(self, who: str, state: str) -> None:
        """Switch the guest's reporting at its host: say so until it is taken, as the VIM does."""
        uuid, host = self._uuids[who], self.where[who]
        self._vim.set_instance(uuid, host, state)
        while not self._ending.is_set():
            with contextlib.suppress(*NOBODY):
                if self._vim.command.set_instance(uuid, host, state).status == 200:
                    return
            self._ending.wait(AGAIN_SECS)
