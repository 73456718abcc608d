"""Rounds joined into one table."""

from __future__ import annotations

import numpy as np
import pytest

from hasten.errors import EngineRunError
from hasten.profile.rounds import merged
from hasten.spec.profile import Observation, OperatorTime


def observation(*operators: tuple[str, str, tuple[float, ...]], averaged: bool = False) -> Observation:
    listed = tuple(OperatorTime(name=name, kind=kind, us=us) for name, kind, us in operators)
    return Observation(operators=listed, wall_us=(9.0, 9.0), averaged=averaged)


def test_operators_are_matched_by_order_because_engines_number_their_inventions_anew() -> None:
    table = merged(
        [
            observation(("Multiply_7", "Conv", (1.0,)), averaged=True),
            observation(("Multiply_9", "Conv", (3.0,)), averaged=True),
        ]
    )
    assert (table.operators[0].name, table.us.tolist()) == ("Multiply_7", [[1.0, 3.0]])


def test_an_operator_that_a_branch_left_out_took_no_time_in_that_round() -> None:
    table = merged(
        [
            observation(("a", "Relu", (1.0, 2.0))),
            observation(("a", "Relu", (3.0, 4.0)), ("b", "Exp", (5.0, 6.0))),
        ]
    )
    np.testing.assert_array_equal(table.us, [[1, 2, 3, 4], [0, 0, 5, 6]])


def test_operators_without_measurable_time_are_left_out() -> None:
    table = merged([observation(("a", "Relu", (0.0, 0.0)), ("b", "Exp", (0.0, 1.0)))])
    assert [item.name for item in table.operators] == ["b"]


def test_another_graph_in_each_round_is_an_error() -> None:
    with pytest.raises(EngineRunError, match="another graph"):
        merged([observation(("a", "Relu", (1.0,)), averaged=True), observation(("a", "Exp", (1.0,)), averaged=True)])
