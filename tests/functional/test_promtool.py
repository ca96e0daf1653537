"""What Prometheus itself says of our metrics and alerts (monitoring.md).

The metrics are those of both daemons in this process, and of real ones as they lie in the file.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.documents import DOCS, ROOT
from tests.peers.journal import wait_until
from tests.peers.root import Root
from tests.unit.metrics_support import DAEMONS, rendered

RULES = ROOT / "contrib" / "prometheus"
PROMTOOL = shutil.which("promtool")


def promtool(*arguments: str, given: str = "") -> str:
    """Return what promtool says; it has to be content."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run(
        [PROMTOOL, *arguments],
        cwd=RULES,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_metrics_have_no_fault(daemon: str) -> None:
    """Names, units, HELP and TYPE: it prints each fault, and nothing if there is none."""
    assert not promtool("check", "metrics", given=rendered(daemon))


OWNERS = {"guestServer": ("compute-0", "client"), "guestAgent": ("controller-0", "agent")}


@pytest.mark.parametrize("program", DAEMONS)
def test_the_file_of_a_process(program: str) -> None:
    """Written at SIGHUP, moved by another, readable for all, gone when the daemon stops."""
    hostname, section = OWNERS[program]
    with Root() as root:
        directory = root.path / "metrics"
        directory.mkdir()

        def only(name: str) -> bool:
            return [path.name for path in directory.iterdir()] == [name]

        daemon = root.start(program)
        for name in ("first.prom", "second.prom"):
            root.write_ini(program, hostname, {section: {"metrics_file": f"/metrics/{name}"}})
            daemon.signal(signal.SIGHUP)
            wait_until(functools.partial(only, name))
        file = directory / "second.prom"
        assert file.stat().st_mode & 0o777 == 0o644
        text = file.read_text("ascii")
        daemon.stop()
        assert not list(directory.iterdir())
    assert f'guestmtce_build_info{{daemon="{program}",version="' in text
    assert not promtool("check", "metrics", given=text)


def test_the_linter_finds_faults() -> None:
    """Or its silence would say nothing."""
    with pytest.raises(AssertionError, match="counter metrics should have"):
        promtool("check", "metrics", given="# HELP a A.\n# TYPE a counter\na 1\n")


def test_the_alerts_can_be_read() -> None:
    """Syntax, and templates."""
    assert "SUCCESS" in promtool("check", "rules", "guestmtce.rules.yml")


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    """`guestmtce.tests.yml` has the series, the time, and the whole text of the alert."""
    assert "SUCCESS" in promtool("test", "rules", "guestmtce.tests.yml")


def test_the_queries_of_the_document_are_queries(tmp_path: Path) -> None:
    """monitoring.md, "Queries for a dashboard": each as a rule, of metrics that there are."""
    part = (DOCS / "monitoring.md").read_text("utf-8").split("## Queries for a dashboard\n")[1]
    queries = re.findall(r"^    ([^#\n].*)$", part.split("\n## ")[0], re.MULTILINE)
    assert len(queries) >= 5
    rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", str(file))
    known = "".join(map(rendered, DAEMONS))
    for name in re.findall(r"guestmtce_\w+", "".join(queries)):
        assert f"\n{name}{{" in known or f"\n{name} " in known


def test_both_files_may_lie_in_one_directory() -> None:
    """A node exporter reads them as one: no series comes twice, no name has two meanings."""
    lines = [line for each in DAEMONS for line in rendered(each).splitlines()]
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(set(series)) == len(series)
    helps = {line.split()[2]: line for line in lines if line.startswith("# HELP")}
    assert all(line in helps.values() for line in lines if line.startswith("# HELP"))
