"""The HTTP side of the VIM's commands: requests in, JSON answers out (vim.md, "Commands").

Replaces guestHttpSvr. `core.agent.vim_commands` reads a request, `core.agent.commands` does it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from guestmtce.core.agent import commands, vim_commands, vim_messages
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.vim_commands import Action, CommandError, Reason
from guestmtce.core.shared.http1 import HttpError, Request, Response
from guestmtce.core.shared.limits import EveryNth
from guestmtce.core.shared.text import encode_json, printable
from guestmtce.runtime import metrics
from guestmtce.runtime.loop import Loop

log = logging.getLogger(__name__)

_LOG_EVERY = 100
_QUERIES = frozenset({Action.HOST_QUERY, Action.INSTANCE_QUERY})

# What a client is told that did not send HTTP, or whom there is no room for.
_HTTP_REASONS = {
    500: Reason.NO_BUFFER,
    501: Reason.UNSUPPORTED,
    503: Reason.NO_BUFFER,
    505: Reason.UNSUPPORTED,
}


class HttpApi:
    """Answers requests. `on_command()` is called after each command, `render` makes /metrics.

    `results` counts commands by action and status.
    """

    def __init__(
        self,
        loop: Loop,
        agent: Agent,
        render: Callable[[], str],
        on_command: Callable[[], object],
    ) -> None:
        self.results: Counter[tuple[str, str]] = Counter()
        self._loop = loop
        self._agent = agent
        self._render = render
        self._on_command = on_command
        self._throttle = EveryNth(_LOG_EVERY)
        self._lists: dict[Action, Callable[[], Response]] = {
            Action.LIST_HOSTS: self._list_hosts,
            Action.LIST_INSTANCES: self._list_instances,
            Action.METRICS: self._metrics,
        }

    def answer(self, request: Request) -> Response:
        """Answer one request; never raises for what is in it."""
        name = "unknown"
        try:
            command = vim_commands.parse_command(
                request.method, request.target, request.headers, request.body
            )
            name = command.action.value
            if command.action in self._lists:
                response = self._lists[command.action]()
            else:
                response = self._execute(command)
        except CommandError as error:
            self._note(request, error)
            headers = {} if error.allow is None else {"Allow": ", ".join(error.allow)}
            response = _failure(error.status, error.word, headers)
        self.results[name, str(response.status)] += 1
        return response

    def not_a_request(self, error: HttpError) -> Response:
        """Answer what `core.shared.http1` refused."""
        self.results["unknown", str(error.status)] += 1
        return _failure(error.status, _HTTP_REASONS.get(error.status, Reason.PARSE_ERROR), {})

    def _execute(self, command: vim_commands.Command) -> Response:
        try:
            answer = commands.execute(self._agent, command, self._loop.time())
        finally:
            # Even a refused command may have asked mtcAgent, or woken the queue.
            self._on_command()
        level = logging.DEBUG if command.action in _QUERIES else logging.INFO
        log.log(level, "%s %s: %d", command.action.value, command.uuid, answer.status)
        return Response(answer.status, _encode(answer.members))

    def _note(self, request: Request, error: CommandError) -> None:
        count = self._throttle.hit((error.status, error.answer))
        if count is not None:
            what = printable(f"{request.method} {request.target}")
            log.warning("%s: %d %s (%d so far)", what, error.status, error.answer, count)

    def _list_hosts(self) -> Response:
        hosts = self._agent.inventory.hosts.values()
        return Response(200, _encode({"hosts": [host.for_operator() for host in hosts]}))

    def _list_instances(self) -> Response:
        instances = self._agent.inventory.instances.values()
        members = [vim_messages.services_members(instance.for_vim()) for instance in instances]
        return Response(200, _encode({"instances": members}))

    def _metrics(self) -> Response:
        return Response(200, self._render().encode("utf-8"), metrics.CONTENT_TYPE)


def _failure(status: int, reason: Reason, headers: dict[str, str]) -> Response:
    return Response(status, _encode({"status": "fail", "reason": reason}), headers=headers)


def _encode(members: dict[str, Any]) -> bytes:
    return encode_json(members).encode("ascii")
