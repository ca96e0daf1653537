"""The table of refusals in http-api.md: each row happens, and no refusal is without a row."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import guestmtce
from guestmtce.core.shared.http_framing import HttpError, RequestFramer
from guestmtce.runtime.http_message import Request, Response
from guestmtce.runtime.local_user import UNKNOWN, LocalUser
from tests.documents import DOCS
from tests.unit.agent_support import HOST_0, HOST_1, UUID
from tests.unit.http_support import ApiRig, members_of

TEXT = (DOCS / "http-api.md").read_text("utf-8").split("## Errors")[1].split("## Events")[0]
SOURCE = Path(guestmtce.__file__).parent
EVE = LocalUser(1003, "eve")


class Row(NamedTuple):
    """One kind of refusal; `…` in the detail stands for anything."""

    status: int
    reason: str
    detail: str

    def matches(self, status: int, reason: str, detail: str) -> bool:
        pattern = ".+".join(re.escape(part) for part in self.detail.split("…"))
        same = (status, reason) == (self.status, self.reason)
        return same and re.fullmatch(pattern, detail) is not None


ROWS = [
    Row(int(status), reason, detail)
    for status, reason, detail in re.findall(
        r"^\| (\d{3}) \| ([^|]+) \| ([^|]+) \|", TEXT, re.MULTILINE
    )
]

INSTANCE, HOST = f"/v1/instances/{UUID}", f"/v1/hosts/{HOST_0}"
ON_HOST = {"uuid": UUID, "hostname": "compute-0"}
HEARTBEAT = [{"service": "heartbeat", "state": "enabled"}]
BAD_STATE = [{"service": "heartbeat", "state": "on"}]
LONG = "x" * 256

COMMANDS = [
    ("PATCH", INSTANCE, b"{"),
    ("PATCH", INSTANCE, b"[]"),
    ("PATCH", INSTANCE, {"uuid": UUID, "services": HEARTBEAT}),
    ("PATCH", INSTANCE, {"uuid": UUID, "hostname": LONG, "services": HEARTBEAT}),
    ("PATCH", INSTANCE, {"uuid": UUID, "hostname": ["compute-0"], "services": HEARTBEAT}),
    ("PATCH", INSTANCE, {**ON_HOST, "services": "heartbeat"}),
    ("PATCH", INSTANCE, {**ON_HOST, "uuid": HOST_0, "services": HEARTBEAT}),
    ("PATCH", INSTANCE, {**ON_HOST, "services": [{"service": "dns"}]}),
    ("POST", INSTANCE, {**ON_HOST, "services": []}),
    ("PATCH", INSTANCE, {**ON_HOST, "services": BAD_STATE}),
    ("PATCH", INSTANCE, {**ON_HOST, "hostname": "compute-9", "services": HEARTBEAT}),
    ("POST", INSTANCE, {**ON_HOST, "hostname": "compute-9", "services": ["heartbeat"]}),
    ("POST", f"{INSTANCE}/vote", {**ON_HOST, "action": "fly"}),
    ("GET", "/v1/hosts/vm-1", None),
    ("GET", f"/v1/hosts/{HOST_1}", None),
    ("GET", f"/v1/instances/{HOST_1}", None),
    ("GET", "/nowhere", None),
    ("GET", f"{INSTANCE}/nowhere", None),
    ("PUT", INSTANCE, ON_HOST),
    ("PUT", f"{HOST}/enable", None),
]


@pytest.fixture
def rig() -> Iterator[ApiRig]:
    rig = ApiRig()
    rig.ready()
    yield rig
    rig.close()


def command(rig: ApiRig, method: str, path: str, body: object, **more: str) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
    return rig.api.answer(Request(method, path, more, data))


def row_of(response: Response) -> Row:
    """Return the one row that a refusal has."""
    answer = members_of(response)
    assert answer.pop("status") == "fail"
    (row,) = (row for row in ROWS if row.matches(response.status, **answer))
    return row


def refused_commands(rig: ApiRig) -> Iterator[Response]:
    for method, path, body in COMMANDS:
        yield command(rig, method, path, body)
    yield command(rig, "GET", INSTANCE, None, **{"user-agent": "curl/8"})
    yield command(rig, "GET", "/", None, host="evil.example:2410")
    rig.host().reporting = None
    yield command(rig, "GET", HOST, None)
    rig.allowed = ("vim",)
    for user in (EVE, UNKNOWN):
        yield rig.ask("DELETE", INSTANCE, user=user)
    rig.agent.presence.note(False, rig.now)
    rig.agent.presence.note(False, rig.now + 100.0)
    yield command(rig, "GET", INSTANCE, None)


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
NOT_HTTP = [
    b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    b"GET /\r\n\r\n",
    HEAD + b"folded\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    HEAD + b"Content-Length: x\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    HEAD + b"Content-Length: 99999999\r\n\r\n",
    HEAD + b"Expect: more\r\n\r\n",
    HEAD + b"x" * 20_000,
    HEAD + b"X: y\r\n" * 99 + b"\r\n",
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
]
# What `http_server` refuses: tests/unit/test_http_server.py provokes it.
OF_CONNECTIONS = [
    HttpError(408, "the request is not complete"),
    HttpError(500, "internal error"),
    HttpError(503, "too many connections"),
    HttpError(503, "too many follow the events"),
]


def refusals(rig: ApiRig) -> Iterator[Response]:
    yield from refused_commands(rig)
    for data in NOT_HTTP:
        framer = RequestFramer()
        framer.receive(data)
        with pytest.raises(HttpError) as caught:
            framer.next_request()
        yield rig.api.not_a_request(caught.value)
    for error in OF_CONNECTIONS:
        yield rig.api.not_a_request(error)


def test_each_row_happens_and_each_refusal_has_a_row(rig):
    assert {row_of(response) for response in refusals(rig)} == set(ROWS)


def pattern(node: ast.expr) -> str | None:
    """Return a text of the source, with `…` for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (pattern(part) for part in node.values)
        return "".join("…" if part is None else part for part in parts)
    return None


def details() -> Iterator[str]:
    """Yield each detail that the source gives a refusal."""
    for path in SOURCE.rglob("*.py"):
        text = path.read_text("utf-8")
        if "raise HttpError(" not in text and "raise CommandError(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            found: list[ast.expr] = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                at = {"HttpError": 1, "CommandError": 2}.get(node.func.id)
                found = [] if at is None else node.args[at : at + 1]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "detail":
                value = node.value
                branches = isinstance(value, ast.IfExp)
                found = [value.body, value.orelse] if branches else [value]
            yield from filter(None, map(pattern, found))


def test_the_source_has_no_refusal_without_a_row():
    known = {row.detail for row in ROWS}
    # The one that the routes cannot bring about: a vote's body always has its action.
    assert set(details()) - known == {"no action"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:2410", 200),
        ("localhost", 200),
        ("a.localhost:1", 200),
        ("127.0.0.1:2410", 200),
        ("[::1]:2410", 200),
        ("controller-0:2410", 200),
        ("", 200),
        ("evil.example", 403),
        ("evil.example:2410", 403),
        ("localhost.evil.example", 403),
        ("evil.", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1/x", 403),
        ("a:2410:b", 403),
        ("localhost\x1b[2J", 403),
    ],
)
def test_whose_host_is_taken(rig, host, status):
    """A web page that has a browser ask this port by a name of its own gets nothing."""
    for path in ("/", "/v1/instances", "/v1/events", INSTANCE):
        response = command(rig, "GET", path, None, host=host)
        assert response.status == status, path
        if status == 403:
            assert "\x1b" not in members_of(response)["detail"]
