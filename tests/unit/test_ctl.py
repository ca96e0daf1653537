"""guestctl (operations.md, guestctl): what it shows, and what its exit status says."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce import __version__
from guestmtce.ctl import app, details, events, instances
from guestmtce.ctl.ask import Reply
from guestmtce.ctl.commands import to_json
from guestmtce.ctl.screen import Screen
from guestmtce.ctl.table import Column, Style, cell, cut, fields, table, width, wrapped
from guestmtce.runtime import control

UUID = "8d1b2c3e-1111-2222-3333-444455556666"
BIN = Path(__file__).parents[2] / "bin" / "guestctl"
EXAMPLE = Path(__file__).parents[1] / "functional/example_daemon.py"

SERVER = {
    "daemon": "guestServer",
    "version": "1.0.0",
    "pid": 12,
    "uptime_secs": 3_725,
    "healthy": True,
    "problems": [],
    "summary": {"hostname": "compute-0", "instances": 2, "votes": {"accept": 1}},
}
AGENT = {**SERVER, "daemon": "guestAgent", "pid": 13}
INSTANCES = [
    {
        "uuid": UUID,
        "host": "compute-0",
        "name": "vm-1",
        "state": "waiting_challenge",
        "connected": True,
        "reporting": False,
        "heartbeating": True,
        "interval_ms": 1000,
        "misses": 0,
    },
    {"uuid": UUID.replace("8", "9"), "host": "compute-0", "name": "", "state": "waiting_init"},
]


class Daemons:
    """The daemons of a host: what each answers, or how asking it fails."""

    def __init__(self, root) -> None:
        self.root = root
        self.answers = {}
        self.requests = []

    def ask(self, path, request):
        assert os.path.dirname(path) == f"{self.root}/var/run"
        self.requests.append(request)
        answer = self.answers.get(os.path.basename(path), FileNotFoundError(2, "No such file"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def server(self, answer) -> None:
        self.answers["guestServer.ctl"] = answer

    def agent(self, answer) -> None:
        self.answers["guestAgent.ctl"] = answer

    def left_behind(self, name) -> None:
        path = Path(self.root, "var/run", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def run(self, *arguments) -> int:
        return app.main(["--root", str(self.root), *arguments])


@pytest.fixture
def daemons(tmp_path, monkeypatch):
    made = Daemons(tmp_path)
    monkeypatch.setattr(control, "ask", made.ask)
    return made


# Exit statuses


def test_healthy_is_0(daemons):
    daemons.server(SERVER)
    daemons.agent(AGENT)
    assert daemons.run("status") == 0


def test_a_daemon_that_does_not_belong_here_is_not_missed(daemons):
    """A worker has a guestServer only; "talks to whichever daemons run on this host"."""
    daemons.server(SERVER)
    assert daemons.run("status") == 0


def test_a_daemon_that_was_stopped_is_not_missed(daemons):
    """On a standby controller SM has stopped guestAgent; its health file may be there still."""
    daemons.server(SERVER)
    daemons.left_behind("guestAgent.info")
    assert daemons.run("status") == 0


@pytest.mark.parametrize("left", ["guestAgent.pid", "guestAgent.ctl"])
def test_a_daemon_that_ended_without_a_stop_is_1(daemons, left, capsys):
    daemons.server(SERVER)
    daemons.left_behind(left)
    assert daemons.run("status") == 1
    assert "guestAgent: down (it ended without having been stopped)" in (capsys.readouterr().out)


def test_a_degraded_daemon_is_1(daemons, capsys):
    daemons.server({**SERVER, "healthy": False, "problems": ["no address\x1b[2J"]})
    assert daemons.run("status") == 1
    out = capsys.readouterr().out
    assert "guestServer: degraded" in out
    assert "  problem: no address\\x1b[2J\n" in out


@pytest.mark.parametrize(
    "failure",
    [TimeoutError("the daemon does not answer"), OSError(5, "Input/output error")],
)
def test_a_daemon_that_does_not_answer_is_1(daemons, failure, capsys):
    daemons.server(failure)
    assert daemons.run("status") == 1
    assert f"guestServer: silent ({failure.strerror or failure})" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["status"], ["instances"], ["show", UUID], ["events"]])
def test_whoever_may_not_ask_is_told_what_to_do_4(daemons, command, capsys):
    """The control socket is root's: an exit status of its own."""
    daemons.server(PermissionError(13, "Permission denied"))
    assert daemons.run(*command) == 4
    captured = capsys.readouterr()
    assert "Permission denied: run guestctl as root" in captured.out + captured.err


def test_an_answer_that_is_none_is_1(daemons):
    daemons.server(ValueError("the answer is not a JSON object"))
    assert daemons.run("status") == 1


def test_nothing_runs_is_3(daemons):
    assert daemons.run("status") == 3
    daemons.left_behind("guestServer.pid")
    daemons.agent(ConnectionRefusedError(111, "Connection refused"))
    assert daemons.run("status") == 3


@pytest.mark.parametrize("command", [["instances"], ["hosts"], ["show", UUID]])
def test_nothing_runs_is_3_for_every_command(daemons, command, capsys):
    assert daemons.run(*command) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "guestctl: guestServer: does not run\nguestctl: guestAgent: does not run\n"
    )


def test_an_unknown_instance_is_1(daemons, capsys):
    daemons.server({"error": "no such instance"})
    assert daemons.run("show", UUID) == 1
    assert "guestctl: guestServer: no such instance\n" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [[], ["nothing"], ["show"], ["status", "more"], ["--odd"]])
def test_wrong_usage_is_2(wrong):
    with pytest.raises(SystemExit) as caught:
        app.main(wrong)
    assert caught.value.code == 2


# What is shown


def test_status(daemons, capsys):
    daemons.server(SERVER)
    daemons.run("status")
    assert capsys.readouterr().out == (
        "guestServer: healthy (pid 12, version 1.0.0, up 1 h 2 min)\n"
        "  hostname   compute-0\n"
        "  instances  2\n"
        "  votes      accept 1\n"
        "\n"
        "guestAgent: absent (does not run)\n"
    )


def test_instances_are_an_aligned_table(daemons, capsys):
    daemons.server({"instances": INSTANCES})
    assert daemons.run("instances", "-o", "uuid,name,state") == 0
    assert capsys.readouterr().out.splitlines() == [
        "guestServer: 2 instances",
        f"{'UUID':36}  NAME  STATE",
        f"{UUID.replace('8', '9')}  -     waiting_init",
        f"{UUID}  vm-1  waiting_challenge",
    ]


def test_both_daemons_views_are_shown(daemons, capsys):
    daemons.server({"instances": INSTANCES})
    daemons.agent({"instances": []})
    daemons.run("instances")
    assert [line for line in capsys.readouterr().out.splitlines() if "guest" in line] == [
        "guestServer: 2 instances",
        "guestAgent: 0 instances",
    ]


def test_hosts_come_from_the_daemon_that_knows_them(daemons, capsys):
    daemons.server({"error": "unknown command"})
    daemons.agent({"hosts": [{"hostname": "compute-0", "ip": "10.0.0.2", "instances": 2}]})
    assert daemons.run("hosts") == 0
    assert capsys.readouterr().out == (
        "guestAgent: 1 host\n"
        "HOST       LAST-HEARD  VERSION  INSTANCES  LOST  ILL  REPORTING  IP\n"
        "compute-0  never       -        2          -     -    -          10.0.0.2\n"
    )


def test_on_a_worker_hosts_says_who_knows_them(daemons, capsys):
    daemons.server({"error": "unknown command"})
    assert daemons.run("hosts") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "guestctl: guestServer: knows its own host alone; guestAgent on the active controller "
        "knows all\nguestctl: guestAgent: does not run\n"
    )


def test_show_tells_all_that_is_known(daemons, capsys):
    daemons.server({"instance": INSTANCES[0]})
    assert daemons.run("show", UUID.upper()) == 0
    assert daemons.requests[0] == {"command": "show", "uuid": UUID}
    out = capsys.readouterr().out
    assert out.startswith("guestServer\n  uuid          8d1b")
    assert "  misses        0\n" in out


def test_json_has_a_member_for_each_daemon(daemons, capsys):
    daemons.server(SERVER)
    assert daemons.run("status", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["guestServer"] == {"state": "healthy", **SERVER}
    assert shown["guestAgent"] == {"state": "absent", "reason": "does not run"}
    daemons.server({"instances": INSTANCES})
    daemons.run("--json", "instances")
    assert json.loads(capsys.readouterr().out) == {"guestServer": INSTANCES[::-1]}


def test_options_may_stand_on_either_side_of_the_command(daemons, capsys):
    daemons.server(SERVER)
    daemons.run("--json", "status")
    before = capsys.readouterr().out
    app.main(["status", "--json", "--root", str(daemons.root)])
    assert capsys.readouterr().out == before


@given(st.text(), st.text())
def test_no_guest_text_reaches_the_terminal_as_it_is(name, key):
    """A name with an escape sequence in it must not move the cursor or change the title."""
    rows = [{"name": name, "more": {key: [name]}}]
    lines = [
        *table(rows, [Column("name"), Column("more")], Style(colour=False)),
        *fields({key: name, "x": {key: name}}),
    ]
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 4 or key == "x"


@given(st.text())
def test_json_is_safe_for_a_terminal_too(name):
    (shown,) = to_json({"name": name})
    assert shown.isascii()
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == {"name": name}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        ("a\tb", r"a\tb"),
        ([], "-"),
        ({}, "-"),
        ({"accept": 1, "reject": 2}, "accept 1, reject 2"),
        (["a", {"b": None}], "a, b -"),
    ],
)
def test_cells(value, text):
    assert cell(value) == text


def test_wide_and_combining_characters_are_aligned():
    assert (width("vm"), width("雪"), width("é")) == (2, 2, 1)
    lines = table(
        [{"a": "雪雪", "b": 1}, {"a": "e\u0301", "b": 2}],
        [Column("a"), Column("b")],
        Style(colour=False),
    )
    assert lines == ["A     B", "雪雪  1", "e\u0301     2"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (61, "1 min 1 s"), (3_600, "1 h 0 min"), (100_000, "1 d 3 h"), (None, "?")],
)
def test_durations(seconds, text):
    assert details.duration(seconds) == text


def test_colour_marks_states():
    assert Style(colour=True).mark("down", "down") == "\x1b[31mdown\x1b[0m"
    assert Style(colour=False).mark("down", "down") == "down"


# One instance, by whatever name


def test_an_instance_is_found_by_its_name(daemons, capsys):
    daemons.server({"instances": INSTANCES, "instance": {**INSTANCES[0], "history": HISTORY}})
    assert daemons.run("why", "vm-1") == 0
    assert [request["command"] for request in daemons.requests[::2]] == [
        "instances",
        "past",
        "show",
    ]
    assert daemons.requests[-1]["uuid"] == UUID
    out = capsys.readouterr().out
    assert f"vm-1 ({UUID}) on compute-0, as guestServer saw it" in out
    assert "LOST: no answer for 2.0 s" in out


def test_a_name_that_may_be_several_is_refused_with_their_names(daemons, capsys):
    rows = [{**INSTANCES[0], "name": name, "uuid": f"{name}-u"} for name in ("web-1", "web-2")]
    daemons.server({"instances": rows})
    assert daemons.run("why", "web") == 1
    assert "web may be 2 instances: web-1 (web-1-u), web-2 (web-2-u)" in capsys.readouterr().err
    assert daemons.run("show", "nobody") == 1
    assert "no instance has the name or UUID nobody" in capsys.readouterr().err


def test_an_instance_that_is_gone_is_found_by_the_name_that_it_had(daemons, capsys):
    """And a whole name goes before the beginning of another."""
    daemons.server(
        {
            "instances": [{**INSTANCES[0], "name": "web-10"}],
            "past": [{"uuid": "9" * 36, "name": "web-1"}],
            "instance": {"uuid": "9" * 36, "name": "web-1", "history": HISTORY},
        }
    )
    assert daemons.run("why", "web-1") == 0
    assert daemons.requests[-1]["uuid"] == "9" * 36
    assert "now: not here; this is what is remembered of it" in capsys.readouterr().out


HISTORY = [
    {"at": 1_700_000_000.0, "what": "heartbeating", "detail": ""},
    {"at": 1_700_000_002.0, "what": "loss", "detail": "no answer for 2.0 s"},
]


def test_show_ends_with_history_and_messages(daemons, capsys):
    messages = [{"at": 1_700_000_000.0, "what": "< challenge_response", "ms": 12.6}]
    daemons.server({"instance": {**INSTANCES[0], "history": HISTORY, "exchanges": messages}})
    daemons.run("show", UUID)
    out = capsys.readouterr().out
    assert out.index("misses") < out.index("\nhistory\n") < out.index("\nlast messages\n")
    assert out.rstrip().endswith("< challenge_response  12.6 ms")


# Events, stats, log level, doctor


EVENTS = [
    {"number": 1, "at": 1_700_000_000.0, "uuid": UUID, "name": "vm-1", "what": "init"},
    {"number": 2, "at": 1_700_000_060.0, "uuid": "9" * 36, "what": "loss", "detail": "2.0 s"},
]  # fmt: skip


def test_events_are_told_in_the_order_of_their_time(daemons, capsys):
    daemons.server({"events": EVENTS, "next": 2})
    daemons.agent({"events": [{**EVENTS[0], "at": 1_700_000_030.0, "what": "told"}], "next": 1})
    assert daemons.run("events") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["guestServer", "guestAgent", "guestServer"]
    assert lines[0].endswith("guestServer  vm-1  init")
    assert lines[2].endswith("LOST: 2.0 s")


@pytest.mark.parametrize(("arguments", "count"), [(["vm-1"], 1), (["999"], 1), (["x"], 0)])
def test_events_of_one_instance(daemons, capsys, arguments, count):
    daemons.server({"events": EVENTS, "next": 2})
    assert daemons.run("events", *arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == count


def test_an_event_without_a_name_is_told_by_the_one_that_its_instance_has(daemons, capsys):
    """Before its init an instance has none, and an agent of an older release gives none."""
    unnamed = {**EVENTS[0], "number": 0, "name": "", "what": "found"}
    other = {**EVENTS[1], "number": 4, "name": "vm-10"}
    daemons.server(
        {"events": [{**unnamed, "number": 1}, {**EVENTS[0], "number": 2}, other], "next": 4}
    )
    daemons.agent({"events": [{"number": 1, "at": 1_700_000_001.0, "uuid": UUID, "what": "told"}],
                   "next": 1})  # fmt: skip
    assert daemons.run("events", "vm-1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["vm-1"] * 3


def test_events_since_a_span_ago(daemons, capsys, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_090.0)
    daemons.server({"events": EVENTS, "next": 2})
    daemons.run("events", "--since", "1m", "--json")
    assert [json.loads(line)["number"] for line in capsys.readouterr().out.splitlines()] == [2]


def test_following_tells_each_event_once_and_notices_a_restart():
    answers = iter(
        [
            {"events": EVENTS[:1], "next": 1},
            {"events": EVENTS, "next": 2},
            {"events": EVENTS, "next": 2},
            {"events": EVENTS[:1], "next": 1},
        ]
    )
    follower = events.Follower(
        lambda _request: [Reply("guestServer", "answered", next(answers), "")],
    )
    told = [[event["number"] for _daemon, event in follower.poll()] for _ in range(4)]
    assert told == [[1], [2], [], [1]]


@pytest.mark.parametrize("wrong", ["", "1", "h", "1w", "-1h", "1h\n"])
def test_a_span_that_is_none_is_wrong_usage(wrong):
    with pytest.raises(SystemExit) as caught:
        app.main(["events", "--since", wrong])
    assert caught.value.code == 2


def test_stats_are_the_metrics_without_comments(daemons, capsys):
    daemons.server({"metrics": "# HELP a b\n# TYPE a counter\na 5\n"})
    assert daemons.run("stats") == 0
    assert capsys.readouterr().out == "a 5\n"


def test_log_level(daemons, capsys):
    daemons.server({"level": 2})
    assert daemons.run("log-level", "2") == 0
    assert daemons.requests[0] == {"command": "log-level", "level": 2}
    assert capsys.readouterr().out == "guestServer: debug level 2\n"


def test_watch_without_a_terminal_reprints(daemons, capsys, monkeypatch):
    """It ends with the daemon: then there is nothing to watch."""
    daemons.server({"instances": INSTANCES})
    turns = iter([None, daemons.answers.clear])

    def sleep(_secs):
        turn = next(turns)
        if turn:
            turn()

    monkeypatch.setattr(time, "sleep", sleep)
    assert daemons.run("watch") == 0
    out = capsys.readouterr().out
    assert out.count("guestServer: 2 instances") == 2
    assert "\x1b" not in out


@pytest.mark.parametrize("room", [60, 80, 200])
def test_a_table_is_cut_to_the_terminal(room):
    rows = [{"a": "x" * 50, "b": "雪" * 30, "c": "short"}]
    lines = table(rows, [Column("a"), Column("b"), Column("c")], Style(colour=False), room)
    assert max(map(width, lines)) <= room
    assert lines[1].endswith("short")
    assert ("…" in lines[1]) is (room < 120)


words = st.text(st.sampled_from("abc 雪e\u0301\N{SLEEPING FACE}"), max_size=300)


@given(words, st.integers(20, 100))
def test_a_line_is_broken_to_the_terminal_and_nothing_of_it_is_lost(text, room):
    line = f"  03:12:07.4  {text.strip()}"
    parts = wrapped(line, room)
    assert max(map(width, parts)) <= room
    assert "".join(parts).replace(" ", "") == line.replace(" ", "")
    assert all(part.startswith("  ") for part in parts[1:])


def test_what_goes_on_stands_below_what_was_said():
    assert wrapped("  03:12:07.4  LOST: no answer for a while", 30) == [
        "  03:12:07.4  LOST: no answer",
        "              for a while",
    ]
    assert wrapped("  sent  ADD 1, QUERY 22, up 3 min 5 s", 21) == [
        "  sent  ADD 1,",
        "        QUERY 22,",
        "        up 3 min 5 s",
    ]
    assert wrapped("\x1b[1mone two\x1b[0m three", 9) == ["\x1b[1mone two\x1b[0m", "  three"]


@given(words, st.integers(1, 40))
def test_a_cut_text_fits_and_its_colour_ends(text, most):
    shown = cut(f"\x1b[31m{text}\x1b[0m", most)
    assert width(shown) <= most
    assert shown.count("\x1b") == 2


@pytest.mark.parametrize(
    ("room", "heading"),
    [
        (None, "NAME INSTANCE HOST HEALTH LAST-ANSWER REPORTING"),
        (80, "NAME INSTANCE HOST HEALTH LAST-ANSWER REPORTING"),
        (60, "NAME HOST HEALTH REPORTING"),
        (40, "NAME HOST HEALTH"),
    ],
)
def test_a_narrow_table_does_without_what_matters_least(room, heading):
    ill = {"condition": "ill", "detail": "fan broken", "last_answer": 0.0}
    row = {**INSTANCES[0], "name": "web-server-00001", **ill}
    lines = instances.lines([row], None, 0.0, Style(colour=False), room)
    assert " ".join(lines[0].split()) == heading
    assert "ill: fan bro" in lines[1]
    assert room is None or max(map(width, lines)) <= room


def test_a_usual_column_that_says_nothing_is_left_out():
    """GuestAgent does not know when a guest answered last."""
    (heading, _row) = instances.lines(INSTANCES[:1], None, 0.0, Style(colour=False), None)
    assert heading.split() == ["NAME", "INSTANCE", "HOST", "HEALTH", "REPORTING"]
    (heading, _row) = instances.lines(INSTANCES[:1], "last-answer", 0.0, Style(colour=False), None)
    assert heading == "LAST-ANSWER"


def test_a_column_may_be_asked_for_twice():
    (heading, row) = instances.lines(INSTANCES[:1], "name,name", 0.0, Style(colour=False), None)
    assert (heading, row) == ("NAME  NAME", "vm-1  vm-1")


def test_a_picture_is_cut_to_the_terminal(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((20, 4)))
    drawn = Screen().drawn([f"line {number} " + "x" * 30 for number in range(10)])
    lines = drawn.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "").split("\n")
    assert lines == ["line 0 xxxxxxxxxxxx…", "line 1 xxxxxxxxxxxx…", "… and 8 lines more"]


def test_what_is_wrong_is_red():
    rows = [{**INSTANCES[0], "condition": word} for word in ("lost", "silent", "ok")]
    lines = instances.lines(rows, "health,name", 0.0, Style(colour=True), None)
    assert [line[:5] for line in lines[1:]] == ["\x1b[31m", "\x1b[33m", "ok   "]


# The program


def guestctl(root, *arguments, **how):
    command = [sys.executable, str(BIN), "--root", str(root), *arguments]
    return subprocess.run(command, check=False, timeout=20, **how)


@pytest.fixture
def running(tmp_path):
    """A guestServer with nothing in it, under a root."""
    (tmp_path / "example.ini").write_text("[a]\nword = grün\n", encoding="utf-8")
    command = [sys.executable, str(EXAMPLE), "guestServer", "--root", str(tmp_path)]
    subprocess.run(command, check=True, timeout=20)
    pid = int((tmp_path / "var/run/guestServer.pid").read_text())
    yield tmp_path, pid
    os.kill(pid, signal.SIGKILL)


def test_the_program_against_a_running_daemon(running):
    root, pid = running
    done = guestctl(root, "status", capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith(f"guestServer: healthy (pid {pid}, version {__version__}, up ")
    assert "\x1b" not in done.stdout
    assert guestctl(root, "show", UUID, capture_output=True).returncode == 1


def test_a_stopped_process_is_a_daemon_that_does_not_answer(running, monkeypatch):
    root, pid = running
    monkeypatch.setattr(control.ask, "__defaults__", (0.2,))
    os.kill(pid, signal.SIGSTOP)
    assert app.main(["--root", str(root), "status"]) == 1


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_only_on_a_terminal_and_without_no_color(tmp_path, environment, coloured):
    main_end, terminal = pty.openpty()
    base = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    guestctl(tmp_path, "status", stdout=terminal, env={**base, "TERM": "xterm", **environment})
    os.close(terminal)
    out = os.read(main_end, 4096)
    os.close(main_end)
    assert b"guestServer" in out
    assert (b"\x1b[" in out) is coloured


def test_a_reader_that_has_seen_enough(tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = guestctl(tmp_path, "status", stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (3, b"")


def test_an_output_that_cannot_be_written_is_one_sentence_and_1(tmp_path):
    """`guestctl > /dev/full`: no traceback."""
    with open("/dev/full", "wb") as full:
        done = guestctl(tmp_path, "status", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == b"guestctl: cannot write the output: No space left on device\n"


def test_a_terminal_that_is_not_unicode(running):
    root, _pid = running
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = guestctl(root, "status", capture_output=True, env=environment)
    assert done.returncode == 0
    assert b"word       gr\\xfcn\n" in done.stdout
