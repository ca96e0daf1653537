"""Metrics as Prometheus text 0.0.4."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.runtime.metrics import Registry


@pytest.fixture
def registry():
    return Registry()


def test_a_counter(registry):
    counter = registry.counter("votes_total", "Votes that ended, by result.", ["result"])
    counter.inc("accept")
    counter.inc("accept", by=2)
    counter.inc("reject")
    assert registry.render() == (
        "# HELP votes_total Votes that ended, by result.\n"
        "# TYPE votes_total counter\n"
        'votes_total{result="accept"} 3\n'
        'votes_total{result="reject"} 1\n'
    )
    assert counter.value("accept") == 3
    assert counter.value("timeout") == 0


def test_one_without_labels_is_there_from_the_start(registry):
    """A rate over a counter that appears with its first event misses that event."""
    registry.counter("losses_total", "Losses.")
    registry.counter("votes_total", "Votes.", ["result"])
    assert "losses_total 0\n" in registry.render()
    assert "votes_total{" not in registry.render()


def test_a_gauge(registry):
    gauge = registry.gauge("queue", "Length.", ["kind"])
    gauge.set(5, "alarm")
    gauge.set(2.5, "alarm")
    gauge.inc("alarm", by=-1)
    assert 'queue{kind="alarm"} 1.5\n' in registry.render()
    assert "# TYPE queue gauge\n" in registry.render()


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
    assert histogram.count == 4


@given(st.lists(st.floats(-10, 10)), st.lists(st.floats(-5, 5), min_size=1, unique=True))
def test_every_bucket_counts_what_is_not_above_its_bound(values, bounds):
    registry = Registry()
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
    registry.gauge("g", "G.").set(value)
    assert registry.render().endswith(f"\ng {text}\n")


def parse_label(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


@given(st.text(), st.text())
def test_help_and_label_values_are_escaped(help_text, value):
    registry = Registry()
    registry.gauge("g", help_text, ["label"]).set(1, value)
    lines = registry.render().split("\n")
    assert len(lines) == 4
    assert parse_label(lines[0][len("# HELP g ") :]) == help_text
    found = re.fullmatch(r'g\{label="((?:[^"\\]|\\.)*)"\} 1', lines[2], re.DOTALL)
    assert found
    assert parse_label(found[1]) == value


def test_help_text_may_be_quoted_as_it_is(registry):
    registry.gauge("g", 'a "quoted" word')
    assert '# HELP g a "quoted" word\n' in registry.render()


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a\n", "ä"])
def test_a_wrong_name_is_a_mistake_of_ours(registry, name):
    with pytest.raises(ValueError, match="not a metric name"):
        registry.counter(name, "x")
    with pytest.raises(ValueError, match="not a label name"):
        registry.counter("fine", "x", [name])


def test_a_wrong_number_of_labels_is_a_mistake_of_ours(registry):
    gauge = registry.gauge("g", "G.", ["a"])
    with pytest.raises(ValueError, match="has the labels"):
        gauge.set(1)
    with pytest.raises(ValueError, match="has the labels"):
        gauge.inc("a", "b")


def test_a_name_is_taken_once(registry):
    registry.counter("a", "A.")
    with pytest.raises(ValueError, match="already"):
        registry.gauge("a", "A.")
