"""The command API without a daemon around it: the agent's core, HttpApi, and a server if wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from guestmtce.agent.http_api import HttpApi
from guestmtce.agent.page import Snapshot
from guestmtce.core.agent.vim_commands import USER_AGENT
from guestmtce.runtime.http_message import Request, Response
from guestmtce.runtime.http_server import HttpServer
from guestmtce.runtime.local_user import UNKNOWN, LocalUser, LocalUsers
from tests.simulation import SimulatedLoop
from tests.unit.agent_support import CoreRig


class ApiRig(CoreRig):
    """The core behind its HTTP interface."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SimulatedLoop()
        self.commands = 0
        render = "guestmtce_x 1\n"
        self.allowed: tuple[str, ...] = ()
        self.api = HttpApi(
            self.loop,
            self.agent,
            lambda: render,
            self._snapshot,
            self._count,
            begin_stream=lambda last: f": after {last}\n\n".encode(),
            allowed=lambda: self.allowed,
        )

    def _snapshot(self) -> Snapshot:
        rows = [instance.for_operator() for instance in self.agent.inventory.instances.values()]
        return Snapshot({"problems": [], "summary": {}}, {}, [], rows, [], "run", now=0.0)

    def _count(self) -> None:
        self.commands += 1

    def ask(
        self,
        method: str,
        path: str,
        members: Any = None,
        user_agent: str | None = USER_AGENT,
        user: LocalUser = UNKNOWN,
    ) -> Response:
        """Have one request of a local user answered."""
        body = json.dumps(members).encode() if members else b""
        headers = {} if user_agent is None else {"user-agent": user_agent}
        return self.api.answer(Request(method, path, headers, body, user=lambda: user))

    def serve(self, users: LocalUsers | None = None) -> HttpServer:
        """Listen on a free port."""
        handlers = self.api.answer, self.api.not_a_request
        return HttpServer(self.loop, ("127.0.0.1", 0), *handlers, users=users)

    def close(self) -> None:
        self.loop.close()


def ready_api() -> Iterator[ApiRig]:
    """Yield the API of a core with one host and one instance, as after a quiet start."""
    rig = ApiRig()
    rig.ready()
    yield rig
    rig.close()


def members_of(response: Response) -> dict[str, Any]:
    """Return the JSON of an answer, whole or in pieces."""
    body = response.body
    return json.loads(body if isinstance(body, bytes) else b"".join(body))
