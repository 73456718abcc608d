"""Numbers as evidence: each carries its 95 % interval, its sample size, and how it was found.

What could not be measured is `None` with a reason; there is no zero that means "unknown".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hasten.spec.values import Value

__all__ = ["FIGURE_NAMES", "NOT_MEASURED", "Figure", "Measurement", "MetricInfo", "Split", "unmeasured"]

Split = Literal["calibration", "tuning", "holdout"]


class Figure(Value, frozen=True):
    """One number. `low` and `high` bound the 95 % confidence interval; `n` counts the observations behind it.

    `method` names how it was found where that matters ("estimated" is said here); `reason` stands in for a
    missing value.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        assert (self.value is None) == (self.reason is not None), "a figure has either a value or a reason"


def unmeasured(reason: str) -> Figure:
    """Return a figure without a value, and why."""
    return Figure(value=None, low=None, high=None, n=0, reason=reason)


NOT_MEASURED = unmeasured("not measured")


class MetricInfo(Value, frozen=True):
    """The metric that a dataset is judged by. `unit` is the metric's own (a share, an edit rate, a correlation)."""

    name: str
    higher_is_better: bool
    unit: str = "share"


class Measurement(Value, frozen=True):
    """All that was measured of one variant, paired with the reference on the same samples.

    `speedup` is latency of the reference over latency of the variant. `accuracy_change` is variant minus reference, in
    the metric's own unit, and `accuracy_change_claimed` the same with the interval that its claim is held to, which is
    longer where several variants have one (`hasten.verify.shares`). `throughput_rps` is predictions per second of one
    instance kept busy by one caller. `memory_peak_mb` is the peak resident set of a fresh process that loads the
    variant and runs it, `cold_start_ms` the time from the start of that process to its first answer. `energy_gain` is
    energy per prediction of the reference over that of the variant, paired. `cost_per_million_correct_usd` is the cost
    of a million predictions that are right.
    """

    split: Split
    metric: MetricInfo
    batch: int = 1
    latency_p50_ms: Figure = NOT_MEASURED
    latency_p95_ms: Figure = NOT_MEASURED
    latency_p99_ms: Figure = NOT_MEASURED
    throughput_rps: Figure = NOT_MEASURED
    speedup: Figure = NOT_MEASURED
    accuracy: Figure = NOT_MEASURED
    accuracy_change: Figure = NOT_MEASURED
    accuracy_change_claimed: Figure = NOT_MEASURED
    memory_peak_mb: Figure = NOT_MEASURED
    load_ms: Figure = NOT_MEASURED
    cold_start_ms: Figure = NOT_MEASURED
    energy_per_prediction_j: Figure = NOT_MEASURED
    energy_gain: Figure = NOT_MEASURED
    cost_per_million_usd: Figure = NOT_MEASURED
    cost_per_million_correct_usd: Figure = NOT_MEASURED
    extra: dict[str, Figure] = {}

    def figure(self, name: str) -> Figure:
        """Return the figure called `name`, built-in or from a third party's meter."""
        found = self.extra.get(name)
        return found if found is not None else getattr(self, name)

    def with_figures(self, figures: dict[str, Figure]) -> Measurement:
        """Return a copy with `figures` filled in; names that hasten does not know go to `extra`."""
        known = {name: fig for name, fig in figures.items() if name in FIGURE_NAMES}
        extra = {name: fig for name, fig in figures.items() if name not in FIGURE_NAMES}
        return msgspec.structs.replace(self, **known, extra={**self.extra, **extra})


FIGURE_NAMES: tuple[str, ...] = tuple(
    field.name for field in msgspec.structs.fields(Measurement) if field.default is NOT_MEASURED
)
