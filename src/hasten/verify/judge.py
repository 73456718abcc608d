"""From measurement to evidence: every objective is checked against the whole interval, not against the middle of it.

A bound is met where the interval lies on its right side, missed where it lies on its wrong side, and open
("unproven") where it straddles the bound or was not measured. One miss rejects a variant; one open check leaves
it unproven; only a variant with every check met is accepted. Besides the user's objectives there is one of ours:
a variant must gain something.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hasten.engine.host import environment
from hasten.spec.evidence import Check, Evidence, Outcome
from hasten.spec.measurement import Figure, Measurement
from hasten.spec.serving import Rehearsal
from hasten.spec.slo import Goal, Slo
from hasten.spec.variant import Variant
from hasten.stats.change import samples_to_prove

__all__ = ["GAIN", "accuracy_check", "judge", "judge_load", "may_be_picked", "why_not_picked"]

# What two processes of the same model differ by without any reason: less than this is no gain.
GAIN = 1.02
# A server that keeps up still works on the last requests when no more come; what it lags by more is a queue.
_KEPT_UP = 0.93


def judge(variant: Variant, measurement: Measurement, goal: Goal, *, is_reference: bool = False) -> Evidence:
    """Return evidence for `variant`. The reference is not asked to be faster than itself."""
    checks = tuple(_checks(measurement, goal, is_reference))
    return Evidence(
        variant=variant,
        measurement=measurement,
        checks=checks,
        outcome=_worst(checks),
        reasons=tuple(check.reason for check in checks if check.outcome != "accepted"),
    )


def may_be_picked(evidence: Evidence, goal: Goal) -> bool:
    """Whether a variant may be what is served: it is accepted, and the interval that its claim is held to lies within
    the bound (`hasten.verify.shares`).
    """
    return evidence.outcome == "accepted" and _claimed(evidence, goal).outcome == "accepted"


def why_not_picked(evidence: Evidence, goal: Goal) -> str:
    """What stands against a claim."""
    if evidence.outcome != "accepted":
        return " ".join(evidence.reasons)
    if evidence.measurement.accuracy_change_claimed.value is None:
        return "It holds alone, and the samples are too few for it to have a claim behind the others."
    return f"It holds alone, and not by the longer interval of claims beside others: {_claimed(evidence, goal).reason}"


def _claimed(evidence: Evidence, goal: Goal) -> Check:
    measurement = evidence.measurement
    strict = msgspec.structs.replace(measurement, accuracy_change=measurement.accuracy_change_claimed)
    return accuracy_check(strict, goal.slo.accuracy_drop_max)


def _checks(measurement: Measurement, goal: Goal, is_reference: bool) -> Iterator[Check]:
    slo = goal.slo
    for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms"):
        bound = getattr(slo, name)
        if bound is not None:
            yield _at_most(name, "ms", measurement.figure(name), bound)
    if slo.throughput_rps is not None:
        yield from _out_of_reach(measurement.throughput_rps, slo.throughput_rps)
    if slo.memory_max_mb is not None:
        yield _at_most("memory_max_mb", "MB", measurement.memory_peak_mb, slo.memory_max_mb)
    if not is_reference:
        yield accuracy_check(measurement, slo.accuracy_drop_max)
        if goal.objective.minimize == "energy_per_prediction_j":
            yield _at_least("energy_gain", "times less energy than the reference", measurement.energy_gain, GAIN)
        elif goal.objective.minimize != "memory_mb":
            yield _at_least("gain", "times the reference's speed", measurement.speedup, GAIN)


def judge_load(evidence: Evidence, rehearsal: Rehearsal | None, goal: Goal) -> Evidence:
    """Return the evidence with what the real server gave at the load of the objectives held against them.

    Where the objectives name no load there is nothing to add. A server that could not be rehearsed leaves them open.
    """
    slo = goal.slo
    if slo.throughput_rps is None:
        return evidence
    checks = (*evidence.checks, *_load_checks(rehearsal, slo))
    reasons = tuple(check.reason for check in checks if check.outcome != "accepted")
    return msgspec.structs.replace(evidence, checks=checks, outcome=_worst(checks), reasons=reasons)


def _load_checks(rehearsal: Rehearsal | None, slo: Slo) -> Iterator[Check]:
    assert slo.throughput_rps is not None
    at = f"at {slo.throughput_rps:.4g} requests/s"
    if rehearsal is None:
        reason = (
            f"The server was not rehearsed {at}. Serving needs: pip install 'hasten[serve]'; where that is there, "
            "the run's output says what failed."
        )
        yield Check(objective="throughput_rps", bound=slo.throughput_rps, outcome="unproven", reason=reason)
        return
    found = rehearsal.throughput_rps
    kept = (found.value or 0.0) >= rehearsal.offered_rps * _KEPT_UP and not rehearsal.failed
    words = f"{found.value or 0.0:.4g} of {rehearsal.offered_rps:.4g} requests/s were answered, "
    words += f"{rehearsal.failed} got no answer"
    yield Check(
        objective="throughput_rps",
        bound=slo.throughput_rps,
        outcome="accepted" if kept else "rejected",
        reason=f"{at.capitalize()} {words}.",
    )
    for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms"):
        bound = getattr(slo, name)
        if bound is not None:
            yield _at_most(name, f"ms {at}", getattr(rehearsal, name), bound)


def _out_of_reach(one_caller: Figure, bound: float) -> Iterator[Check]:
    """What one caller gets, on every core an instance of its own, is the most that this variant can carry: below the
    bound it is out of the race. Above, the rehearsal of the server will tell.
    """
    cores = environment().cores_logical
    best = one_caller.high if one_caller.high is not None else one_caller.value
    if best is not None and best * cores < bound:
        yield Check(
            objective="throughput_rps",
            bound=bound,
            outcome="rejected",
            reason=f"throughput_rps is {one_caller.value:.4g} for one caller, and {bound:.4g} predictions/s are out of "
            f"reach even with an instance on each of {cores} cores.",
        )


def accuracy_check(measurement: Measurement, drop_max: float) -> Check:
    """Check the change of the metric: the interval's bad end must stay within the allowed drop."""
    figure, metric = measurement.accuracy_change, measurement.metric
    name = "accuracy_drop_max"
    if figure.value is None or figure.low is None or figure.high is None:
        return Check(objective=name, bound=drop_max, outcome="unproven", reason=f"accuracy: {figure.reason}.")
    sign = 1.0 if metric.higher_is_better else -1.0
    worst, best = sorted((-sign * figure.low, -sign * figure.high), reverse=True)
    middle = -sign * figure.value
    verb = "drops" if metric.higher_is_better else "rises"
    drop, least, most = (_amount(value, metric.unit) for value in (middle, best, worst))
    found = f"{metric.name} {verb} by {drop} ({least} to {most})"
    allowed = f"{_amount(drop_max, metric.unit)} is allowed"
    if worst <= drop_max:
        return Check(objective=name, bound=drop_max, outcome="accepted", reason=f"{found}; {allowed}.")
    if best > drop_max:
        return Check(objective=name, bound=drop_max, outcome="rejected", reason=f"{found}; {allowed}.")
    return Check(
        objective=name,
        bound=drop_max,
        outcome="unproven",
        reason=f"{found}; {allowed}.{_how_many(figure, drop_max, sign)}",
    )


def _how_many(change: Figure, drop_max: float, sign: float) -> str:
    """How much data would settle it, or that no amount is likely to."""
    assert change.value is not None and change.low is not None and change.high is not None
    low, high = sorted((sign * change.low, sign * change.high))
    upright = Figure(value=sign * change.value, low=low, high=high, n=change.n, method=change.method)
    needed = samples_to_prove(upright, drop_max)
    if needed is None:
        return " The middle of the interval is beyond the bound already: more data is unlikely to help."
    return f" {change.n} samples are too few to prove it; about {needed} would do if the change stays as it is."


def _at_most(name: str, unit: str, figure: Figure, bound: float) -> Check:
    return _bounded(name, unit, figure, bound, sign=1.0)


def _at_least(name: str, unit: str, figure: Figure, bound: float) -> Check:
    return _bounded(name, unit, figure, bound, sign=-1.0)


def _bounded(name: str, unit: str, figure: Figure, bound: float, *, sign: float) -> Check:
    """Check a one-sided bound; `sign` 1 for "at most", -1 for "at least"."""
    word = "at most" if sign > 0 else "at least"
    if figure.value is None:
        return Check(
            objective=name,
            bound=bound,
            outcome="unproven",
            reason=f"{name} was not measured: {figure.reason}.",
        )
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    good, bad = (low, high) if sign > 0 else (high, low)
    text = f"{name} is {figure.value:.4g} ({low:.4g} to {high:.4g}), {word} {bound:.4g} {unit} is asked for."
    outcome: Outcome = "unproven"
    if sign * bad <= sign * bound:
        outcome = "accepted"
    elif sign * good > sign * bound:
        outcome = "rejected"
    return Check(objective=name, bound=bound, outcome=outcome, reason=text)


def _worst(checks: tuple[Check, ...]) -> Outcome:
    outcomes = {check.outcome for check in checks}
    if "rejected" in outcomes:
        return "rejected"
    return "unproven" if "unproven" in outcomes else "accepted"


def _amount(value: float, unit: str) -> str:
    """A change in the metric's own unit; shares in points (hundredths), because that is how people say them."""
    return f"{value * 100:.2f} points" if unit == "share" else f"{value:.4g}"
