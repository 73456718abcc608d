"""What more room would buy: candidates that were not picked because an objective, or speed, spoke against them.

Read off tuning data, where all candidates were measured alike: offers to think about, no claims. A claim needs a run
with the other objectives. Pure; `hasten.report.page` calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hasten.report.format import amount, figure_text, is_measured, unit_of
from hasten.report.verdict import all_variants
from hasten.report.words import metric_words, objective_text, variant_names
from hasten.spec.evidence import Evidence, Record
from hasten.spec.measurement import Figure

__all__ = ["Offer", "offers"]

_MOST = 4
# Less of a share than this is no gain of accuracy to speak of; for other units, less than this part of the level.
_SHARE, _PART = 0.001, 0.01
_SMALLER = 0.9
_LATENCIES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One trade: what would have to be given, what it would buy, and with which candidate."""

    give: str
    get: str
    name: str
    how: str


def offers(record: Record) -> tuple[Offer, ...]:
    """Return up to four trades, speed for accuracy first; nothing where no candidate offers one."""
    base = next((item for item in record.tuning if item.variant.id == record.picked), None)
    if base is None or not _known(base):
        return ()
    others = [item for item in record.tuning if item.variant.id != record.picked and _known(item)]
    names = variant_names(all_variants(record))
    found = [*_for_speed(record, base, others), *_for_accuracy(record, base, others)]
    return tuple(
        Offer(give=give, get=get, name=names[item.variant.id], how=f"{item.variant.target}; {item.variant.recipe_text}")
        for item, give, get in found[:_MOST]
    )


def _known(item: Evidence) -> bool:
    return is_measured(item.measurement.speedup) and is_measured(item.measurement.accuracy_change)


def _for_speed(record: Record, base: Evidence, others: list[Evidence]) -> Iterator[tuple[Evidence, str, str]]:
    """Candidates that are surely faster and fail the accuracy bound alone: the smallest drop first, each faster."""
    fastest = base.measurement.speedup.value or 0.0
    faster = [item for item in others if _apart(base.measurement.speedup, item.measurement.speedup)]
    for item in sorted((i for i in faster if _failed(i) == {"accuracy_drop_max"}), key=_worst_drop):
        speed = item.measurement.speedup.value or 0.0
        if speed > fastest:
            fastest = speed
            metric, bound = item.measurement.metric, record.goal.slo.accuracy_drop_max
            asked = amount(bound, unit_of("accuracy_change", metric)).lstrip("+")
            give = f"{objective_text('accuracy_drop_max', _worst_drop(item), metric)} (asked: {asked})"
            yield item, give, f"{_speed(item)} the reference’s speed instead of {_speed(base)}"


def _for_accuracy(record: Record, base: Evidence, others: list[Evidence]) -> Iterator[tuple[Evidence, str, str]]:
    """Candidates that are slower, past a latency bound perhaps, and answer better or need less memory; each slower one
    must offer more than those before it.
    """
    best, smallest = _level(base), (base.measurement.memory_peak_mb.value or 0.0) * _SMALLER
    slower = [item for item in others if _apart(item.measurement.speedup, base.measurement.speedup)]
    for item in sorted(slower, key=lambda item: -(item.measurement.speedup.value or 0.0)):
        better = _level(item) > best + _least(item)
        small = item.measurement.memory_peak_mb.value
        smaller = small is not None and small < smallest
        if (better or smaller) and _failed(item) <= set(_LATENCIES):
            best, smallest = max(best, _level(item)), small * _SMALLER if smaller and small else smallest
            give = f"{_speed(item)} the reference’s speed instead of {_speed(base)}{_about(record, item, base)}"
            yield item, give, _gains(item, base)


def _gains(item: Evidence, base: Evidence) -> str:
    after, before = item.measurement, base.measurement
    gains, gained = list[str](), _level(item) - _level(base)
    if gained > _least(item):
        gains.append(
            f"{amount(gained, unit_of('accuracy_change', after.metric)).lstrip('+')} better in "
            f"{metric_words(after.metric)}"
        )
    small, large = after.memory_peak_mb, before.memory_peak_mb
    if (small.value or 0.0) < _SMALLER * (large.value or 0.0):
        unit = unit_of("memory_peak_mb", after.metric)
        gains.append(f"{figure_text(small, unit).value} of memory instead of {figure_text(large, unit).value}")
    return " and ".join(gains)


def _failed(item: Evidence) -> set[str]:
    return {check.objective for check in item.checks if check.outcome == "rejected"}


def _apart(slow: Figure, fast: Figure) -> bool:
    """Whether the whole interval of one speed lies above that of the other."""
    high = slow.value if slow.high is None else slow.high
    low = fast.value if fast.low is None else fast.low
    return high is not None and low is not None and high < low


def _level(item: Evidence) -> float:
    """The change of the metric with the sign of a gain."""
    change = item.measurement.accuracy_change.value or 0.0
    return change if item.measurement.metric.higher_is_better else -change


def _worst_drop(item: Evidence) -> float:
    """How much the metric may have lost: the bad end of the interval."""
    change, metric = item.measurement.accuracy_change, item.measurement.metric
    end = change.low if metric.higher_is_better else change.high
    return abs(change.value or 0.0) if end is None else abs(end)


def _least(item: Evidence) -> float:
    measured = item.measurement
    return _SHARE if measured.metric.unit == "share" else _PART * abs(measured.accuracy.value or 0.0)


def _speed(item: Evidence) -> str:
    return figure_text(item.measurement.speedup, unit_of("speedup", item.measurement.metric)).value


def _about(record: Record, item: Evidence, base: Evidence) -> str:
    """Both speeds as milliseconds of the reference's latency in the claim; trials were at different moments."""
    whole = record.reference.measurement.latency_p50_ms.value
    if whole is None:
        return ""
    unit = unit_of("latency_p50_ms", item.measurement.metric)
    texts = [figure_text(_ms(whole, one.measurement.speedup), unit).value for one in (item, base)]
    return f", about {texts[0]} p50 instead of {texts[1]}"


def _ms(whole: float, speedup: Figure) -> Figure:
    return Figure(value=whole / (speedup.value or 1.0), low=None, high=None, n=0)
