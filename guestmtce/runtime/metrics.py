"""Metrics in the Prometheus text format 0.0.4: cheap to count, rendered when asked for.

Most numbers are plain attributes of the objects that count them; a function given to
`Registry.collect` reads them at render time. No instance name or guest text in a label.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, Union

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Number = Union[int, float]
LabelValues = tuple[str, ...]
_M = TypeVar("_M", bound="Metric")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

# Seconds, from what a loop should need to what is no longer tolerable.
DEFAULT_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metric:
    """What all kinds have in common: a name, a help text, label names, lines to render."""

    kind = "untyped"

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a metric name: {name!r}")
        for label in labels:
            if not _LABEL.fullmatch(label) or label.startswith("__"):
                raise ValueError(f"not a label name: {label!r}")
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)

    def render(self) -> list[str]:
        """Return the metric's lines, HELP and TYPE first."""
        help_text = self.help_text.replace("\\", r"\\").replace("\n", r"\n")
        head = [f"# HELP {self.name} {help_text}", f"# TYPE {self.name} {self.kind}"]
        return head + self.samples()

    def samples(self) -> list[str]:
        """Return one line for each value."""
        raise NotImplementedError

    def _check(self, values: LabelValues) -> None:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)}")


class Histogram(Metric):
    """How observed values spread over buckets; `buckets` are their upper bounds, ascending."""

    kind = "histogram"

    def __init__(
        self, name: str, help_text: str, buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> None:
        super().__init__(name, help_text)
        self._bounds = sorted(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self) -> list[str]:
        """Return the cumulative buckets, the sum and the count."""
        lines = []
        total = 0
        for bound, count in zip([*self._bounds, math.inf], self._counts):
            total += count
            lines.append(f'{self.name}_bucket{{le="{_number(bound)}"}} {total}')
        return [*lines, f"{self.name}_sum {_number(self._sum)}", f"{self.name}_count {total}"]


class _Collected(Metric):
    """Values that a function returns at render time."""

    def __init__(
        self,
        kind: str,
        name: str,
        help_text: str,
        labels: Sequence[str],
        function: Callable[[], Number | Mapping[LabelValues, Number]],
    ) -> None:
        super().__init__(name, help_text, labels)
        self.kind = kind
        self._function = function

    def samples(self) -> list[str]:
        value = self._function()
        values: Iterable[tuple[LabelValues, Number]]
        values = sorted(value.items()) if isinstance(value, Mapping) else [((), value)]
        lines = []
        for labels, number in values:
            self._check(labels)
            lines.append(f"{self.name}{_labels(self.labels, labels)} {_number(number)}")
        return lines


class Registry:
    """The metrics of a daemon, rendered in the order of their making."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def histogram(
        self, name: str, help_text: str, buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> Histogram:
        """Make a histogram."""
        return self._add(Histogram(name, help_text, buckets))

    def collect(
        self,
        kind: str,
        name: str,
        help_text: str,
        function: Callable[[], Number | Mapping[LabelValues, Number]],
        labels: Sequence[str] = (),
    ) -> None:
        """Take the value from `function` whenever the metrics are rendered.

        `kind` is "counter" or "gauge"; with `labels` the function returns label values →
        number, such as `{("in", "QRY_INST"): 3}`.
        """
        self._add(_Collected(kind, name, help_text, labels, function))

    def count(self, name: str, help_text: str, label: str, *counters: Counter[str]) -> None:
        """Render the sum of `counters` as a counter `name`, its keys as values of `label`."""

        def read() -> Mapping[LabelValues, Number]:
            total: Counter[str] = sum(counters, Counter())
            return {(key,): count for key, count in total.items()}

        self.collect("counter", name, help_text, read, (label,))

    def render(self) -> str:
        """Return everything as text, with the line end that the format asks for."""
        lines = [line for metric in self._metrics.values() for line in metric.render()]
        return "".join(line + "\n" for line in lines)

    def _add(self, metric: _M) -> _M:
        if metric.name in self._metrics:
            raise ValueError(f"there is a metric {metric.name} already")
        self._metrics[metric.name] = metric
        return metric


def _labels(names: Sequence[str], values: LabelValues) -> str:
    if not names:
        return ""
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values))
    return f"{{{pairs}}}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: Number) -> str:
    """Return a number as the format spells it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value)
