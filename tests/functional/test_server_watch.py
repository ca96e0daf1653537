"""A file system mounted over the channel directory, by the real kernel (decision 29)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest

# In a mount namespace of its own: watch, mount over the directory, and see what is told.
_SCRIPT = """
    import os, subprocess, sys, time
    from guestmtce.runtime.loop import Loop
    from guestmtce.server.watch import DirectoryWatch

    class Watched:
        def listed(self, names):
            print("listed", *sorted(os.fsdecode(name) for name in names), flush=True)
        def changed(self, name, mask):
            print("changed", os.fsdecode(name), flush=True)
        def directory_gone(self):
            print("gone", flush=True)

    directory = sys.argv[1]
    os.makedirs(directory)
    open(os.path.join(directory, "under"), "w").close()
    loop = Loop()
    DirectoryWatch(loop, directory, Watched()).start()
    loop.call_later(0.2, subprocess.run, ["mount", "-t", "tmpfs", "none", directory])
    loop.call_later(4.0, lambda: open(os.path.join(directory, "over"), "w").close())
    loop.call_later(5.0, loop.stop)
    loop.run()
"""


def test_a_mount_over_the_directory_is_noticed(tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], check=False).returncode:
        pytest.skip("needs root, for a mount namespace of its own")
    command = [unshare, "-Urm", sys.executable, "-c", textwrap.dedent(_SCRIPT)]
    done = subprocess.run(
        [*command, str(tmp_path / "qemu")], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["listed under", "listed", "changed over"], done.stderr
