"""The guest client's children: bounded, under a deadline, and never waited for."""

from __future__ import annotations

import os
import selectors
import signal
import time

import pytest

from guest import guest_client
from guest.guest_client import Outcome, PathWatch, Runner, run_program

OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33: glibc lets nobody set them, so they stay as whoever started it left them."""


class Turns:
    """A runner and the loop around it."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.runner = Runner(self.selector, "the script")
        self.outcomes = []

    def start(self, command, timeout=20.0):
        work = run_program(["/bin/sh", "-c", command])
        self.runner.start(work, timeout, self.outcomes.append)

    def until(self, condition, seconds=20.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            for key, events in self.selector.select(0.02):
                key.data(events)
            self.runner.reap()
            self.runner.tick(time.monotonic())

    def outcome(self):
        self.until(lambda: self.outcomes)
        return self.outcomes.pop()


@pytest.fixture
def turns():
    made = Turns()
    yield made
    made.runner.kill()
    made.selector.close()


def test_of_what_a_script_prints_only_the_beginning_is_kept(turns):
    turns.start("echo first; yes | head -c 3000000")
    assert turns.outcome() == Outcome(0, "first", "", False)
    assert len(turns.selector.get_map()) == 0


@pytest.mark.parametrize(
    ("command", "status"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -PIPE $$", -13)]
)
def test_how_a_script_ended(turns, command, status):
    turns.start(command)
    assert turns.outcome() == Outcome(status, "", "", False)


@pytest.mark.parametrize(
    ("path", "problem"), [("/nonexistent", "No such file"), ("/dev", "Permission denied")]
)
def test_a_script_that_cannot_be_started_is_an_outcome(turns, path, problem):
    turns.runner.start(run_program([path]), 20.0, turns.outcomes.append)
    outcome = turns.outcome()
    assert outcome.status is None
    assert problem in outcome.problem
    assert not outcome.timed_out


def test_what_a_script_inherits(turns):
    """No descriptor but 0 to 2, no signal blocked or ignored, whatever the client has."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    left_open = os.dup(2)
    os.set_inheritable(left_open, True)
    try:
        turns.start("ls /proc/self/fd | wc -l")  # and the directory itself
        assert turns.outcome().line == "4"
        for kind in ("Blk", "Ign"):
            turns.start(f"grep Sig{kind} /proc/self/status")
            name, mask = turns.outcome().line.split()
            assert (name, int(mask, 16) & ~OF_THE_C_LIBRARY) == (f"Sig{kind}:", 0)
    finally:
        os.close(left_open)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


@pytest.mark.parametrize(("before", "after"), [("-900", "0"), ("0", "0"), ("300", "300")])
def test_a_script_is_not_spared_when_memory_is_short(turns, tmp_path, monkeypatch, before, after):
    """Its unit spares the client; a script that eats the memory would go on doing so."""
    score = tmp_path / "oom_score_adj"
    score.write_text(before + "\n")
    monkeypatch.setattr(guest_client, "OOM_SCORE_ADJ", str(score))
    turns.start("true")
    assert turns.outcome().status == 0
    assert score.read_text().strip() == after


def test_a_background_child_does_not_delay_the_outcome(turns):
    began = time.monotonic()
    turns.start("sleep 30 & echo yes")
    assert turns.outcome() == Outcome(0, "yes", "", False)
    assert time.monotonic() - began < 10


def test_a_slow_script_is_killed_with_its_children(turns, tmp_path):
    turns.start(f"sleep 60 & echo $! >{tmp_path}/pid; echo started; wait", timeout=1.0)
    outcome = turns.outcome()
    assert outcome == Outcome(None, "started", "no answer from the script in 1 s", True)
    pid = int((tmp_path / "pid").read_text())
    turns.until(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in state(pid), 5)


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_superseded_run_is_not_heard_of(turns):
    turns.start("sleep 60; echo old")
    turns.start("echo new")
    assert turns.outcome().line == "new"
    turns.until(lambda: not turns.runner.running)
    assert turns.outcomes == []


def test_what_cannot_be_killed_is_looked_for_now_and_then(turns, monkeypatch):
    """Not for each order of the host: that takes the longer, the more processes there are."""
    looks = []
    lives = guest_client.group_lives
    monkeypatch.setattr(guest_client, "group_lives", lambda group: looks.append(group) or True)
    turns.start("exec sleep 60")
    turns.start("true")
    turns.until(lambda: looks)
    for _ in range(100):
        turns.start("echo last")
    assert len(set(looks)) == 1
    assert len(looks) < 10
    monkeypatch.setattr(guest_client, "group_lives", lives)
    assert turns.outcome().line == "last"


class Watched:
    """A path, and how often it was said to be there."""

    def __init__(self, path):
        self.calls = 0
        self.selector = selectors.DefaultSelector()
        self.watch = PathWatch(self.selector, str(path))
        self.watch.start(self._called)

    def _called(self):
        self.calls += 1

    def turn(self):
        for key, events in self.selector.select(0):
            key.data(events)
        return self.calls


def test_a_path_is_waited_for(tmp_path):
    watched = Watched(tmp_path / "port")
    assert not watched.watch.blind
    (tmp_path / "other").touch()
    assert watched.turn() == 0
    (tmp_path / "port").touch()
    assert watched.turn() == 1
    (tmp_path / "port").unlink()
    assert watched.turn() == 1


def test_a_path_is_waited_for_from_the_nearest_directory(tmp_path):
    watched = Watched(tmp_path / "a" / "b" / "port")
    (tmp_path / "b").mkdir()
    assert watched.turn() == 0
    (tmp_path / "a").mkdir()
    assert watched.turn() == 1
    watched.watch.stop()


def test_a_directory_that_goes_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    watched = Watched(tmp_path / "a" / "port")
    (tmp_path / "a").rmdir()
    assert watched.turn() == 1


def test_a_relative_or_empty_path_ends_the_search():
    assert Watched("").watch.blind
