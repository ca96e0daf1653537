"""Names and own addresses (decision 1)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime import files, hosts
from guestmtce.runtime.hosts import KEPT_SECS, HostsFile, interface_address, parse_hosts
from tests.simulation import Clock

TEXT = """\
# of the platform
127.0.0.1   localhost localhost.localdomain
192.168.204.2 controller oamcontroller   # floating
192.168.204.3\tcontroller-0
fd00::3 controller-0
192.168.204.3 controller-0 again
127.0.1.1 compute-0
"""


@pytest.fixture
def directory(fs):
    """A file system in memory: nothing of this machine's own is read."""
    return Path(fs.create_dir("/etc").path)


@pytest.fixture
def path(directory):
    file = directory / "hosts"
    file.write_text(TEXT)
    return file


def raising(error):
    def fail(*_args):
        raise error

    return fail


def test_addresses_come_in_the_files_order_and_once(path):
    assert HostsFile(str(path)).lookup("controller-0") == ["192.168.204.3", "fd00::3"]


def test_every_name_of_a_line_counts_in_any_case(path):
    file = HostsFile(str(path))
    assert file.lookup("oamcontroller") == file.lookup("CONTROLLER") == ["192.168.204.2"]


def test_an_unknown_name_has_no_address(path):
    """Absent `agent_peers` are skipped."""
    assert HostsFile(str(path)).lookup("controller-1") == []
    assert HostsFile(str(path)).lookup("floating") == []


def test_a_numeric_address_needs_no_look_up(directory):
    file = HostsFile(str(directory / "missing"))
    assert file.lookup("10.0.0.1") == ["10.0.0.1"]
    assert file.lookup("FD00::0001") == ["fd00::1"]


def test_the_file_is_read_again_when_it_changes(path):
    file = HostsFile(str(path))
    assert not file.reload_if_changed()
    path.write_text(TEXT + "10.0.0.9 controller-1\n")
    assert file.reload_if_changed()
    assert file.lookup("controller-1") == ["10.0.0.9"]


def test_a_touched_file_with_the_same_names_is_no_change(path):
    file = HostsFile(str(path))
    path.write_text(TEXT + "# a comment\n")
    assert not file.reload_if_changed()


def test_a_file_that_appears_and_goes(directory):
    path = directory / "hosts"
    file = HostsFile(str(path))
    assert file.lookup("controller") == []
    path.write_text(TEXT)
    assert file.reload_if_changed()
    assert file.lookup("controller") == ["192.168.204.2"]
    path.unlink()
    assert not file.reload_if_changed()


# A name that vanishes (decision 23)


@pytest.fixture
def clock():
    return Clock()


def test_a_name_that_vanishes_keeps_its_address_for_a_minute(path, clock):
    """Files are rewritten by truncating: for two seconds there is nothing in it."""
    file = HostsFile(str(path), clock)
    path.write_text("")
    assert not file.reload_if_changed()
    assert file.look_again_soon
    clock.now += KEPT_SECS - 0.1
    assert file.lookup("Controller") == ["192.168.204.2"]
    assert file.own_address("controller-0") == "192.168.204.3"
    clock.now += 0.2
    assert file.lookup("controller") == []
    assert not file.look_again_soon


def test_the_end_of_that_minute_is_a_change(path, clock):
    file = HostsFile(str(path), clock)
    path.unlink()
    file.reload_if_changed()
    clock.now += KEPT_SECS - 1
    assert not file.reload_if_changed()
    clock.now += 2
    assert file.lookup("controller") == []


def test_a_name_that_is_back_counts_as_it_is_now(path, clock):
    file = HostsFile(str(path), clock)
    path.write_text("")
    file.reload_if_changed()
    clock.now += 3
    path.write_text("10.9.9.9 controller\n")
    assert file.reload_if_changed()
    assert file.lookup("controller") == ["10.9.9.9"]
    assert file.lookup("controller-0") == ["192.168.204.3", "fd00::3"]


def test_a_minute_is_counted_from_the_first_look_without_the_name(path, clock):
    file = HostsFile(str(path), clock)
    for second in range(0, 60, 3):
        path.write_text("# still writing\n" * (second + 1))
        file.reload_if_changed()
        clock.now += 3
    assert file.lookup("controller") == []


def test_another_address_of_the_name_counts_at_once(path, clock):
    file = HostsFile(str(path), clock)
    path.write_text("10.9.9.9 controller\n")
    assert file.reload_if_changed()
    assert file.lookup("controller") == ["10.9.9.9"]


def test_a_read_that_fails_is_repeated_and_what_is_known_stays(path, monkeypatch):
    """Without descriptors for a moment a daemon must not be deaf for good."""
    hosts = HostsFile(str(path))
    known = hosts.lookup("controller")
    path.write_text(path.read_text() + "127.0.0.9 new\n")
    with monkeypatch.context() as patched:
        patched.setattr(files, "read_text", raising(OSError(errno.EMFILE, "no descriptors")))
        assert not hosts.reload_if_changed()
    assert hosts.lookup("controller") == known
    assert hosts.reload_if_changed()
    assert hosts.lookup("new") == ["127.0.0.9"]


def test_a_fifo_in_its_place_does_not_block(tmp_path, caplog):
    os.mkfifo(tmp_path / "hosts")
    file = HostsFile(str(tmp_path / "hosts"))
    assert file.lookup("controller") == []
    assert "not a regular file" in caplog.text


def test_a_file_of_any_size_is_read_within_bounds(directory, caplog):
    path = directory / "hosts"
    path.write_text("10.0.0.1 controller\n" * 100_000)
    assert HostsFile(str(path)).lookup("controller") == []
    assert "too large" in caplog.text


@pytest.mark.parametrize(
    "line",
    ["10.0.0.1", "controller 10.0.0.1", "300.0.0.1 controller", "10.0.0.1 # controller", "\0\xff"],
)
def test_rubbish_is_passed_over(line):
    assert parse_hosts(f"{line}\n10.0.0.2 controller\n")["controller"] == ["10.0.0.2"]


def test_a_name_beyond_255_characters_is_passed_over():
    assert parse_hosts("10.0.0.1 " + "x" * 256 + " good\n") == {"good": ["10.0.0.1"]}


@given(st.text(max_size=400))
def test_any_text_is_parsed(text):
    for addresses in parse_hosts(text).values():
        assert addresses


def test_the_own_address_is_the_first_that_is_not_loopback(path):
    assert HostsFile(str(path)).own_address("controller-0", "lo") == "192.168.204.3"


def test_else_it_is_that_of_the_management_interface(path, monkeypatch):
    monkeypatch.setattr(hosts, "interface_address", {"mgmt0": "192.168.204.50"}.get)
    assert HostsFile(str(path)).own_address("compute-0", "mgmt0") == "192.168.204.50"
    assert HostsFile(str(path)).own_address("unnamed", "mgmt0") == "192.168.204.50"


@pytest.fixture
def real_path(tmp_path):
    """A file on the disk, for what asks the kernel too: that knows no file system in memory."""
    file = tmp_path / "hosts"
    file.write_text(TEXT)
    return file


def test_else_it_is_the_names_loopback_one(real_path):
    file = HostsFile(str(real_path))
    assert file.own_address("compute-0") == "127.0.1.1"
    assert file.own_address("compute-0", "nosuchif0") == "127.0.1.1"


def test_else_there_is_none_yet(real_path):
    assert HostsFile(str(real_path)).own_address("unnamed", "nosuchif0") is None


def test_a_numeric_hostname_is_its_own_address(path):
    assert HostsFile(str(path)).own_address("10.1.1.1") == "10.1.1.1"


def test_the_address_of_an_interface_is_asked_of_the_kernel():
    assert interface_address("lo") == "127.0.0.1"


@pytest.mark.parametrize("name", ["nosuchif0", "", "x" * 16, "ü"])
def test_an_interface_that_cannot_be_has_no_address(name):
    assert interface_address(name) is None


def test_an_interface_with_ipv6_only(tmp_path, monkeypatch):
    table = tmp_path / "if_inet6"
    table.write_text(
        "fe80000000000000000000000000000a 05 40 20 80   mgmt0\n"
        "fd000000000000000000000000000042 05 40 00 80   mgmt0\n"
        "fd000000000000000000000000000043 06 40 00 80  mgmt00\n"
    )
    monkeypatch.setattr(hosts, "_IF_INET6", str(table))
    assert interface_address("mgmt0") == "fd00::42"
