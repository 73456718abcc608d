"""How claims share the error of accepting a drop beyond the bound: fixed before holdout data are opened.

A claim on its own is held to an interval of 95 %, and accepts such a drop in at most 2.5 % of runs. Several claims have
several chances to pass by luck, so that they have 3.5 % together, in equal shares (Bonferroni's inequality). A share
that could not be proven even if no answer changed would be given away: then fewer claims share. That is known for
metrics that count right answers; what a sample is worth in others (an AUC, an error rate) only the answers tell.
"""

from __future__ import annotations

from statistics import NormalDist

from hasten.spec.values import Value
from hasten.stats.bootstrap import Z95
from hasten.stats.change import unseen_share

__all__ = ["Shares", "quantile_of", "shares_of"]

# One-sided: what all claims together may accept wrongly.
_TOGETHER = 0.035


class Shares(Value, frozen=True):
    """The first so many `claims` may be picked, by intervals of the normal quantile `z`."""

    claims: int
    z: float


def shares_of(claims: int, drop_max: float, samples: int, *, counts_answers: bool = True) -> Shares:
    """The shares of so many claims of a drop of at most `drop_max`, in the metric's own unit, on so many samples.
    `counts_answers` says that the metric is the share of right answers.
    """
    for count in range(claims, 1, -1):
        z = quantile_of(count)
        if not counts_answers or unseen_share(samples, z) <= drop_max:
            return Shares(claims=count, z=z)
    return Shares(claims=min(claims, 1), z=Z95)


def quantile_of(claims: int) -> float:
    """The normal quantile that each of so many claims is held to."""
    return NormalDist().inv_cdf(1 - _TOGETHER / claims) if claims > 1 else Z95
