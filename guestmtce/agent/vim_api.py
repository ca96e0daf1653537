"""Tells and asks the VIM what the queue says is due (http-api.md, "Events").

Replaces guestVimApi and guestHttpUtil. The rules of delivery are `core.agent.vim_queue`'s; here
requests are built, written and judged.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from urllib.request import Request

from guestmtce.core.agent import vim_answers, vim_messages
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.vim_queue import Delivery, Ended
from guestmtce.core.agent.vim_requests import request_for
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.limits import EveryNth
from guestmtce.runtime.http_client import (
    FAILURES,
    RESET,
    TIMEOUT,
    HttpExchange,
    Outcome,
    encode_request,
    host_header,
)
from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)

_HEADERS = {"Content-Type": "application/json", "User-Agent": vim_messages.OUR_USER_AGENT}
_LOG_EVERY = 100
_NO_ADDRESS = "no address"
_OK = 200
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500


class VimApi:
    """The requests to the VIM that are on their way.

    `address` returns the VIM's numeric address and port, None while its name has none;
    `on_news()` is called after an answer has changed something. `results` counts requests.
    """

    def __init__(
        self,
        loop: Loop,
        agent: Agent,
        address: Callable[[], tuple[str, int] | None],
        on_news: Callable[[], object],
    ) -> None:
        self.results: Counter[str] = Counter()
        self._loop = loop
        self._agent = agent
        self._address = address
        self._on_news = on_news
        self._exchanges: dict[Delivery, HttpExchange] = {}
        self._timers = Timers(loop)
        self._throttle = EveryNth(_LOG_EVERY)
        self._stopped = False
        self._on_rest: Callable[[], object] | None = None

    def pump(self) -> None:
        """Write what is due, and wake up when something becomes so."""
        if self._stopped:
            return
        queue, was_up = self._agent.queue, self._agent.queue.health.is_up
        for delivery in queue.poll(self._loop.time()):
            self._start(delivery)
        self._note_health(was_up, "a request is not answered")
        self._timers.start_at("pump", queue.wake_at(), self.pump)
        self._note_rest()

    def finish(self, done: Callable[[], object]) -> None:
        """Call `done` when the VIM has taken what waits, or does not take it; then stop."""
        self._on_rest = done
        self._loop.call_soon(self.pump)

    def _note_rest(self) -> None:
        queue = self._agent.queue
        if self._on_rest is not None and (queue.suspect or not (len(queue) or queue.in_flight)):
            self.stop()

    def stop(self) -> None:
        """Give up everything that is on its way; who waits for the end waits no longer."""
        self._stopped = True
        self._timers.cancel_all()
        for exchange in self._exchanges.values():
            exchange.cancel()
        self._exchanges.clear()
        done, self._on_rest = self._on_rest, None
        if done is not None:
            done()

    def _start(self, delivery: Delivery) -> None:
        address = self._address()
        if address is None:
            outcome = Outcome(False, None, b"", _NO_ADDRESS)
            self._loop.call_soon(self._done, delivery, outcome)
            return
        method, target, body = request_for(self._agent.inventory, delivery.key, delivery.message)
        url = f"http://{host_header(*address)}{target}"
        request = encode_request(Request(url, body, _HEADERS, method=method))

        def on_done(outcome: Outcome) -> None:
            self._done(delivery, outcome)

        log.debug("%s %s", method, target)
        self._exchanges[delivery] = HttpExchange(
            self._loop,
            address,
            request,
            on_done,
            on_written=functools.partial(self._agent.queue.written, delivery),
        )

    def _done(self, delivery: Delivery, outcome: Outcome) -> None:
        if self._stopped:
            return
        self._exchanges.pop(delivery, None)
        self._note(delivery, outcome)
        now, was_up = self._loop.time(), self._agent.queue.health.is_up
        self._agent.queue.done(delivery, judge(outcome), now)
        self._note_health(was_up, outcome.error)
        if outcome.status == _OK and not outcome.error:
            self._learn(delivery, outcome.body, now)
        self._on_news()

    def _learn(self, delivery: Delivery, body: bytes, now: float) -> None:
        """Apply the answer to a query; the answer to an event has no content that we use."""
        try:
            vim_answers.learn(self._agent, delivery, body, now)
        except PeerError as error:
            kind = delivery.message.kind
            self._agent.dropped["bad_answer"] += 1
            if self._throttle.hit((kind, error.reason)) is not None:
                log.warning("the VIM's answer to %s cannot be used: %s", kind.value, error)

    def _note(self, delivery: Delivery, outcome: Outcome) -> None:
        """Count, and log what an operator should know."""
        status, kind = outcome.status, delivery.message.kind.value
        self.results[result_label(outcome)] += 1
        log.debug("%s of %s: %s %s", kind, delivery.key, status, outcome.error)
        if status is not None and status >= _FIRST_ERROR:
            count = self._throttle.hit((kind, status))
            if count is not None:
                log.error(
                    "the VIM answers %d to %s of %s (%d so far)", status, kind, delivery.key, count
                )

    def _note_health(self, was_up: bool, error: str) -> None:
        """Log that the VIM has stopped taking requests, or takes them again."""
        is_up = self._agent.queue.health.is_up
        if was_up and not is_up:
            log.error("the VIM does not take requests: %s", error)
        elif is_up and not was_up:
            log.info("the VIM takes requests again")


def judge(outcome: Outcome) -> Ended:
    """Say how a request ended, in the queue's terms (http-api.md, "Rules for events")."""
    if not outcome.written:
        return Ended.NOT_DELIVERED
    if outcome.error == TIMEOUT:
        return Ended.TIMED_OUT
    failed = outcome.status is not None and outcome.status >= _FIRST_SERVER_ERROR
    return Ended.TAKEN_BADLY if failed or outcome.error == RESET else Ended.TAKEN


def result_label(outcome: Outcome) -> str:
    """Return a label for the metrics: the class of status, else what went wrong."""
    if outcome.status is not None and outcome.error != TIMEOUT:
        return f"{outcome.status // 100}xx"
    return _label(outcome.error)


def _label(word: str) -> str:
    return word.replace(" ", "_")


# How a request may end: every value that `result_label` returns.
RESULTS = (
    *(f"{each}xx" for each in range(1, 6)),
    *map(_label, (*FAILURES, _NO_ADDRESS)),
)
