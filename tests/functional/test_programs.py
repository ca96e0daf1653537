"""The programs of bin/ as an operator starts them: whatever is around them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "bin"
PROGRAMS = ("guestServer", "guestAgent", "guestctl")

pytestmark = pytest.mark.skipif(
    not os.path.exists("/usr/bin/python3"), reason="there is no /usr/bin/python3, which they name"
)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("where", ["PYTHONPATH", "working directory"])
def test_a_foreign_module_is_not_taken_for_the_librarys(program, where, tmp_path):
    """A `socket.py` that is not Python's, in the way of an operator or a script."""
    (tmp_path / "socket.py").write_text("raise SystemExit('foreign')\n")
    (tmp_path / "guestmtce.py").write_text("raise SystemExit('foreign')\n")
    environment = dict(os.environ)
    if where == "PYTHONPATH":
        environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [BIN / program, "--version"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{program} ")


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path):
    """`guestctl > /dev/full`."""
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run(
            [BIN / "guestctl", "--root", str(tmp_path), "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "guestctl: cannot write the output: No space left on device\n"
