"""The command API's HTTP side: http-api.md, "Errors", decisions 36 and 40."""

from __future__ import annotations

import json
import logging
import re
import selectors
import socket
import tracemalloc
from pathlib import Path

import pytest

from guestmtce.core.agent.inventory import Host
from guestmtce.core.agent.vim_commands import Reason
from guestmtce.core.shared.http_framing import HttpError
from tests.unit.agent_support import HOST_0, HOST_1, UUID
from tests.unit.http_support import ApiRig, members_of, ready_api

CASES = json.loads((Path(__file__).parents[1] / "data/http.json").read_text("utf-8"))["requests"]


rig = pytest.fixture(ready_api)


def test_a_method_that_is_not_there_is_405_and_what_is_there_is_offered(rig):
    response = rig.ask("PUT", f"/v1/instances/{UUID}", {})
    assert response.status == 405
    assert response.headers == {"Allow": "DELETE, GET, HEAD, PATCH, POST"}
    assert members_of(response)["reason"] == "unsupported http command"


ON_ANOTHER_HOST = {
    "uuid": UUID,
    "hostname": "compute-9",
    "services": [{"service": "heartbeat", "state": "enabled"}],
}


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        (
            ("GET", f"/v1/instances/{UUID}", None, "curl/8"),
            "unsupported User-Agent curl/8: vim/1.0 or none is taken",
        ),
        (("GET", f"/v1/hosts/{HOST_1}"), f"unknown host {HOST_1}"),
        (("PATCH", f"/v1/instances/{UUID}", ON_ANOTHER_HOST), "unknown host compute-9"),
        (("GET", "/nowhere"), "no such path: /nowhere"),
        (("GET", "/v1/hosts/\x1b[2J"), r"not a UUID in the path: \x1b[2J"),
    ],
)
def test_a_refusal_says_to_people_why(rig, request_, detail):
    answer = members_of(rig.ask(*request_))
    assert list(answer) == ["status", "reason", "detail"]
    assert answer["status"] == "fail"
    assert answer["reason"] in {reason.value for reason in Reason}
    assert answer["detail"] == detail


def test_a_refusal_is_logged_with_its_reason_and_no_forged_line(rig, caplog):
    with caplog.at_level(logging.WARNING):
        rig.ask("GET", f"/v1/hosts/{HOST_0}", None, "evil\nINFO all is well")
    (record,) = caplog.records
    assert r"403 unsupported User-Agent evil\nINFO" in record.getMessage()


def test_what_is_not_a_request_has_a_reason_and_a_detail(rig):
    answer = members_of(rig.api.not_a_request(HttpError(411, "why")))
    assert answer == {"status": "fail", "reason": "no buffer", "detail": "why"}
    assert rig.api.results["unknown", "411"] == 1


def test_the_lists_are_for_everybody(rig):
    hosts = members_of(rig.ask("GET", "/v1/hosts", None, "Mozilla/5.0"))["hosts"]
    assert [host["hostname"] for host in hosts] == ["compute-0"]
    (instance,) = members_of(rig.ask("GET", "/v1/instances", None, "curl/8"))["instances"]
    assert instance["uuid"] == UUID
    assert rig.ask("GET", "/metrics", None, "Prometheus/2").body == b"guestmtce_x 1\n"


def fill(rig: ApiRig, count: int, per_host: int = 50) -> None:
    """Make `count` instances known besides the one that is there."""
    for number in range(count):
        if number % per_host == 0:
            host = Host(f"worker-{number}", f"8aee436e-d564-459e-a0d8-{number:012d}")
            rig.agent.inventory.add_host(host)
        uuid = f"8d80875b-fa73-4ccb-bce3-{number:012d}"
        rig.agent.add_instance(uuid, host, True, 0.0)


@pytest.mark.parametrize("count", [0, 98, 99, 100, 199, 250])
def test_a_list_is_whole_however_many_pieces_it_takes(rig, count):
    fill(rig, count)
    instances = members_of(rig.ask("GET", "/v1/instances"))["instances"]
    assert len({instance["uuid"] for instance in instances}) == count + 1


def test_an_empty_list():
    rig = ApiRig()
    assert members_of(rig.ask("GET", "/v1/hosts")) == {"hosts": []}
    assert members_of(rig.ask("GET", "/v1/instances")) == {"instances": []}
    rig.close()


def test_instances_may_go_while_a_list_is_made(rig):
    fill(rig, 1000)
    response = rig.ask("GET", "/v1/instances")
    assert not isinstance(response.body, bytes)
    begun = next(response.body)
    for instance in [*rig.agent.inventory.instances.values()]:
        rig.agent.delete_instance(instance)
    listed = json.loads(begun + b"".join(response.body))["instances"]
    assert 100 <= len(listed) < 1000


class ListReader:
    """A client that asks for the whole list and reads it as it comes, keeping only its size."""

    def __init__(self, rig: ApiRig, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self.socket.sendall(b"GET /v1/instances HTTP/1.1\r\nHost: a\r\n\r\n")
        self.size = 0
        self.last = b""
        self.done = False
        self._rig = rig
        rig.loop.watch(self.socket, selectors.EVENT_READ, self._read)

    def _read(self, _events: int) -> None:
        data = self.socket.recv(1 << 18)
        self.size += len(data)
        self.last = data[-3:] or self.last
        if not data:
            self.done = True
            self._rig.loop.unwatch(self.socket)
            self.socket.close()


def test_60_lists_of_20_000_instances_hold_up_no_command_and_take_no_memory(rig):
    """A command waits for one piece of one list, however many are asked for."""
    fill(rig, 20_000)
    server = rig.serve()
    readers = [ListReader(rig, server.address) for _ in range(60)]
    for _ in range(200):
        rig.loop.run_once()
    tracemalloc.start()
    waits = []
    with socket.create_connection(server.address) as vim:
        vim.setblocking(False)
        for _ in range(50):
            vim.sendall(b"GET /v1/instances/%s HTTP/1.1\r\nHost: a\r\n\r\n" % UUID.encode())
            begun = rig.loop.turns
            while True:
                rig.loop.run_once()
                try:
                    assert vim.recv(65536).startswith(b"HTTP/1.1 200 ")
                    break
                except BlockingIOError:
                    continue
            waits.append(rig.loop.turns - begun)
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(waits) <= 3, "turns of the loop, each with one piece of a list at most"
    assert grown < 2_000_000, "and nothing is kept of those that wait"
    assert not all(reader.done for reader in readers), "they were still being made"
    for reader in readers:
        rig.loop.unwatch(reader.socket)
        reader.socket.close()
    server.close()


def test_a_long_list_over_a_socket(rig):
    fill(rig, 2_000)
    server = rig.serve()
    readers = [ListReader(rig, server.address) for _ in range(3)]
    rig.loop.run_until(lambda: all(reader.done for reader in readers))
    assert {reader.last for reader in readers} == {b"}]}"}
    assert len({reader.size for reader in readers}) == 1
    assert readers[0].size > 2_000 * 150
    server.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_odd_and_ambiguous_requests(rig, case):
    """One connection each, over a real socket; nothing of a body is taken for a second request."""
    rig.agent.add_instance("8d80875b-fa73-4ccb-bce3-000000000001", rig.host(), True, 0.0)
    server = rig.serve()
    with socket.create_connection(server.address) as client:
        client.setblocking(False)
        client.sendall(case["request"].encode("latin-1"))
        received = b""
        rig.loop.advance(30)
        while True:
            try:
                data = client.recv(65536)
            except BlockingIOError:
                pytest.fail("the connection is still open")
            if not data:
                break
            received += data
    server.close()
    assert int(received.split(b" ", 2)[1]) in case["status"]
    assert len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", received)) == 1
    assert rig.loop.errors == 0


def test_the_status_page_is_for_everybody(rig):
    """`GET /`, in a browser; `/?all` shows every instance, `/` the 200 worst."""
    fill(rig, 300)
    response = rig.ask("GET", "/", None, "Mozilla/5.0")
    assert response.content_type == "text/html; charset=utf-8"
    assert "Content-Security-Policy" in response.headers
    assert b"".join(response.body).count(b"8d80875b-fa73-4ccb") == 200
    whole = b"".join(rig.ask("GET", "/?all", None, "Mozilla/5.0").body)
    assert whole.count(b"8d80875b-fa73-4ccb") == 301
