"""monitoring.md: every metric, kind of problem and alert that there is, and none that there is not.

What promtool says of the metrics and the alerts is in `tests/functional/test_promtool.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestmtce.core.server.guest_protocol import BAD_MESSAGES
from guestmtce.core.shared.condition import Condition
from guestmtce.ctl.commands import COMMANDS
from tests.documents import DOCS, ROOT
from tests.unit.metrics_support import DAEMONS, rendered

TEXT = (DOCS / "monitoring.md").read_text("utf-8")
HEADINGS = re.findall(r"^### (.+)$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M)
RULES = (ROOT / "contrib/prometheus/guestmtce.rules.yml").read_text("utf-8")
RULE_TESTS = (ROOT / "contrib/prometheus/guestmtce.tests.yml").read_text("utf-8")
ALERTS = dict(
    re.findall(r"^      - alert: (\w+)\n(.*?)(?=^      - alert|^  - name|\Z)", RULES, re.M | re.S)
)


def table(name: str) -> list[list[str]]:
    """Return the cells of the table that follows the mark `name`."""
    rows = TEXT.split(f"<!-- {name} -->\n")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows]


METRICS = table("metrics")


def documented(daemon: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each metric that the document gives a daemon."""
    found = {}
    for name, owner, kind, _meaning in METRICS:
        if owner in (daemon, "both"):
            bare, _, labels = name.rstrip("}").partition("{")
            found[bare] = (kind, tuple(labels.split(",")) if labels else ())
    return found


def shown(daemon: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each metric that a daemon renders."""
    text = rendered(daemon)
    found = {}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        series = re.search(rf"^{name}(?:_bucket)?(?:{{(.*)}})? ", text, re.MULTILINE)
        assert series, f"{name} has no series from the start"
        labels = re.findall(r'(\w+)="', series[1] or "")
        found[name] = (kind, tuple(label for label in labels if label != "le"))
    return found


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_table_is_what_the_daemon_has(daemon: str) -> None:
    """By name, type and labels; both ways. A host's series are there once a host is."""
    assert shown(daemon) == documented(daemon)


def test_a_metric_has_one_row_and_one_meaning() -> None:
    """What both daemons show is the same in both, and can be told apart."""
    names = [row[0] for row in METRICS]
    assert len(set(names)) == len(names)
    server, agent = (set(re.findall(r"^# HELP (.*)$", rendered(each), re.M)) for each in DAEMONS)
    both = {row[0].partition("{")[0] for row in METRICS if row[1] == "both"}
    assert {line.split()[0] for line in server & agent} == both
    assert {name.split()[0] for name in server} & {name.split()[0] for name in agent} == both
    assert all("{daemon" in row[0] for row in METRICS if row[1] == "both")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_kinds_of_problems(daemon: str) -> None:
    """Each kind has a series from the start, and a row."""
    kinds = re.findall(r'^guestmtce_problems{daemon="\w+",kind="(\w+)"} ', rendered(daemon), re.M)
    assert kinds == sorted(row[0] for row in table("kinds") if row[1] in (daemon, "both"))


def test_each_kind_of_problem_has_its_entry_in_troubleshooting() -> None:
    """That the entry is there, `test_documents.py` sees: it follows every link."""
    for kind, _of, _what, then in table("kinds"):
        assert "](troubleshooting.md#" in then, kind


@pytest.mark.parametrize("daemon", DAEMONS)
def test_series_are_there_before_anything_is_counted(daemon: str) -> None:
    """A rate has to have seen the 0."""
    text = rendered(daemon)
    for condition in Condition:
        assert f'guestmtce_instances{{daemon="{daemon}",state="{condition}"}} ' in text
    counters = re.findall(r"^# TYPE (\w+) counter$", text, re.MULTILINE)
    assert counters
    for name in counters:
        assert name.endswith("_total")
        assert re.search(rf"^{name}(?:{{.*}})? \d+$", text, re.MULTILINE)


def reasons(*paths: str) -> Iterator[str]:
    """Yield the words with which the modules at `paths` refuse something."""
    raising = re.compile(r'\b(?:PeerError|ProtocolError|Unneeded|NotYet)\(\s*"(\w+)"')
    counting = re.compile(r'(?:reason=|\.drop\(|_cannot_send\(|dropped\[)"(\w+)"')
    for path in paths:
        for file in sorted((ROOT / "guestmtce").glob(path)):
            text = file.read_text("utf-8")
            yield from raising.findall(text)
            yield from counting.findall(text)


def test_every_reason_of_the_links_has_a_series() -> None:
    """What a module raises or counts is named where the metrics are made."""
    known = {
        reason
        for daemon in DAEMONS
        for reason in re.findall(r'(?:reason|what)="(\w+)"', rendered(daemon))
    }
    raised = {
        *reasons("core/shared/mtc_message.py", "core/shared/stamp.py", "core/agent/[ae]*.py"),
        *reasons("core/agent/mtc_commands.py", "agent/*.py", "server/a*.py", "runtime/intake.py"),
        *reasons("core/agent/vim_answers.py"),
    }
    assert raised - known == {"answered", "no_instances"}, (
        "a query that was answered is no alarm; an answer without instances is a bad_answer"
    )
    assert len(raised) > 20


def test_every_reason_for_a_bad_message_has_a_series() -> None:
    """Of the guest channel."""
    raised = {*reasons("core/server/guest_protocol.py", "core/server/instance.py")}
    in_arguments = {"bad_key", "bad_header", "invocation_id"}
    assert set(BAD_MESSAGES) == raised | in_arguments


# The alerts


def test_each_alert_has_a_row_and_a_test() -> None:
    """In the order of the file; the severity is the rule's."""
    rows = table("alerts")
    assert [row[0] for row in rows] == list(ALERTS)
    for name, severity, *_rest in rows:
        assert f"labels: {{severity: {severity}}}" in ALERTS[name]
        tests = re.findall(rf"alertname: {name}\n(.*?)(?=alertname:|\Z)", RULE_TESTS, re.S)
        assert any("exp_alerts: []" in test for test in tests), f"{name}: when it is silent"
        assert any("exp_labels:" in test for test in tests), f"{name}: when it fires"


@pytest.mark.parametrize("name", ALERTS)
def test_what_an_alert_says_is_there(name: str) -> None:
    """Summary, description, and a remedy with a command and a heading of this documentation."""
    rule = " ".join(ALERTS[name].split())
    for part in ("summary:", "description: >-", "remedy: >-"):
        assert part in rule
    remedy = rule.split("remedy: >- ")[1]
    commands = re.findall(r"guestctl ([a-z-]+)", rule)
    assert commands
    assert set(commands) <= set(COMMANDS)
    (heading,) = re.findall(r'docs/troubleshooting\.md, "(.+?)"\.', remedy)
    assert heading in HEADINGS


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_looks_at_what_there_is(name: str) -> None:
    """Every metric, and every kind of problem, that a rule names."""
    known = {row[0].partition("{")[0] for row in METRICS}
    known |= {f"{row[0].partition('{')[0]}_bucket" for row in METRICS if row[2] == "histogram"}
    expression = ALERTS[name].split("labels:")[0]
    named = set(re.findall(r"\b(?:guestmtce|node)_\w+", expression))
    assert named
    assert named - known <= {"node_textfile_mtime_seconds"}
    kinds = {row[0] for row in table("kinds")}
    for words in re.findall(r'kind!?=~?"([\w|]+)"', expression):
        assert set(words.split("|")) <= kinds


def test_the_paths_that_the_document_names() -> None:
    """Files of the repository."""
    paths = re.findall(r"`(contrib/[\w./-]+)`", TEXT)
    assert paths
    assert [path for path in paths if not Path(ROOT, path).exists()] == []
