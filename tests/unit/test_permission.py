"""Who may change something by a command, and what the log says of it: [agent] vim_cmd_users."""

from __future__ import annotations

import logging
import socket

import pytest

from guestmtce.agent.permission import warn_of_strangers
from guestmtce.runtime.local_user import UNKNOWN, LocalUser, LocalUsers
from tests.unit.agent_support import HOST_0, UUID
from tests.unit.http_support import members_of, ready_api

ROOT = LocalUser(0, "root")
VIM = LocalUser(1002, "vim")
EVE = LocalUser(1003, "eve")

SET = {
    "uuid": UUID,
    "hostname": "compute-0",
    "services": [{"service": "heartbeat", "state": "disabled"}],
}
ON_HOST = {"uuid": HOST_0, "hostname": "compute-0"}
VOTE = {"uuid": UUID, "hostname": "compute-0", "action": "pause"}


rig = pytest.fixture(ready_api)


@pytest.mark.parametrize(
    ("allowed", "user", "status"),
    [
        ((), EVE, 200),
        ((), UNKNOWN, 200),
        (("vim",), VIM, 200),
        (("eve", "1002"), VIM, 200),
        (("vim",), ROOT, 200),
        (("vim",), EVE, 403),
        (("0",), EVE, 403),
        (("vim",), UNKNOWN, 403),
        (("unknown",), UNKNOWN, 403),
    ],
)
def test_who_may(rig, allowed, user, status):
    """Root always, everybody if nobody is named, and nobody of whom it is not known."""
    rig.allowed = allowed
    assert rig.ask("PATCH", f"/v1/instances/{UUID}", SET, user=user).status == status
    assert rig.instance().reporting is (status == 403), "a refusal changes nothing"


def test_a_refusal_names_the_user_and_the_setting(rig):
    rig.allowed = ("vim",)
    answer = rig.ask("DELETE", f"/v1/instances/{UUID}", user=EVE)
    assert members_of(answer) == {
        "status": "fail",
        "reason": "unsupported http command",
        "detail": "user eve is not in [agent] vim_cmd_users",
    }


def test_who_only_asks_is_not_looked_up(rig):
    """The page, the lists and the queries are for everybody, and cost nothing."""
    rig.allowed = ("vim",)
    for path in ("/", "/v1/hosts", f"/v1/hosts/{HOST_0}", f"/v1/instances/{UUID}", "/metrics"):
        for method in ("GET", "HEAD"):
            assert rig.ask(method, path, user=EVE).status == 200


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (
            ("PATCH", f"/v1/instances/{UUID}", SET),
            f"instance set {UUID}, host compute-0, reporting off, by eve: 200",
        ),
        (
            ("PUT", f"/v1/hosts/{HOST_0}/disable", ON_HOST),
            f"host disable {HOST_0}, host compute-0, by eve: 200",
        ),
        (
            ("POST", f"/v1/instances/{UUID}/vote", VOTE),
            f"instance vote {UUID}, host compute-0, pause, by eve: 200",
        ),
        (("DELETE", f"/v1/instances/{UUID}"), f"instance delete {UUID}, by eve: 204"),
    ],
)
def test_the_log_says_what_was_set_to_what_and_by_whom(rig, caplog, request_, line):
    with caplog.at_level(logging.INFO):
        rig.ask(*request_, user=EVE)
    assert line in caplog.messages


def test_a_refused_change_is_logged_with_its_user(rig, caplog):
    with caplog.at_level(logging.WARNING):
        rig.ask("DELETE", "/v1/instances/vm-1", user=EVE)
    assert "DELETE /v1/instances/vm-1, by eve: 400 not a UUID in the path: vm-1" in caplog.text


def test_the_instance_remembers_who_switched_its_reporting(rig):
    rig.ask("PATCH", f"/v1/instances/{UUID}", SET, user=EVE)
    last = rig.instance().history.for_operator()[-1]
    assert (last["what"], last["detail"]) == ("reporting", "off by eve")


def test_that_it_is_not_known_who_is_said_once_with_the_remedy(rig, caplog):
    rig.allowed = ("vim",)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            rig.ask("DELETE", f"/v1/instances/{UUID}", user=UNKNOWN)
    assert caplog.text.count("RestrictAddressFamilies needs AF_NETLINK") == 1


def test_a_name_that_is_nobodys_is_told(tmp_path, caplog):
    file = tmp_path / "passwd"
    file.write_text("vim:x:1002:1::/:\n")
    warn_of_strangers(("vim", "1003", "wim"), LocalUsers(str(file)))
    (line,) = caplog.messages
    assert "no user wim" in line


class OneUser(LocalUsers):
    """Knows everybody, and counts how often it is asked."""

    asked = 0

    def at_other_end(self, _connection: socket.socket) -> LocalUser:
        self.asked += 1
        return EVE


def test_a_connection_is_looked_up_once_and_only_for_a_change(rig, caplog):
    users = OneUser()
    server = rig.serve(users)
    with socket.create_connection(server.address) as client, caplog.at_level(logging.INFO):
        client.sendall(f"GET /v1/instances/{UUID} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        rig.loop.settle()
        assert users.asked == 0
        for uuid in (UUID, UUID):
            client.sendall(f"DELETE /v1/instances/{uuid} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            rig.loop.settle()
    assert users.asked == 1
    assert f"instance delete {UUID}, by eve: 204" in caplog.messages
    server.close()
