"""guestctl in a real terminal (tmux), at 80 and 60 columns, with few instances and with many."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.canned_daemon import CannedDaemon, answers

GUESTCTL = Path(__file__).parents[2] / "bin" / "guestctl"
COUNTS = (0, 3, 200, 10_000)
SIZES = (80, 60)
COMMANDS = (
    "status",
    "instances",
    "instances --lost",
    "instances -o wide",
    "hosts",
    "show 00000001",
    "why 00000001",
    "events",
    "stats",
    "log-level 1",
    "doctor",
)

pytestmark = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="no tmux: apt-get install tmux"
)


class Terminal:
    """A terminal of so many columns and lines, in which a shell runs `script`."""

    def __init__(self, tmp_path: Path, script: str, columns: int, lines: int = 24) -> None:
        self._socket = str(tmp_path / "tmux")
        settings = tmp_path / "tmux.conf"
        settings.write_text("set -g history-limit 50000\nset -g default-terminal screen-256color\n")
        path = tmp_path / "script"
        path.write_text(script)
        ours = ("NO_COLOR", "COLUMNS", "LINES")
        environment = {key: value for key, value in os.environ.items() if key not in ours}
        environment.update(LC_ALL="C.UTF-8", PS1="$ ", TMUX="")
        command = ["tmux", "-u", "-S", self._socket, "-f", str(settings), "new-session", "-d"]
        command += ["-x", str(columns), "-y", str(lines), f"sh {path}"]
        subprocess.run(command, check=True, timeout=20, env=environment)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-S", self._socket, *arguments]
        done = subprocess.run(command, check=True, timeout=20, capture_output=True)
        return done.stdout.decode()

    def text(self, *options: str) -> str:
        """Return all that was written, or with options what they choose."""
        return self._tmux("capture-pane", "-p", *(options or ("-S", "-")))

    def wait_for(self, word: str, *options: str, secs: float = 30) -> str:
        """Return the text as soon as `word` stands in it."""
        end = time.monotonic() + secs
        while word not in (text := self.text(*options)):
            assert time.monotonic() < end, f"{word} was not written, but:\n{text[-2000:]}"
            time.sleep(0.05)
        return text

    def is_as_before(self) -> bool:
        """Whether the usual screen is shown, with a cursor."""
        return self._tmux("display", "-p", "#{alternate_on} #{cursor_flag}").strip() == "0 1"

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def close(self) -> None:
        self._tmux("kill-server")


def guestctl(root: Path, arguments: str) -> str:
    return f"{sys.executable} {GUESTCTL} --root {shlex.quote(str(root))} {arguments}"


@pytest.fixture(scope="module", params=COUNTS)
def host(request, tmp_path_factory) -> Iterator[tuple[Path, int]]:
    """A host with both daemons, that know so many instances."""
    root = tmp_path_factory.mktemp("root")
    daemons = [
        CannedDaemon(root, answers(request.param, name), name)
        for name in ("guestServer", "guestAgent")
    ]
    yield root, request.param
    for daemon in daemons:
        daemon.close()


@pytest.fixture(scope="module", params=SIZES)
def written(request, host, tmp_path_factory) -> tuple[dict[str, list[str]], str, str, int, int]:
    """All commands, one after the other: lines by command, and all of it as tmux has it."""
    root, count = host
    script = "".join(
        f"echo '# {command}'; {guestctl(root, command)}; echo status $?\n" for command in COMMANDS
    )
    terminal = Terminal(
        tmp_path_factory.mktemp("tmux"), script + "echo END; sleep 60\n", request.param
    )
    try:
        text = terminal.wait_for("\nEND", secs=120)
        joined, colours = terminal.text("-S", "-", "-J"), terminal.text("-S", "-", "-e")
    finally:
        terminal.close()
    parts = text.partition("\nEND")[0].split("# ")[1:]
    lines = {part.splitlines()[0]: part.splitlines()[1:] for part in parts}
    return lines, joined, colours, count, request.param


def test_no_line_is_longer_than_the_terminal(written):
    """What the terminal itself has broken, tmux joins."""
    lines, joined, _colours, _count, columns = written
    assert list(lines) == list(COMMANDS)
    kept = joined.partition("\nEND")[0].splitlines()
    assert len(kept) == sum(len(part) + 1 for part in lines.values())
    assert max(len(line.rstrip()) for line in kept) <= columns


def test_each_command_ends_as_it_should(written):
    lines, _joined, _colours, count, _columns = written
    ended = {command: part[-1] for command, part in lines.items()}
    found = "status 0" if count > 1 else "status 1"
    assert ended == {
        **dict.fromkeys(COMMANDS, "status 0"),
        "status": "status 1",  # it is degraded
        "doctor": "status 2",
        "show 00000001": found,
        "why 00000001": found,
    }


def test_what_is_wrong_comes_first_below_a_heading(written):
    lines, _joined, _colours, count, columns = written
    shown = lines["instances"]
    if count == 0:
        assert shown[0] == "guestServer: 0 instances"
        return
    assert shown[0] == f"guestServer: {count} instances: 1 lost, 1 ill, {count - 2} ok"
    assert shown[1].split()[0] == "NAME"
    assert "HEALTH" in shown[1]
    assert [line.split()[0] for line in shown[2:4]] == [f"vm-{count - 1}", f"vm-{count - 2}"]
    assert shown[4].split()[0] == "vm-0"
    assert len(lines["instances --lost"]) == 8, "one of each daemon, and the status"
    assert ("INSTANCE" in shown[1]) is (columns == 80)


def test_hostile_text_is_told_harmlessly(written):
    """It clears nothing (the test above has found each line), and stands there as escapes."""
    lines, _joined, colours, count, _columns = written
    told = "\\x1b[2J\\x1b]0;owned\\x07"
    assert told in "".join(lines["status"])
    assert count < 2 or told in "".join(map(str.strip, lines["why 00000001"]))
    used = set(re.findall("\x1b[^a-zA-Z]*[a-zA-Z]", colours))
    assert used <= {f"\x1b[{code}m" for code in ("0", "1", "31", "32", "33", "39", "49")}


def test_there_is_colour(written):
    _lines, _joined, colours, count, _columns = written
    assert "\x1b[1m" in colours
    assert "\x1b[31m" in colours or count == 0


@pytest.mark.parametrize("columns", SIZES)
def test_watch_draws_in_place_and_leaves_no_trace(host, tmp_path, columns):
    root, count = host
    script = f"trap : INT\necho before\n{guestctl(root, 'watch')}\necho status $?\nsleep 60\n"
    terminal = Terminal(tmp_path, script, columns)
    try:
        picture = terminal.wait_for("guestServer: ", "-S", "0").splitlines()
        assert not terminal.is_as_before()
        assert "before" not in picture
        assert picture[0].startswith(f"guestServer: {count} instances")
        assert max(map(len, picture)) <= columns
        if count == 10_000:
            assert picture[22].startswith("… and ")
        time.sleep(2.5)
        assert terminal.text("-S", "0").splitlines()[0] == picture[0], "drawn again in its place"
        terminal.press("C-c")
        after = terminal.wait_for("status")
        assert after.split() == ["before", "status", "0"]
        assert terminal.is_as_before()
    finally:
        terminal.close()


def test_watch_that_is_terminated_leaves_no_trace(tmp_path):
    daemon = CannedDaemon(tmp_path, answers(3))
    script = (
        f"{guestctl(tmp_path, 'watch')} &\npid=$!\nsleep 2\nkill $pid\nwait $pid\n"
        "echo status $?\nsleep 60\n"
    )
    terminal = Terminal(tmp_path, script, 80)
    try:
        assert "status 143" in terminal.wait_for("status")
        assert terminal.is_as_before()
    finally:
        terminal.close()
        daemon.close()
