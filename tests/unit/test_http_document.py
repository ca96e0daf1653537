"""http-api.md is run: each `curl` line in the page's order, each event as the VIM gets it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from guestmtce.core.agent.vim_commands import ROUTES
from tests.documents import DOCS
from tests.unit.agent_rig import AgentRig, vim_answer
from tests.unit.agent_support import HOST_0, UUID

TEXT = (DOCS / "http-api.md").read_text("utf-8")
ADDRESS = "http://localhost:2410"
# What our guest said in its init, as its guestServer tells it.
TERMS = {"shutdown-to": "9", "suspend-to": "9", "resume-to": "14", "vote-to": "9"}

_STEP = re.compile(
    r"^<!-- now: (?P<now>[\w ]+) -->$|^\$ curl (?P<curl>.+)\n(?P<status>\d{3})(?: (?P<body>.+))?$",
    re.MULTILINE,
)
_JSON = re.compile(r"^<!-- (event|answer): ([\w ]+) -->\n```json\n(.+)\n```$", re.MULTILINE)


class Curl(NamedTuple):
    """What a curl line asks for."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    @classmethod
    def of(cls, line: str) -> Curl:
        """Read the few options that the page uses."""
        words = iter(shlex.split(line))
        method, path, body, headers = "", "", "", {"User-Agent": "curl/8"}
        for word in words:
            if word == "-X":
                method = next(words)
            elif word == "-d":
                body = next(words)
            elif word == "-A":
                headers["User-Agent"] = next(words)
            elif word != "-N":
                assert word.startswith(ADDRESS), line
                path = word[len(ADDRESS) :]
        given = {name: value for name, value in headers.items() if value}
        return cls(method or ("POST" if body else "GET"), path, given, body)

    def raw(self) -> bytes:
        headers = {"Host": "localhost:2410", **self.headers, "Connection": "close"}
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n{self.body}".encode()


@pytest.fixture
def rig() -> Iterator[AgentRig]:
    rig = AgentRig()
    yield rig
    rig.close()


def happen(rig: AgentRig, what: str) -> None:
    """Do what the page says has happened now."""
    if what == "ADD_HOST":
        rig.add_host()
    else:
        rig.info(what, **TERMS)


def matches(shown: str | None, answer: str) -> bool:
    """Whether an answer is the one shown, whose `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in (shown or "").split("…"))
    return re.fullmatch(pattern, answer, re.DOTALL) is not None


def walk(rig: AgentRig, ask: Any) -> None:
    """Go down the page; `ask` takes a curl line and returns (status, body)."""
    rig.start()
    asked = 0
    for step in _STEP.finditer(TEXT):
        if step["now"]:
            happen(rig, step["now"])
            continue
        if step["curl"].startswith("-N "):
            asked += 1  # a stream without an end: tests/functional/test_agent_process.py has it
            continue
        status, body = ask(step["curl"])
        assert status == int(step["status"]), step[0]
        assert matches(step["body"], body), (step[0], body)
        asked += 1
    assert asked == TEXT.count("$ curl")


def test_each_line_is_answered_as_shown(rig: AgentRig) -> None:
    """Commands and errors, in the page's order."""

    def ask(line: str) -> tuple[int, str]:
        status, body = rig.raw_command(Curl.of(line).raw())
        return status, body.decode()

    walk(rig, ask)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl (package curl)")
def test_the_lines_work_in_a_shell(rig: AgentRig) -> None:
    """By curl itself, as a reader pastes them."""

    def ask(line: str) -> tuple[int, str]:
        local = line.replace(ADDRESS, f"http://127.0.0.1:{rig.ports.commands}")
        command = [
            "curl",
            "-q",
            "-s",
            "--noproxy",
            "*",
            "-w",
            "\n%{http_code}",
            *shlex.split(local),
        ]
        deadline = time.monotonic() + 60
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
            while curl.poll() is None:
                assert time.monotonic() < deadline, line
                rig.loop.settle()
            assert curl.stdout is not None
            body, _, status = curl.stdout.read().rpartition("\n")
        return int(status), body

    walk(rig, ask)


def test_every_command_has_a_line() -> None:
    """No route is without an example, and none is shown that is not there."""
    shown = {
        (curl.method, curl.path.replace(HOST_0, "{uuid}").replace(UUID, "{uuid}"))
        for curl, status in (
            (Curl.of(step["curl"]), step["status"]) for step in _STEP.finditer(TEXT) if step["curl"]
        )
        if status[0] == "2"
    }
    assert shown == {(route.method, route.path) for route in ROUTES}


SHOWN = {(kind, name): text for kind, name, text in _JSON.findall(TEXT)}


def heard(rig: AgentRig) -> list[str]:
    """Return the bodies that the VIM got, as they were sent."""
    return [seen.what.body.decode() for seen in rig.vim.requests if seen.what.body]


def provoke(rig: AgentRig, what: str) -> None:
    """Make happen what the page shows an event of."""
    if what == "host state":
        rig.add_host()
    elif what in ("reject", "accept", "complete"):
        verb, action = ("notify", "unpause") if what == "complete" else ("vote", "pause")
        rig.ask(verb, action)
        kind = {"vote": "revocable", "notify": "irrevocable"}[verb]
        reason = "busy" if what == "reject" else ""
        answer = {"event-type": action, "notification_type": kind, "vote": what, "reason": reason}
        rig.server_says("VOTE_NOTIFY", uuid=UUID, **answer)
    elif what == "LOSS":
        rig.server_says("LOSS", uuid=UUID)
    else:
        changes = {"STOPPED": {"heartbeating": "disabled"}, "ILLHEALTH": {"repair-action": "stop"}}
        rig.info(what, **TERMS, **changes.get(what, {}))


@pytest.mark.parametrize("what", [name for kind, name in SHOWN if kind == "event"])
def test_the_vim_gets_what_is_shown(rig: AgentRig, what: str) -> None:
    """To the byte, the order of the members included."""
    if what == "host state":
        rig.start()
    else:
        rig.ready()
        if what == "RUNNING":
            rig.info("STOPPED", heartbeating="disabled")
        rig.forget()
    provoke(rig, what)
    rig.advance(3.0)
    assert SHOWN["event", what] in heard(rig)


def test_what_the_vim_answers_is_taken(rig: AgentRig) -> None:
    """The answers that the page shows."""

    def answer(raw: bytes) -> bytes:
        what = "instances" if b"/instances/" in raw.split(b"\r\n")[0] else "host state"
        return vim_answer(json.loads(SHOWN["answer", what]))

    rig.start()
    rig.vim.behaviour = answer
    rig.add_host()
    rig.advance(3.0)
    assert rig.command("GET", f"/v1/hosts/{HOST_0}")[1]["state"] == "enabled"
    status, members = rig.command("GET", f"/v1/instances/{UUID}")
    assert (status, members["services"][0]["state"]) == (200, "enabled")
