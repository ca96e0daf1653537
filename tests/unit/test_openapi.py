"""docs/openapi.json and the routing table say the same, and so does what is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from guestmtce import __version__
from guestmtce.core.agent.vim_commands import ROUTES, USER_AGENT, Body, Reason, Route
from guestmtce.core.shared.vocabulary import Event
from guestmtce.runtime.http_message import Request
from tests.documents import DOCS
from tests.unit.agent_support import HOST_0, HOST_1, UUID, UUID_2
from tests.unit.http_support import ApiRig

DOCUMENT: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text("utf-8"))
METHODS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    (method.upper(), path): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}


def described(route: Route) -> dict[str, Any]:
    return OPERATIONS[route.method, route.path]


def test_every_route_is_described_and_nothing_else():
    assert set(OPERATIONS) == {(route.method, route.path) for route in ROUTES}
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == __version__


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_and_its_description(route):
    operation = described(route)
    assert operation["operationId"].startswith(route.operation.value.replace(" ", "_"))
    statuses = {int(status) for status in operation["responses"] if status != "default"}
    assert statuses == route.statuses
    assert "default" in operation["responses"]
    needed = {Body.IGNORED: None, Body.OPTIONAL: False, Body.NEEDED: True}[route.body]
    assert operation.get("requestBody", {"required": None})["required"] is needed
    parameters = DOCUMENT["paths"][route.path].get("parameters", [])
    assert bool(parameters) == ("{uuid}" in route.path)


def test_operations_have_ids_of_their_own():
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from references(each)


def test_every_reference_leads_somewhere_and_nothing_is_left_over():
    named = {
        f"#/components/{kind}/{name}"
        for kind, components in DOCUMENT["components"].items()
        for name in components
    }
    assert set(references(DOCUMENT)) == named


def test_words():
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Error"]["properties"]["reason"]["enum"] == [reason.value for reason in Reason]
    for name in ("Ask", "Asked"):
        assert set(schemas[name]["properties"]["action"]["enum"]) == {
            event.value for event in Event
        }


BODIES = {
    "hosts": {"uuid": HOST_0, "hostname": "compute-0"},
    "instances": {
        "uuid": UUID,
        "hostname": "compute-0",
        "services": [{"service": "heartbeat", "state": "enabled"}],
        "action": "pause",
    },
}


def requests(route: Route) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (path, User-Agent, body members): one that is right, then each thing wrong in turn."""
    kind = route.path.split("/")[2] if "{uuid}" in route.path else ""
    body, known, unknown = {
        "hosts": (BODIES["hosts"], HOST_0, HOST_1),
        "instances": (BODIES["instances"], UUID, UUID_2),
        "": ({}, "", ""),
    }[kind]

    def path(uuid: str) -> str:
        return route.path.replace("{uuid}", uuid)

    yield path(known), USER_AGENT, body
    yield path(known), "curl/8", body
    yield path("none"), USER_AGENT, body
    yield path(known), USER_AGENT, {}
    yield path(known), USER_AGENT, {**body, "uuid": unknown}
    yield path(unknown), USER_AGENT, {**body, "uuid": unknown}
    yield path(known), USER_AGENT, {**body, "hostname": "compute-9"}


def status_for_a_stranger(route: Route) -> int:
    """Return how a web page is answered whose name was made to lead here."""
    rig = ApiRig()
    answer = rig.api.answer(Request(route.method, route.path, {"host": "evil.example"}))
    rig.close()
    return answer.status


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_the_statuses_of_a_route_are_those_that_it_is_answered_with(route):
    seen = set()
    for path, agent, members in requests(route):
        rig = ApiRig()
        rig.ready()
        seen.add(rig.ask(route.method, path, members, agent).status)
        rig.close()
    seen.add(status_for_a_stranger(route))
    assert seen == route.statuses
