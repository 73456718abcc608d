"""Claims share the error of accepting what is beyond the bound, as far as a share can be proven at all."""

from __future__ import annotations

from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.stats.bootstrap import Z95
from hasten.stats.change import unseen_share
from hasten.verify.shares import Shares, quantile_of, shares_of


def error(shares: Shares) -> float:
    return shares.claims * (1 - NormalDist().cdf(shares.z))


def test_a_lone_claim_is_held_to_95_percent() -> None:
    assert shares_of(1, 0.005, 10_000) == Shares(claims=1, z=Z95)
    assert shares_of(0, 0.005, 10_000).claims == 0


@pytest.mark.parametrize(("samples", "claims"), [(736, 1), (807, 1), (808, 2), (887, 2), (888, 3), (10_000, 3)])
def test_so_many_claims_share_as_could_be_proven_if_no_answer_changed(samples: int, claims: int) -> None:
    assert shares_of(3, 0.005, samples).claims == claims


def test_where_a_samples_worth_is_not_known_beforehand_all_share() -> None:
    """As with an AUC: of 131 samples one may be worth a thousandth of it."""
    assert shares_of(2, 0.005, 131).claims == 1
    assert shares_of(2, 0.005, 131, counts_answers=False) == Shares(claims=2, z=quantile_of(2))


@given(st.integers(0, 3), st.floats(0.0, 0.2), st.integers(1, 5000))
def test_all_claims_together_err_in_at_most_three_and_a_half_percent(claims: int, drop: float, samples: int) -> None:
    shares = shares_of(claims, drop, samples)
    assert error(shares) <= 0.035 + 1e-9
    assert shares.claims <= claims
    if shares.claims > 1:
        assert unseen_share(samples, shares.z) <= drop


def test_more_claims_are_held_to_longer_intervals() -> None:
    assert quantile_of(1) < quantile_of(2) < quantile_of(3)
