"""The tables of hosts and instances, and what a guest's timeouts mean."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guestmtce.core.shared.text import usual_address
from guestmtce.core.shared.vocabulary import Command, Event, Notification, Timeouts
from tests.unit.agent_support import CoreRig

HOSTNAMES = [f"compute-{number}" for number in range(4)]
HOST_UUIDS = [f"8aee436e-d564-459e-a0d8-{number:012d}" for number in range(4)]
UUIDS = [f"8d80875b-fa73-4ccb-bce3-{number:012d}" for number in range(6)]


@pytest.mark.parametrize(
    ("event", "notification", "expected"),
    [
        (Event.STOP, Notification.REVOCABLE, "vote"),
        (Event.UNPAUSE, Notification.REVOCABLE, "vote"),
        (Event.STOP, Notification.IRREVOCABLE, "shutdown"),
        (Event.RESIZE_BEGIN, Notification.IRREVOCABLE, "suspend"),
        (Event.RESIZE_END, Notification.IRREVOCABLE, "resume"),
    ],
)
def test_which_timeout_counts(event, notification, expected):
    timeouts = Timeouts(*Timeouts._fields)
    assert timeouts.of(event, notification) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.2", "127.0.0.2"),
        ("::ffff:127.0.0.2", "127.0.0.2"),
        ("FD00:0::1", "fd00::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("none", None),
        ("compute-0", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_addresses_come_in_one_spelling(text, expected):
    assert usual_address(text) == expected


class InventoryMachine(RuleBasedStateMachine):
    """Hosts and instances come, move, change their names and go, by mtcAgent and the VIM."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = CoreRig()

    @rule(hostname=st.sampled_from(HOSTNAMES), uuid=st.sampled_from(HOST_UUIDS))
    def put_host(self, hostname, uuid):
        news = self.rig.mtc(hostname=hostname, uuid=uuid, ip="127.0.0.2")
        assert self.rig.host(hostname).uuid == uuid
        gone = set(news.went) - set(news.came)
        assert all(self.rig.agent.inventory.host_named(name) is None for name in gone)

    @rule(uuid=st.sampled_from(HOST_UUIDS))
    def delete_host(self, uuid):
        if uuid in self.rig.agent.inventory.hosts:
            self.rig.mtc(Command.DEL_HOST, hostname="x", uuid=uuid)
        assert uuid not in self.rig.agent.inventory.hosts

    @rule(uuid=st.sampled_from(UUIDS), hostname=st.sampled_from(HOSTNAMES))
    def set_instance(self, uuid, hostname):
        body = (
            f'{{"uuid":"{uuid}","hostname":"{hostname}",'
            '"services":[{"service":"heartbeat","state":"enabled"}]}'
        )
        status, _ = self.rig.vim("PATCH", f"/v1/instances/{uuid}", body.encode())
        known = self.rig.agent.inventory.host_named(hostname) is not None
        assert status == (200 if known else 404)
        if known:
            assert self.rig.instance(uuid).host.hostname == hostname

    @rule(uuid=st.sampled_from(UUIDS))
    def delete_instance(self, uuid):
        self.rig.vim("DELETE", f"/v1/instances/{uuid}")
        assert uuid not in self.rig.agent.inventory.instances

    @invariant()
    def consistent(self):
        inventory = self.rig.agent.inventory
        for host in inventory.hosts.values():
            assert inventory.host_named(host.hostname) is host
        named = [name for name in HOSTNAMES if inventory.host_named(name) is not None]
        assert len(named) == len(inventory.hosts)
        listed = {uuid for host in inventory.hosts.values() for uuid in host.instances}
        assert listed == set(inventory.instances)
        assert sum(len(host.instances) for host in inventory.hosts.values()) == len(listed)
        for uuid, instance in inventory.instances.items():
            assert instance.host.instances[uuid] is instance
            assert inventory.hosts[instance.host.uuid] is instance.host


TestInventoryMachine = InventoryMachine.TestCase
TestInventoryMachine.settings = settings(stateful_step_count=30)
