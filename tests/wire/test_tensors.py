from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.spec.tensor import DTYPE_SIZES, NUMPY_NAMES, DType
from hasten.wire import tensors
from hasten.wire.base import Limits
from hasten.wire.tensors import (
    checked_shape,
    from_bytes,
    from_json,
    from_json_text,
    to_bytes,
    to_json,
    to_json_text,
)

DTYPES: tuple[DType, ...] = get_args(DType)
IN_JSON: tuple[DType, ...] = tuple(dtype for dtype in DTYPES if dtype != "BF16")
EXAMPLES = settings(deadline=None, max_examples=50)


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(RequestError) as caught:
        call(*args)
    assert caught.value.code == "invalid"
    return caught.value.message


@pytest.mark.parametrize("dtype", DTYPES)
@EXAMPLES
@given(data=st.data())
def test_every_type_survives_the_trip_as_bytes(dtype: DType, arrays: Any, data: st.DataObject) -> None:
    array = data.draw(arrays.of(dtype))
    blob = to_bytes(array, dtype)
    back = from_bytes("x", dtype, array.shape, memoryview(blob))
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes() if dtype != "BYTES" else back.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", IN_JSON)
@EXAMPLES
@given(data=st.data())
def test_every_type_but_bf16_survives_the_trip_as_flat_json(dtype: DType, arrays: Any, data: st.DataObject) -> None:
    array = data.draw(arrays.of(dtype, finite=True, text=True))
    flat = json.loads(json.dumps(to_json("x", array, dtype)))
    back = from_json("x", dtype, array.shape, flat)
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize("writer", ["orjson", "msgspec"])
@pytest.mark.parametrize("dtype", IN_JSON)
@EXAMPLES
@given(data=st.data())
def test_every_type_but_bf16_survives_the_trip_as_json_text(
    dtype: DType, writer: str, arrays: Any, data: st.DataObject
) -> None:
    if writer == "orjson":
        pytest.importorskip("orjson")
    array = data.draw(arrays.of(dtype, finite=True, text=True))
    with pytest.MonkeyPatch.context() as patch:
        if writer == "msgspec":
            patch.setattr(tensors, "_orjson", None)
        text = to_json_text("x", array, dtype)
    back = from_json_text("x", dtype, array.shape, text)
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist() if dtype == "BYTES" else back.tobytes() == array.tobytes()
    assert from_json("x", dtype, array.shape, json.loads(text)).tolist() == array.tolist(), "for other readers too"


@pytest.mark.parametrize("dtype", IN_JSON)
@EXAMPLES
@given(data=st.data())
def test_nested_json_means_the_same_as_flat_json(dtype: DType, arrays: Any, data: st.DataObject) -> None:
    array = data.draw(arrays.of(dtype, finite=True, text=True).filter(lambda a: a.ndim))
    flat = np.array(to_json("x", array, dtype), dtype=object)
    nested = json.loads(json.dumps(flat.reshape(array.shape).tolist()))
    assert from_json("x", dtype, array.shape, nested).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", IN_JSON)
@EXAMPLES
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=8,
    )
)
def test_any_json_value_becomes_a_tensor_of_the_type_or_is_refused(dtype: DType, value: object) -> None:
    array = code = None
    try:
        array = from_json("x", dtype, (2, 2), value)
    except RequestError as error:
        code = error.code
    assert array is not None or code == "invalid"
    if array is not None:
        assert array.shape == (2, 2)
        assert array.dtype == np.dtype(NUMPY_NAMES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@EXAMPLES
@given(blob=st.binary(max_size=64))
def test_any_bytes_become_a_tensor_of_the_type_or_are_refused(dtype: DType, blob: bytes) -> None:
    array = code = None
    try:
        array = from_bytes("x", dtype, (2, 2), memoryview(blob))
    except RequestError as error:
        code = error.code
    assert array is not None or code == "invalid"
    if array is not None:
        assert array.shape == (2, 2)


@pytest.mark.parametrize("dtype", sorted(DTYPE_SIZES))
@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_byte_too_few_or_too_many_is_refused(dtype: DType, off_by: int) -> None:
    blob = bytes(6 * DTYPE_SIZES[dtype] + off_by)
    assert "bytes" in refusal(from_bytes, "x", dtype, (2, 3), memoryview(blob))


def test_bytes_on_the_wire_are_little_endian_whatever_the_array_is() -> None:
    array = np.array([1, 256], dtype=">u4")
    assert bytes(to_bytes(array, "UINT32")) == b"\x01\0\0\0\0\x01\0\0"


def test_an_array_that_is_not_contiguous_is_sent_row_by_row() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    assert from_bytes("x", "INT16", (3, 2), memoryview(to_bytes(array, "INT16"))).tolist() == array.tolist()


def test_a_tensor_read_from_bytes_cannot_be_written_to() -> None:
    array = from_bytes("x", "FP32", (1,), memoryview(bytes(4)))
    assert not array.flags.writeable


def test_an_empty_tensor_has_no_bytes() -> None:
    assert bytes(to_bytes(np.empty((0, 3), np.float32), "FP32")) == b""


def test_a_bool_is_one_byte_of_zero_or_one() -> None:
    assert bytes(to_bytes(np.array([True, False]), "BOOL")) == b"\x01\0"
    assert "BOOL" in refusal(from_bytes, "x", "BOOL", (2,), memoryview(b"\x01\x02"))


def test_strings_are_a_length_and_their_bytes() -> None:
    array = np.array([b"ab", b""], dtype=object)
    assert to_bytes(array, "BYTES") == b"\x02\0\0\0ab\0\0\0\0"


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(b"", id="nothing where two are wanted"),
        pytest.param(b"\x01\0\0\0a", id="one where two are wanted"),
        pytest.param(b"\x01\0\0\0a" * 3, id="three where two are wanted"),
        pytest.param(b"\x01\0\0\0a\x01\0", id="a length cut off"),
        pytest.param(b"\x01\0\0\0a\x05\0\0\0abc", id="content cut off"),
        pytest.param(b"\xff\xff\xff\xff" + b"a" * 20, id="the largest length"),
        pytest.param(b"\x01\0\0\0a\xff\xff\xff\xff", id="the largest length at the end"),
    ],
)
def test_damaged_strings_are_refused(blob: bytes) -> None:
    refusal(from_bytes, "x", "BYTES", (2,), memoryview(blob))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("BOOL", 1), ("BOOL", 0), ("BOOL", "true"), ("BOOL", None),
        ("UINT8", -1), ("UINT8", 256), ("UINT8", 1.0), ("UINT8", True), ("UINT8", "1"),
        ("UINT16", 2**16), ("UINT32", 2**32), ("UINT64", 2**64), ("UINT64", -1),
        ("INT8", 128), ("INT8", -129), ("INT16", 2**15), ("INT32", 2**31), ("INT64", 2**63), ("INT64", -(2**63) - 1),
        ("INT64", 10**400), ("INT64", 0.5), ("INT64", None), ("INT64", {}),
        ("FP16", 70000.0), ("FP32", 1e39), ("FP64", 10**400), ("FP32", True), ("FP32", "1.0"), ("FP32", None),
        ("FP32", float("nan")), ("FP32", float("inf")), ("FP32", {"a": 1}),
        ("BYTES", 1), ("BYTES", None), ("BYTES", True),
    ],
)  # fmt: skip
def test_json_must_hold_values_of_the_type_and_within_its_range(dtype: DType, value: object) -> None:
    refusal(from_json, "x", dtype, (1,), [value])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("BOOL", True), ("UINT8", 255), ("INT8", -128), ("INT64", -(2**63)), ("UINT64", 2**64 - 1),
        ("FP16", 65504.0), ("FP32", 1), ("FP64", 1.7976931348623157e308), ("BYTES", "ä€"),
    ],
)  # fmt: skip
def test_json_may_hold_the_largest_values_of_the_type(dtype: DType, value: Any) -> None:
    expected = value.encode() if isinstance(value, str) else value
    assert from_json("x", dtype, (1,), [value]).tolist() == [expected]


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1, 2, 3, 4]], [1, 2, [3, 4]], [[[1, 2]], [[3, 4]]], [1, 2, 3], []])
def test_json_must_be_flat_or_nested_as_the_shape_says(data: list[Any]) -> None:
    refusal(from_json, "x", "INT8", (2, 2), data)


@pytest.mark.parametrize("dtype", ["FP32", "INT8", "BYTES"])
@pytest.mark.parametrize("text", [b'["\x80"]', b'["ok", "\xff\xfe"]'])
def test_json_text_must_be_utf8_inside_its_strings_too(dtype: DType, text: bytes) -> None:
    assert "not valid" in refusal(from_json_text, "x", dtype, (1,), text)


@pytest.mark.parametrize("data", [None, 1, "1234", {"0": 1}])
def test_json_data_must_be_an_array(data: object) -> None:
    assert "not an array" in refusal(from_json, "x", "INT8", (1,), data)


def test_bf16_travels_in_bytes_only() -> None:
    array = np.array([1], np.uint16)
    assert "use binary tensor data" in refusal(from_json, "x", "BF16", (1,), [1])
    assert "use binary tensor data" in refusal(to_json, "y", array, "BF16")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64"])
def test_an_output_that_json_cannot_carry_says_what_to_use(dtype: DType, value: float) -> None:
    array = np.array([value], NUMPY_NAMES[dtype])
    assert "use binary tensor data" in refusal(to_json, "y", array, dtype)
    assert "use binary tensor data" in refusal(to_json_text, "y", array, dtype)


@pytest.mark.parametrize(("dtype", "value"), [("FP16", b"[1e5]"), ("FP32", b"[1e39]"), ("FP64", b"[1e400]")])
def test_a_flat_number_beyond_its_type_is_refused(dtype: DType, value: bytes) -> None:
    assert "x" in refusal(from_json_text, "x", dtype, (1,), value)


def test_large_data_that_lie_in_bytes_go_out_as_they_are() -> None:
    raw = bytes(8000)
    whole = np.ndarray((2, 1000), np.float32, raw)
    assert to_bytes(whole, "FP32") is raw
    for part in (whole[1:], whole.T, whole[:, ::-1]):
        assert bytes(to_bytes(part, "FP32")) == part.tobytes()


def test_an_output_that_is_not_utf_8_says_what_to_use() -> None:
    assert "use binary tensor data" in refusal(to_json, "y", np.array([b"\xff"], dtype=object), "BYTES")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param([-1], id="a negative dimension"),
        pytest.param([0, -1], id="a negative dimension beside a zero"),
        pytest.param([16, 2**60 + 2], id="a product that wraps around to a small number of bytes"),
        pytest.param([2**32, 2**32], id="a product that wraps around to zero"),
        pytest.param([0, 2**62], id="a zero that hides an impossible dimension"),
        pytest.param([10**400], id="a dimension beyond any machine word"),
        pytest.param([1] * 33, id="too many dimensions"),
        pytest.param([2] * 32, id="many small dimensions"),
    ],
)
def test_an_impossible_shape_is_refused_before_anything_is_allocated(shape: list[int]) -> None:
    refusal(checked_shape, "x", shape, Limits())


@pytest.mark.parametrize("shape", [[], [0], [1], [3, 0, 5], [1] * 32, [64 * 2**20]])
def test_a_shape_that_could_be_carried_is_taken(shape: list[int]) -> None:
    assert checked_shape("x", shape, Limits()) == tuple(shape)
