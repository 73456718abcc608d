"""What a run under load found: from its arrivals and its log to figures. Pure.

A refusal, an error, an answer that never came and one that came too late all count as missed. Rates are of answers that
came within the loaded span, attainment is of requests that were due in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.serve.admit import REASONS
from overloading.arriving import Arrivals
from overloading.sender import Log

__all__ = ["AT_THE_DOOR", "Outcome", "accuracy", "outcome", "recovery_s", "steady"]

# What a request is told on arrival; the other refusals are of requests that had waited.
AT_THE_DOOR = tuple(
    REASONS[name].message for name in ("queue full", "lane full", "tenant full", "shed", "would be late")
)
Numbers = np.ndarray[Any, Any]
# Answers of one batch come within so many seconds.
_TOGETHER_S = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Figures of the loaded span: rates per second, times in ms. By lane: how many requests were due, how many of
    them were answered in time, and the answers that came. `variants` counts answers, `refusals` texts of errors;
    `steady` is the throughput from batch to batch; `refused_ms` are the times of refusals on arrival, from when
    they were sent. `broken` got no answer at all, `late_ms` is how late the generator sent at p99.
    """

    offered: float
    goodput: float
    throughput: float
    due: tuple[int, ...]
    good: tuple[int, ...]
    answers: tuple[int, ...]
    latency_p50_ms: float
    latency_p99_ms: float
    variants: Mapping[str, int]
    refusals: Mapping[str, int]
    refused_ms: Numbers
    broken: int
    late_ms: float
    steady: float = float("nan")

    def attainment(self, lane: int | None = None) -> float:
        """The share of requests answered in time, of a lane or of all; NaN where none came."""
        of, good = (sum(self.due), sum(self.good)) if lane is None else (self.due[lane], self.good[lane])
        return good / of if of else float("nan")

    def share(self, lane: int) -> float:
        """The lane's share of the answers; NaN where there were none."""
        return self.answers[lane] / sum(self.answers) if sum(self.answers) else float("nan")


def outcome(given: Arrivals, log: Log, deadlines: Sequence[float]) -> Outcome:
    """Judge a run; `deadlines` are seconds by lane, from when a request was due."""
    begin, end = given.loaded
    length = end - begin
    within = np.array(deadlines)[given.lanes]
    answered = log.status == 200
    good = answered & (log.done - log.due <= within)
    due = (log.due >= begin) & (log.due < end)
    came = (log.done >= begin) & (log.done < end)
    times = (log.done - log.due)[answered & due] * 1e3
    text = np.array(log.words, dtype=object)[log.word]
    refused = due & ~answered & (log.status > 0)
    door = refused & np.isin(text, AT_THE_DOOR)
    lanes = range(len(deadlines))
    return Outcome(
        offered=float(due.sum()) / length,
        goodput=float((good & came).sum()) / length,
        throughput=float((answered & came).sum()) / length,
        due=tuple(int((due & (given.lanes == lane)).sum()) for lane in lanes),
        good=tuple(int((good & due & (given.lanes == lane)).sum()) for lane in lanes),
        answers=tuple(int((answered & came & (given.lanes == lane)).sum()) for lane in lanes),
        latency_p50_ms=_percentile(times, 50),
        latency_p99_ms=_percentile(times, 99),
        variants=_counts(text[answered & came]),
        refusals=_counts(text[refused]),
        refused_ms=(log.done - log.sent)[door] * 1e3,
        broken=int((due & (log.status == 0)).sum()),
        late_ms=_percentile((log.sent - log.due)[due & ~np.isnan(log.sent)] * 1e3, 99),
        steady=steady(log.done[answered & came]),
    )


def steady(done: Numbers) -> float:
    """Answers per second from the end of the first batch to that of the last: how many batches end within a span of a
    few says little about their rate. 0 where there are not two.
    """
    times = np.sort(done)
    later = times[times > times[0] + _TOGETHER_S] if times.size else times
    return float(later.size / (later[-1] - times[0])) if later.size else 0.0


def accuracy(variants: Mapping[str, int], accuracies: Mapping[str, float]) -> float:
    """Effective accuracy: that of the variants, weighted by their answers."""
    total = sum(variants.values())
    return sum(count * accuracies[name] for name, count in variants.items()) / total if total else float("nan")


def recovery_s(given: Arrivals, log: Log, top: str) -> float | None:
    """Seconds from the fall of a step to the last answer of another variant than `top`; None where none came then."""
    fell = given.loaded[1]
    text = np.array(log.words, dtype=object)[log.word]
    lesser = log.done[(log.status == 200) & (text != top) & (log.done > fell)]
    return float(lesser.max() - fell) if lesser.size else None


def _counts(values: Numbers) -> dict[str, int]:
    names, counts = np.unique(values.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _percentile(values: Numbers, p: float) -> float:
    return float(np.percentile(values, p)) if values.size else float("nan")
