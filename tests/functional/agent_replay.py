"""Replays a recorded exchange with the old guestAgent against ours, and compares what comes out.

Inputs (datagrams, commands, the VIM's answers) are fed at their recorded times on simulated
time. Outputs are compared by channel: what mtcAgent, each guestServer and the VIM were sent, in
order, and the answer to each command.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from pathlib import Path
from typing import Any, NamedTuple

from tests.peers import wire
from tests.unit.agent_rig import HOSTS, AgentRig, PeersRig

DATA = Path(__file__).resolve().parents[1] / "data" / "transcripts"
# Decision 20: spacing is compared to ±5 % + 50 ms.
TOLERANCE = 0.05
_REASON = re.compile(r'"reason" : "(?P<reason>[^"]*)"')


class Output(NamedTuple):
    """One thing that was said: comparable text, and when."""

    text: str
    at: float
    gap: float = 0.0


class Difference(NamedTuple):
    """Something that only one of the two said, or said at another time."""

    side: str
    channel: str
    text: str


def scenarios() -> list[str]:
    return sorted(path.stem for path in DATA.glob("agent-*.json"))


def load(scenario: str) -> dict[str, Any]:
    return json.loads((DATA / f"{scenario}.json").read_text())


def canonical(text: str) -> str:
    """JSON without spaces, keys in their order: the recordings differ in spaces alone."""
    try:
        return json.dumps(json.loads(text), separators=(",", ":"))
    except ValueError:
        return text.strip()


def split_http(raw: str) -> tuple[str, dict[str, str], str]:
    head, _, body = raw.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def request_text(raw: str) -> str:
    """A request to the VIM: its method, path and body; its headers are always the same."""
    first, headers, body = split_http(raw)
    assert headers.pop("Host").split(":")[0] == "127.0.0.1"
    assert headers.pop("Content-Length", "none") == (str(len(body)) if body else "none")
    assert headers == {
        "User-Agent": "guest-agent/1.0",
        "Content-Type": "application/json",
        "Connection": "close",
    }
    method, target, version = first.split(" ")
    assert version == "HTTP/1.1"
    return f"{method} {target} {canonical(body)}".strip()


def answer_text(raw: str) -> str:
    """An answer to a command: status and JSON; the old one had its errors in the status line."""
    if not raw:
        return "nothing"
    first, _headers, body = split_http(raw)
    status = first.split(" ")[1]
    reason = _REASON.search(first)
    if reason:
        body = json.dumps({"status": "fail", "reason": reason["reason"]})
    elif status == "204" or "<HTML>" in body:
        body = ""
    return f"{status} {canonical(body)}".strip()


def datagram_text(data: bytes) -> str:
    """A datagram byte for byte as an old peer reads it: command, length, signature, payload."""
    data = wire.unstamped(data)
    head = wire.DATAGRAM_HEAD.unpack_from(data)
    header, command = head[0].rstrip(b"\0").decode("latin-1"), wire.NAMES[head[4]]
    assert not any(head[1:4] + head[5:])
    payload = data[wire.DATAGRAM_HEAD.size :].decode()
    return f"{command} {len(data)} {header!r} {payload}".strip()


def recorded_datagram(step: dict[str, Any]) -> bytes:
    if "hex" in step:
        return bytes.fromhex(step["hex"])
    head = wire.DATAGRAM_HEAD.pack(
        step["hdr"].encode("latin-1"), 0, 0, 0, int(step["cmd"], 16), 0, 0, 0, 0, 0, 0
    )
    return (head + step["buf"].encode()).ljust(step["length"], b"\0")


def _host_at(address: str) -> str:
    host = address.partition(":")[0]
    return next(name for name, known in HOSTS.items() if known == host)


class Recording:
    """A scenario's inputs, its outputs by channel, and the VIM's answers by request."""

    def __init__(self, scenario: str) -> None:
        self.inputs: list[tuple[float, str, Any]] = []
        self.outputs: dict[str, list[Output]] = defaultdict(list)
        self.commands: list[str] = []
        self.answers: dict[str, deque[bytes | None]] = defaultdict(deque)
        self.asked: list[str] = []
        self.end = 0.0
        self._open: list[str] = []
        self._input_at = 0.0
        for step in load(scenario)["steps"]:
            self._take(step)

    def _take(self, step: dict[str, Any]) -> None:
        self.end = step["t"]
        if step["kind"] == "note":
            self._take_note(step["text"])
        elif step["kind"] == "udp":
            self._take_datagram(step)
        else:
            self._take_http(step)

    def _take_note(self, text: str) -> None:
        if text == "vim: does not answer":
            self.answers[self._open.pop(0)].append(None)
        elif text == "vim: closed without an answer":
            self.answers[self._open.pop(0)].append(b"")

    def _take_datagram(self, step: dict[str, Any]) -> None:
        sender, _, receiver = step["dir"].partition("->")
        data = recorded_datagram(step)
        if receiver.startswith("agent"):
            self._add_input(step["t"], "mtc" if sender == "mtc" else _host_at(step["src"]), data)
        elif receiver == "mtc":
            self._add("mtc", datagram_text(data), step["t"])
        else:
            self._add(_host_at(step["dst"]), datagram_text(data), step["t"])

    def _take_http(self, step: dict[str, Any]) -> None:
        raw, to_agent = step["raw"], step["dir"] == "vim->agent"
        is_answer = not raw or raw.startswith("HTTP/")
        if to_agent and is_answer:
            wanted = "instances/?" if '{"instances"' in raw else ""
            key = next((key for key in self._open if wanted in key), self._open[0])
            self._open.remove(key)
            self.answers[key].append(raw.encode())
        elif to_agent:
            self.commands.append(raw)
            self._add_input(step["t"], "vim", raw.encode())
        elif is_answer:
            self._add("answers", answer_text(raw), step["t"])
        else:
            self._open.append(request_text(raw))
            self._add("vim", request_text(raw), step["t"])

    def _add_input(self, at: float, sender: str, data: bytes) -> None:
        self.inputs.append((at, sender, data))
        self._input_at = at

    def _add(self, channel: str, text: str, at: float) -> None:
        self.outputs[channel].append(Output(text, at, max(0.0, at - self._input_at)))


def play(scenario: str, recording: Recording) -> dict[str, list[Output]]:
    """Feed the inputs to an agent on simulated time; return its outputs by channel."""
    rig = AgentRig()
    try:
        rig.start()
        outputs = feed(rig, scenario, recording, until=recording.end)
        assert rig.loop.errors == 0
        return outputs
    finally:
        rig.close()


def feed(
    rig: PeersRig, scenario: str, recording: Recording, until: float
) -> dict[str, list[Output]]:
    """Feed the inputs at their times, or at once if `until` is before them."""
    outputs: dict[str, list[Output]] = defaultdict(list)
    last: dict[str, bytes | None] = {}

    def answer(raw: bytes) -> bytes | None:
        key = request_text(raw.decode())
        if recording.answers[key]:
            last[key] = recording.answers[key].popleft()
        return last.get(key, b"")

    rig.vim.behaviour = answer
    if scenario == "agent-vim-down":
        rig.vim.refuse()
    for at, sender, data in recording.inputs:
        rig.advance(max(0.0, min(at, until) - rig.time))
        if sender == "mtc":
            rig.mtc_sends(data)
        elif sender == "vim":
            status, body = rig.raw_command(data)
            outputs["answers"].append(Output(_our_answer_text(status, body), at))
        else:
            rig.server_sends(data, sender)
    rig.advance(max(0.0, until - rig.time))
    for seen in rig.to_mtc:
        outputs["mtc"].append(Output(datagram_text(seen.what), seen.at))
    for seen in rig.to_servers:
        name, _datagram, data = seen.what
        outputs[name].append(Output(datagram_text(data), seen.at))
    for seen in rig.vim.requests:
        outputs["vim"].append(Output(_our_request_text(seen.what), seen.at))
    return outputs


def _our_answer_text(status: int, body: bytes) -> str:
    """As the old one's: what an error says to people, `detail`, is new."""
    if status >= 400:
        body = json.dumps({k: v for k, v in json.loads(body).items() if k != "detail"}).encode()
    return f"{status} {canonical(body.decode())}".strip()


def _our_request_text(request: Any) -> str:
    names = {"user-agent": "User-Agent", "content-type": "Content-Type"}
    lines = [f"{names.get(name, name.title())}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join([f"{request.method} {request.target} HTTP/1.1", *lines])
    return request_text(f"{head}\r\n\r\n{request.body.decode()}")


def compare(recorded: dict[str, list[Output]], ours: dict[str, list[Output]]) -> list[Difference]:
    """Return what only one side said, said otherwise, at another time or in another order."""
    found = []
    for channel in sorted({*recorded, *ours}):
        theirs, own = recorded.get(channel, []), ours.get(channel, [])
        if channel == "answers":
            found += _compare_answers(theirs, own)
        else:
            found += _compare_channel(channel, theirs, own)
    return found


def _compare_answers(theirs: list[Output], own: list[Output]) -> list[Difference]:
    assert len(theirs) == len(own), "a command was not answered"
    return [
        Difference("answer", "answers", f"{a.text} → {b.text}")
        for a, b in zip(theirs, own)
        if a.text != b.text
    ]


def _compare_channel(channel: str, theirs: list[Output], own: list[Output]) -> list[Difference]:
    """Pair what is the same at the same time, then what is the same at another time."""
    found = []
    left, rest, last = list(range(len(own))), [], -1
    for each in theirs:
        near = next((i for i in left if own[i].text == each.text and _in_time(each, own[i])), None)
        if near is None:
            rest.append(each)
            continue
        left.remove(near)
        if near < last:
            found.append(Difference("order", channel, each.text))
        last = max(near, last)
    for each in rest:
        same = next((i for i in left if own[i].text == each.text), None)
        if same is None:
            found.append(Difference("missing", channel, each.text))
        else:
            left.remove(same)
            when = f"{each.at:.2f} → {own[same].at:.2f}"
            found.append(Difference("time", channel, f"{each.text} at {when}"))
    return found + [Difference("extra", channel, own[i].text) for i in left]


def _in_time(recorded: Output, own: Output) -> bool:
    return abs(recorded.at - own.at) <= TOLERANCE + 0.05 * recorded.gap
