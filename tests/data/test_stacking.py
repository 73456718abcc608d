"""Whether samples may be stacked: by proof, not by the signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from hasten.data.stacking import rows_are_independent
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec

Run = Callable[[Mapping[str, Any]], dict[str, Any]]

X = TensorSpec(name="x", dtype="FP32", shape=("n", 4))
OPEN = Signature(inputs=(X,), outputs=(X,))
FIXED = Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=(1, 4)),), outputs=(X,))


def samples(*lengths: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=length).astype(np.float32)} for length in lengths]


def double(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"x": inputs["x"] * 2}


def classes(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"x": inputs["x"].argmax(1)}


@pytest.mark.parametrize("run", [double, classes])
def test_rows_that_are_answered_alike_in_a_batch_are_independent(run: Run) -> None:
    assert rows_are_independent(OPEN, samples(4, 4, 4), run)


@pytest.mark.parametrize(
    "run",
    [
        lambda inputs: {"x": inputs["x"] - inputs["x"].mean(0)},
        lambda inputs: {"x": inputs["x"].mean(0, keepdims=True)},
        lambda inputs: {"x": inputs["x"].reshape(-1)},
        lambda inputs: {"x": np.arange(len(inputs["x"]))},
    ],
)
def test_rows_that_know_of_each_other_are_not(run: Run) -> None:
    assert not rows_are_independent(OPEN, samples(4, 4, 4), run)


def test_what_cannot_be_stacked_proves_nothing() -> None:
    assert not rows_are_independent(OPEN, samples(4), double)
    assert not rows_are_independent(OPEN, [], double)
    assert not rows_are_independent(FIXED, samples(4, 4), double)
    open_lengths = Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=("n", "m")),), outputs=(X,))
    assert not rows_are_independent(open_lengths, samples(4, 5), double)
