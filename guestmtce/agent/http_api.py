"""The HTTP side of the VIM's commands: requests in, JSON answers out (http-api.md, "Commands").

Replaces guestHttpSvr. `core.agent.vim_commands` reads a request, `core.agent.commands` does it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice

from guestmtce.agent import page
from guestmtce.agent.page import Snapshot
from guestmtce.agent.permission import Permission
from guestmtce.core.agent import commands, vim_commands, vim_messages
from guestmtce.core.agent.agent import Agent
from guestmtce.core.agent.vim_commands import CommandError, Operation, Reason, VimCommand
from guestmtce.core.shared.http_framing import HttpError
from guestmtce.core.shared.limits import EveryNth
from guestmtce.core.shared.text import encode_json, printable
from guestmtce.runtime import metrics
from guestmtce.runtime.http_message import Request, Response
from guestmtce.runtime.loop import Loop

log = logging.getLogger(__name__)

_LOG_EVERY = 100
# Entries in a piece of a list: about 1 ms of work, and 20 KB.
_ENTRIES_IN_PIECE = 100
_READING = frozenset({"GET", "HEAD"})
_QUERIES = frozenset({Operation.HOST_QUERY, Operation.INSTANCE_QUERY})

# What a client is told that did not send HTTP, or whom there is no room for.
_HTTP_REASONS = {
    411: Reason.NO_BUFFER,
    500: Reason.NO_BUFFER,
    501: Reason.UNSUPPORTED,
    503: Reason.NO_BUFFER,
    505: Reason.UNSUPPORTED,
}


class HttpApi:
    """Answers requests. `on_command()` is called after each command.

    `render` makes the text of /metrics, and `snapshot` what the status page shows.
    `begin_stream` makes the beginning of a stream for a client that knows the events up to an id.
    `allowed` returns who may change something, nobody for everybody. `results` counts commands by
    operation and status.
    """

    def __init__(
        self,
        loop: Loop,
        agent: Agent,
        render: Callable[[], str],
        snapshot: Callable[[], Snapshot],
        on_command: Callable[[], object],
        *,
        begin_stream: Callable[[str], bytes],
        allowed: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self.results: Counter[tuple[str, str]] = Counter()
        self._loop = loop
        self._agent = agent
        self._render = render
        self._snapshot = snapshot
        self._on_command = on_command
        self._begin_stream = begin_stream
        self._allowed = allowed
        self._permission = Permission()
        self._throttle = EveryNth(_LOG_EVERY)
        self._lists: dict[Operation, Callable[[VimCommand], Response]] = {
            Operation.LIST_HOSTS: self._list_hosts,
            Operation.LIST_INSTANCES: self._list_instances,
            Operation.METRICS: self._metrics,
            Operation.PAGE: self._page,
            Operation.EVENTS: self._events,
        }

    def answer(self, request: Request) -> Response:
        """Answer one request; never raises for what is in it."""
        name = "unknown"
        try:
            command = vim_commands.parse_command(
                request.method, request.target, request.headers, request.body
            )
            name = command.operation.value
            if command.operation in self._lists:
                response = self._lists[command.operation](command)
            else:
                response = self._execute(command, request)
        except CommandError as error:
            self._note(request, error)
            headers = {} if error.allow is None else {"Allow": ", ".join(error.allow)}
            response = _failure(error.status, error.reason, error.detail, headers)
        self.results[name, str(response.status)] += 1
        return response

    def not_a_request(self, error: HttpError) -> Response:
        """Answer what `core.shared.http_framing` refused, or whom there is no room for."""
        self.results["unknown", str(error.status)] += 1
        reason = _HTTP_REASONS.get(error.status, Reason.PARSE_ERROR)
        return _failure(error.status, reason, error.detail, {})

    def _execute(self, command: VimCommand, request: Request) -> Response:
        changes = command.operation not in _QUERIES
        try:
            if changes:
                user = request.user()
                self._permission.check(self._allowed(), user)
                command = command._replace(by=user.name)
            answer = commands.execute(self._agent, command, self._loop.time())
        finally:
            # Even a refused command may have asked mtcAgent, or woken the queue.
            self._on_command()
        if changes:
            log.info("%s, by %s: %d", command, command.by, answer.status)
        else:
            log.debug("%s: %d", command, answer.status)
        return Response(answer.status, _encode(answer.members))

    def _note(self, request: Request, error: CommandError) -> None:
        count = self._throttle.hit((error.status, error.reason))
        if count is not None:
            what = printable(f"{request.method} {request.target}")
            by = "" if request.method in _READING else f", by {request.user().name}"
            log.warning("%s%s: %d %s (%d so far)", what, by, error.status, error.detail, count)

    def _list_hosts(self, _command: VimCommand) -> Response:
        return Response(200, _in_pieces("hosts", self._hosts()))

    def _list_instances(self, _command: VimCommand) -> Response:
        return Response(200, _in_pieces("instances", self._instances()))

    def _hosts(self) -> Iterator[dict[str, object]]:
        for host in [*self._agent.inventory.hosts.values()]:
            yield host.for_operator()

    def _instances(self) -> Iterator[dict[str, object]]:
        """Yield what is told of each instance, host by host.

        Instances may come and go meanwhile: what is copied is small.
        """
        for host in [*self._agent.inventory.hosts.values()]:
            for instance in [*host.instances.values()]:
                yield vim_messages.services_members(instance.for_vim())

    def _metrics(self, _command: VimCommand) -> Response:
        return Response(200, self._render().encode("utf-8"), metrics.CONTENT_TYPE)

    def _page(self, command: VimCommand) -> Response:
        pieces = page.render(self._snapshot(), everything=command.everything)
        return Response(200, pieces, page.CONTENT_TYPE, page.HEADERS)

    def _events(self, command: VimCommand) -> Response:
        """Begin a stream of server-sent events; the server publishes what follows."""
        begin = self._begin_stream(command.last_event)
        return Response(200, begin, "text/event-stream", {"Cache-Control": "no-store"}, True)


def _in_pieces(name: str, entries: Iterable[dict[str, object]]) -> Iterator[bytes]:
    """Yield the JSON of `{name: [entries]}`, some entries at a time, made when they are wanted."""
    rest = map(encode_json, entries)
    before = f'{{"{name}":['
    more = True
    while more:
        piece = list(islice(rest, _ENTRIES_IN_PIECE))
        more = len(piece) == _ENTRIES_IN_PIECE
        text = before + ",".join(piece) if piece else before.rstrip(",")
        yield (text if more else text + "]}").encode("ascii")
        before = ","


def _failure(status: int, reason: Reason, detail: str, headers: dict[str, str]) -> Response:
    """Return an error: `reason` is for the VIM, `detail` for people."""
    body = _encode({"status": "fail", "reason": reason, "detail": detail})
    return Response(status, body, headers=headers)


def _encode(members: dict[str, object]) -> bytes:
    return encode_json(members).encode("ascii")
