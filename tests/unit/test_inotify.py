"""inotify: the parser by property, the wrapper on real files (protocol.md, Discovery)."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime import inotify
from guestmtce.runtime.inotify import FileEvent, Inotify, parse_events

U32 = st.integers(0, 2**32 - 1)
NAMES = st.binary(max_size=255).filter(lambda name: b"\0" not in name)
EVENTS = st.lists(st.builds(FileEvent, st.integers(-1, 2**31 - 1), U32, U32, NAMES), max_size=20)


def encode(event: FileEvent, padding: int) -> bytes:
    """As the kernel does: the name, a NUL, and more of them to a round length."""
    name = event.name + b"\0" * padding if event.name else b""
    return struct.pack("=iIII", event.wd, event.mask, event.cookie, len(name)) + name


@pytest.fixture
def watcher():
    made = Inotify()
    yield made
    made.close()


@given(EVENTS, st.integers(1, 16))
def test_every_event_of_a_read_is_returned_in_order(events, padding):
    """ "A read of inotify returns many events; every one is handled."."""
    assert parse_events(b"".join(encode(event, padding) for event in events)) == events


@given(EVENTS.filter(bool), st.data())
def test_half_a_record_is_an_error_and_never_a_wrong_event(events, data):
    encoded = b"".join(encode(event, 4) for event in events)
    last = len(encode(events[-1], 4))
    cut = data.draw(st.integers(len(encoded) - last + 1, len(encoded) - 1))
    with pytest.raises(ValueError, match="half an inotify"):
        parse_events(encoded[:cut])


def test_the_kernels_numbers(tmp_path):
    """Of inotify(7); a wrong one would watch for something else without a word."""
    assert inotify.IN_CREATE == 0x100
    assert inotify.IN_MOVED_TO == 0x80
    assert inotify.IN_Q_OVERFLOW == 0x4000
    assert inotify.IN_ONLYDIR == 0x1000000


def test_create_move_and_delete_are_seen(watcher, tmp_path):
    wd = watcher.add_watch(
        str(tmp_path),
        inotify.IN_CREATE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_DELETE,
    )
    (tmp_path / "a").touch()
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").unlink()
    events = watcher.read()
    assert [(event.wd, event.mask, event.name) for event in events] == [
        (wd, inotify.IN_CREATE, b"a"),
        (wd, inotify.IN_MOVED_FROM, b"a"),
        (wd, inotify.IN_MOVED_TO, b"b"),
        (wd, inotify.IN_DELETE, b"b"),
    ]
    assert events[1].cookie == events[2].cookie != 0


def test_reading_when_nothing_happened_returns_nothing(watcher, tmp_path):
    watcher.add_watch(str(tmp_path), inotify.IN_CREATE)
    assert watcher.read() == []


def test_one_read_is_bounded_and_the_rest_comes_with_the_next(watcher, tmp_path):
    watcher.add_watch(str(tmp_path), inotify.IN_CREATE)
    names = [f"{'x' * 200}{number:04}" for number in range(600)]
    for name in names:
        (tmp_path / name).touch()
    first = watcher.read()
    assert 0 < len(first) < 600
    events = [*first, *watcher.read(), *watcher.read()]
    assert [event.name.decode() for event in events] == names


def test_the_end_of_the_watched_directory_is_told(watcher, tmp_path):
    directory = tmp_path / "d"
    directory.mkdir()
    watcher.add_watch(str(directory), inotify.IN_DELETE_SELF)
    directory.rmdir()
    assert [event.mask for event in watcher.read()] == [inotify.IN_DELETE_SELF, inotify.IN_IGNORED]


def test_a_removed_watch_is_silent(watcher, tmp_path):
    wd = watcher.add_watch(str(tmp_path), inotify.IN_CREATE)
    watcher.rm_watch(wd)
    (tmp_path / "a").touch()
    assert [event.mask for event in watcher.read()] == [inotify.IN_IGNORED]
    with pytest.raises(OSError, match="Invalid argument"):
        watcher.rm_watch(wd)


def test_a_missing_directory_is_an_oserror_with_the_path_in_it(watcher, tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as caught:
        watcher.add_watch(missing, inotify.IN_CREATE)
    assert caught.value.filename == missing


def test_a_file_where_a_directory_is_meant_is_refused(watcher, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        watcher.add_watch(str(tmp_path / "file"), inotify.IN_CREATE | inotify.IN_ONLYDIR)


def test_names_that_are_not_utf8_arrive_as_they_are(watcher, tmp_path):
    watcher.add_watch(os.fsencode(tmp_path), inotify.IN_CREATE)
    name = b"\xff\xfe.sock"
    os.close(os.open(os.path.join(os.fsencode(tmp_path), name), os.O_CREAT))
    assert [event.name for event in watcher.read()] == [name]


def test_the_descriptor_is_close_on_exec_and_closes_once():
    made = Inotify()
    assert not os.get_inheritable(made.fileno())
    assert not os.get_blocking(made.fileno())
    made.close()
    made.close()
    assert made.fileno() == -1
