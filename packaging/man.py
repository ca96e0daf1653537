"""Make the guest client's manual page from what it prints as --help: `man.py PROGRAM VERSION`.

The client stands alone; docs/manual.py makes the other pages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time


def page(name: str, version: str, text: str, day: str) -> str:
    """Return the page of `name` in roff."""
    usage, _, rest = text.partition("\n\n")
    purpose = " ".join(rest.partition("\n\n")[0].split())
    summary = purpose.partition(".")[0] or "see below"
    lines = [
        f'.TH "{name}" 8 "{day}" "mtce-guest {version}" "StarlingX"',
        ".SH NAME",
        _escape(f"{name} - {summary}"),
        ".SH SYNOPSIS",
        *_verbatim(usage.replace("usage: ", "")),
        ".SH DESCRIPTION",
        *_verbatim(rest),
    ]
    return "\n".join(lines) + "\n"


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
        "COLUMNS": "80",
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
