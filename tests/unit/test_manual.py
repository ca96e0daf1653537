"""The man pages: all that `--help` and the ini say is in them, and nothing breaks roff."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from docs import manual
from guestmtce.ctl.commands import COMMANDS

PAGES = manual.pages()


def rendered(name: str) -> str:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii", "-P-cbou"],
        input=PAGES[name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == "", "groff has something to say"
    return done.stdout


def test_the_pages_that_there_are():
    assert set(PAGES) == {"guestServer.8", "guestAgent.8", "guestctl.1", "guest.ini.5"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_sections_that_a_reader_expects(name):
    headings = re.findall(r"^\.SH (.*)$", PAGES[name], flags=re.MULTILINE)
    assert headings[:1] == ["NAME"]
    assert headings[-1] == "SEE ALSO"
    assert "DESCRIPTION" in headings
    assert not re.search(r"^[.'](?!SH|TH|PP|TP|TQ|nf|fi)", PAGES[name], flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_guestctl_is_told(command):
    escaped = command.replace("-", r"\-")
    assert re.search(rf"^{re.escape(escaped)}\b", PAGES["guestctl.1"], flags=re.MULTILINE)


@pytest.mark.parametrize("setting", ["rx_port", "hbs_pulse_period", "metrics_file", "debug_level"])
def test_settings_are_told_with_the_words_of_the_ini(setting):
    assert re.search(rf"^\.T[PQ]\n{setting} =", PAGES["guest.ini.5"], flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff (package groff)")
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say(name):
    text = rendered(name)
    assert "--json" in text or name != "guestctl.1"
    assert max(map(len, text.splitlines())) <= 90
