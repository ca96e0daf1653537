"""Make the guest client's manual page from what it prints as --help: `man.py PROGRAM VERSION`.

The client stands alone; docs/manual.py makes the other pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

# A terminal's 80, less what man(1) moves a section's text to the right.
_COLUMNS = "73"
_FILES = (
    ("/etc/guest-client/guest-client.conf", "the settings; it explains each"),
    ("/dev/virtio-ports/cgcs.heartbeat", "the port to the host"),
    ("/usr/share/guest-client", "samples of health and event scripts"),
    ("/var/log/guest-client.log", "the log, where there is no syslog"),
)
_EXIT_STATUS = (
    ("0", "stopped; --check and --selftest: no problem"),
    ("1", "it cannot start; --check and --selftest: a problem, which they name"),
    ("2", "wrong usage"),
)


def page(name: str, version: str, text: str, day: str) -> str:
    """Return the page of `name` in roff."""
    usage, purpose, options = text.split("\n\n", 2)
    options = options.partition(":\n")[2]
    lines = [
        f'.TH "{name.upper()}" 8 "{day}" "mtce-guest {version}" "StarlingX"',
        ".SH NAME",
        _escape(f"{name} - {purpose.strip().rstrip('.').lower()}"),
        ".SH SYNOPSIS",
        *_verbatim(re.sub("^(usage: |       )", "", usage, flags=re.MULTILINE)),
        ".SH DESCRIPTION",
        _escape(purpose.strip()),
        ".SH OPTIONS",
        *_verbatim(re.sub("^  ", "", options, flags=re.MULTILINE)),
        ".SH FILES",
        *_list(_FILES),
        ".SH EXIT STATUS",
        *_list(_EXIT_STATUS),
    ]
    return "\n".join(lines) + "\n"


def _list(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in rows:
        yield from (".TP", _escape(term), _escape(meaning))


def _verbatim(text: str) -> list[str]:
    return [".nf", *(_escape(line) for line in text.splitlines()), ".fi"]


def _escape(line: str) -> str:
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line


def main() -> None:
    """Print the page."""
    program, version = sys.argv[1:]
    environment = {
        **os.environ,
        "COLUMNS": _COLUMNS,
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, program, "--help"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
    name = os.path.basename(program).replace("guest_client.py", "guest-client")
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    day = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    sys.stdout.write(page(name, version, text.decode(), day))


if __name__ == "__main__":
    main()
