"""Inputs that mutation starts from: one of each kind that a door takes, and old faults."""

from __future__ import annotations

import json

from guestmtce.core.agent.vim_queue import Ended
from tests.peers import wire

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df104401"
# The host and the init that the rooms know.
HOST_UUID = "8aee436e-d564-459e-a0d8-26c447920000"
INVOCATION_ID = 5
TAKEN = Ended.TAKEN
_INFO = {
    "hostname": "compute-0",
    "uuid": UUID,
    "reporting": "enabled",
    "heartbeating": "enabled",
    "repair-action": "reboot",
    **{f"{name}-to": "9" for name in ("restart", "shutdown", "suspend", "resume", "vote")},
}
_STAMP = {"epoch": 77, "seq": 3, "id": "77.3"}
_SERVICE = {"service": "heartbeat", "state": "enabled"}


def _object(members: object) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


def _guest(msg_type: str, **body: object) -> bytes:
    return wire.message(msg_type, 1, **body)


def _request(method: str, path: str, members: object = None) -> bytes:
    body = b"" if members is None else _object(members)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost:2410\r\nUser-Agent: vim/1.0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


GUEST = [
    _guest("init", **wire.init_body()),
    _guest("challenge_response", heartbeat_response=5, heartbeat_health="healthy",
           corrective_action="none", log_msg="x"),
    _guest("action_response", invocation_id=1, event_type="stop", notification_type="revocable",
           vote_result="accept", log_msg=""),
    _guest("exit", log_msg="bye"),
    b'\n{"version":3,"revision":1,"msg_type":"exit","sequence":1,"log_msg":"it said "no"\t"}\n',
    b'\n{"version":1e999,"revision":1.0,"msg_type":"init"}\n',
    b"\n" + b"[" * 600 + b"\n",
]  # fmt: skip

TO_AGENT = [
    wire.pack("RUNNING", _INFO),
    wire.pack("QRY_INST", {**_INFO, "name": "web \u00e9 1", **_STAMP, "re": 2, "of": 5}),
    wire.pack("LOSS", {"hostname": "compute-0", "uuid": UUID, **_STAMP}),
    wire.pack("VOTE_NOTIFY", {"hostname": "compute-0", "uuid": UUID, "vote": "accept",
              "notification_type": "revocable", "event-type": "pause", "reason": "x"}),
    wire.pack("VOTE_NOTIFY", {"hostname": "compute-0", "uuid": UUID, "vote": "accept",
              "notification_type": "revocable", "event-type": "pause", "reason": 'it said "no"'}),
    wire.pack("LOOPBACK", {"hostname": "compute-0", "epoch": 77, "seq": 0}),
    wire.pack("LOOPBACK", {"hostname": "compute-0", "epoch": 77, "of": 8, "ack": 3}),
    wire.pack("LOOPBACK", {"hostname": "compute-0", "epoch": 77, "of": 8, "ack": 0,
              "version": "1.1.0"}),
    wire.pack("MONITOR_READY", {"hostname": "compute-0"}),
    wire.pack("ADD_HOST", {"hostname": "compute-0", "uuid": HOST_UUID, "ip": "10.0.0.1",
              "personality": "worker"}, wire.MTC_SIGNATURE),
    wire.pack("DEL_HOST", {"hostname": "compute-0", "uuid": HOST_UUID}, wire.MTC_SIGNATURE),
]  # fmt: skip

TO_SERVER = [
    wire.pack("ADD_INST", {"uuid": UUID, **_SERVICE, **_STAMP}, wire.GUEST_SIGNATURE, full=False),
    wire.pack("DEL_INST", {"uuid": UUID, **_SERVICE}, wire.GUEST_SIGNATURE, full=False),
    wire.pack("MOD_HOST", {"uuid": HOST_UUID, "heartbeat": "enabled"}, wire.GUEST_SIGNATURE),
    wire.pack("VOTE_INST", {"uuid": UUID, "event": "stop", **_STAMP}, wire.GUEST_SIGNATURE),
    wire.pack("NOTIFY_INST", {"uuid": UUID, "event": "resume"}, wire.GUEST_SIGNATURE),
    wire.pack("QRY_INST", {"epoch": 77, "seq": 4}, wire.GUEST_SIGNATURE),
    wire.pack("LOOPBACK", {"source": "10.0.0.1", "epoch": 77, "seq": 0}, wire.GUEST_SIGNATURE),
    wire.pack("LOOPBACK", {"epoch": 77, "of": 8, "ack": 3, "queued": True}, wire.GUEST_SIGNATURE),
    wire.pack("LOOPBACK", {"epoch": 77, "of": 8, "ack": 0, "version": "1"}, wire.GUEST_SIGNATURE),
]  # fmt: skip

REQUESTS = [
    _request("GET", "/v1/instances/"),
    _request("DELETE", f"/v1/instances/{UUID}"),
    _request("PUT", f"/v1/hosts/{HOST_UUID}/enable", {"uuid": HOST_UUID, "hostname": "compute-0"}),
    _request("PATCH", f"/v1/instances/{UUID}",
             {"uuid": UUID, "hostname": "compute-0", "services": [_SERVICE]}),
    _request("POST", f"/v1/instances/{UUID}/vote",
             {"uuid": UUID, "hostname": "compute-0", "action": "pause"}),
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n folded\n\n",
]  # fmt: skip

ANSWERS = [
    b"HTTP/1.0 200 OK\r\n\r\n"
    + _object({"uuid": HOST_UUID, "hostname": "compute-0", "state": "enabled"}),
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\n\r\n"
    + _object({"instances": [{"uuid": UUID, "hostname": "compute-0", "services": [_SERVICE]}]}),
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\nx",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 400 Bad\r\n\r\n",
    b"",
]

CONTROL = [
    *(_object({"command": name}) + b"\n" for name in ("status", "instances", "hosts", "events")),
    _object({"command": "show", "uuid": UUID}) + b"\n",
    _object({"command": "show", "uuid": [UUID]}) + b"\n",
    b"[]\n",
    b'{"command":' + b"[" * 2000 + b"\n",
    b'{"command":"show","uuid":"\\ud800"}\n',
]

LOSSES = [
    _object({"boot": "b", "losses": [{
        "uuid": UUID, "id": "7.3", "lost_at": 5.0, "interval_ms": 1000,
        "corrective_action": "reboot", "timeouts": [1, 2, 3, 4, 5]}]}),
    b'{"boot":"b","losses":[]}',
]  # fmt: skip

INIS = [
    b"[agent]\nrx_port = 2401\nvim_cmd_port = 2410\n[client]\nrx_port = 2411\n",
    b"[agent]\nrx_port = 2401 ; a comment\n[client]\nagent_peers = a, b\n[network]\nacknowledge=no",
    b"rx_port = 1\n[[\n= 3\n[client\n",
]

HOSTS = [b"127.0.0.1 localhost\n192.168.204.2 controller controller-0 # c\n", b"fd00::1%eth0 x\n\0"]

NAMES = [f"cgcs.heartbeat.{UUID}.sock".encode(), b"org.qemu.guest_agent.0.instance-1.sock", b"\xff"]

HOST_MESSAGES = [
    _guest("init_ack", invocation_id=5),
    _guest("challenge", heartbeat_challenge=77),
    _guest("action_notify", invocation_id=5, event_type="stop", notification_type="irrevocable",
           timeout_ms=9000),
    _guest("nack", invocation_id=5, log_msg="no"),
]  # fmt: skip
