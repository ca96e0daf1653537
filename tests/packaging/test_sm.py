"""sm/guest-agent.sql on a database with SM's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from tests.peers.root import REPOSITORY

SQL = (REPOSITORY / "sm/guest-agent.sql").read_text()

TABLES = """
CREATE TABLE SERVICES (ID INTEGER PRIMARY KEY AUTOINCREMENT, PROVISIONED CHAR(32), NAME CHAR(32),
    DESIRED_STATE CHAR(32), STATE CHAR(32), STATUS CHAR(32), CONDITION CHAR(32), MAX_FAILURES INT,
    FAIL_COUNTDOWN INT, FAIL_COUNTDOWN_INTERVAL INT, MAX_ACTION_FAILURES INT,
    MAX_TRANSITION_FAILURES INT, PID_FILE CHAR(256));
CREATE TABLE SERVICE_GROUP_MEMBERS (ID INTEGER PRIMARY KEY AUTOINCREMENT, PROVISIONED CHAR(32),
    NAME CHAR(32), SERVICE_NAME CHAR(32), SERVICE_FAILURE_IMPACT CHAR(32));
CREATE TABLE SERVICE_DEPENDENCY (DEPENDENCY_TYPE CHAR(32), SERVICE_NAME CHAR(32), STATE CHAR(32),
    ACTION CHAR(32), DEPENDENT CHAR(32), DEPENDENT_STATE CHAR(32) {dependency_key});
CREATE TABLE SERVICE_INSTANCES (ID INTEGER PRIMARY KEY AUTOINCREMENT, SERVICE_NAME CHAR(32),
    INSTANCE_NAME CHAR(32), INSTANCE_PARAMETERS CHAR(1024));
CREATE TABLE SERVICE_ACTIONS (SERVICE_NAME CHAR(32), ACTION CHAR(32), PLUGIN_TYPE CHAR(32),
    PLUGIN_CLASS CHAR(32), PLUGIN_NAME CHAR(80), PLUGIN_COMMAND CHAR(80),
    PLUGIN_PARAMETERS CHAR(1024), MAX_FAILURE_RETRIES INT, MAX_TIMEOUT_RETRIES INT,
    MAX_TOTAL_RETRIES INT, TIMEOUT_IN_SECS INT, INTERVAL_IN_SECS INT {action_key});
INSERT INTO SERVICES VALUES (20, 'yes', 'mtc-agent', 'initial', 'initial', 'none', 'none',
    2, 1, 90000, 4, 16, '/var/run/mtcAgent.pid');
INSERT INTO SERVICE_GROUP_MEMBERS
    VALUES (20, 'yes', 'controller-services', 'mtc-agent', 'critical');
INSERT INTO SERVICE_DEPENDENCY VALUES
    ('action', 'mtc-agent', 'not-applicable', 'disable', 'hw-mon', 'disabled');
"""
KEYS = {
    "dependency_key": ", PRIMARY KEY (DEPENDENCY_TYPE, SERVICE_NAME, STATE, ACTION, DEPENDENT)",
    "action_key": ", PRIMARY KEY (SERVICE_NAME, ACTION)",
}

# operations.md, Packages.
SERVICE = ("yes", "guest-agent", "initial", "initial", "none", "none", 2, 1, 90000, 4, 16)
DEPENDENCIES = {
    ("action", "guest-agent", "not-applicable", "enable", "mtc-agent", "enabled-active"),
    ("action", "mtc-agent", "not-applicable", "disable", "guest-agent", "disabled"),
}
PLUGIN = ("ocf-script", "platform", "guestAgent")
ACTIONS = {
    ("enable", *PLUGIN, "start", "", 2, 2, 2, 20, 30),
    ("disable", *PLUGIN, "stop", "", 1, 1, 1, 20, 30),
    ("audit-enabled", *PLUGIN, "monitor", "", 2, 2, 2, 20, 30),
    ("audit-disabled", *PLUGIN, "monitor", "", 0, 0, 0, 20, 30),
}


@pytest.fixture(params=[KEYS, dict.fromkeys(KEYS, "")], ids=["keys", "no keys"])
def database(request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    """Give SM's database without guest-agent, with and without primary keys."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(TABLES.format(**request.param))
    yield connection
    connection.close()


def rows(database: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    return {
        name: database.execute(f"SELECT * FROM {name}").fetchall()
        for name in tables
        if name.startswith("SERVICE")
    }


def test_it_puts_the_rows_back(database: sqlite3.Connection) -> None:
    before = rows(database)
    database.executescript(SQL)
    after = rows(database)
    assert all(set(before[name]) < set(after[name]) for name in before if before[name])
    new = {name: set(after[name]) - set(before[name]) for name in after}
    assert [row[1:] for row in new["SERVICES"]] == [(*SERVICE, "/var/run/guestAgent.pid")]
    member = ("yes", "controller-services", "guest-agent", "critical")
    assert [row[1:] for row in new["SERVICE_GROUP_MEMBERS"]] == [member]
    assert new["SERVICE_DEPENDENCY"] == DEPENDENCIES
    assert [row[1:] for row in new["SERVICE_INSTANCES"]] == [("guest-agent", "guest-agent", "")]
    assert {row[1:] for row in new["SERVICE_ACTIONS"]} == ACTIONS


def test_applied_again_it_changes_nothing(database: sqlite3.Connection) -> None:
    database.executescript(SQL)
    once = rows(database)
    database.executescript(SQL)
    assert rows(database) == once


def test_a_row_that_somebody_has_changed_stays(database: sqlite3.Connection) -> None:
    """But one that was taken out of service is in service again."""
    database.executescript(SQL)
    database.execute("UPDATE SERVICES SET MAX_FAILURES = 32, PROVISIONED = 'no' WHERE ID = 21")
    database.executescript(SQL)
    found = database.execute("SELECT PROVISIONED, MAX_FAILURES FROM SERVICES WHERE ID = 21")
    assert found.fetchall() == [("yes", 32)]


def test_a_database_without_these_tables_is_left_alone() -> None:
    database = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError):
        database.executescript(SQL)
    database.rollback()
    assert rows(database) == {}
    database.close()
