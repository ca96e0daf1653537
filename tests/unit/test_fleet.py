"""What the controller knows of its workers: names, versions, last words; and their metrics.

guestServer, guestAgent and the real guest client in one process (monitoring.md, decision 49).
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from guestmtce import __version__
from tests.unit.agent_rig import AgentRig
from tests.unit.agent_support import UUID
from tests.unit.both_ends import BothEnds
from tests.unit.server_support import Server


@pytest.fixture
def site():
    rig = BothEnds()
    yield rig.heartbeating()
    rig.close()


@pytest.fixture
def old_worker():
    rig = AgentRig()
    yield rig.ready()
    rig.close()


def host(rig: AgentRig) -> dict[str, Any]:
    """Return what the agent says of the worker."""
    (row,) = rig.agent.commands()["hosts"]({})["hosts"]
    return row


def instance(rig: AgentRig) -> dict[str, Any]:
    """Return what the agent says of the instance."""
    (row,) = rig.agent.commands()["instances"]({})["instances"]
    return row


def value(rig: AgentRig | BothEnds, series: str, *, of: str = "agent") -> float:
    """Return the value of a series as one of the daemons renders it."""
    registry = rig.agent.registry if of == "agent" else rig.server.registry
    (found,) = re.findall(rf"^{re.escape(series)} (\S+)$", registry.render(), re.MULTILINE)
    return float(found)


def test_a_worker_tells_its_version_and_what_its_guests_are_called(site):
    assert (host(site)["version"], host(site)["acknowledges"]) == (__version__, True)
    assert instance(site)["name"] == "vm"
    summary = site.server.summary()
    assert (summary["agent_version"], summary["agent_acknowledges"]) == (__version__, True)
    assert summary["agent_silent_secs"] <= 10


def test_events_on_the_controller_have_the_name_too(site):
    site.guest.hang()
    site.advance(5)
    events = site.agent.commands()["events"]({})["events"]
    assert {event["name"] for event in events if event["what"] == "told"} >= {"vm"}


def test_a_name_is_known_before_it_is_told_again(site):
    """After a restart of the agent, and of an instance that was deleted."""
    site.restart()
    site.add_host()
    site.create()
    assert instance(site)["name"] == "vm"
    site.command("DELETE", f"/v1/instances/{UUID}")
    assert {"uuid": UUID, "name": "vm"} in site.agent.commands()["past"]({})["past"]


def test_an_agent_that_restarts_learns_both_again(site):
    site.restart()
    site.add_host()
    assert site.host_command("enable") == 200
    assert site.enable()[0] == 200
    site.advance(15)
    assert host(site)["version"] == __version__
    assert instance(site)["name"] == "vm"


def test_an_old_worker_says_neither(old_worker):
    """It numbers nothing and acknowledges nothing."""
    old_worker.info("RUNNING", heartbeating="enabled")
    assert (host(old_worker)["version"], host(old_worker)["acknowledges"]) == ("", False)
    assert instance(old_worker)["name"] == ""


def test_an_old_agent_is_told_no_name():
    """Nothing that it reads has a member more than ever (datagrams.md, "Events")."""
    server = Server().start()
    server.agent.is_new = True  # show all that comes
    server.beating()
    server.agent.send("QRY_INST")
    said = server.agent.take()
    assert {"QRY_INST"} <= {datagram.name for datagram in said}
    assert not [datagram for datagram in said if {"name", "version"} & datagram.body.keys()]
    server.close()


def test_a_probe_is_a_word(old_worker):
    """A worker without instances says nothing else but acknowledgements."""
    silence = 'guestmtce_host_silence_seconds{host="compute-0"}'
    old_worker.agent.core.wall = old_worker.loop.time
    for _ in range(2):
        old_worker.server_says("LOOPBACK", epoch=7, seq=0)
        assert value(old_worker, silence) == 0
        old_worker.advance(30)
        assert value(old_worker, silence) == pytest.approx(30)


# Metrics


def test_how_long_a_worker_and_an_agent_are_silent(site):
    site.server.link.close()
    site.advance(60)
    assert value(site, 'guestmtce_host_silent{host="compute-0"}') == 1
    assert value(site, "guestmtce_hosts_silent") == 1
    assert value(site, 'guestmtce_instances{daemon="guestAgent",state="unknown"}') == 1
    assert value(site, "guestmtce_agent_silence_seconds", of="server") >= 50


def test_an_alarm_that_was_told(site):
    series = 'guestmtce_alarms_told_total{state="failed",action="reboot"}'
    assert value(site, series) == 0
    site.guest.hang()
    site.advance(5)
    assert value(site, series) == 1
    assert value(site, "guestmtce_heartbeat_losses_total", of="server") == 1
    assert value(site, 'guestmtce_instances{daemon="guestServer",state="lost"}', of="server") == 1


def test_an_alarm_that_waits_and_is_void_at_last(site):
    site.vim.refuse()
    site.guest.hang()
    site.advance(5)
    assert value(site, "guestmtce_alarms_waiting") == 1
    assert value(site, "guestmtce_vim_suspect") == 1
    held = 'guestmtce_delivery_owed{daemon="guestServer",kind="held"}'
    assert value(site, held, of="server") == 1
    site.guest.recover()
    site.advance(10)
    assert value(site, "guestmtce_alarms_waiting") == 0
    assert value(site, 'guestmtce_alarms_untold_total{reason="heartbeats"}') == 1
    revoked = 'guestmtce_delivery_voided_total{daemon="guestServer",reason="revoked"}'
    assert value(site, revoked, of="server") + value(site, held, of="server") <= 1


def test_an_acknowledgement_is_timed_once_a_message(site):
    count = 'guestmtce_acknowledgement_seconds_count{daemon="guestServer"}'
    before = value(site, count, of="server")
    site.guest.hang()
    site.advance(30)
    assert value(site, count, of="server") == before + 2, "STOPPED and LOSS"


def test_no_name_of_a_guest_is_in_a_label(site):
    for registry in (site.agent.registry, site.server.registry):
        assert '"vm"' not in registry.render()
        assert UUID not in registry.render()


def test_a_large_fleet_has_few_series(old_worker, monkeypatch):
    """Those that are silent the longest."""
    monkeypatch.setattr("guestmtce.agent.metrics.MAX_HOST_SERIES", 3)
    for number in range(1, 6):
        old_worker.advance(10)
        uuid = f"8aee436e-d564-459e-a0d8-26c44792{number:04}"
        named = {"hostname": f"worker-{number}", "uuid": uuid, "ip": "127.9.9.9"}
        old_worker.mtc_says("ADD_HOST", personality="worker", **named)
    text = old_worker.agent.registry.render()
    shown = re.findall(r'^guestmtce_host_silence_seconds{host="(\S+)"}', text, re.MULTILINE)
    assert len(shown) == 3
    assert "guestmtce_hosts 6\n" in text
