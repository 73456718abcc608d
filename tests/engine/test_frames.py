"""Frames carry any tensors between processes unchanged."""

from __future__ import annotations

import contextlib
import struct
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hasten.engine import frames
from hasten.engine.frames import Frame, Layout, read_frame
from hasten.errors import EngineCrashed, EngineRunError
from hasten.spec.tensor import NUMPY_NAMES, DType

Array = np.ndarray[Any, Any]
KINDS = sorted({NUMPY_NAMES[dtype] for dtype in get_args(DType)})
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
TEXTS = st.binary(max_size=20) | st.text(max_size=5).map(str.encode)


def arrays(kind: str, shape: Any) -> st.SearchStrategy[Array]:
    return npst.arrays(object, shape, elements=TEXTS) if kind == "object" else npst.arrays(kind, shape)


@st.composite
def stacks(draw: st.DrawFn) -> list[Array]:
    """Arrays that agree on type and trailing axes."""
    kind, trailing = draw(st.sampled_from(KINDS)), draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0))
    rows = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    return [draw(arrays(kind, (count, *trailing))) for count in rows]


ARRAYS = st.sampled_from(KINDS).flatmap(lambda kind: arrays(kind, SHAPES))
ARGS = st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(), max_size=3)


def through(frame: Frame) -> Frame:
    return read_frame(frame.layout().to_bytes())


@given(ARGS, st.dictionaries(st.text(), ARRAYS, max_size=4))
def test_what_comes_out_is_what_went_in(args: dict[str, Any], tensors: dict[str, Array]) -> None:
    out = through(Frame("run", args, tensors))
    assert (out.op, out.args, list(out.tensors)) == ("run", args, list(tensors))
    for name, array in tensors.items():
        assert (out.tensors[name].dtype, out.tensors[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(out.tensors[name], array)


@given(st.lists(stacks(), max_size=3))
def test_parts_come_out_stacked(tensors: list[list[Array]]) -> None:
    layout = Layout("run", {}, {str(number): parts for number, parts in enumerate(tensors)})
    out = read_frame(layout.to_bytes())
    for number, parts in enumerate(tensors):
        wanted = np.concatenate(parts)
        assert out.tensors[str(number)].dtype == wanted.dtype
        np.testing.assert_array_equal(out.tensors[str(number)], wanted)


@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=4), st.integers(0, 255))
def test_a_frame_stays_within_its_size_and_needs_all_of_it(tensors: dict[str, Array], fill: int) -> None:
    layout = Frame("run", tensors=tensors).layout()
    memory = bytearray([fill]) * (layout.size + 64)
    layout.write(memory)
    assert memory[layout.size :] == bytes([fill]) * 64
    with pytest.raises(EngineCrashed):
        read_frame(memory[: layout.size - 1])


@given(st.dictionaries(st.text(max_size=9), npst.arrays("float32", SHAPES), min_size=1, max_size=4))
def test_tensors_begin_where_vector_instructions_like_it(tensors: dict[str, Array]) -> None:
    memory = Frame("run", tensors=tensors).layout().to_bytes()
    start = np.frombuffer(memory, np.uint8).ctypes.data
    for array in read_frame(memory).tensors.values():
        assert not array.size or (array.ctypes.data - start) % 64 == 0


@given(st.binary(max_size=60))
def test_noise_is_an_error_of_the_worker_and_nothing_else(noise: bytes) -> None:
    for memory in (noise, struct.pack("<I", len(noise)) + noise):
        with contextlib.suppress(EngineCrashed):
            assert isinstance(read_frame(bytearray(memory)).op, str)


@given(st.data())
def test_a_damaged_frame_is_an_error_of_the_worker_and_nothing_else(data: st.DataObject) -> None:
    tensors = {"x": np.arange(3, dtype=np.int16), "s": np.array([b"a", b""], dtype=object)}
    memory = Frame("run", {"n": 1}, tensors).layout().to_bytes()
    memory[data.draw(st.integers(0, len(memory) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(EngineCrashed):
        assert isinstance(read_frame(memory).op, str)


@pytest.mark.parametrize("name", [",i2", "i4,i4", "<M8[s]", "O", "<i3", "", "(2,)<i2", "<V6"])
def test_an_element_type_that_no_frame_has_is_an_error_of_the_worker(name: str) -> None:
    head = msgspec.msgpack.encode(("run", {}, [("x", name, (3,), 6)]))
    memory = bytearray(struct.pack("<I", len(head)) + head).ljust(256, b"\0")
    with pytest.raises(EngineCrashed, match="cannot be read"):
        read_frame(memory)


@pytest.mark.parametrize(
    "array",
    [np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3], np.arange(6, dtype=">i4"), np.array(["a", "é"])],
    ids=["strided", "big-endian", "unicode"],
)
def test_any_memory_layout_is_carried_right(array: Array) -> None:
    wanted = [item.encode() for item in array] if array.dtype.kind == "U" else array
    np.testing.assert_array_equal(through(Frame("run", tensors={"a": array})).tensors["a"], wanted)


def test_elements_that_are_neither_numbers_nor_strings_are_refused_by_name() -> None:
    with pytest.raises(EngineRunError, match=r"'when'.*datetime64"):
        Frame("run", tensors={"when": np.zeros(1, "datetime64[s]")}).layout()


def test_whoever_reads_a_frame_may_change_what_was_read() -> None:
    memory = Frame("run", {"variant": "a", "more": ["b"]}, {"x": np.arange(3)}).layout().to_bytes()
    plain = Frame("run", {"variant": "a"}, {"x": np.arange(3)}).layout().to_bytes()
    for one in (memory, plain):
        first = read_frame(one)
        first.args["variant"] = first.args.setdefault("more", []).append("c")
        first.tensors.clear()
        again = read_frame(one)
        assert again.args["variant"] == "a" and again.args.get("more", ["b"]) == ["b"]
        np.testing.assert_array_equal(again.tensors["x"], np.arange(3))


def test_of_heads_that_never_come_again_only_some_are_kept() -> None:
    for number in range(3 * frames._MOST):
        assert through(Frame("run", {"variant": str(number)})).args == {"variant": str(number)}
        assert len(frames._known_heads) <= frames._MOST


def test_a_head_of_the_same_bytes_is_read_with_the_tensors_of_its_own_frame() -> None:
    for value in range(3):
        np.testing.assert_array_equal(through(Frame("run", tensors={"x": np.full(5, value)})).tensors["x"], [value] * 5)
