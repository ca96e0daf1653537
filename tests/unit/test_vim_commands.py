"""The VIM's commands: every row of http-api.md's command table and error table."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.agent.vim_commands import (
    CommandError,
    Operation,
    Reason,
    VimCommand,
    parse_command,
)
from guestmtce.core.shared.vocabulary import Event
from tests.unit.agent_support import HOST_0, UUID

VIM = {"user-agent": "vim/1.0"}
HOST_BODY = {"uuid": HOST_0, "hostname": "compute-0"}
BODY = {"uuid": UUID, "hostname": "compute-0"}
HOSTS, INSTANCES = f"/v1/hosts/{HOST_0}", f"/v1/instances/{UUID}"


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def services(**service: str) -> bytes:
    return encode({**BODY, "services": [service]})


def refuse(method: str, path: str, body: bytes = b"", headers: dict | None = None) -> CommandError:
    with pytest.raises(CommandError) as caught:
        parse_command(method, path, VIM if headers is None else headers, body)
    return caught.value


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", HOSTS, encode(HOST_BODY), VimCommand(Operation.HOST_CREATE, HOST_0, "compute-0")),
        ("POST", HOSTS, b"", VimCommand(Operation.HOST_CREATE, HOST_0)),
        ("PUT", HOSTS + "/enable", encode(HOST_BODY), (Operation.HOST_ENABLE, HOST_0, "compute-0")),
        (
            "PUT",
            HOSTS + "/disable",
            encode(HOST_BODY),
            (Operation.HOST_DISABLE, HOST_0, "compute-0"),
        ),
        ("GET", HOSTS, b"", (Operation.HOST_QUERY, HOST_0)),
        ("GET", HOSTS + "/disable", encode(HOST_BODY), (Operation.HOST_QUERY, HOST_0)),
        ("GET", HOSTS, b"{not json, ignored", (Operation.HOST_QUERY, HOST_0)),
        ("DELETE", HOSTS, b"", (Operation.HOST_DELETE, HOST_0)),
        (
            "POST",
            INSTANCES,
            encode({**BODY, "services": ["heartbeat"]}),
            (Operation.INSTANCE_CREATE, UUID, "compute-0"),
        ),
        (
            "POST",
            INSTANCES,
            services(service="heartbeat", state="enabled"),
            (Operation.INSTANCE_CREATE, UUID, "compute-0"),
        ),
        (
            "PATCH",
            INSTANCES,
            services(service="heartbeat", state="enabled"),
            (Operation.INSTANCE_SET, UUID, "compute-0", True),
        ),
        (
            "PATCH",
            INSTANCES,
            services(service="heartbeat", state="disabled"),
            (Operation.INSTANCE_SET, UUID, "compute-0", False),
        ),
        ("GET", INSTANCES, b"", (Operation.INSTANCE_QUERY, UUID)),
        ("DELETE", INSTANCES, b"", (Operation.INSTANCE_DELETE, UUID)),
        (
            "POST",
            INSTANCES + "/vote",
            encode({**BODY, "action": "pause"}),
            (Operation.INSTANCE_VOTE, UUID, "compute-0", False, Event.PAUSE),
        ),
        (
            "POST",
            INSTANCES + "/notify",
            encode({**BODY, "action": "cold_migrate_end"}),
            (Operation.INSTANCE_NOTIFY, UUID, "compute-0", False, Event.COLD_MIGRATE_END),
        ),
        ("GET", "/v1/hosts", b"", (Operation.LIST_HOSTS,)),
        ("GET", "/v1/instances", b"", (Operation.LIST_INSTANCES,)),
        ("GET", "/metrics", b"", (Operation.METRICS,)),
    ],
)
def test_every_row_of_the_command_table(method, path, body, expected):
    assert parse_command(method, path, VIM, body) == VimCommand(*expected)


@pytest.mark.parametrize("agent", ["vim/1.0.1", "VIM/1.0", "curl/7.1", "", " vim/1.0"])
def test_another_user_agent_is_403(agent):
    assert refuse("GET", INSTANCES, headers={"user-agent": agent}).status == 403


def test_no_user_agent_is_accepted():
    assert parse_command("GET", INSTANCES, {}, b"").operation is Operation.INSTANCE_QUERY


@pytest.mark.parametrize("path", ["/v1/hosts", "/v1/instances", "/metrics"])
def test_the_lists_and_metrics_are_for_everybody(path):
    assert parse_command("GET", path, {"user-agent": "Prometheus/2"}, b"")


@pytest.mark.parametrize(
    "path",
    ["*", "", "/v2/instances/" + UUID, "/foo" + INSTANCES, "/v1", "/v1/guests/" + UUID, "//"],
)
def test_a_path_outside_hosts_and_instances_is_403(path):
    assert refuse("GET", path).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/v1/hosts/",
        "/v1/instances/",
        "/v1/instances/none",
        INSTANCES[:-1],
        INSTANCES + "0",
        f"/v1/instances/{UUID.replace('-', '_')}",
        f"/v1/instances/{UUID}%0a",
    ],
)
def test_not_a_uuid_in_the_path_is_400(path):
    error = refuse("GET", path)
    assert (error.status, error.reason) == (400, Reason.INVALID_DATA)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", HOSTS, ("DELETE", "GET", "HEAD", "POST")),
        ("PUT", INSTANCES, ("DELETE", "GET", "HEAD", "PATCH", "POST")),
        ("OPTIONS", INSTANCES, ("DELETE", "GET", "HEAD", "PATCH", "POST")),
        ("FROB", HOSTS, ("DELETE", "GET", "HEAD", "POST")),
        ("GET", HOSTS + "/enable", ("PUT",)),
        ("POST", HOSTS + "/disable", ("GET", "HEAD", "PUT")),
        ("GET", INSTANCES + "/vote", ("POST",)),
        ("PUT", HOSTS + "/frob", ()),
        ("POST", INSTANCES + "/vote/again", ()),
        ("DELETE", "/v1/hosts", ("GET", "HEAD")),
        ("POST", "/metrics", ("GET", "HEAD")),
    ],
)
def test_a_method_not_supported_there_is_405_with_allow(method, path, allow):
    error = refuse(method, path, encode(BODY))
    assert (error.status, error.allow) == (405, allow)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", HOSTS + "/enable"),
        ("PUT", HOSTS + "/disable"),
        ("PATCH", INSTANCES),
        ("POST", INSTANCES),
        ("POST", INSTANCES + "/vote"),
        ("POST", INSTANCES + "/notify"),
    ],
)
def test_no_body_where_there_must_be_one_is_411(method, path):
    error = refuse(method, path)
    assert (error.status, error.reason) == (411, Reason.NO_BUFFER)


BAD_BODIES = [
    b"{bad",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe",
    encode(BODY).decode().encode("utf-16"),
    b"[" * 60_000,
    b'{"uuid":' * 8_000,
    b"{}",
    encode({"uuid": HOST_0}),
    encode({"hostname": "compute-0"}),
    encode({"uuid": 1, "hostname": "compute-0"}),
    encode({"uuid": HOST_0, "hostname": None}),
    encode({"uuid": HOST_0, "hostname": ""}),
    encode({"uuid": HOST_0, "hostname": "x" * 256}),
    encode({"uuid": HOST_0, "hostname": ["compute-0"]}),
    encode({"uuid": UUID, "hostname": "compute-0"}),
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:30]))
def test_a_bad_body_is_400(body):
    assert refuse("PUT", HOSTS + "/enable", body).status == 400
    assert refuse("POST", HOSTS, body).status == 400


@pytest.mark.parametrize(
    ("method", "path", "members", "word"),
    [
        ("POST", INSTANCES, {}, "command parse error"),
        ("POST", INSTANCES, {"services": "heartbeat"}, "command parse error"),
        ("POST", INSTANCES, {"services": []}, "invalid data"),
        ("POST", INSTANCES, {"services": ["other", 1, None]}, "invalid data"),
        ("PATCH", INSTANCES, {}, "command parse error"),
        ("PATCH", INSTANCES, {"services": {"service": "heartbeat"}}, "command parse error"),
        ("PATCH", INSTANCES, {"services": ["heartbeat"]}, "invalid data"),
        (
            "PATCH",
            INSTANCES,
            {"services": [{"service": "bogus", "state": "enabled"}]},
            "invalid data",
        ),
        ("PATCH", INSTANCES, {"services": [{"service": "heartbeat"}]}, "bad state"),
        (
            "PATCH",
            INSTANCES,
            {"services": [{"service": "heartbeat", "state": "bogus"}]},
            "bad state",
        ),
        ("PATCH", INSTANCES, {"services": [{"service": "heartbeat", "state": True}]}, "bad state"),
        ("POST", INSTANCES + "/vote", {}, "command parse error"),
        ("POST", INSTANCES + "/vote", {"action": 1}, "command parse error"),
        ("POST", INSTANCES + "/vote", {"action": "unknown"}, "invalid data"),
        ("POST", INSTANCES + "/notify", {"action": "bogus"}, "invalid data"),
    ],
)
def test_missing_keys_wrong_types_and_unknown_words_are_400(method, path, members, word):
    error = refuse(method, path, encode({**BODY, **members}))
    assert (error.status, error.reason.value) == (400, word)


def test_uuids_are_compared_without_case_and_lower_cased():
    body = encode({"uuid": HOST_0.upper(), "hostname": "compute-0"})
    command = parse_command("PUT", f"/v1/hosts/{HOST_0.upper()}/enable", VIM, body)
    assert command.uuid == HOST_0


def test_head_is_get():
    assert parse_command("HEAD", INSTANCES, VIM, b"").operation is Operation.INSTANCE_QUERY


@pytest.mark.parametrize("target", [INSTANCES + "?x=1", "http://localhost:2410" + INSTANCES])
def test_queries_and_absolute_targets(target):
    assert parse_command("GET", target, VIM, b"").uuid == UUID


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["uuid", "hostname", "services", "state"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "X"]),
    st.sampled_from([HOSTS, INSTANCES, "/v1/", ""]) | st.text(max_size=20),
    st.sampled_from(["", "/enable", "/disable", "/vote", "/notify"]) | st.text(max_size=10),
    st.binary(max_size=30) | json_values.map(encode) | st.just(encode(BODY)),
)
def test_any_request_is_a_command_or_an_error_of_the_table(method, path, rest, body):
    status, allow = 200, None
    try:
        parse_command(method, path + rest, VIM, body)
    except CommandError as error:
        status, allow = error.status, error.allow
    assert status in {200, 400, 403, 405, 411}
    assert (allow is not None) == (status == 405)
