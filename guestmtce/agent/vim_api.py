"""Tells and asks the VIM what the queue says is due (vim.md, "Events").

Replaces guestVimApi and guestHttpUtil. The rules of delivery are `core.agent.vim_queue`'s; here
requests are built, written and judged.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from guestmtce.core.agent import events, vim_messages
from guestmtce.core.agent.rules import AgentRules
from guestmtce.core.agent.vim_queue import Delivery, Ended, Kind
from guestmtce.core.shared.errors import PeerError
from guestmtce.core.shared.http1 import encode_request, host_header
from guestmtce.core.shared.limits import EveryNth
from guestmtce.core.shared.text import printable
from guestmtce.runtime.http_client import RESET, TIMEOUT, Exchange, Outcome
from guestmtce.runtime.loop import Loop, Timers

log = logging.getLogger(__name__)

_LOG_EVERY = 100
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
        rules: AgentRules,
        address: Callable[[], tuple[str, int] | None],
        on_news: Callable[[], object],
    ) -> None:
        self.results: Counter[str] = Counter()
        self._loop = loop
        self._rules = rules
        self._address = address
        self._on_news = on_news
        self._exchanges: dict[Delivery, Exchange] = {}
        self._timers = Timers(loop)
        self._throttle = EveryNth(_LOG_EVERY)
        self._is_down = False
        self._stopped = False
        self._on_rest: Callable[[], object] | None = None
        self._bodies: dict[Kind, Callable[[Delivery], tuple[str, str, bytes | None]]] = {
            Kind.SERVICE: self._service,
            Kind.ALARM: self._alarm,
            Kind.ACTION: self._action,
            Kind.HOST_STATE: self._host_state,
            Kind.INSTANCES: self._instances,
        }

    def pump(self) -> None:
        """Write what is due, and wake up when something becomes so."""
        if self._stopped:
            return
        now = self._loop.time()
        for delivery in self._rules.queue.poll(now):
            self._start(delivery)
        self._timers.start_at("pump", self._rules.queue.wake_at(), self.pump)
        self._note_rest()

    def finish(self, done: Callable[[], object]) -> None:
        """Call `done` when the VIM has taken what waits, or does not take it; then stop."""
        self._on_rest = done
        self._loop.call_soon(self.pump)

    def _note_rest(self) -> None:
        queue = self._rules.queue
        if self._on_rest is not None and (queue.suspect or not (len(queue) or queue.in_flight)):
            done, self._on_rest = self._on_rest, None
            self.stop()
            done()

    def stop(self) -> None:
        """Give up everything that is on its way."""
        self._stopped = True
        self._timers.cancel_all()
        for exchange in self._exchanges.values():
            exchange.cancel()
        self._exchanges.clear()

    def _start(self, delivery: Delivery) -> None:
        address = self._address()
        if address is None:
            outcome = Outcome(False, None, b"", "no address", 0.0)
            self._loop.call_soon(self._done, delivery, outcome)
            return
        method, target, body = self._bodies[delivery.event.kind](delivery)
        agent = vim_messages.OUR_USER_AGENT
        request = encode_request(method, target, host_header(*address), agent, body)

        def on_done(outcome: Outcome) -> None:
            self._done(delivery, outcome)

        if delivery.event.detail is not None and method == "PATCH":
            told = printable(" ".join(map(str, delivery.event.detail)))
            log.info("telling the VIM of %s: %s %s", delivery.key, delivery.event.kind.value, told)
        log.debug("%s %s", method, target)
        self._exchanges[delivery] = Exchange(self._loop, address, request, on_done)

    def _service(self, delivery: Delivery) -> tuple[str, str, bytes]:
        instance = self._rules.inventory.instances[delivery.key]
        target = vim_messages.instance_target(instance.uuid)
        return "PATCH", target, vim_messages.service_body(instance.facts())

    def _alarm(self, delivery: Delivery) -> tuple[str, str, bytes]:
        instance = self._rules.inventory.instances[delivery.key]
        target = vim_messages.instance_target(instance.uuid)
        return "PATCH", target, vim_messages.alarm_body(instance.facts(), delivery.event.detail)

    def _action(self, delivery: Delivery) -> tuple[str, str, bytes]:
        target = vim_messages.instance_target(delivery.key)
        body = vim_messages.action_body(delivery.key, delivery.event.detail)
        return "PATCH", target, body

    def _host_state(self, delivery: Delivery) -> tuple[str, str, bytes]:
        host = self._rules.inventory.hosts[delivery.event.detail]
        target = vim_messages.host_state_target(host.uuid)
        return "GET", target, vim_messages.host_state_body(host.hostname, host.uuid)

    def _instances(self, delivery: Delivery) -> tuple[str, str, None]:
        return "GET", vim_messages.instances_target(delivery.event.detail), None

    def _done(self, delivery: Delivery, outcome: Outcome) -> None:
        if self._stopped:
            return
        self._exchanges.pop(delivery, None)
        ended = judge(outcome)
        self._note(delivery, outcome, ended)
        now = self._loop.time()
        self._rules.queue.done(delivery, ended, now)
        if outcome.status == _OK and not outcome.error:
            self._learn(delivery, outcome.body, now)
        self._on_news()

    def _learn(self, delivery: Delivery, body: bytes, now: float) -> None:
        """Take what was asked for; answers to events say nothing that is needed."""
        kind, host_uuid = delivery.event.kind, delivery.event.detail
        try:
            if kind is Kind.HOST_STATE:
                events.learn_host_state(self._rules, host_uuid, body)
            elif kind is Kind.INSTANCES:
                events.learn_instances(self._rules, host_uuid, body, delivery.started, now)
        except PeerError as error:
            self._rules.dropped["bad_answer"] += 1
            if self._throttle.hit((kind, error.reason)) is not None:
                log.warning("the VIM's answer to %s is no use: %s", kind.value, error)

    def _note(self, delivery: Delivery, outcome: Outcome, ended: Ended) -> None:
        """Count, and log what an operator should know."""
        status, kind = outcome.status, delivery.event.kind.value
        self.results[result_label(outcome)] += 1
        log.debug("%s of %s: %s %s", kind, delivery.key, status, outcome.error)
        if ended in (Ended.NOT_DELIVERED, Ended.TIMED_OUT):
            if not self._is_down:
                log.error("the VIM does not take requests: %s", outcome.error)
            self._is_down = True
        elif self._is_down:
            log.info("the VIM takes requests again")
            self._is_down = False
        if status is not None and status >= _FIRST_ERROR:
            count = self._throttle.hit((kind, status))
            if count is not None:
                log.error(
                    "the VIM answers %d to %s of %s (%d so far)", status, kind, delivery.key, count
                )


def judge(outcome: Outcome) -> Ended:
    """Say how a request ended, in the queue's terms (vim.md, "Rules for events")."""
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
    return outcome.error.replace(" ", "_")
