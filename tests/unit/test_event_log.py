"""The log of events: numbered, bounded, and there again after a restart."""

from __future__ import annotations

import json
import os
import stat

from guestmtce.runtime import event_log
from guestmtce.runtime.event_log import EventLog


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_events_are_numbered_and_the_last_ones_kept(tmp_path):
    events = EventLog(None)
    for number in range(event_log.KEPT + 5):
        events.add({"what": "miss", "detail": str(number)})
    answer = events.answer()
    assert answer["next"] == event_log.KEPT + 5
    assert [event["number"] for event in answer["events"]] == list(range(6, event_log.KEPT + 6))


def test_each_event_is_a_line_that_only_root_may_read(tmp_path):
    path = tmp_path / "log/mtce-guest/events.jsonl"
    events = EventLog(str(path))
    events.add({"what": "loss", "detail": "grün\n"})
    events.add({"what": "init"})
    assert lines(path) == [{"what": "loss", "detail": "grün\n"}, {"what": "init"}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    events.close()


def test_two_files_of_two_mib_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "FILE_BYTES", 1000)
    path = tmp_path / "events.jsonl"
    events = EventLog(str(path))
    for number in range(200):
        events.add({"n": number})
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "events.jsonl.1"]
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())
    kept = [event["n"] for event in events.remembered()]
    assert kept == list(range(kept[0], 200)), "the newest, without a gap"
    assert len(kept) > 100


def test_a_restart_goes_on_in_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "FILE_BYTES", 40)
    path = tmp_path / "events.jsonl"
    for number in range(10):
        events = EventLog(str(path))
        events.add({"n": number})
        events.close()
    assert [event["n"] for event in EventLog(str(path)).remembered()][-1] == 9
    assert path.stat().st_size <= 40


def test_lines_that_are_no_events_are_passed_over(tmp_path):
    """A line that a crash cut, or somebody's editor."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"n":1}\n[1]\n{"n":\n\xff\n' + b"[" * 100_000 + b'\n{"n":2}')
    assert list(EventLog(str(path)).remembered()) == [{"n": 1}, {"n": 2}]


def test_a_file_that_cannot_be_written_is_a_problem_until_it_can_be(tmp_path):
    """The events go on in memory, and into the file when it can be written again."""
    path = tmp_path / "events.jsonl"
    path.mkdir()
    events = EventLog(str(path))
    events.add({"n": 1})
    reason = "Is a directory; remove the directory in its place"
    assert events.problem == f"events are not written to {path}: {reason}"
    assert events.answer()["next"] == 1
    path.rmdir()
    events.add({"n": 2})
    assert events.problem == ""
    assert lines(path) == [{"n": 1}, {"n": 2}]


def test_a_file_is_tried_again_without_a_new_event(tmp_path):
    """Who has made room looks at the status: the next event may be a day away."""
    later = []
    path = tmp_path / "events.jsonl"
    path.mkdir()
    events = EventLog(str(path), lambda delay, callback: later.append((delay, callback)))
    events.open()
    events.add({"n": 1})
    ((delay, retry),) = later
    assert delay == event_log.RETRY_SECS
    retry()
    assert events.problem
    assert len(later) == 2, "still in the way: tried again"
    path.rmdir()
    later[1][1]()
    assert (events.problem, lines(path)) == ("", [{"n": 1}])
    assert len(later) == 2


def test_of_what_a_full_disk_never_took_the_newest_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "KEPT", 3)
    path = tmp_path / "events.jsonl"
    path.mkdir()
    events = EventLog(str(path))
    for number in range(9):
        events.add({"n": number})
    path.rmdir()
    events.add({"n": 9})
    assert lines(path) == [{"n": 7}, {"n": 8}, {"n": 9}]


def test_a_disk_that_takes_half_a_line_has_none_of_it(tmp_path, monkeypatch):
    """Else the next event would be glued to the half, and both be lost."""
    path = tmp_path / "events.jsonl"
    events = EventLog(str(path))
    events.add({"n": 1})
    write = os.write
    monkeypatch.setattr(event_log.os, "write", lambda file, line: write(file, line[:4]))
    events.add({"n": 2})
    assert "No space left on device; make room there" in events.problem
    assert lines(path) == [{"n": 1}]
    monkeypatch.undo()
    events.add({"n": 3})
    assert lines(path) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_link_is_not_followed(tmp_path):
    """Whoever may write to the directory must not choose what root writes to."""
    target = tmp_path / "target"
    path = tmp_path / "events.jsonl"
    path.symlink_to(target)
    events = EventLog(str(path))
    events.add({"n": 1})
    assert not target.exists()
    assert events.problem


def test_followers_hear_each_event():
    events = EventLog(None)
    heard: list[int] = []
    events.follow(lambda event: heard.append(event["number"]))
    events.add({})
    events.add({})
    assert heard == [1, 2]
