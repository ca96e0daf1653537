"""A daemon of root's gives up what it does not need; one without rights has nothing to give up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guestmtce.runtime.privileges import CAP_DAC_OVERRIDE

SCRIPT = """\
import sys
from guestmtce.runtime import privileges
# begin
privileges.drop(map(int, sys.argv[1:]))
print(privileges.describe())
print(open("/proc/self/status").read())
"""
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


BE_NOBODY = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"


def status_after(*keep: int, begin: str = "") -> tuple[str, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("# begin\n", begin), *map(str, keep)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    )
    said, *lines = done.stdout.splitlines()
    return said, dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def has_all_rights() -> bool:
    return os.geteuid() == 0 and "CapEff:\t0000000000000000" not in Path(
        "/proc/self/status"
    ).read_text("utf-8")


as_root = pytest.mark.skipif(not has_all_rights(), reason="needs root, to give it up")


@as_root
def test_nothing_is_left():
    said, status = status_after()
    assert status["NoNewPrivs"] == "1"
    assert {name: int(status[name], 16) for name in SETS} == dict.fromkeys(SETS, 0)
    assert said == "uid 0, no capabilities"


@as_root
def test_what_is_needed_is_left():
    said, status = status_after(CAP_DAC_OVERRIDE)
    kept = 1 << CAP_DAC_OVERRIDE
    assert [int(status[name], 16) for name in SETS] == [0, kept, kept, kept, 0]
    assert said == "uid 0, CAP_DAC_OVERRIDE"


@as_root
def test_what_was_given_up_does_not_come_back_with_another_program():
    script = "from guestmtce.runtime import privileges as p; p.drop(); import os\n"
    script += "os.execv('/bin/cat', ['cat', '/proc/self/status'])"
    text = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    ).stdout
    assert "CapEff:\t0000000000000000" in text


def test_without_rights_it_changes_nothing_but_that():
    """As a test, a demo and a unit with a user of its own run it."""
    said, status = status_after(CAP_DAC_OVERRIDE, begin=BE_NOBODY if os.geteuid() == 0 else "")
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0
    assert said.endswith("no capabilities")
