"""How much is measured follows from the time of one prediction and the budget, before anything is compared.

Trials: from the pilot runs of the reference, so that rounds and samples are the same for all candidates. Claims: from
the time that is left and the speeds of the picks on tuning data, before the holdout data are opened. Nothing that a
candidate shows on the data that judge it changes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hasten.data.feed import feed, sample_for
from hasten.data.split import Splits
from hasten.measure.base import Arm, Plan
from hasten.measure.turns import turn_ms, turn_s
from hasten.spec.slo import Slo
from hasten.spec.values import Value
from hasten.stats.bootstrap import Z95
from hasten.stats.percentiles import values_needed
from hasten.verify.shares import how_many_share, levels_of, quantile_of

__all__ = ["TUNING_SHARE", "ClaimEffort", "Effort", "claim_effort", "effort_for", "time_for_claims"]

# Shares of the budget: trying candidates, and the claims. The rest is for the run-off, serving defaults and packing.
_TUNING, _CLAIM, _RESERVE = 0.4, 0.4, 0.15
# The share of the budget after which no further candidate is begun: more than is planned for trials, because they cost
# less than planned where candidates are faster. Where the claims will need less than their share, the search goes on
# with what they leave, up to the larger share.
TUNING_SHARE = _TUNING + 0.05
_LONGEST_TUNING = 0.7
_RUNS_TUNING, _RUNS_CLAIM = 4, 6
_FEWEST_TUNING, _FEWEST, _MOST = 12, 20, 80
_PILOTS = 10
# Of a claim's time, so much goes to accuracy at the most; a claim is planned for twice the samples that the bound needs
# if no answer changes, because a few do.
_MOSTLY, _MORE = 0.75, 2.0
_FEWEST_SAMPLES = 100
# How fast a pick is, before any is known; and one that seemed slower than this still is not planned for.
_HOPED, _SLOWEST = 1.5, 0.5
# Claims are expected to be of so many picks, with twice the rounds that they must have.
_EXPECTED_PICKS, _EXPECTED_ROUNDS = 2, 2 * _FEWEST
# The share of the budget for a run-off. Where runs are short, rounds are many: thirty rounds of half a millisecond were
# over in a moment, and the moment decided between one thread and two.
_RUN_OFF, _MOST_RUN_OFF, _MOST_TUNING = 0.03, 200, 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """Rounds and samples of every trial, and how many holdout samples one pick can be claimed on, as far as that can be
    said before. `seconds` is one prediction of the reference; `tuning_s` seconds are for trying candidates, and
    `claims_s` are what claims are expected to need.
    """

    seconds: float
    tuning_s: float
    claims_s: float
    tuning: Plan
    tuning_samples: int
    holdout_samples: int

    def run_off(self, gains: Sequence[float], budget_s: float) -> Plan:
        """The plan of a run-off of variants that are `gains` times as fast as the reference, which races, too: it lasts
        for a share of the budget, with no fewer rounds than a trial.
        """
        times = [self.seconds, *(self.seconds / max(gain, _SLOWEST) for gain in gains)]
        round_s = sum(turn_s(time, _RUNS_TUNING) for time in times)
        rounds = _rounds(budget_s * _RUN_OFF / round_s, self.tuning.rounds, most=_MOST_RUN_OFF)
        return replace(self.tuning, rounds=rounds)


class ClaimEffort(Value, frozen=True):
    """Rounds and holdout samples of every claim, how many of the picks, the best first, can be claimed in time, and how
    many of them share the error and may be picked.
    """

    rounds: int
    samples: int
    picks: int
    sharing: int

    def plan(self, seed: int, place: int) -> Plan:
        """The plan of the claim of the pick at a place, the best at 0; another `seed` draws other orders of sides and
        samples.
        """
        levels = levels_of(self.sharing) if 0 <= place < self.sharing else {}
        return Plan(rounds=self.rounds, runs=_RUNS_CLAIM, seed=2 * seed + 2, also_z=levels)


def effort_for(arm: Arm, splits: Splits, candidates: int, budget_s: float, slo: Slo, *, seed: int = 0) -> Effort:
    """Spend half of each trial's time on rounds of latency and half on accuracy. `seed` draws the orders of sides and
    samples, other ones than those of claims.
    """
    seconds = _pilot_s(arm, splits)
    for_trial = budget_s * _TUNING / (candidates + 1) / 2
    planned = claim_effort(seconds, (_HOPED,), budget_s * _CLAIM, slo, len(splits.holdout))
    claims_s = _expected_claims_s(seconds, slo, len(splits.holdout))
    return Effort(
        seconds=seconds,
        tuning_s=min(
            max(budget_s * TUNING_SHARE, budget_s * (1 - _RESERVE) - claims_s),
            budget_s * _LONGEST_TUNING,
        ),
        claims_s=claims_s,
        tuning=Plan(
            rounds=_rounds(for_trial / (2 * turn_s(seconds, _RUNS_TUNING)), _FEWEST_TUNING, most=_MOST_TUNING),
            runs=_RUNS_TUNING,
            seed=2 * seed + 1,
        ),
        tuning_samples=int(min(len(splits.choosing), max(_FEWEST_SAMPLES, for_trial / seconds))),
        holdout_samples=planned.samples,
    )


def time_for_claims(budget_s: float, gone_s: float, expected_s: float) -> float:
    """Seconds that claims may take: what is left but for a reserve, and in any case what they were expected to need, up
    to a fair part of the budget.
    """
    return max(min(budget_s * (_CLAIM - 0.1), expected_s), budget_s * (1 - _RESERVE) - gone_s)


def claim_effort(
    seconds: float, gains: Sequence[float], left_s: float, slo: Slo, there: int, *, counts_answers: bool = True
) -> ClaimEffort:
    """Plan the claims of the reference, whose prediction takes `seconds`, and of picks that are `gains` times as fast,
    in `left_s` seconds, on at most `there` samples.

    Accuracy gets as many samples as the bound needs if hardly any answer changes, up to most of the time, and rounds
    get the rest: a claim that could not be proven is time lost. Where it does not suffice for all picks, it is for the
    first ones. `counts_answers` says that the metric is the share of right answers (`hasten.verify.shares`).
    """
    wanted = min(_provable(slo.accuracy_drop_max, Z95) * _MORE, there)
    times = [seconds / max(gain, _SLOWEST) for gain in gains]
    count = len(times)
    while count > 1 and _MOSTLY * left_s / (seconds + sum(times[:count])) < wanted:
        count -= 1
    # Answers of the reference are kept: it answers each sample once for all claims.
    each_s = seconds + sum(times[:count])
    affordable = max(left_s / 2, min(wanted * each_s, _MOSTLY * left_s)) / each_s
    # One sample less than a bound needs is a claim lost.
    samples = min(there, max(_FEWEST_SAMPLES, math.ceil(affordable)))
    # In each round, both sides make untimed runs and the timed ones; the reference races itself, too.
    sides = [seconds, seconds, *(time for pick in times[:count] for time in (seconds, pick))]
    round_s = sum(turn_s(time, _RUNS_CLAIM) for time in sides)
    asked = next((p for p in (99, 95) if getattr(slo, f"latency_p{p}_ms") is not None), 50)
    rounds = _rounds((left_s - min(samples * each_s, _MOSTLY * left_s)) / round_s, _FEWEST, most=_MOST)
    return ClaimEffort(
        rounds=max(rounds, -(-values_needed(asked) // _RUNS_CLAIM)),
        samples=samples,
        picks=count,
        sharing=how_many_share(count, slo.accuracy_drop_max, samples, counts_answers=counts_answers),
    )


def _expected_claims_s(seconds: float, slo: Slo, there: int) -> float:
    """What claims would like to have, before it is known what there is to claim."""
    each_s = seconds * (1 + _EXPECTED_PICKS / _HOPED)
    picks_s = _EXPECTED_PICKS * (turn_s(seconds, _RUNS_CLAIM) + turn_s(seconds / _HOPED, _RUNS_CLAIM))
    round_s = 2 * turn_s(seconds, _RUNS_CLAIM) + picks_s
    return (
        min(_provable(slo.accuracy_drop_max, quantile_of(_EXPECTED_PICKS)) * _MORE, there) * each_s
        + _EXPECTED_ROUNDS * round_s
    )


def _provable(drop_max: float, z: float) -> float:
    """So many samples prove the bound for right and wrong answers of which none changes (`stats.binary_change`)."""
    return z**2 / drop_max - z**2 if drop_max > 0 else math.inf


def _pilot_s(arm: Arm, splits: Splits) -> float:
    """Seconds of one prediction of the reference as this machine gives it now: the middle of a few runs on samples
    from all over the data.
    """
    positions = np.linspace(0, len(splits.tuning) - 1, _PILOTS).astype(int)
    for slot, position in enumerate(positions):
        arm.put(slot, feed(arm.signature, [sample_for(arm.signature, splits.tuning, int(position))]))
    return float(np.median(turn_ms(arm, list(range(_PILOTS))))) / 1e3


def _rounds(fitting: float, fewest: int, *, most: int) -> int:
    return int(np.clip(fitting, fewest, most))
