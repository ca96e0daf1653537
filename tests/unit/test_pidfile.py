"""Which process is the daemon, and that there is only one (decision 33)."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from guestmtce.core.shared.errors import StartError
from guestmtce.runtime.pidfile import PidFile, running_pid

HOLD = """\
import sys
from guestmtce.runtime.pidfile import PidFile
PidFile(*sys.argv[1:]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path):
    return tmp_path


def names(place) -> tuple[str, str]:
    return str(place / "d.pid"), str(place / "d.lock")


@pytest.fixture
def pidfile(place):
    made = PidFile(*names(place))
    yield made
    made.release()


@pytest.fixture
def other(place):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *names(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


def test_it_says_who_runs(place, pidfile):
    pidfile.acquire()
    path, lock = names(place)
    assert (place / "d.pid").read_text() == f"{os.getpid()}\n"
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert running_pid(lock) == os.getpid()
    with pytest.raises(StartError, match=rf"already running \(pid {os.getpid()}\)"):
        PidFile(path, lock).acquire()
    pidfile.release()
    assert not os.path.exists(path)
    assert running_pid(lock) is None
    pidfile.release()


def test_only_the_owner_can_open_what_is_locked(place, pidfile):
    """Nobody without rights can take the lock first, and so keep the daemon from starting."""
    pidfile.acquire()
    assert os.stat(names(place)[1]).st_mode & 0o777 == 0o600


def test_a_lock_on_the_pidfile_does_no_harm(place, pidfile):
    """Everybody may read it, so everybody may lock it."""
    (place / "d.pid").write_text("1\n")
    with (place / "d.pid").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        pidfile.acquire()
    assert (place / "d.pid").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["1\n", "rubbish", ""])
def test_what_a_killed_daemon_left_is_taken_over(place, pidfile, content):
    for path in names(place):
        with open(path, "w", encoding="ascii") as file:
            file.write(content)
    assert running_pid(names(place)[1]) is None
    pidfile.acquire()
    assert running_pid(names(place)[1]) == os.getpid()


@pytest.mark.parametrize("gone", [[], ["d.pid"], ["d.lock"], ["d.pid", "d.lock"]])
def test_a_daemon_whose_files_were_removed_still_runs(place, pidfile, other, gone):
    for name in gone:
        (place / name).unlink()
    assert running_pid(names(place)[1]) == other.pid
    with pytest.raises(StartError, match=rf"already running \(pid {other.pid}\)"):
        pidfile.acquire()


def test_what_was_removed_is_put_back(place, pidfile):
    pidfile.acquire()
    for path in names(place):
        os.unlink(path)
    pidfile.keep()
    assert (place / "d.pid").read_text() == f"{os.getpid()}\n"
    assert running_pid(names(place)[1]) == os.getpid()
    before = os.stat(names(place)[0]).st_ino
    pidfile.keep()
    assert os.stat(names(place)[0]).st_ino == before


@pytest.mark.parametrize("name", ["d.pid", "d.lock"])
def test_what_another_process_has_put_in_place_stays(place, pidfile, name):
    pidfile.acquire()
    (place / "new").write_text("1\n")
    (place / "new").replace(place / name)
    pidfile.release()
    assert os.listdir(place) == [name]
    assert (place / name).read_text() == "1\n"


def test_before_the_start_and_after_the_end_nothing_is_put_back(place, pidfile):
    pidfile.keep()
    assert os.listdir(place) == []
    pidfile.acquire()
    pidfile.release()
    pidfile.keep()
    assert os.listdir(place) == []


def test_a_lock_on_a_file_that_was_replaced_is_not_taken_for_ours(place, pidfile, monkeypatch):
    """Between opening and locking, a cleaner may have removed it."""
    lock = names(place)[1]
    removed = []
    real = fcntl.fcntl

    def remove_then_lock(fd, how, *argument):
        if how == fcntl.F_OFD_SETLK and not removed:
            removed.append(fd)
            os.unlink(lock)
        return real(fd, how, *argument)

    monkeypatch.setattr(fcntl, "fcntl", remove_then_lock)
    pidfile.acquire()
    assert removed
    assert running_pid(lock) == os.getpid()


@pytest.mark.parametrize("name", ["d.pid", "d.lock"])
def test_a_link_is_not_written_through(place, pidfile, name):
    (place / "target").write_text("precious")
    (place / name).symlink_to(place / "target")
    if name == "d.lock":
        with pytest.raises(OSError, match="symbolic links"):
            pidfile.acquire()
    else:
        pidfile.acquire()
    assert (place / "target").read_text() == "precious"


def test_a_directory_in_the_way_is_an_oserror(place, pidfile):
    (place / "d.pid").mkdir()
    with pytest.raises(OSError, match="directory"):
        pidfile.acquire()
