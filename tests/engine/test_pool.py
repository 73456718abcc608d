"""Callers share items without ever holding the same one, and nobody waits for a pool that is closed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hasten.engine.fit import Fit
from hasten.engine.pool import Pool
from hasten.errors import EngineRunError
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec


def test_no_two_callers_hold_one_item_and_all_items_are_used() -> None:
    pool, held, seen = Pool(["a", "b"]), set[str](), list[str]()
    meet = threading.Barrier(2, timeout=30)

    def call(_: int) -> None:
        with pool.take() as item:
            assert item not in held
            held.add(item)
            meet.wait()
            seen.append(item)
            held.remove(item)

    with ThreadPoolExecutor(2) as callers:
        list(callers.map(call, range(40)))
    assert set(seen) == {"a", "b"}


def test_an_item_comes_back_after_an_error() -> None:
    pool = Pool(["a"])
    with pytest.raises(ZeroDivisionError), pool.take():
        raise ZeroDivisionError
    with pool.take() as item:
        assert item == "a"


def test_callers_that_wait_are_told_that_the_pool_was_closed() -> None:
    pool = Pool(["a"])

    def call(_: int) -> str:
        with pytest.raises(EngineRunError, match="is closed"), pool.take():
            return "held"
        return "told"

    with ThreadPoolExecutor(3) as callers:
        with pool.take():
            waiting = callers.map(call, range(3))
            pool.close()
            pool.close()
        assert list(waiting) == ["told"] * 3


def test_what_fits_passes_and_what_does_not_is_told_in_words() -> None:
    specs = (TensorSpec(name="x", dtype="FP32", shape=("n", 4)), TensorSpec(name="s", dtype="BYTES", shape=()))
    fit = Fit("some engine", Signature(inputs=specs, outputs=()))
    good = {"x": np.zeros((0, 4), np.float32), "s": np.array(b"", dtype=object)}
    fit.check(good)
    with pytest.raises(EngineRunError, match="some engine cannot run this: The input 'x' has 5 at axis 1"):
        fit.check(good | {"x": np.zeros((1, 5), np.float32)})
    with pytest.raises(EngineRunError, match="'s' is missing"):
        fit.check({"x": good["x"]})


def test_numbers_in_the_byte_order_of_another_processor_are_refused_before_they_are_misread() -> None:
    fit = Fit("some engine", Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=("n",)),), outputs=()))
    foreign = np.dtype(np.float32).newbyteorder("S")
    with pytest.raises(EngineRunError, match="order of another processor") as caught:
        fit.check({"x": np.zeros(3, foreign)})
    assert "newbyteorder" in caught.value.remedy
