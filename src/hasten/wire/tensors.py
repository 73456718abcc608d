"""Tensors as the Open Inference Protocol carries them: raw little-endian bytes, or flat or nested JSON numbers.

Everything is checked before anything is allocated: shapes as Python integers, sizes against the bytes that are there,
numbers against the range of their type.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np

from hasten.errors import RequestError
from hasten.spec.tensor import DTYPE_SIZES, NUMPY_NAMES, DType
from hasten.wire.base import Limits, invalid

__all__ = [
    "checked_shape", "from_bytes", "from_flat_list", "from_flat_text", "from_json", "from_json_text", "hollow",
    "to_bytes", "to_json", "to_json_text", "view_of",
]  # fmt: skip


def _optional_orjson() -> Any:
    """orjson, which writes an array in a fourth of the time that msgspec takes for a list of its numbers; or None."""
    try:
        import orjson  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return None
    return orjson


def _optional_numerals() -> Any:
    """What reads flat lists of numbers without an object for each: compiled, or None."""
    try:
        from hasten.wire import numerals  # pyright: ignore[reportMissingModuleSource]
    except ImportError:
        return None
    return numerals


_orjson = _optional_orjson()
_numerals = _optional_numerals()
Array: TypeAlias = np.ndarray[Any, Any]
_LENGTH = struct.Struct("<I")
# Made once: making a dtype takes longer than reading a small tensor.
_LITTLE: dict[DType, np.dtype[Any]] = {
    dtype: np.dtype(name).newbyteorder("<") for dtype, name in NUMPY_NAMES.items() if dtype != "BYTES"
}
# The struct module's letters: it refuses what is too large for its type, as JSON's numbers must be.
_FLOATS: dict[DType, str] = {"FP16": "e", "FP32": "f", "FP64": "d"}
# By the same letters, what is read without an object for each number, where that is compiled.
_STRAIGHT: dict[DType, str] = {
    "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
_FLAT_FLOATS = msgspec.json.Decoder(list[float]).decode
_FLAT_INTEGERS = msgspec.json.Decoder(list[int]).decode
_INTEGERS = frozenset(dtype for dtype in NUMPY_NAMES if dtype.lstrip("U").startswith("INT"))
_ANYTHING = msgspec.json.Decoder().decode
_to_text = msgspec.json.Encoder().encode
# More numbers than this are not worth handing over one by one; smaller tensors are copied rather than viewed.
_FEW, _SMALL_BYTES = 4096, 2048


def checked_shape(name: str, shape: Sequence[int], limits: Limits) -> tuple[int, ...]:
    """Return the shape as a tuple after checking it: no negative dimension, and a product that could be carried
    at all.
    """
    if len(shape) > limits.dimensions:
        raise invalid(f"The shape of {name!r} has {len(shape)} dimensions; {limits.dimensions} are allowed.")
    if any(dim < 0 for dim in shape):
        raise invalid(f"The shape of {name!r} has a negative dimension.")
    # A zero makes the product zero and must not hide an impossible neighbour.
    if math.prod(dim for dim in shape if dim) > limits.body:
        raise invalid(f"The shape of {name!r} holds more elements than any request may carry.")
    return tuple(shape)


def from_bytes(name: str, dtype: DType, shape: tuple[int, ...], blob: memoryview) -> Array:
    """Return a read-only view of raw little-endian data. BYTES elements are a uint32 length and the bytes."""
    if dtype == "BYTES":
        return _strings(name, shape, blob)
    wanted = math.prod(shape) * DTYPE_SIZES[dtype]
    if len(blob) != wanted:
        raise invalid(f"The input {name!r} has {len(blob)} bytes; its shape and type need {wanted}.")
    array = view_of(dtype, shape, blob)
    if dtype == "BOOL" and array.size and int(array.view(np.uint8).max()) > 1:
        raise invalid(f"The input {name!r} has BOOL bytes other than 0 and 1.")
    return array


def hollow(dtype: DType, shape: tuple[int, ...]) -> Array:
    """Return an array whose elements are all one and the same zero: no more memory, whatever the shape."""
    return np.ndarray(shape, _LITTLE[dtype], bytes(8), strides=(0,) * len(shape))


def view_of(dtype: DType, shape: tuple[int, ...], blob: bytes | memoryview, start: int = 0) -> Array:
    """Return a read-only view of raw data whose size was checked; not for BYTES."""
    return np.ndarray(shape, _LITTLE[dtype], blob, start) if 0 not in shape else np.empty(shape, _LITTLE[dtype])


def to_bytes(array: Array, dtype: DType) -> bytes | memoryview:
    """Return the raw little-endian form."""
    if dtype == "BYTES":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
        return b"".join(_LENGTH.pack(len(item)) + item for item in items)
    if array.dtype == _LITTLE[dtype]:
        if array.nbytes <= _SMALL_BYTES:
            return array.tobytes()
        base: Any = array.base
        if type(base) is bytes and len(base) == array.nbytes and array.flags.c_contiguous:
            # All of it, and in the form that can be held on to without a copy.
            return base
    ordered = np.ascontiguousarray(array, _LITTLE[dtype])
    return ordered.reshape(-1).view(np.uint8).data if ordered.size else b""


def from_json_text(name: str, dtype: DType, shape: tuple[int, ...], text: bytes | memoryview | msgspec.Raw) -> Array:
    """Return an array from the JSON text of its data. Raises as `from_json`, and `DecodeError` for what is no JSON."""
    array = from_flat_text(name, dtype, shape, text)
    if array is not None:
        return array
    try:
        data = _ANYTHING(text)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        # Whoever cut the text out of a request did not look into its strings.
        raise invalid(f"The data of {name!r} is not valid: {error}.") from error
    return from_json(name, dtype, shape, data)


def from_flat_text(
    name: str, dtype: DType, shape: tuple[int, ...], text: bytes | memoryview | msgspec.Raw
) -> Array | None:
    """The same for a flat list of numbers; None for anything else. Never nests, so that no depth has to be bounded."""
    if _numerals is not None:
        letter = _STRAIGHT.get(dtype)
        if letter is not None:
            packed: bytes | None = _numerals.read(text, letter, math.prod(shape))
            if packed is not None:
                return view_of(dtype, shape, packed)
    return from_flat_list(name, dtype, shape, text)


def from_flat_list(
    name: str, dtype: DType, shape: tuple[int, ...], text: bytes | memoryview | msgspec.Raw
) -> Array | None:
    """The same by way of a list of Python's numbers, as it is done where nothing is compiled; it says what is wrong."""
    if dtype not in _FLOATS and dtype not in _INTEGERS:
        return None
    try:
        flat = _FLAT_FLOATS(text) if dtype in _FLOATS else _FLAT_INTEGERS(text)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return None
    _require_count(name, len(flat), shape)
    if dtype in _FLOATS and len(flat) <= _FEW:
        # Neither lets pass what is beyond the range of its type, so that all are finite.
        return _packed(name, dtype, flat).reshape(shape)
    return _numbers(name, dtype, flat).reshape(shape)


def from_json(name: str, dtype: DType, shape: tuple[int, ...], data: object) -> Array:
    """Return an array from flat or nested JSON values. Raises `RequestError` where types, ranges or counts do not
    fit.
    """
    if dtype == "BF16":
        raise invalid(f"The input {name!r} is BF16, which JSON cannot carry; use binary tensor data.")
    if not isinstance(data, list):
        raise invalid(f"The data of {name!r} is not an array.")
    flat = list(_flatten(data))
    _require_count(name, len(flat), shape)
    _check_nesting(name, data, shape)
    return _typed(name, dtype, flat).reshape(shape)


def to_json_text(name: str, array: Array, dtype: DType) -> bytes:
    """Return the JSON text of flat values, row-major: numbers in as few digits as their own type needs to come back.
    Raises as `to_json`.
    """
    if _orjson is None or dtype in ("BF16", "BYTES") or not array.dtype.isnative:
        return _to_text(to_json(name, array, dtype))
    text = _orjson.dumps(array.ravel(), option=_orjson.OPT_SERIALIZE_NUMPY)
    # What no JSON number says becomes null, which no number looks like.
    if array.dtype.kind == "f" and b"null" in text:
        raise _not_finite(name)
    return text


def to_json(name: str, array: Array, dtype: DType) -> list[Any]:
    """Return flat JSON values, row-major. Raises `RequestError` for what JSON cannot carry."""
    if dtype == "BF16":
        raise invalid(f"The output {name!r} is BF16, which JSON cannot carry; use binary tensor data.")
    if dtype == "BYTES":
        try:
            return [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
        except UnicodeDecodeError as error:
            raise invalid(f"The output {name!r} is not UTF-8; use binary tensor data.") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _not_finite(name)
    return array.ravel().tolist()


def _not_finite(name: str) -> RequestError:
    return invalid(f"The output {name!r} holds NaN or infinity; use binary tensor data.")


def _typed(name: str, dtype: DType, flat: list[Any]) -> Array:
    if dtype == "BYTES":
        return _json_strings(name, flat)
    if dtype == "BOOL":
        _require(name, dtype, all(value is True or value is False for value in flat))
        return np.array(flat, dtype=bool)
    # bool is a subclass of int in Python, not in the protocol.
    allowed = {int, float} if dtype in _FLOATS else {int}
    _require(name, dtype, set(map(type, flat)) <= allowed)
    return _numbers(name, dtype, flat)


def _numbers(name: str, dtype: DType, flat: list[Any]) -> Array:
    """The array of numbers of the right types, once they are seen to lie in the range of theirs."""
    kind = _LITTLE[dtype]
    if dtype in _FLOATS:
        return _floats(name, dtype, flat)
    limits = np.iinfo(kind)
    _require(name, dtype, not flat or (min(flat) >= limits.min and max(flat) <= limits.max))
    return np.array(flat, dtype=kind)


def _floats(name: str, dtype: DType, flat: list[Any]) -> Array:
    if len(flat) <= _FEW:
        array = _packed(name, dtype, flat)
    else:
        try:
            with np.errstate(over="ignore"):
                array = np.array(flat, dtype=np.float64).astype(_LITTLE[dtype])
        except OverflowError as error:
            raise _too_wide(name) from error
    if np.count_nonzero(np.isfinite(array)) != len(flat):
        raise invalid(f"The data of {name!r} does not fit its type; for infinity use binary tensor data.")
    return array


def _packed(name: str, dtype: DType, flat: list[Any]) -> Array:
    try:
        return np.frombuffer(_packer(f"<{len(flat)}{_FLOATS[dtype]}")(*flat), _LITTLE[dtype])
    except (OverflowError, struct.error) as error:
        raise _too_wide(name) from error


def _too_wide(name: str) -> RequestError:
    return invalid(f"The data of {name!r} does not fit its type.")


@functools.lru_cache(64)
def _packer(layout: str) -> Callable[..., bytes]:
    return struct.Struct(layout).pack


def _require_count(name: str, count: int, shape: tuple[int, ...]) -> None:
    if count != math.prod(shape):
        raise invalid(f"The data of {name!r} has {count} elements; its shape needs {math.prod(shape)}.")


def _json_strings(name: str, flat: list[Any]) -> Array:
    _require(name, "BYTES", all(isinstance(value, str) for value in flat))
    array: Array = np.empty(len(flat), dtype=object)
    array[:] = [value.encode("utf-8", "surrogatepass") for value in flat]
    return array


def _require(name: str, dtype: DType, good: bool) -> None:
    if not good:
        raise invalid(f"The data of {name!r} holds a value that is no {dtype}.")


def _flatten(data: list[Any]) -> Iterator[Any]:
    if list not in set(map(type, data)):
        yield from data
        return
    for item in data:
        if isinstance(item, list):
            yield from _flatten(item)  # depth is bounded by the decoder's limit
        else:
            yield item


def _check_nesting(name: str, data: list[Any], shape: tuple[int, ...]) -> None:
    """Data may be flat, or nested exactly as the shape says."""
    if list not in set(map(type, data)):
        return

    def fits(part: Any, axis: int) -> bool:
        if axis == len(shape):
            return not isinstance(part, list)
        return isinstance(part, list) and len(part) == shape[axis] and all(fits(p, axis + 1) for p in part)

    if not fits(data, 0):
        raise invalid(f"The data of {name!r} is nested otherwise than its shape says.")


def _strings(name: str, shape: tuple[int, ...], blob: memoryview) -> Array:
    count, items, offset = math.prod(shape), list[bytes](), 0
    while offset < len(blob):
        end = offset + 4
        if end > len(blob) or end + _LENGTH.unpack_from(blob, offset)[0] > len(blob) or len(items) == count:
            raise invalid(f"The BYTES data of {name!r} is cut off or too long.")
        size = _LENGTH.unpack_from(blob, offset)[0]
        items.append(bytes(blob[end : end + size]))
        offset = end + size
    if len(items) != count:
        raise invalid(f"The BYTES data of {name!r} has {len(items)} elements; its shape needs {count}.")
    array: Array = np.empty(count, dtype=object)
    array[:] = items
    return array.reshape(shape)
