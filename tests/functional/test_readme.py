"""README.md, "Five minutes": what it says is printed, is printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.peers.journal import wait_until
from tests.peers.root import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text("utf-8")
PART = TEXT.partition("## Five minutes")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```\n(.*?)```", PART, re.DOTALL)
INVITATION = BLOCKS[0]
# Each command of the other blocks, with what it prints.
STEPS = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(BLOCKS[1:]), re.MULTILINE)


def alike(text: str) -> str:
    """Return text without what differs from run to run: numbers, paths, where columns begin."""
    text = re.sub(r"\S*/bin/guestctl", "guestctl", text)
    text = re.sub(r"/tmp/mtce-guest-\w+", "ROOT", text)
    text = re.sub(
        r"(vm-|compute-)?\b\d+([.:]\d+)*\b", lambda found: found[0] if found[1] else "#", text
    )
    return re.sub("[ \t]+", " ", text).strip()


def stories(text: str) -> list[list[str]]:
    """Return what each daemon tells of a VM: who it is, and all from its first heartbeat on.

    What happens in the same tenth of a second may come in another order.
    """
    found = []
    for story in text.strip().split("\n\n"):
        lines = [alike(line) for line in story.splitlines()]
        first = next(
            i for i, line in enumerate(lines) if line.endswith((" heartbeating", "RUNNING"))
        )
        found.append([lines[0], *sorted(lines[first:])])
    return found


@pytest.fixture(scope="module")
def playground(tmp_path_factory) -> Iterator[str]:
    """What `make try` prints, while it runs."""
    path = tmp_path_factory.mktemp("try") / "output"
    with path.open("wb") as output:
        command = [sys.executable, "-m", "tests.peers.playground"]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, start_new_session=True)
    try:
        wait_until(lambda: "curl" in path.read_text(), 60)
        yield path.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_it_invites_to_what_the_readme_says(playground: str) -> None:
    assert alike(playground[playground.index("    alias") :]) == alike(INVITATION)


def run(command: str, playground: str) -> str:
    """Run a command of the README, with this run's root and process in place of that one's."""
    alias = re.search(r"alias guestctl='(.*) --root (\S+)'", playground)
    stop = re.search(r"kill -STOP (\d+)", playground)
    assert alias is not None
    assert stop is not None
    command = re.sub(r"/tmp/mtce-guest-\w+", alias[2], command)
    command = re.sub(r"kill -STOP \d+", stop[0], command)
    command = command.replace("guestctl", f"{sys.executable} {alias[1]} --root {alias[2]}", 1)
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    done = subprocess.run(
        ["sh", "-c", command], check=True, timeout=30, capture_output=True, env=environment
    )
    return done.stdout.decode()


def test_each_command_prints_what_the_readme_says(playground: str) -> None:
    """One after the other, as a reader does. A story may take a moment to be told."""
    assert len(STEPS) >= 5
    for command, output in STEPS:
        prepare = stories if "why" in command else alike
        wanted = prepare(output)
        wait_until(
            lambda command=command, wanted=wanted, prepare=prepare: (
                prepare(run(command, playground)) == wanted
            ),
            20,
            f"{command}: {wanted}",
        )
