"""The command line of both daemons, and what is left of the old ones'."""

from __future__ import annotations

import pytest

from guestmtce.runtime import options
from guestmtce.runtime.options import split_legacy


@pytest.mark.parametrize(
    ("given", "own", "ignored"),
    [
        ("-a", "", "-a"),
        ("-a -l", "-l", "-a"),
        ("-al", "-l", "-a"),
        ("-lfa", "-l -f", "-a"),
        ("-n 5 -f", "-f", "-n"),
        ("-n5 -f", "-f", "-n"),
        ("-an 5 -f", "-f", "-a -n"),
        ("-ad 2", "-d 2", "-a"),
        ("-d2 -t", "-d2", "-t"),
        ("-d 2", "-d 2", ""),
        ("--debug 2 -V", "--debug 2", "-V"),
        ("--root /a -p", "--root /a", "-p"),
        ("-p -V -t -g -m -n -c -u -i", "", "-p -V -t -g -m -n -c -u -i"),
        ("-m normal -i eth0 -l", "-l", "-m -i"),
        ("-z", "-z", ""),
        ("-fz", "-f -z", ""),
        ("operand", "operand", ""),
        ("-", "-", ""),
        ("-d", "-d", ""),
    ],
)
def test_the_old_options_with_and_without_a_value(given, own, ignored):
    assert split_legacy(given.split()) == (own.split(), ignored.split())


def test_options_are_typed(tmp_path):
    parsed = options.parse("x", ["-fl", "-d", "3", "--root", str(tmp_path), "-v"])
    assert parsed == options.Options(
        foreground=True, syslog=True, debug=3, verbose=True, root=str(tmp_path)
    )
    assert options.parse("x", ["--root", "/"]) == options.Options()


def test_a_relative_root_is_made_absolute(tmp_path, monkeypatch):
    """The daemon changes to `/`."""
    monkeypatch.chdir(tmp_path)
    assert options.parse("x", ["--root", "."]).root == str(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["--root", "/"], ["--root", ""]])
def test_the_root_is_the_root_wherever_a_program_is_started(tmp_path, monkeypatch, arguments):
    """Not the directory that it is started in (decision 47)."""
    (tmp_path / "etc/mtc").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert options.parse("x", arguments).root == ""
