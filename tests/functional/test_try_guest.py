"""guestctl try-guest: our client passes; old habits are tolerated; what is wrong is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.root import REPOSITORY
from tests.schema import Schema

SLOPPY = str(Path(__file__).with_name("sloppy_guest.py"))


def try_guest(*words):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "bin" / "guestctl"), "--json", "try-guest", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    rows = json.loads(done.stdout or "[]")
    assert Schema("guestctl", "try-guest").faults(rows) == []
    marks = {row["rule"]: row["mark"] for row in rows}
    return done.returncode, marks, done.stderr


@pytest.mark.parametrize("port", [["--device", "{device}"], ["--socket", "{socket}"]])
def test_our_client_passes(tmp_path, port):
    config = tmp_path / "client.conf"
    config.write_text("[guest-client]\n")
    client = str(REPOSITORY / "guest" / "guest_client.py")
    command = [sys.executable, client, "-f", "--config", str(config), *port]
    status, marks, errors = try_guest("--", *command)
    assert status == 0, errors
    wrong = {rule: mark for rule, mark in marks.items() if mark != "right"}
    if "{device}" in port:
        assert wrong.pop("starts over with init when the host comes back") == "not tried"
    assert wrong == {}
    assert len(marks) > 20


def test_the_habits_of_the_old_client_are_tolerated():
    status, marks, errors = try_guest("--", sys.executable, SLOPPY)
    assert status == 0, errors
    tolerated = {rule for rule, mark in marks.items() if mark == "tolerated"}
    assert tolerated == {
        "repeats its init until it is acknowledged",
        "answers a notification with complete",
        "answers only the newer of two votes",
        "escapes its texts",
    }


def test_what_is_wrong_is_said():
    status, marks, _ = try_guest("--", sys.executable, SLOPPY, "broken")
    assert status == 1
    wrong = {rule for rule, mark in marks.items() if mark == "WRONG"}
    assert wrong == {
        "answers the numbers 0 and 2147483647",
        "stays at the other end",
    }


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([], 2, "try-guest needs"),
        (["--", "/nonexistent/client"], 1, "cannot run"),
        ([__file__], 1, "is not a socket"),
        (["--", "/bin/true"], 1, "closed the channel"),
    ],
)
def test_a_client_that_cannot_be_reached(words, status, text):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "bin" / "guestctl"), "try-guest", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
