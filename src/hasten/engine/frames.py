"""The frames that cross between a process and its engine worker: a JSON head and raw tensors. No pickle.

    uint32 length of the head | uint64 length of the tensors | head (JSON) | tensors, back to back, little-endian

The head carries the operation, its arguments and one line for each tensor (name, element type, shape, size). BYTES
elements are a uint32 length and the bytes, as in the Open Inference Protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec
import numpy as np

from hasten.engine.base import Tensors
from hasten.errors import EngineCrashed
from hasten.spec.values import Value

__all__ = ["Frame", "pack", "read_frame", "unpack_head", "write_frame"]

_PREFIX = struct.Struct("<IQ")
_LENGTH = struct.Struct("<I")


class _TensorHead(Value, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class _Head(Value, frozen=True):
    op: str
    args: dict[str, Any] = {}
    tensors: tuple[_TensorHead, ...] = ()


class Frame:
    """One message: an operation or its answer. `tensors` are views into the received bytes, read-only."""

    __slots__ = ("args", "op", "tensors")

    def __init__(self, op: str, args: dict[str, Any] | None = None, tensors: Tensors | None = None) -> None:
        self.op = op
        self.args = args or {}
        self.tensors: Tensors = tensors or {}


_decode = msgspec.json.Decoder(_Head).decode


def pack(frame: Frame) -> list[bytes | memoryview]:
    """Return the frame as buffers to be written in order; large tensors are not copied."""
    heads: list[_TensorHead] = []
    blobs: list[bytes | memoryview] = []
    for name, array in frame.tensors.items():
        blob = _strings_to_bytes(array) if array.dtype == object else _raw(array)
        heads.append(_TensorHead(name=name, dtype=array.dtype.name, shape=array.shape, size=len(blob)))
        blobs.append(blob)
    head = msgspec.json.encode(_Head(op=frame.op, args=frame.args, tensors=tuple(heads)))
    return [_PREFIX.pack(len(head), sum(len(blob) for blob in blobs)), head, *blobs]


def unpack_head(head: bytes, body: bytes | bytearray) -> Frame:
    """Build the frame from its two parts."""
    parsed = _decode(head)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    offset = 0
    for item in parsed.tensors:
        part = memoryview(body)[offset : offset + item.size]
        if item.dtype == "object":
            tensors[item.name] = _bytes_to_strings(part, item.shape)
        else:
            tensors[item.name] = np.frombuffer(part, dtype=np.dtype(item.dtype)).reshape(item.shape)
        offset += item.size
    return Frame(parsed.op, parsed.args, tensors)


def write_frame(stream: BinaryIO, frame: Frame) -> None:
    """Write one frame and flush."""
    for buffer in pack(frame):
        stream.write(buffer)
    stream.flush()


def read_frame(read_exactly: Callable[[int], bytearray]) -> Frame:
    """Read one frame through `read_exactly`, which returns that many bytes or raises `EngineCrashed`."""
    head_size, body_size = _PREFIX.unpack(read_exactly(_PREFIX.size))
    head = read_exactly(head_size)
    body = read_exactly(body_size) if body_size else bytearray()
    try:
        return unpack_head(bytes(head), body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise EngineCrashed(f"The engine worker sent a frame that cannot be read: {error}.") from error


def _raw(array: np.ndarray[Any, Any]) -> memoryview | bytes:
    contiguous = np.ascontiguousarray(array)
    return contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b""


def _strings_to_bytes(array: np.ndarray[Any, Any]) -> bytes:
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
    return b"".join(_LENGTH.pack(len(item)) + item for item in items)


def _bytes_to_strings(part: memoryview, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    items: list[bytes] = []
    offset = 0
    while offset < len(part):
        (size,) = _LENGTH.unpack_from(part, offset)
        items.append(bytes(part[offset + 4 : offset + 4 + size]))
        offset += 4 + size
    raw = np.empty(len(items), dtype=object)
    raw[:] = items
    return raw.reshape(shape)
