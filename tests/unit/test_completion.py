"""bash completion of guestctl, in a bash: every command, and the instances' names and UUIDs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from guestmtce.ctl.commands import COMMANDS

COMPLETION = Path(__file__).parents[2] / "contrib" / "guestctl.bash-completion"
UUID = "8d1b2c3e-1111-2222-3333-444455556666"
OTHER = "7d1b2c3e-1111-2222-3333-444455556666"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")

SCRIPT = (
    """
guestctl() {
    printf '%s\\n' 'guestServer: 3 instances: 1 lost, 2 ok' 'UUID  NAME' 'UUID1  vm-1' 'UUID2  -' \
        'UUID3  $(touch${IFS}hacked)' 'UUID3  a b' 'UUID3  `touch${IFS}hacked`' '' 'guestAgent: 0'
}
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_guestctl
printf '%s\\n' "${COMPREPLY[@]}"
""".replace("UUID1", UUID)
    .replace("UUID2", UUID.replace("8", "9"))
    .replace("UUID3", OTHER)
)


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


def test_a_guest_s_name_is_no_command(tmp_path, monkeypatch):
    """Compgen expands words: root's Tab would run what a guest calls itself."""
    monkeypatch.chdir(tmp_path)
    offered = complete("why", "")
    assert offered == {UUID, UUID.replace("8", "9"), OTHER, "vm-1", "--json", "--root"}
    assert complete("why", "$") <= {""}
    (tmp_path / "$(touch${IFS}hacked)").touch()
    assert complete("try-guest", "$") == {"$(touch${IFS}hacked)"}
    assert len(list(tmp_path.iterdir())) == 1


def test_options_go_with_their_command():
    assert complete("instances", "--l") == {"--lost"}
    assert complete("status", "--l") == set()
    assert "wide" in complete("instances", "-o", "")
