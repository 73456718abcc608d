"""The arithmetic of the benchmark against peers: who is the best, means over models, what is reached."""

from __future__ import annotations

import pytest

from hasten.spec.measurement import Figure
from peers.outcome import Row, best_peer, geometric_mean, reached, unbeaten


def figure(value: float, spread: float = 1.1) -> Figure:
    return Figure(value=value, low=value / spread, high=value * spread, n=40)


def row(id_: str, against: float, bound: str = "accepted", rps: float = 1.0) -> Row:
    return Row(id=id_, label=id_, settings="", against=figure(against), rps_against=figure(rps), bound=bound)


def test_the_best_peer_is_the_one_that_hasten_has_least_over() -> None:
    rows = [row("slow", 2.0), row("quick", 1.1), row("hasten", 1.0)]
    best = best_peer(rows, "hasten")
    assert best is not None and best.id == "quick"


def test_a_peer_whose_accuracy_is_not_proven_is_not_the_best() -> None:
    rows = [row("careless", 0.5, "rejected"), row("open", 0.8, "unproven"), row("sound", 1.5), row("hasten", 1.0)]
    best = best_peer(rows, "hasten")
    assert best is not None and best.id == "sound"


def test_the_best_in_throughput_may_be_another() -> None:
    rows = [row("quick", 1.1, rps=2.0), row("broad", 1.5, rps=1.2)]
    best = best_peer(rows, "hasten", throughput=True)
    assert best is not None and best.id == "broad"


def test_there_may_be_no_peer_within_the_bound() -> None:
    assert best_peer([row("careless", 0.5, "rejected"), row("hasten", 1.0)], "hasten") is None


def test_a_peer_that_is_faster_is_told_whatever_its_accuracy() -> None:
    rows = [row("careless", 0.5, "rejected"), row("even", 0.97), row("slow", 2.0), row("hasten", 1.0)]
    assert [item.id for item in unbeaten(rows, "hasten")] == ["careless"]


def test_the_mean_of_a_ratio_and_its_inverse_is_one() -> None:
    mean = geometric_mean([figure(4.0), figure(0.25)])
    assert mean.value == pytest.approx(1.0)


def test_the_mean_of_several_is_surer_than_each() -> None:
    one, four = geometric_mean([figure(2.0)]), geometric_mean([figure(2.0)] * 4)
    assert one.low == pytest.approx(2.0 / 1.1) and one.high == pytest.approx(2.0 * 1.1)
    # Errors add as squares: a quarter of four times the square is half as wide.
    assert four.low == pytest.approx(2.0 / 1.1**0.5) and four.high == pytest.approx(2.0 * 1.1**0.5)


def test_a_mean_with_a_hole_is_not_measured() -> None:
    hole = Figure(value=None, low=None, high=None, n=0, reason="failed")
    assert geometric_mean([figure(2.0), hole]).value is None
    assert geometric_mean([]).value is None


@pytest.mark.parametrize(("value", "said"), [(2.0, "reached"), (1.0, "open"), (0.5, "not reached")])
def test_a_bar_is_reached_by_the_whole_interval_only(value: float, said: str) -> None:
    assert reached(figure(value), 1.0) == said
