"""What came out, as frozen values, and the arithmetic on it: the best peer, and means over models. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from hasten.spec.measurement import NOT_MEASURED, Figure, MetricInfo, unmeasured
from hasten.spec.values import Value

__all__ = ["Result", "Row", "best_peer", "geometric_mean", "reached", "unbeaten"]

Bound = Literal["accepted", "unproven", "rejected", "absent"]
Reached = Literal["reached", "not reached", "open"]


class Row(Value, frozen=True):
    """One contestant on one model. Without figures there is a `reason`.

    `ratio` is how many times as fast as the reference it answers, `against` how many times as fast as it hasten does;
    `rps` and `rps_against` are the same of throughput. `bound` says whether its accuracy is within the bound.
    """

    id: str
    label: str
    settings: str
    reason: str = ""
    p50_ms: Figure = NOT_MEASURED
    ratio: Figure = NOT_MEASURED
    against: Figure = NOT_MEASURED
    change: Figure = NOT_MEASURED
    bound: Bound = "absent"
    instances: str = ""
    rps: Figure = NOT_MEASURED
    rps_against: Figure = NOT_MEASURED


class Result(Value, frozen=True):
    """All contestants on one model, measured in the same rounds. `repair` says what hasten mends there that is no
    acceleration of the model; where it is not empty, means are told without this model, too.
    """

    model: str
    about: str
    reference: str
    metric: MetricInfo
    samples: int
    rounds: int
    waited_s: float
    date: str
    budget_s: float
    hasten: str
    rows: tuple[Row, ...]
    repair: str = ""

    def row(self, id_: str) -> Row:
        """The contestant called `id_`."""
        return next(row for row in self.rows if row.id == id_)


def best_peer(rows: Sequence[Row], hasten: str, *, throughput: bool = False) -> Row | None:
    """The peer that hasten has least over, among those whose accuracy is proven to stay within the bound.

    Choosing the best of several noisy figures flatters the peers a little, never hasten.
    """

    def lead(row: Row) -> float:
        value = (row.rps_against if throughput else row.against).value
        return math.inf if value is None else value

    able = [row for row in rows if row.id != hasten and row.bound == "accepted" and lead(row) < math.inf]
    return min(able, key=lead, default=None)


def unbeaten(rows: Sequence[Row], hasten: str) -> list[Row]:
    """Peers that are faster than hasten beyond doubt, whatever is known of their accuracy."""
    return [row for row in rows if row.id != hasten and row.against.high is not None and row.against.high < 1.0]


def geometric_mean(figures: Sequence[Figure]) -> Figure:
    """The geometric mean of independent ratios, with a 95 % interval.

    Each ratio was measured on a model of its own, so that errors add as squares on the log scale; lower and upper arms
    are kept apart. The models are these models: nothing is said of others.
    """
    known = [(f.value, f.low, f.high) for f in figures if f.value and f.low and f.high]
    if not known or len(known) < len(figures):
        return unmeasured(f"{len(figures) - len(known)} of {len(figures)} ratios are not measured")
    n = len(known)
    middle = sum(math.log(value) for value, _, _ in known) / n
    down = math.sqrt(sum(math.log(value / low) ** 2 for value, low, _ in known)) / n
    up = math.sqrt(sum(math.log(high / value) ** 2 for value, _, high in known)) / n
    return Figure(
        value=math.exp(middle),
        low=math.exp(middle - down),
        high=math.exp(middle + up),
        n=n,
        method="geometric mean of independent ratios",
    )


def reached(figure: Figure, bar: float) -> Reached:
    """Whether a bar is reached: by the whole interval, by none of it, or by a part of it."""
    if figure.low is None or figure.high is None:
        return "open"
    return "reached" if figure.low >= bar else "not reached" if figure.high < bar else "open"
