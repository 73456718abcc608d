from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hasten.spec.measurement import Figure, unmeasured
from hasten.stats.change import (
    binary_change,
    chance_to_prove,
    error_at,
    is_silent,
    mean_change,
    reach_at,
    samples_to_prove,
    share,
    statistic,
    statistic_change,
)

Rows = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

PAIRED_FLAGS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


def bounds(figure: Figure) -> tuple[float, float, float]:
    assert figure.value is not None and figure.low is not None and figure.high is not None
    return figure.low, figure.value, figure.high


def error_rate(rows: Rows) -> float:
    """Errors over length, pooled: a metric that is no mean of its samples."""
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def flags(n: int, right: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def test_wilson_gives_the_textbook_interval() -> None:
    assert bounds(share(flags(10, 8))) == pytest.approx((0.4902, 0.8, 0.9433), abs=1e-4)


def test_a_share_of_nothing_is_refused() -> None:
    assert share([]).value is None
    assert binary_change([], []).value is None


def test_graded_scores_are_no_shares() -> None:
    with pytest.raises(ValueError, match="mean_change"):
        share([0.0, 0.5, 1.0])


@pytest.mark.parametrize(("gained", "lost"), [(9, 1), (6, 1), (8, 2), (7, 2), (4, 0), (3, 0), (12, 3), (10, 4)])
def test_the_change_excludes_zero_exactly_where_the_test_of_mcnemar_rejects(gained: int, lost: int) -> None:
    before = [0.0] * gained + [1.0] * lost + [1.0] * 30
    after = [1.0] * gained + [0.0] * lost + [1.0] * 30
    low, value, _ = bounds(binary_change(before, after))
    assert value == pytest.approx((gained - lost) / len(before))
    assert (low > 0) == ((gained - lost) ** 2 / (gained + lost) > 3.8415)


@pytest.mark.parametrize("n", [10, 300])
def test_without_any_change_the_interval_is_the_exact_one(n: int) -> None:
    half = 1 - 0.025 ** (1 / n)
    assert "exact" in binary_change([1.0] * n, [1.0] * n).method
    assert bounds(binary_change([1.0] * n, [1.0] * n)) == pytest.approx((-half, 0.0, half), abs=1e-6)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(PAIRED_FLAGS)
def test_swapping_the_sides_mirrors_the_change_of_accuracy(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    low, value, high = bounds(binary_change(before, after))
    assert bounds(binary_change(after, before)) == pytest.approx((-high, -value, -low), abs=1e-9)
    assert -1 <= low <= value + 1e-12 and value - 1e-12 <= high <= 1


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_no_change_seen_leaves_an_open_interval(n: int) -> None:
    ones, rows = np.ones(n), np.column_stack([np.zeros(n), np.full(n, 20.0)])
    figures = [
        binary_change(ones, ones),
        mean_change(ones, ones),
        statistic(rows, error_rate),
        statistic_change(rows, rows, error_rate),
    ]
    for figure in figures:
        low, value, high = bounds(figure)
        assert value == 0.0
        assert low < -2 / (n + 4) and high > 2 / (n + 4)


def test_a_change_in_one_row_alone_keeps_the_interval_open_on_both_sides() -> None:
    before = np.column_stack([np.zeros(100), np.full(100, 20.0)])
    after = before.copy()
    after[0, 0] = 1.0
    low, value, high = bounds(statistic_change(before, after, error_rate))
    assert low < 0.0 < value < high


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=10, max_size=40))
def test_the_interval_contains_the_mean_change(pairs: list[tuple[float, float]]) -> None:
    low, value, high = bounds(mean_change([a for a, _ in pairs], [b for _, b in pairs]))
    assert low <= value <= high


def test_the_same_seed_gives_the_same_interval() -> None:
    before, after = np.random.default_rng(1).random((2, 30))
    assert mean_change(before, after, seed=7) == mean_change(before, after, seed=7)


def test_graded_changes_need_ten_samples() -> None:
    rows = np.ones((9, 2))
    assert mean_change(np.ones(9), np.ones(9)).value is None
    assert statistic(rows, error_rate).value is None
    assert statistic_change(rows, rows, error_rate).value is None
    assert mean_change(np.ones(10), np.ones(10)).value == 0.0


def test_scores_that_are_not_finite_are_refused() -> None:
    assert mean_change([1.0] * 10, [1.0] * 9 + [float("nan")]).value is None


def test_unequal_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="paired"):
        mean_change([1.0] * 10, [1.0] * 11)
    with pytest.raises(ValueError, match="paired"):
        binary_change([1.0] * 10, [1.0] * 11)


def test_a_metric_that_most_resamples_leave_undefined_is_refused() -> None:
    rows = np.zeros((30, 1))
    rows[0] = 1.0
    figure = statistic(rows, lambda r: 1.0 if r.any() else float("nan"))
    assert figure.value is None
    assert "undefined" in str(figure.reason)


def test_the_samples_to_prove_a_change_grow_with_the_square_of_the_interval() -> None:
    wide = Figure(value=0.0, low=-0.04, high=0.04, n=100)
    assert samples_to_prove(wide, 0.02) == 400
    assert samples_to_prove(wide, 0.05) == 100
    assert samples_to_prove(Figure(value=-0.03, low=-0.04, high=-0.02, n=100), 0.02) is None
    assert samples_to_prove(unmeasured("no samples"), 0.02) is None


@pytest.mark.slow
def test_the_change_of_accuracy_is_covered_where_one_percent_of_300_flip_each_way() -> None:
    rng, hits = np.random.default_rng(2), []
    for _ in range(2000):
        before, chance = np.arange(300) % 2, rng.random(300)
        after = np.where(chance < 0.02, 1 - before, before)  # half of the samples were right: 1 % each way
        low, _, high = bounds(binary_change(before.astype(float), after.astype(float)))
        hits.append(low <= 0.0 <= high)
    assert 0.93 <= np.mean(hits) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 30, 100, 300])
def test_a_drop_in_two_percent_of_the_samples_is_covered_at_every_size(n: int) -> None:
    rng, hits = np.random.default_rng([3, n]), []
    for trial in range(300):
        before = rng.beta(5, 2, n)
        after = before - (rng.random(n) < 0.02) * rng.uniform(0, 1, n)  # 0.01 on average
        low, _, high = bounds(mean_change(before, after, seed=trial))
        hits.append(low <= -0.01 <= high)
    assert np.mean(hits) >= 0.93


@pytest.mark.slow
def test_a_change_in_most_samples_is_covered_without_excess() -> None:
    rng, hits = np.random.default_rng(4), []
    for trial in range(600):
        before = rng.beta(5, 2, 100)
        low, _, high = bounds(mean_change(before, before + rng.normal(-0.01, 0.05, 100), seed=trial))
        hits.append(low <= -0.01 <= high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_scores_that_all_moved_by_rounding_leave_room_for_a_sample_that_breaks_unseen() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 1, 100)
    noisy = mean_change(before, before + rng.normal(0, 0.001, 100))
    still = mean_change(before, before)
    assert noisy.low is not None and noisy.high is not None
    assert still.low is not None and still.high is not None
    assert noisy.low == pytest.approx(still.low, abs=0.002)
    assert noisy.high == pytest.approx(still.high, abs=0.002)


def test_a_rank_metric_stays_open_where_scores_only_rounded() -> None:
    rng = np.random.default_rng(1)
    label = np.arange(100) % 2
    score = label * 2 + rng.normal(0, 0.4, 100)

    def auc(rows: np.ndarray) -> float:
        positive, negative = rows[rows[:, 0] == 1, 1], rows[rows[:, 0] == 0, 1]
        if not len(positive) or not len(negative):
            return float("nan")
        return float(np.mean(positive[:, None] > negative[None, :]))

    rounded = np.column_stack([label, score + rng.normal(0, 0.001, 100)])
    found = statistic_change(np.column_stack([label, score]), rounded, auc)
    assert found.low is not None
    assert found.low < -0.0005


@pytest.mark.parametrize(("few", "many"), [(190, 1561), (50, 765)])
def test_where_no_answer_changed_more_samples_are_foretold_exactly(few: int, many: int) -> None:
    now, then = (binary_change(np.ones(n), np.ones(n)) for n in (few, many))
    assert now.low is not None and then.low is not None
    assert reach_at(now, -now.low, many) == pytest.approx(-then.low, rel=1e-3)


def test_changes_that_were_seen_shrink_with_the_root_of_the_samples() -> None:
    before, after = np.ones(400), np.ones(400)
    before[:30], after[30:60] = 0, 0
    now = binary_change(before, after)
    then = binary_change(np.tile(before, 4), np.tile(after, 4))
    assert now.low is not None and then.low is not None
    assert reach_at(now, -now.low, 1600) == pytest.approx(-then.low, rel=0.05)


def test_where_no_answer_changed_there_is_no_error_that_was_seen() -> None:
    now = binary_change(np.ones(322), np.ones(322))
    assert now.low is not None
    assert error_at(now, -now.low) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("flips", [4, 10, 30])
def test_the_error_of_flips_is_the_root_of_their_number(flips: int) -> None:
    before, after = np.ones(400), np.ones(400)
    before[:flips], after[flips : 2 * flips] = 0, 0
    now = binary_change(before, after)
    assert now.low is not None
    assert error_at(now, -now.low) == pytest.approx(np.sqrt(2 * flips) / 400, rel=0.1)


def test_other_intervals_are_foretold_with_the_root_of_the_samples() -> None:
    assert reach_at(Figure(value=0.0, low=-0.04, high=0.04, n=100), 0.04, 400) == pytest.approx(0.02)


def test_the_samples_that_prove_an_unchanged_model_are_those_that_do() -> None:
    found = samples_to_prove(binary_change(np.ones(190), np.ones(190)), 0.005)
    assert found is not None
    enough, short = (binary_change(np.ones(n), np.ones(n)).low for n in (found, found - 1))
    assert enough is not None and short is not None
    assert short < -0.005 <= enough + 1e-6


def test_an_interval_of_unseen_changes_only_is_told_from_one_that_saw_some() -> None:
    """A rank metric: where every sample was ranked right, what one is worth is not known."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0.0, 1.0], 25)
    scores = labels + rng.uniform(-0.4, 0.4, 50)
    before = np.stack([scores, labels], axis=1)
    moved = np.stack([scores + rng.normal(0, 1e-4, 50), labels], axis=1)
    broken = before.copy()
    broken[30, 0] = -1.0

    def auc(rows: np.ndarray) -> float:
        positive, negative = rows[rows[:, 1] == 1, 0], rows[rows[:, 1] == 0, 0]
        return float((positive[:, None] > negative[None, :]).mean())

    assert is_silent(statistic_change(before, moved, auc))
    assert not is_silent(statistic_change(before, broken, auc))
    assert not is_silent(binary_change(np.ones(50), np.ones(50)))


def test_the_chance_of_a_proof_is_that_of_claims_on_simulated_samples() -> None:
    """Rates are drawn from what 3 lost and 3 gained of 900 leave possible, and a claim is made on 400 new samples."""
    rng, proven, trials = np.random.default_rng(5), 0, 1500
    for _ in range(trials):
        rates = rng.gamma(3.5, 1 / 900, 2)
        up, down = rng.poisson(rates * 400)
        before = np.r_[np.zeros(up), np.ones(down), np.ones(400 - up - down)]
        after = np.r_[np.ones(up), np.zeros(down), np.ones(400 - up - down)]
        proven += bounds(binary_change(before, after))[0] >= -0.015
    assert chance_to_prove(3, 3, 900, 400, 0.015) == pytest.approx(proven / trials, abs=0.03)


COUNTS = st.integers(0, 20)


@given(COUNTS, COUNTS, st.integers(100, 2000), st.floats(0.002, 0.05))
@example(0, 0, 1985, 0.046875)
def test_more_that_is_lost_is_less_likely_to_be_proven(gained: int, extra: int, samples: int, bound: float) -> None:
    lost = gained + extra
    fewer, more = (chance_to_prove(gained, count, 500, samples, bound) for count in (lost, lost + 1))
    assert 0.0 <= more <= fewer + 1e-9 <= 1.0 + 1e-6


def test_gains_are_luck_and_no_proof() -> None:
    assert chance_to_prove(6, 0, 900, 1500, 0.005) == chance_to_prove(3, 3, 900, 1500, 0.005)
    assert chance_to_prove(6, 0, 900, 1500, 0.005) < chance_to_prove(0, 0, 900, 1500, 0.005)


def test_few_samples_hardly_prove_anything_though_nothing_changed() -> None:
    assert chance_to_prove(0, 0, 900, 700, 0.005) < 0.2 < 0.8 < chance_to_prove(0, 0, 900, 1500, 0.005)
