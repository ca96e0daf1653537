"""guestctl on a bad day: whatever a daemon answers and wherever the output goes, no traceback."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmtce.ctl import app
from guestmtce.ctl.commands import COMMANDS
from guestmtce.runtime import control
from tests.functional.canned_daemon import CannedDaemon, answers, uuid_of

BIN = Path(__file__).parents[2] / "bin" / "guestctl"
NOBODY = 65534
# Each command that asks a daemon, with what it needs.
LINES = {
    "status": (),
    "instances": ("-o", "wide"),
    "hosts": (),
    "show": (uuid_of(1),),
    "why": ("vm-1",),
    "events": (),
    "watch": (),
    "stats": (),
    "log-level": ("1",),
    "doctor": (),
}
ENDLESS = {"watch"}


def test_no_command_is_left_out():
    assert {*LINES, "try-guest"} == set(COMMANDS)


def ask_with(answer):
    return lambda _path, request: answer(request)


def text_of(capsys) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.fixture
def daemon(tmp_path):
    made = []

    def make(**how) -> Path:
        made.append(CannedDaemon(tmp_path, answers(3), **how))
        return tmp_path

    yield make
    for each in made:
        each.close()


def guestctl(root: Path, *arguments: str, **how) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(BIN), "--root", str(root), *arguments]
    return subprocess.run(command, check=False, timeout=30, **how)


# What a daemon may answer


@pytest.mark.parametrize("command", LINES)
@pytest.mark.parametrize(
    "mangle",
    [
        lambda data: data[: len(data) // 2],
        lambda _data: b"",
        lambda _data: b"[]\n",
        lambda _data: b"\xff\xfe rubbish\n",
        lambda _data: b"[" * 100_000 + b"\n",
    ],
    ids=["half", "nothing", "a list", "no text", "nested"],
)
def test_an_answer_that_is_none(daemon, command, mangle, capsys):
    root = daemon(mangle=mangle)
    status = app.main(["--root", str(root), command, *LINES[command]])
    said = text_of(capsys)
    if command == "doctor":
        assert status == 2
    else:
        assert status == 1
        assert "the answer is not a JSON object" in said


def test_a_daemon_that_says_nothing(daemon, capsys, monkeypatch):
    """It was stopped with SIGSTOP, say."""
    monkeypatch.setattr(control.ask, "__defaults__", (0.01,))
    root = daemon(mangle=lambda _data: None)
    for command, arguments in LINES.items():
        if command != "doctor":
            assert app.main(["--root", str(root), command, *arguments]) == 1
            assert "the daemon does not answer" in text_of(capsys)


short = st.text(max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | short,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def odd_answer(draw, command: str):
    """The answer that is right, with something else in place of one of its parts."""
    said = answers(3)[command]
    member = draw(st.sampled_from(sorted(said)))
    value = said[member]
    if isinstance(value, list) and value and isinstance(value[0], dict) and draw(st.booleans()):
        rows = [dict(row) for row in value]
        rows[0][draw(st.sampled_from(sorted(rows[0])))] = draw(anything)
        return {**said, member: rows}
    if isinstance(value, dict) and draw(st.booleans()):
        return {**said, member: {**value, draw(st.sampled_from(sorted(value))): draw(anything)}}
    return {**said, member: draw(anything)}


@pytest.mark.parametrize("command", sorted(set(LINES) - ENDLESS - {"doctor"}))
@settings(max_examples=15)
@given(data=st.data())
def test_an_answer_of_another_version(command, data):
    """Of wrong types, with parts that nobody has heard of: a line less, and no traceback."""
    key = {"why": "show", "stats": "metrics"}.get(command, command)
    odd = data.draw(odd_answer(key))
    said = {**answers(3), key: odd}
    patch = pytest.MonkeyPatch()
    patch.setattr(control, "ask", ask_with(lambda request: said[request["command"]]))
    try:
        for more in ((), ("--json",)):
            assert app.main(["--root", "/", command, *LINES[command], *more]) in (0, 1)
    finally:
        patch.undo()


# Where the output goes


@pytest.mark.parametrize("command", sorted(set(LINES) - ENDLESS))
@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_output_is_no_traceback(daemon, command, closed):
    root = daemon()
    left = "stderr" if closed == 1 else "stdout"
    done = guestctl(
        root,
        command,
        *LINES[command],
        **{left: subprocess.PIPE},
        preexec_fn=lambda: os.close(closed),
    )
    if closed == 1:
        assert (done.returncode, done.stderr) == (
            1,
            b"guestctl: cannot write the output: it is closed\n",
        )
    else:
        assert done.returncode in (0, 1, 2)
        assert b"Traceback" not in done.stdout


def test_head_of_ten_thousand_instances(tmp_path):
    daemon = CannedDaemon(tmp_path, answers(10_000))
    line = f"{sys.executable} {BIN} --root {tmp_path} instances | head -n 3"
    done = subprocess.run(line, shell=True, check=False, capture_output=True, timeout=30)
    daemon.close()
    assert done.stdout.startswith(b"guestServer: 10000 instances: 1 lost, 1 ill, 9998 ok\nNAME")
    assert done.stderr == b""


@pytest.mark.parametrize("name", ["é", "雪", b"\xff\xfe", "\x1b[2J", "-", " "])
def test_a_name_of_any_bytes_in_the_locale_c(daemon, name):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = guestctl(daemon(), "why", name, env=environment, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith(b"guestctl: no instance has the name or UUID ")
    assert b"\x1b" not in done.stderr


# Who may ask


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: no other user to be; run as root")
@pytest.mark.parametrize("command", LINES)
def test_another_user_is_told_to_be_root(daemon, command, capfd):
    """The sockets are root's; each command says so, in its own exit status."""
    root = daemon()
    path = root / "var/run/guestServer.ctl"
    path.chmod(0o600)
    for directory in (root, *root.parents):
        if directory.stat().st_uid == 0 and not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o711)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os._exit(app.main(["--root", str(root), command, *LINES[command]]))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    captured = capfd.readouterr()
    assert "Permission denied: run guestctl as root" in captured.out + captured.err
    assert status == 4


# Wrong use


@pytest.mark.parametrize(
    "wrong",
    [
        ("instances", "-o", "colour"),
        ("instances", "--host"),
        ("events", "--since", "soon"),
        ("log-level", "9"),
        ("log-level", "x"),
        ("why",),
        ("why", "a", "b"),
        ("--root", "/nowhere", "status"),
        ("try-guest",),
    ],
)
def test_wrong_use_is_2_and_one_sentence(wrong, capsys):
    try:
        status = app.main(list(wrong))
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    said = text_of(capsys).strip().splitlines()[-1]
    assert said.startswith("guestctl")
    assert ": error: " in said or said.startswith("guestctl: ")
