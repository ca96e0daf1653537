"""Metrics in the Prometheus text format 0.0.4: cheap to count, rendered when asked for.

Most numbers are plain attributes of the objects that count them; a function given to
`Registry.collect` reads them at render time. No instance name or guest text in a label.

A metric that both daemons have is *shared*: each of its series has the label `daemon`, so that
one name means one thing, and the files of both may lie in one directory.
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
# What gives a metric's value: a number, or one for each combination of label values.
Reading = Callable[[], Union[Number, Mapping[LabelValues, Number]]]
# Name, help text, and what gives the value.
Row = tuple[str, str, Reading]
_M = TypeVar("_M", bound="Metric")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

# Seconds, from what a loop should need to what is no longer tolerable.
DEFAULT_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metric:
    """What all kinds have in common: a name, a help text, label names, lines to render."""

    kind = "untyped"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        fixed: Mapping[str, str] | None = None,
    ) -> None:
        """`fixed` are labels that every series has; they come first."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a metric name: {name!r}")
        for label in labels:
            if not _LABEL.fullmatch(label) or label.startswith("__"):
                raise ValueError(f"not a label name: {label!r}")
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)
        self._fixed = dict(fixed or {})

    def render(self) -> list[str]:
        """Return the metric's lines, HELP and TYPE first."""
        help_text = self.help_text.replace("\\", r"\\").replace("\n", r"\n")
        head = [f"# HELP {self.name} {help_text}", f"# TYPE {self.name} {self.kind}"]
        return head + self.samples()

    def samples(self) -> list[str]:
        """Return one line for each value."""
        raise NotImplementedError

    def _line(self, suffix: str, labels: Mapping[str, str], value: Number) -> str:
        pairs = ",".join(
            f'{name}="{_escape(text)}"' for name, text in {**self._fixed, **labels}.items()
        )
        braces = f"{{{pairs}}}" if pairs else ""
        return f"{self.name}{suffix}{braces} {_number(value)}"


class Histogram(Metric):
    """How observed values spread over buckets; `buckets` are their upper bounds, ascending."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        fixed: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, help_text, (), fixed)
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
            lines.append(self._line("_bucket", {"le": _number(bound)}, total))
        return [*lines, self._line("_sum", {}, self._sum), self._line("_count", {}, total)]


class _Collected(Metric):
    """Values that a function returns at render time.

    `keys` are label values that are shown as 0 when the function does not return them: who
    computes a rate has to have seen the series before it grows.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        help_text: str,
        labels: Sequence[str],
        function: Reading,
        *,
        keys: Iterable[LabelValues],
        fixed: Mapping[str, str] | None,
    ) -> None:
        super().__init__(name, help_text, labels, fixed)
        self.kind = kind
        self._function = function
        self._zeros: dict[LabelValues, Number] = dict.fromkeys(keys, 0)

    def samples(self) -> list[str]:
        value = self._function()
        if not isinstance(value, Mapping):
            return [self._line("", {}, value)]
        lines = []
        for labels, number in sorted({**self._zeros, **value}.items()):
            if len(labels) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, not {len(labels)}")
            lines.append(self._line("", dict(zip(self.labels, labels)), number))
        return lines


class Registry:
    """The metrics of a daemon, rendered in the order of their making."""

    def __init__(self, daemon: str) -> None:
        self._fixed = {"daemon": daemon}
        self._metrics: dict[str, Metric] = {}

    def histogram(
        self,
        name: str,
        help_text: str,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        *,
        shared: bool = False,
    ) -> Histogram:
        """Make a histogram; `shared` if the other daemon has it too."""
        return self._add(Histogram(name, help_text, buckets, self._fixed if shared else None))

    def collect(
        self,
        kind: str,
        name: str,
        help_text: str,
        function: Reading,
        labels: Sequence[str] = (),
        *,
        keys: Iterable[LabelValues] = (),
        shared: bool = False,
    ) -> None:
        """Take the value from `function` whenever the metrics are rendered.

        `kind` is "counter" or "gauge"; with `labels` the function returns label values →
        number, such as `{("in", "QRY_INST"): 3}`, and `keys` are those that are there from the
        start, as 0. `shared` if the other daemon has the metric too.
        """
        fixed = self._fixed if shared else None
        self._add(_Collected(kind, name, help_text, labels, function, keys=keys, fixed=fixed))

    def collect_all(self, kind: str, *rows: Row, shared: bool = False) -> None:
        """Take the value of each row, without labels, as `collect` does."""
        for name, help_text, function in rows:
            self.collect(kind, name, help_text, function, shared=shared)

    def count(
        self,
        name: str,
        help_text: str,
        label: str,
        *counters: Counter[str],
        keys: Iterable[str] = (),
        shared: bool = False,
    ) -> None:
        """Render the sum of `counters` as a counter `name`, its keys as values of `label`.

        `keys` are there from the start, as 0.
        """

        def read() -> Mapping[LabelValues, Number]:
            total: Counter[str] = Counter()
            for counter in counters:
                total.update(counter)
            return {(key,): count for key, count in total.items()}

        zeros = ((key,) for key in keys)
        self.collect("counter", name, help_text, read, (label,), keys=zeros, shared=shared)

    def tally(
        self,
        name: str,
        help_text: str,
        label: str,
        words: Callable[[], Iterable[str]],
        keys: Iterable[str],
        *,
        shared: bool = False,
    ) -> None:
        """Render as a gauge how often each of `words()` is there, by `label`; `keys` always are."""

        def read() -> Mapping[LabelValues, Number]:
            return {(word,): count for word, count in Counter(words()).items()}

        zeros = ((key,) for key in keys)
        self.collect("gauge", name, help_text, read, (label,), keys=zeros, shared=shared)

    def render(self) -> str:
        """Return everything as text, with the line end that the format asks for."""
        lines = [line for metric in self._metrics.values() for line in metric.render()]
        return "".join(line + "\n" for line in lines)

    def _add(self, metric: _M) -> _M:
        if metric.name in self._metrics:
            raise ValueError(f"there is a metric {metric.name} already")
        self._metrics[metric.name] = metric
        return metric


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: Number) -> str:
    """Return a number as the format spells it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value)
