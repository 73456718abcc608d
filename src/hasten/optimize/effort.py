"""How much to measure within the budget, fixed before the first comparison.

A pilot of a few runs of the reference tells how long one prediction takes; from that and the budget follow the
rounds and samples of every trial. Nothing that a candidate shows changes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hasten.data.feed import feed, sample_for
from hasten.data.split import Splits
from hasten.measure.base import Arm, Plan
from hasten.spec.slo import Slo
from hasten.stats.bootstrap import Z95
from hasten.stats.percentiles import values_needed

__all__ = ["Effort", "effort_for"]

# Shares of the budget: trying candidates, and the claims of the reference and of at most three picks. The rest is for
# the run-off, the serving defaults and packing.
_TUNING, _CLAIM = 0.4, 0.4
_CLAIMS = 4
_RUNS_TUNING, _RUNS_CLAIM = 4, 6
_FEWEST, _MOST = 20, 80
_PILOTS = 10
_MOSTLY = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """Plans and sample counts for both splits. `tuning_share` is the part of the budget after which no trial
    begins.
    """

    tuning: Plan
    holdout: Plan
    tuning_samples: int
    holdout_samples: int
    tuning_share: float = _TUNING + 0.05


def effort_for(arm: Arm, splits: Splits, candidates: int, budget_s: float, slo: Slo) -> Effort:
    """Spend half of each trial's time on rounds of latency and half on accuracy. Of a claim's time, accuracy gets as
    much as the bound needs if no answer changes, up to most of it: a claim that could not be proven is time lost.
    """
    seconds = _pilot_s(arm, splits)
    for_trial = budget_s * _TUNING / (candidates + 1) / 2
    claim_s = budget_s * _CLAIM / _CLAIMS
    wanted = max(claim_s / 2, min(_provable(slo.accuracy_drop_max) * seconds, _MOSTLY * claim_s))
    holdout_samples = _samples(wanted, seconds, len(splits.holdout))
    for_rounds = claim_s - min(holdout_samples * seconds, _MOSTLY * claim_s)
    asked = next((p for p in (99, 95) if getattr(slo, f"latency_p{p}_ms") is not None), 50)
    return Effort(
        tuning=Plan(rounds=_rounds(for_trial, seconds, _RUNS_TUNING, most=30), runs=_RUNS_TUNING, seed=1),
        holdout=Plan(
            rounds=max(_rounds(for_rounds, seconds, _RUNS_CLAIM, most=_MOST), -(-values_needed(asked) // _RUNS_CLAIM)),
            runs=_RUNS_CLAIM,
            seed=2,
        ),
        tuning_samples=_samples(for_trial, seconds, len(splits.tuning)),
        holdout_samples=holdout_samples,
    )


def _provable(drop_max: float) -> float:
    """So many samples prove the bound for right and wrong answers of which none changes (`stats.binary_change`)."""
    return Z95**2 / drop_max - Z95**2 if drop_max > 0 else math.inf


def _pilot_s(arm: Arm, splits: Splits) -> float:
    """Seconds of one prediction of the reference as this machine gives it now: the middle of a few runs on samples
    from all over the data.
    """
    positions = np.linspace(0, len(splits.tuning) - 1, _PILOTS).astype(int)
    for slot, position in enumerate(positions):
        arm.put(slot, feed(arm.signature, [sample_for(arm.signature, splits.tuning, int(position))]))
    return float(np.median(arm.time_ms(list(range(_PILOTS)), warmup=2))) / 1e3


def _rounds(budget_s: float, seconds: float, runs: int, *, most: int) -> int:
    """Rounds that fit: in each, both sides make one untimed run and `runs` timed ones."""
    return int(np.clip(budget_s / (2 * (runs + 1) * seconds), _FEWEST, most))


def _samples(budget_s: float, seconds: float, there: int) -> int:
    return int(min(there, max(100.0, budget_s / seconds)))
