"""Log lines, and handlers that never block (operations.md, Files and signals; Log lines)."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime import log as logs
from guestmtce.runtime import syslog, unix
from guestmtce.runtime.log import (
    PERIOD_SECS,
    SITE_LINES,
    WHY_LINES,
    LineFormatter,
    SiteLimit,
    why,
)
from guestmtce.runtime.syslog import MAX_LINE_BYTES, LogFile, StderrHandler, SyslogHandler
from tests.simulation import Clock


def record(text="hello", *args, level=logging.INFO, exc_info=None, name="guestmtce.server.app"):
    return logging.LogRecord(name, level, "/x/app.py", 12, text, args, exc_info, "start")


def formatted(*args, **options) -> str:
    return LineFormatter("guestServer", "compute-0").format(record(*args, **options))


# The line


def test_a_line_is_as_the_specification_says():
    """`<hostname> <daemon> <area> <file>(<line>) <function>: <Level>: <text>`."""
    assert formatted("took %d ms", 5) == (
        "compute-0 guestServer server app.py(12) start: Info: took 5 ms"
    )


@pytest.mark.parametrize(
    ("level", "word"),
    [
        (logging.ERROR, "Error"),
        (logging.WARNING, "Warn"),
        (logging.INFO, "Info"),
        (logging.DEBUG, "Debug"),
        (logging.CRITICAL, "Error"),
    ],
)
def test_level_words(level, word):
    assert f" start: {word}: " in formatted(level=level)


@pytest.mark.parametrize(
    ("name", "area"),
    [("guestmtce.core.vote", "core"), ("guestmtce.runtime.loop", "runtime"), ("root", "root")],
)
def test_the_area_is_the_last_part_of_the_package(name, area):
    assert formatted(name=name).split()[2] == area


@given(st.text())
def test_one_record_is_one_printable_line_whatever_a_guest_says(text):
    """ "Guest text is always escaped": the last line of defence."""
    line = formatted("guest says %s", text)
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202eevil", r"\u202eevil"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\x9b", r"\x9b"),
        ("grün 雪", "grün 雪"),
    ],
)
def test_what_could_forge_a_line_or_move_a_cursor_is_escaped(text, shown):
    assert formatted("%s", text).endswith(f"Info: {shown}")


def test_a_traceback_stays_on_the_line():
    try:
        raise ValueError("from\na guest")
    except ValueError:
        line = formatted("failed", exc_info=sys.exc_info())
    assert "failed | Traceback (most recent call last):" in line
    assert line.endswith("ValueError: from | a guest")
    assert line.isprintable()


def test_a_mistake_in_a_log_call_loses_nothing():
    assert formatted("%d of %s", "x").endswith("Info: %d of %s ('x',)")


# Syslog


class Syslogd:
    """A /dev/log whose reader may be as slow as a test wants."""

    def __init__(self, path, kind=socket.SOCK_DGRAM) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, kind)
        self.socket.bind(str(path))
        if kind == socket.SOCK_STREAM:
            self.socket.listen(1)
        self.socket.settimeout(5)

    def read(self) -> str:
        return self.socket.recv(65536).decode()

    def read_all(self) -> list[str]:
        self.socket.setblocking(False)
        lines = []
        try:
            while True:
                lines.append(self.read())
        except BlockingIOError:
            self.socket.settimeout(5)
            return lines

    def end(self, *, remove=True) -> None:
        self.socket.close()
        if remove:
            os.unlink(self.path)


class Rig:
    """A SyslogHandler with its file, on a clock that stands still."""

    def __init__(self, directory) -> None:
        self.clock = Clock()
        self.later = []
        self.path = directory / "log"
        self.file = directory / "var" / "guestServer.log"
        self.handler = SyslogHandler(
            "guestServer",
            str(self.path),
            LogFile(str(self.file)),
            self.clock,
            later=lambda delay, callback: self.later.append((delay, callback)),
        )
        self.handler.setFormatter(LineFormatter("guestServer", "compute-0"))

    def say(self, text, level=logging.INFO) -> None:
        self.handler.handle(record(text, level=level))


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.handler.close()


def test_syslog_gets_facility_local5_and_the_program_name(rig):
    """StarlingX's syslog-ng routes by program name."""
    syslogd = Syslogd(rig.path)
    rig.say("hello", logging.WARNING)
    # local5 is 21, warning is 4 (RFC 3164).
    assert re.fullmatch(
        rf"<{21 * 8 + 4}>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d guestServer\[{os.getpid()}\]: "
        r"compute-0 guestServer server app\.py\(12\) start: Warn: hello",
        syslogd.read(),
    )
    syslogd.end()


@pytest.mark.parametrize(
    ("level", "severity"),
    [(logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)],
)
def test_severities(rig, level, severity):
    syslogd = Syslogd(rig.path)
    rig.say("hello", level)
    assert syslogd.read().startswith(f"<{168 + severity}>")
    syslogd.end()


def test_a_symbolic_link_and_a_long_path_are_followed(tmp_path):
    """/dev/log is a link to /run/systemd/journal/dev-log; a test root may be deep."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    syslogd = Syslogd(tmp_path / "real")
    (deep / "log").symlink_to(tmp_path / "real")
    rig = Rig(deep)
    rig.say("hello")
    assert syslogd.read().endswith("hello")
    rig.handler.close()
    syslogd.end()


def test_a_stuck_syslogd_does_not_block_and_the_loss_is_reported(rig):
    syslogd = Syslogd(rig.path)
    lost = overfill(rig)
    assert len(syslogd.read_all()) == OVERFILL - lost
    rig.say("again")
    again, report = syslogd.read_all()
    assert again.endswith("Info: again")
    assert report.endswith(f"Warn: {lost} log records were lost before this one")
    rig.say("well")
    assert [line[-4:] for line in syslogd.read_all()] == ["well"]
    assert rig.handler.dropped == lost
    syslogd.end()


OVERFILL = 5_000


def overfill(rig) -> int:
    """Say more than any syslog queue holds; return how much was lost."""
    for number in range(OVERFILL):
        rig.say(f"number {number}")
    assert 0 < rig.handler.dropped < OVERFILL
    return rig.handler.dropped


def test_a_restarted_syslogd_is_found_again_at_once(rig):
    first = Syslogd(rig.path)
    rig.say("one")
    first.end()
    rig.clock.now += 2
    second = Syslogd(rig.path)
    rig.say("two")
    assert second.read().endswith("two")
    assert rig.handler.dropped == 0
    second.end()


def test_a_syslogd_that_died_and_left_its_socket_is_as_good_as_none(rig, monkeypatch):
    """ECONNREFUSED: to the file until somebody answers; one connect a second."""
    syslogd = Syslogd(rig.path)
    rig.say("before")
    syslogd.end(remove=False)
    tries = []
    connect = unix.connect
    monkeypatch.setattr(
        unix, "connect", lambda *args, **kw: tries.append(args) or connect(*args, **kw)
    )
    for number in range(10):
        rig.say(f"x{number}")
    assert len(tries) == 1
    assert rig.handler.dropped == 0
    assert [line[-2:] for line in rig.file.read_text().splitlines()] == [
        f"x{number}" for number in range(10)
    ]
    rig.clock.now += 1.5
    os.unlink(rig.path)
    syslogd = Syslogd(rig.path)
    rig.say("back")
    assert syslogd.read().endswith("back")
    syslogd.end()


def test_without_a_syslog_socket_the_file_is_written(rig):
    rig.say("one")
    rig.say("two")
    lines = rig.file.read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["one", "two"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} compute-0 guestServer ", lines[0])


def test_a_syslogd_that_appears_later_is_used(rig):
    rig.say("one")
    syslogd = Syslogd(rig.path)
    rig.clock.now += 1.5
    rig.say("two")
    assert syslogd.read().endswith("two")
    assert "two" not in rig.file.read_text()
    syslogd.end()


def test_the_file_is_opened_again_after_logrotate(rig):
    rig.say("one")
    rotated = rig.file.with_suffix(".log.1")
    rig.file.rename(rotated)
    rig.say("two")
    assert rotated.read_text().endswith("one\n")
    assert rig.file.read_text().endswith("two\n")
    assert "one" not in rig.file.read_text()


def test_a_stream_syslog_socket_is_served_too(rig):
    syslogd = Syslogd(rig.path, socket.SOCK_STREAM)
    rig.say("hello")
    with syslogd.socket.accept()[0] as connection:
        assert connection.recv(4096).endswith(b"hello\0")
    syslogd.end()


def test_a_log_file_that_cannot_be_written_is_counted_not_raised(tmp_path):
    (tmp_path / "var").touch()
    rig = Rig(tmp_path)
    rig.say("hello")
    assert rig.handler.dropped == 1
    assert re.fullmatch(r"the log is lost: .*: (Not a directory|File exists)", rig.handler.problem)
    (tmp_path / "var").unlink()
    rig.say("hello")
    assert rig.handler.problem == ""
    rig.handler.close()


def test_a_log_file_is_tried_again_without_a_new_line(tmp_path):
    """Who has made room looks at the status: the next line may be hours away."""
    (tmp_path / "var").touch()
    rig = Rig(tmp_path)
    rig.say("one")
    rig.say("two")
    rig.later.pop()[1]()
    assert rig.handler.problem, "still in the way"
    assert rig.handler.dropped == 2, "to look is no line"
    (tmp_path / "var").unlink()
    ((delay, look),) = rig.later
    assert delay == 15
    look()
    assert rig.handler.problem == ""
    (line,) = rig.file.read_text().splitlines()
    assert line.endswith("2 log records were lost before this one")
    assert len(rig.later) == 1
    rig.handler.close()


def test_the_problem_of_a_full_disk_names_the_file(tmp_path):
    """A write names none."""
    rig = Rig(tmp_path)
    rig.file.parent.mkdir()
    rig.file.symlink_to("/dev/full")
    rig.say("hello")
    reason = "No space left on device; make room there"
    assert rig.handler.problem == f"the log is lost: {rig.file}: {reason}"
    rig.handler.close()


def test_a_long_line_is_cut_in_its_middle(rig):
    rig.say("begin" + "x" * 10_000 + "end")
    line = rig.file.read_bytes()
    assert len(line) <= MAX_LINE_BYTES
    assert b"begin" in line
    assert b" ... " in line
    assert line.endswith(b"end\n")


# Standard error


@contextlib.contextmanager
def stderr_as_pipe():
    """Descriptor 2 as a pipe; yields the reading end."""
    kept = os.dup(2)
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    os.close(write_end)
    try:
        yield read_end
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(read_end)


def stderr_handler():
    handler = StderrHandler()
    handler.setFormatter(LineFormatter("guestServer", "compute-0"))
    return handler


def test_stderr_gets_the_line_with_a_time():
    with stderr_as_pipe() as pipe:
        stderr_handler().handle(record("hello"))
        line = os.read(pipe, 4096).decode()
    assert re.fullmatch(r"\S+T\S+ compute-0 guestServer server .*: Info: hello\n", line)


def test_a_pipe_that_nobody_reads_does_not_block():
    with stderr_as_pipe() as pipe:
        handler = stderr_handler()
        for _ in range(100):
            handler.handle(record("x" * 5000))
        assert 0 < handler.dropped < 100
        os.read(pipe, 1 << 20)
        handler.handle(record("again"))
        said = os.read(pipe, 1 << 20).decode()
    assert f"{handler.dropped} log records were lost" in said


# setup


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    kept = root.handlers[:], root.level, sys.excepthook
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:], sys.excepthook = kept[0], kept[2]
    root.setLevel(kept[1])


@pytest.mark.parametrize(
    ("foreground", "syslog", "kinds"),
    [
        (True, False, [StderrHandler]),
        (False, False, [SyslogHandler]),
        (False, True, [SyslogHandler]),
        (True, True, [StderrHandler, SyslogHandler]),
    ],
)
def test_where_the_log_goes(root_logger, tmp_path, foreground, syslog, kinds):
    """`-f`: stderr; `-l`: syslog, the default when not in the foreground."""
    logs.setup("d", "h", foreground=foreground, syslog=syslog, root=str(tmp_path))
    assert [type(handler) for handler in root_logger.handlers] == kinds


def test_debug_shows_all_and_can_change_while_running(root_logger, tmp_path):
    logs.setup("guestServer", "h", foreground=False, syslog=False, root=str(tmp_path))
    logger = logging.getLogger("guestmtce.server.app")
    logger.debug("hidden")
    logs.set_debug(1)
    logger.debug("shown")
    logs.set_debug(0)
    logger.debug("hidden")
    text = (tmp_path / "var/log/guestServer.log").read_text()
    assert text.count("Debug: shown") == 1
    assert "hidden" not in text


def test_what_nobody_caught_is_logged(root_logger, tmp_path):
    """A daemon's stderr is /dev/null."""
    logs.setup("guestServer", "h", foreground=False, syslog=False, root=str(tmp_path))
    try:
        raise KeyError("odd")
    except KeyError:
        sys.excepthook(*sys.exc_info())
    assert "KeyError: 'odd'" in (tmp_path / "var/log/guestServer.log").read_text()


# The bound on each place in the program


def test_one_place_in_the_program_fills_no_disk():
    """ "Repeating conditions are throttled": a flood has its bound, and is counted."""
    clock = Clock()
    limit = SiteLimit(clock)
    passed = sum(limit.filter(record("x")) for _ in range(SITE_LINES + 500))
    assert passed == SITE_LINES
    other = record("y")
    other.lineno = 99
    assert limit.filter(other)
    clock.now += PERIOD_SECS
    later = record("x")
    assert limit.filter(later)
    line = LineFormatter("guestServer", "compute-0").format(later)
    assert line.endswith("x (500 like this left out before)")


def test_debug_lines_are_not_bounded():
    limit = SiteLimit(Clock())
    lines = [record("x", level=logging.DEBUG) for _ in range(SITE_LINES + 1)]
    assert all(limit.filter(line) for line in lines)


# Lines that tell why (decision 42)


def about(subject, text="lost"):
    made = record(text)
    made.__dict__.update(why(subject))
    return made


def test_a_flood_of_other_lines_leaves_the_why_of_each_guest_its_room():
    """160 flapping guests and a flood: another guest's loss is in the log."""
    limit = SiteLimit(Clock())
    for _ in range(SITE_LINES + 1):
        limit.filter(record("noise"))
    for guest in range(160):
        passed = sum(limit.filter(about(f"guest {guest}")) for _ in range(100))
        assert passed == WHY_LINES
    assert limit.filter(about("another"))


def test_the_left_out_lines_of_a_guest_are_said_with_its_next():
    clock = Clock()
    limit = SiteLimit(clock)
    for _ in range(WHY_LINES + 3):
        limit.filter(about("a"))
    clock.now += PERIOD_SECS
    line = about("a")
    assert limit.filter(line)
    assert line.left_out == 3


def test_any_number_of_subjects_is_bounded(monkeypatch):
    monkeypatch.setattr(logs, "_MAX_LIMITS", 4)
    limit = SiteLimit(Clock())
    for _ in range(WHY_LINES):
        limit.filter(about("first"))
    assert not limit.filter(about("first"))
    for guest in range(4):
        assert limit.filter(about(guest))
    assert limit.filter(about("first")), "the one used longest ago was forgotten"


def test_a_why_waits_for_a_slow_syslogd_and_other_lines_do_not(rig):
    syslogd = Syslogd(rig.path)
    while not rig.handler.dropped:
        rig.say("noise")
    rig.handler.handle(about("a", "the reason"))
    dropped = rig.handler.dropped
    rig.say("noise")
    assert rig.handler.dropped == dropped + 1
    ((delay, retry),) = rig.later
    rig.later.clear()
    retry()
    assert rig.later, "still full: tried again"
    syslogd.read_all()
    rig.later.pop()[1]()
    assert [line.rpartition(": ")[2] for line in syslogd.read_all()] == ["the reason"]
    assert rig.later == []
    assert 0 < delay < 1
    syslogd.end()


def test_the_lines_that_wait_are_bounded(rig, monkeypatch):
    monkeypatch.setattr(syslog, "MAX_WAITING", 3)
    syslogd = Syslogd(rig.path)
    while not rig.handler.dropped:
        rig.say("noise")
    dropped = rig.handler.dropped
    for _ in range(5):
        rig.handler.handle(about("a"))
    assert rig.handler.dropped == dropped + 2
    syslogd.end()
