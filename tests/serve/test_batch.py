from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hasten.errors import EngineRunError
from hasten.serve.batch import Outcome, Tensors, parts_of, split_rows, together_or_alone

BROKEN = EngineRunError("broken")


def requests(*rows: int) -> list[Tensors]:
    return [{"x": np.full((count, 2), number)} for number, count in enumerate(rows)]


def double(batch: Any) -> Outcome:
    return {"y": 2 * np.concatenate(parts_of(batch)["x"])}


def played(batch: list[Tensors], engine: Any) -> tuple[list[Outcome], list[int]]:
    """Play an engine; the outcomes, and how many requests each run had."""
    steps, runs = together_or_alone(batch), list[int]()
    following = next(steps)
    while True:
        runs.append(len(following))
        try:
            following = steps.send(engine(following))
        except StopIteration as end:
            return end.value, runs


def test_requests_run_together_and_get_their_own_rows() -> None:
    outcomes, runs = played(requests(1, 3, 2), double)
    assert runs == [3]
    assert [outcome["y"].tolist() for outcome in outcomes] == [[[0, 0]], [[2, 2]] * 3, [[4, 4]] * 2]  # type: ignore[index]


def test_a_batch_that_fails_runs_one_by_one_and_only_the_bad_input_fails() -> None:
    def engine(batch: Any) -> Outcome:
        return BROKEN if any((inputs["x"] == 1).any() for inputs in batch) else double(batch)

    (first, bad, last), runs = played(requests(1, 1, 1), engine)
    assert runs == [3, 1, 1, 1]
    assert bad is BROKEN
    assert [first["y"].tolist(), last["y"].tolist()] == [[[0, 0]], [[4, 4]]]  # type: ignore[index]


def test_outputs_that_do_not_follow_the_rows_are_asked_for_one_by_one() -> None:
    outcomes, runs = played(requests(1, 1), lambda batch: {"sum": np.float64(len(batch)).reshape(())})
    assert runs == [2, 1, 1]
    assert [outcome["sum"].item() for outcome in outcomes] == [1.0, 1.0]  # type: ignore[index]


def test_a_request_that_is_alone_runs_once_even_if_it_fails() -> None:
    assert played(requests(4), lambda batch: BROKEN) == ([BROKEN], [1])


@pytest.mark.parametrize("shape", [(), (2, 3), (4, 3)])
def test_outputs_that_do_not_follow_the_rows_are_never_handed_out(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineRunError):
        split_rows({"y": np.zeros(shape)}, [1, 2])
