"""Service times by layout and batch size, from arms with made-up times."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hasten.data import Dataset
from hasten.measure.contention import Watch
from hasten.measure.service import batch_sizes, layouts_for, measure_service, shape_keys
from hasten.spec.signature import Signature
from hasten.spec.target import Target
from hasten.spec.tensor import TensorSpec
from hasten.testing import FakeArm

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch", "n")),),
    outputs=(TensorSpec(name="y", dtype="FP32", shape=("batch", "n")),),
)


class Stacked(FakeArm):
    """Takes 10 ms for a batch of any size up to 4, and the whole time again for each further 4."""

    def __init__(self) -> None:
        super().__init__(SIGNATURE, dict, ms=10.0)
        self.rows: dict[int, int] = {}

    def put(self, slot: int, inputs: Any) -> None:
        self.rows[slot] = len(inputs["x"])

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0) -> list[float]:
        return [10.0 * -(-self.rows[slot] // 4) for slot in slots]


def measured(sizes: Sequence[int], shapes: Sequence[int] = (3,) * 40) -> tuple[list[Any], list[Target]]:
    data = Dataset(inputs=[{"x": np.zeros(size, np.float32)} for size in shapes])
    opened: list[Target] = []

    @contextmanager
    def open_arm(target: Target) -> Generator[Stacked]:
        opened.append(target)
        yield Stacked()

    watch = Watch(0.0, probe=lambda: 99.0)
    whole = data.subset(range(len(data)))
    return measure_service(open_arm, Target(engine="fake", threads=2), whole, sizes, 2, watch), opened


def test_the_own_layout_comes_first_and_each_equal_share_of_the_cores_follows() -> None:
    assert layouts_for(Target(engine="e", threads=4), 4) == [(1, 4), (2, 2), (4, 1)]
    assert layouts_for(Target(engine="e"), 2) == [(1, 0), (2, 1)]
    assert layouts_for(Target(engine="e", threads=1), 1) == [(1, 1)]
    assert layouts_for(Target(engine="e", threads=1), 2) == [(1, 1), (1, 2), (2, 1)]


def test_batches_grow_by_doubling_up_to_the_proven_limit() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(16) == [1, 2, 4, 8, 16]
    assert batch_sizes(6) == [1, 2, 4]


def test_every_layout_is_loaded_with_its_threads_and_measured_at_every_size_that_pays() -> None:
    cells, opened = measured([1, 2, 4, 8, 16])
    assert [target.threads for target in opened] == [2, 1, 1]
    assert {(cell.instances, cell.batch) for cell in cells} == {(n, size) for n in (1, 2) for size in (1, 2, 4)}


def test_instances_beside_each_other_are_not_pinned_to_the_same_cores() -> None:
    _, opened = measured([1])
    assert [target.pin for target in opened] == [True, False, False]


def test_rows_per_second_count_all_instances_and_all_rows() -> None:
    cells, _ = measured([1, 4])
    rates = {(cell.instances, cell.batch): cell.rows_per_s.value for cell in cells}
    assert rates == {(1, 1): 100.0, (1, 4): 400.0, (2, 1): 200.0, (2, 4): 800.0}


def test_samples_of_other_shapes_stand_alone_and_only_equal_ones_are_stacked() -> None:
    cells, _ = measured([1, 4], shapes=[3, 3, 5] * 14)
    assert {cell.batch for cell in cells} == {1, 4}


def test_keys_are_equal_where_samples_can_share_a_batch() -> None:
    data = Dataset(inputs=[{"x": np.zeros(n, np.float32)} for n in (3, 5, 3)])
    keys = shape_keys(SIGNATURE, data.subset(range(3)))
    assert keys[0] == keys[2] != keys[1]
