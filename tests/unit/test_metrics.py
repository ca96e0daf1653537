"""Metrics as Prometheus text 0.0.4."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime.metrics import Registry
from guestmtce.runtime.metrics_file import MetricsFile
from tests.simulation import SimulatedLoop


@pytest.fixture
def registry():
    return Registry("guestServer")


def test_counters_are_summed_by_their_keys(registry):
    votes, more = Counter(accept=3), Counter(reject=1, accept=1)
    registry.count("votes_total", "Votes that ended, by result.", "result", votes, more)
    votes["accept"] += 1
    assert registry.render() == (
        "# HELP votes_total Votes that ended, by result.\n"
        "# TYPE votes_total counter\n"
        'votes_total{result="accept"} 5\n'
        'votes_total{result="reject"} 1\n'
    )


def test_a_histogram_is_cumulative_and_its_bounds_are_inclusive(registry):
    histogram = registry.histogram("late", "Lateness.", [0.1, 1.0])
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    assert registry.render() == (
        "# HELP late Lateness.\n"
        "# TYPE late histogram\n"
        'late_bucket{le="0.1"} 2\n'
        'late_bucket{le="1.0"} 3\n'
        'late_bucket{le="+Inf"} 4\n'
        "late_sum 7.65\n"
        "late_count 4\n"
    )


@given(st.lists(st.floats(-10, 10)), st.lists(st.floats(-5, 5), min_size=1, unique=True))
def test_every_bucket_counts_what_is_not_above_its_bound(values, bounds):
    registry = Registry("guestServer")
    histogram = registry.histogram("h", "H.", bounds)
    for value in values:
        histogram.observe(value)
    for bound, count in re.findall(r'le="([^"]+)"} (\d+)', registry.render()):
        assert int(count) == sum(value <= float(bound) for value in values)


def test_collected_values_are_read_when_rendered(registry):
    state = {"n": 1}
    registry.collect("gauge", "lag", "Lag.", lambda: state["n"])
    registry.collect(
        "counter", "datagrams_total", "D.", lambda: {("in", "x"): state["n"]}, ["direction", "cmd"]
    )
    state["n"] = 7
    text = registry.render()
    assert "lag 7\n" in text
    assert 'datagrams_total{direction="in",cmd="x"} 7\n' in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
        (0.1, "0.1"),
        (3, "3"),
    ],
)
def test_numbers_are_spelt_as_the_format_wants(registry, value, text):
    registry.collect("gauge", "g", "G.", lambda: value)
    assert registry.render().endswith(f"\ng {text}\n")


def parse_label(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


@given(st.text(), st.text())
def test_help_and_label_values_are_escaped(help_text, value):
    registry = Registry("guestServer")
    registry.count("g", help_text, "label", Counter({value: 1}))
    lines = registry.render().split("\n")
    assert len(lines) == 4
    assert parse_label(lines[0][len("# HELP g ") :]) == help_text
    found = re.fullmatch(r'g\{label="((?:[^"\\]|\\.)*)"\} 1', lines[2], re.DOTALL)
    assert found
    assert parse_label(found[1]) == value


def test_help_text_may_be_quoted_as_it_is(registry):
    registry.histogram("g", 'a "quoted" word')
    assert '# HELP g a "quoted" word\n' in registry.render()


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a\n", "ä"])
def test_a_wrong_name_is_a_mistake_of_ours(registry, name):
    with pytest.raises(ValueError, match="not a metric name"):
        registry.histogram(name, "x")
    with pytest.raises(ValueError, match="not a label name"):
        registry.count("fine", "x", name)


def test_a_wrong_number_of_labels_is_a_mistake_of_ours(registry):
    registry.collect("gauge", "g", "G.", lambda: {("a", "b"): 1}, ["a"])
    with pytest.raises(ValueError, match="has the labels"):
        registry.render()


def test_a_name_is_taken_once(registry):
    registry.count("a", "A.", "x")
    with pytest.raises(ValueError, match="already"):
        registry.histogram("a", "A.")


# The file for a node exporter


@pytest.fixture
def loop():
    simulated = SimulatedLoop()
    yield simulated
    simulated.close()


def test_the_file_is_written_now_and_every_15_s(loop, tmp_path):
    path = tmp_path / "m.prom"
    turns = []
    file = MetricsFile(loop, lambda: f"turn {turns.append(1) or len(turns)}\n", "")
    file.start(str(path))
    assert path.read_text() == "turn 1\n"
    loop.advance(15.1)
    assert path.read_text() == "turn 2\n"
    file.start(str(path))
    assert path.read_text() == "turn 3\n", "a reload writes it at once"
    file.start(None)
    loop.advance(60)
    assert not path.exists(), "what stays would say for ever that all is well"


def test_a_file_that_cannot_be_written_is_a_problem_until_it_can(loop, tmp_path, caplog):
    path = tmp_path / "directory" / "m.prom"
    file = MetricsFile(loop, lambda: "x\n", "")
    file.start(str(path))
    loop.advance(60)
    assert file.problem == f"cannot write {path}: No such file or directory; make its directory"
    assert caplog.messages == [file.problem]
    path.parent.mkdir()
    loop.advance(15.1)
    assert (file.problem, path.read_text()) == ("", "x\n")
