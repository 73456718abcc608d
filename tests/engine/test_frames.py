"""Frames carry any tensors between processes unchanged."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hasten.engine.frames import Frame, pack, read_frame
from hasten.errors import EngineCrashed

DTYPES = st.sampled_from(["bool", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"])
ARRAYS = DTYPES.flatmap(lambda d: npst.arrays(d, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))


def through(frame: Frame) -> Frame:
    stream = memoryview(b"".join(pack(frame)))
    place = 0

    def read(size: int) -> bytearray:
        nonlocal place
        place += size
        return bytearray(stream[place - size : place])

    return read_frame(read)


@given(st.dictionaries(st.text(min_size=1), ARRAYS, max_size=4))
def test_tensors_come_out_as_they_went_in(tensors: dict[str, np.ndarray]) -> None:
    out = through(Frame("run", {"slot": 3}, tensors))
    assert out.op == "run"
    assert out.args == {"slot": 3}
    assert list(out.tensors) == list(tensors)
    for name, array in tensors.items():
        assert out.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(out.tensors[name], array)


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_strings_come_out_as_bytes(items: list[bytes]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    assert list(through(Frame("run", tensors={"s": array})).tensors["s"]) == items


@given(st.binary(min_size=1, max_size=40))
def test_a_damaged_head_is_an_error_of_the_worker_and_nothing_else(noise: bytes) -> None:
    stream = struct.pack("<IQ", len(noise), 0) + noise
    place = 0

    def read(size: int) -> bytearray:
        nonlocal place
        place += size
        return bytearray(stream[place - size : place])

    with contextlib.suppress(EngineCrashed):
        assert isinstance(read_frame(read).op, str)


def test_a_tensor_that_is_not_contiguous_is_carried_right() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3]
    np.testing.assert_array_equal(through(Frame("run", tensors={"a": array})).tensors["a"], array)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_empty_and_scalar_tensors_keep_their_shape(shape: tuple[int, ...]) -> None:
    out = through(Frame("run", tensors={"a": np.zeros(shape, np.int64)}))
    assert out.tensors["a"].shape == shape
