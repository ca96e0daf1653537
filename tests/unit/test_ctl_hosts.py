"""`guestctl hosts`: the fleet as the controller sees it, what is wrong first."""

from __future__ import annotations

import json
import re

import pytest

from guestmtce.ctl import hosts, instances
from guestmtce.ctl.table import Style
from guestmtce.runtime.wall import moment
from tests.unit.both_ends import BothEnds

NOW = 1_700_000_000.0
PLAIN = Style(colour=False)


def row(name: str, **more: object) -> dict[str, object]:
    host = {"hostname": name, "ip": "192.168.204.50", "reporting": "enabled", "instances": 3}
    known = {"lost": 0, "ill": 0, "version": "1.1.0", "acknowledges": True, "silent": False}
    return {**host, **known, "last_heard": NOW - 3, **more}


FLEET = [
    row("compute-0"),
    row("compute-1", ill=1, version="", acknowledges=False),
    row("compute-2", silent=True, last_heard=NOW - 300),
    row("compute-3", lost=2, version=""),
    row("compute-4", last_heard=None, acknowledges=None, version="", instances=0),
]


def test_the_fleet_fits_80_columns():
    assert hosts.lines(hosts.worst_first(FLEET), NOW, PLAIN, 80) == [
        "HOST       LAST-HEARD         VERSION       INSTANCES  LOST  ILL  REPORTING",
        "compute-2  silent, 5 min ago  1.1.0         3          0     0    enabled",
        "compute-3  3 s ago            acknowledges  3          2     0    enabled",
        "compute-1  3 s ago            old           3          0     1    enabled",
        "compute-0  3 s ago            1.1.0         3          0     0    enabled",
        "compute-4  never              -             0          0     0    enabled",
    ]


@pytest.mark.parametrize("room", [40, 60])
def test_on_a_narrow_terminal_what_matters_stays(room):
    lines = hosts.lines(FLEET, NOW, PLAIN, room)
    assert all(len(line) <= room for line in lines)
    assert lines[0].startswith("HOST")


def test_the_heading_says_what_is_wrong():
    assert hosts.summary(FLEET) == "5 hosts: 1 silent, 2 lost, 1 ill"
    assert hosts.summary(FLEET[:1]) == "1 host"
    assert hosts.summary([]) == "0 hosts"


def test_what_is_wrong_is_marked():
    line = hosts.lines([FLEET[2]], NOW, Style(colour=True), None)[1]
    assert "\x1b[31msilent, 5 min ago" in line


@pytest.mark.parametrize(
    "odd", [{}, {"hostname": 5, "lost": "x", "last_heard": "y"}, {"version": "\x1b[2J"}]
)
def test_a_row_of_another_version_is_shown_as_far_as_it_goes(odd):
    lines = hosts.lines(hosts.worst_first([odd, FLEET[0]]), NOW, PLAIN, 80)
    assert len(lines) == 3
    assert not any("\x1b" in line for line in lines)
    assert hosts.summary([odd]) == "1 host"


def test_what_the_agent_says_of_a_silent_worker():
    """From both daemons to the table."""
    site = BothEnds().heartbeating()
    (before,) = site.agent.commands()["hosts"]({})["hosts"]
    assert not before["silent"]
    site.server.link.close()
    site.advance(60)
    (silent,) = site.agent.commands()["hosts"]({})["hosts"]
    (instance,) = site.agent.commands()["instances"]({})["instances"]
    site.close()
    assert silent["silent"]
    assert hosts.last_heard(silent, silent["last_heard"] + 50) == "silent, 50 s ago"
    assert json.loads(json.dumps(silent)) == silent
    health = instances.health(instance, silent["last_heard"] + 50)
    assert re.fullmatch(r"unknown since \d\d:\d\d", health)
    assert (instance["name"], instance["detail"]) == ("vm", "its worker is silent")


@pytest.mark.parametrize(
    ("ago", "form"), [(60, r"\d\d:\d\d"), (86_400 * 2, r"\d{4}-\d\d-\d\d \d\d:\d\d")]
)
def test_a_moment_has_its_day_if_it_is_another(ago, form):
    assert re.fullmatch(form, moment(NOW - ago, NOW))


def test_a_moment_that_no_calendar_has():
    assert moment(1e30, NOW) == "?"
