"""bash completion of guestctl, in a bash: every command, and the instances' names and UUIDs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from guestmtce.ctl.commands import COMMANDS

COMPLETION = Path(__file__).parents[2] / "contrib" / "guestctl.bash-completion"
UUID = "8d1b2c3e-1111-2222-3333-444455556666"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")

SCRIPT = """
guestctl() { printf '%s\\n' 'guestServer: 2' 'NAME  UUID' 'vm-1  UUID1' '-     UUID2'; }
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_guestctl
printf '%s\\n' "${COMPREPLY[@]}"
""".replace("UUID1", UUID).replace("UUID2", UUID.replace("8", "9"))


def complete(*words: str) -> set[str]:
    done = subprocess.run(
        ["bash", "-c", SCRIPT, "bash", str(COMPLETION), "guestctl", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_every_command_is_offered():
    assert COMMANDS.keys() <= complete("")
    assert complete("wa") == {"watch"}
    assert complete("--json", "why") == {"why"}


@pytest.mark.parametrize("command", ["why", "show", "events"])
def test_names_and_uuids_are_offered(command):
    assert {"vm-1", UUID} <= complete(command, "")
    assert complete(command, "8d") == {UUID}
    assert complete("--root", "/some/root", command, "vm") == {"vm-1"}


def test_options_go_with_their_command():
    assert complete("instances", "--l") == {"--lost"}
    assert complete("status", "--l") == set()
    assert "wide" in complete("instances", "-o", "")
