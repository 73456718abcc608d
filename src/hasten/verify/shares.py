"""How claims share the error of accepting a drop beyond the bound: fixed before holdout data are opened.

A claim on its own is held to an interval of 95 %, and accepts such a drop in at most 2.5 % of runs. Several claims have
several chances to pass by luck, so that they have 3.5 % together, in equal shares. What is proven at its share leaves
that to the others, which are judged again (Holm 1979, "A simple sequentially rejective multiple test procedure"): they
still err in at most 3.5 % together, and prove more. A share that could not be proven even if no answer changed would be
given away: then fewer claims share. That is known for metrics that count right answers; what a sample is worth in
others (an AUC, an error rate) only the answers tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import msgspec

from hasten.spec.evidence import Evidence
from hasten.spec.measurement import NOT_MEASURED, Measurement
from hasten.stats.bootstrap import Z95
from hasten.stats.change import unseen_share
from hasten.verify.judge import accuracy_check

__all__ = ["how_many_share", "levels_of", "quantile_of", "settled"]

# One-sided: what all claims together may accept wrongly.
_TOGETHER = 0.035
_CLAIMED, _LONE = "accuracy_change_claimed", "accuracy_change"


def how_many_share(claims: int, drop_max: float, samples: int, *, counts_answers: bool = True) -> int:
    """How many of the `claims` may be picked, the first ones, where a drop of at most `drop_max`, in the metric's own
    unit, is claimed on so many samples. `counts_answers` says that the metric is the share of right answers.
    """
    for count in range(claims, 1, -1):
        if not counts_answers or unseen_share(samples, quantile_of(count)) <= drop_max:
            return count
    return min(claims, 1)


def quantile_of(claims: int) -> float:
    """The normal quantile that each of so many claims is held to."""
    return NormalDist().inv_cdf(1 - _TOGETHER / claims) if claims > 1 else Z95


def levels_of(sharing: int) -> dict[str, float]:
    """The normal quantiles that each of so many claims may come to be held to, by the names of the figures that hold
    it: that of all claims, and those of the fewer that are left when others are proven. The last one left is held to
    the interval that every change has.
    """
    names = {_name(left, sharing): quantile_of(left) for left in range(sharing, 0, -1)}
    names.pop(_LONE, None)
    return names


def settled(claims: Sequence[Evidence], sharing: int, drop_max: float) -> list[Evidence]:
    """Return the claims, each with the interval that it is held to in the end as its `accuracy_change_claimed`: those
    that are not proven share what the proven ones leave, until none more is proven. Evidence without a share (the
    reference's, too) stays as it is.
    """
    waiting = [claim for claim in claims if claim.measurement.accuracy_change_claimed != NOT_MEASURED]
    held: dict[str, int] = {}
    left = sharing
    while waiting:
        proven = [claim for claim in waiting if _is_proven(claim.measurement, _name(left, sharing), drop_max)]
        held |= {claim.variant.id: left for claim in proven or waiting}
        waiting = [claim for claim in waiting if proven and claim not in proven]
        left -= len(proven)
    return [_held(claim, held.get(claim.variant.id), sharing) for claim in claims]


def _name(left: int, sharing: int) -> str:
    if left == sharing:
        return _CLAIMED
    return _LONE if left == 1 else f"{_CLAIMED}_of_{left}"


def _is_proven(measurement: Measurement, name: str, drop_max: float) -> bool:
    at_level = msgspec.structs.replace(measurement, accuracy_change=measurement.figure(name))
    return accuracy_check(at_level, drop_max).outcome == "accepted"


def _held(claim: Evidence, left: int | None, sharing: int) -> Evidence:
    """The claim with one interval for its claim in place of several."""
    if left is None:
        return claim
    measurement, names = claim.measurement, levels_of(sharing)
    one = msgspec.structs.replace(
        measurement,
        accuracy_change_claimed=measurement.figure(_name(left, sharing)),
        extra={name: figure for name, figure in measurement.extra.items() if name not in names},
    )
    return msgspec.structs.replace(claim, measurement=one)
