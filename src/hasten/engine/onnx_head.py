"""The inputs of an ONNX file, read without its weights: which axes have a name that can be given a size.

The file is mapped and walked field by field (the wire format of protocol buffers), so that a model of gigabytes costs
a few pages. The engine needs this before it loads, and whatever it reads then would count as the model's memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

__all__ = ["leading_axes"]

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.input and GraphProto.initializer.
_GRAPH, _INPUT, _INITIALIZER = 7, 11, 5
_NAME_OF_TENSOR = 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def leading_axes(model: Path) -> dict[str, str | int | None]:
    """Return for each input its first dimension: a name, a size, or None if it has neither or no axes at all.

    Initializers that stand among the inputs, as old exporters write them, are left out. Raises `ValueError` where
    the file is no ONNX model.
    """
    import onnx

    with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        found: dict[str, str | int | None] = {}
        weights: set[str] = set()
        for start, end in _fields(whole, 0, len(whole), {_GRAPH}).get(_GRAPH, []):
            parts = _fields(whole, start, end, {_INPUT, _INITIALIZER})
            for at, to in parts.get(_INPUT, []):
                info = onnx.ValueInfoProto.FromString(whole[at:to])
                found[info.name] = _leading(info)
            for at, to in parts.get(_INITIALIZER, []):
                for name, until in _fields(whole, at, to, {_NAME_OF_TENSOR}).get(_NAME_OF_TENSOR, []):
                    weights.add(whole[name:until].decode(errors="replace"))
    return {name: axis for name, axis in found.items() if name not in weights}


def _leading(info: object) -> str | int | None:
    shape = info.type.tensor_type.shape  # pyright: ignore[reportAttributeAccessIssue]
    if not shape.dim:
        return None
    first = shape.dim[0]
    return first.dim_value if first.HasField("dim_value") else first.dim_param or None


def _fields(data: mmap.mmap, start: int, end: int, wanted: set[int]) -> dict[int, list[tuple[int, int]]]:
    """Where the wanted length-delimited fields of the message in data[start:end] stand."""
    found: dict[int, list[tuple[int, int]]] = {}
    for number, at, to in _walk(data, start, end):
        if number in wanted:
            found.setdefault(number, []).append((at, to))
    return found


def _walk(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    while place < end:
        key, place = _varint(data, place)
        kind = key & 7
        if kind == _BYTES:
            size, place = _varint(data, place)
            if place + size > end:
                raise ValueError("The file ends inside a field.")
            yield key >> 3, place, place + size
            place += size
        elif kind == _VARINT:
            _, place = _varint(data, place)
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"Wire type {kind} is not of protocol buffers.")


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("The file ends inside a number.")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
