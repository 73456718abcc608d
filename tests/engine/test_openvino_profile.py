"""Counters of OpenVINO, which are running means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hasten.engine.base import engines
from hasten.engine.isolate import load_isolated
from hasten.engine.openvino_profile import means_without, operators_of
from hasten.spec.target import Target


def test_the_first_runs_are_taken_out_of_the_mean_again() -> None:
    # One run of 100, then three of 20: a mean of 40.
    assert means_without({"a": 40.0}, {"a": 100.0}, runs=3, skip=1) == {"a": 20.0}


def test_what_was_too_quick_to_count_is_never_negative() -> None:
    assert means_without({"a": 0.0}, {"a": 3.0}, runs=3, skip=1) == {"a": 0.0}


def test_an_executed_product_knows_its_work_and_where_it_comes_from(make_linear: Callable[..., Path]) -> None:
    with load_isolated(make_linear(features=64, classes=32), Target(engine="openvino", threads=1)) as session:
        session.put(0, {"x": np.ones((1, 64), np.float32)})
        found = session.profile([0] * 4, warmup=1)
    assert found.averaged
    [product] = [item for item in found.operators if item.matrix]
    assert product.flops is not None and product.flops >= 2 * 64 * 32
    assert product.bytes_moved is not None and product.bytes_moved >= 4 * 64 * 32


def test_operators_that_are_all_too_quick_to_count_still_ran(make_linear: Callable[..., Path]) -> None:
    session = engines.get("openvino").load(make_linear(), Target(engine="openvino", threads=1))
    try:
        executed = session.executed()
        [product] = [item for item in operators_of(executed, {"y": 0.0}) if item.kind == "FullyConnected"]
        assert product.us == (0.5,)
    finally:
        session.close()
