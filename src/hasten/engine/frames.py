"""Frames: one operation or its answer, and its tensors, laid out in memory. No pickle.

    uint32 length of the head | head (MessagePack) | padding | tensor | padding | tensor ...

The head is (operation, arguments, (name, element type, shape, bytes) of each tensor). Every tensor begins at a multiple
of 64 bytes, counted from the start of the frame, which is what vector instructions like best. Numbers are
little-endian; BYTES elements are a uint32 length and the bytes, as in the Open Inference Protocol.

A frame is written straight to where it will be read: into memory that two processes share (`hasten.engine.area`), or
into the bytes of a file. A tensor may come in parts that are stacked along the first axis on the way.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from hasten.engine.base import Tensors
from hasten.errors import EngineCrashed, EngineRunError

__all__ = ["Frame", "Layout", "Parts", "read_frame"]

Array = np.ndarray[Any, Any]
Parts = Mapping[str, Sequence[Array]]
_TensorHead = tuple[str, str, tuple[int, ...], int]
# A tensor as it is found: name, element type (None: strings), shape, where it begins, bytes.
_Place = tuple[str, np.dtype[Any] | None, tuple[int, ...], int, int]
_Head = tuple[str, Mapping[str, Any], tuple[_Place, ...]]

_LENGTH = struct.Struct("<I")
_ALIGN = 64
_STRINGS = "object"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, dict[str, Any], tuple[_TensorHead, ...]]).decode
# The same heads come again and again: those of so many bytes are kept, and at most so many.
_MEMORABLE, _MOST = 1024, 256
_known_heads: dict[bytes, _Head] = {}


class Frame:
    """One message as it was read. `tensors` are views into the memory that held it; where it `lasts`, nobody writes
    there while they live.
    """

    __slots__ = ("_layout", "args", "lasts", "op", "tensors")

    def __init__(
        self,
        op: str,
        args: dict[str, Any] | None = None,
        tensors: Tensors | None = None,
        layout: Layout | None = None,
    ) -> None:
        """`layout` is that of this very frame, where its tensors lie in their places already."""
        self.op = op
        self.args = args or {}
        self.tensors: Tensors = tensors or {}
        self.lasts = False
        self._layout = layout

    def layout(self) -> Layout:
        """Return how this frame lies in memory."""
        if self._layout is not None:
            return self._layout
        return Layout(self.op, self.args, {name: (array,) for name, array in self.tensors.items()})


class Layout:
    """Where everything of a frame goes: `size` bytes in all, which `write` fills.

    `parts` are the arrays of each tensor, which agree on type and trailing axes; one part is the tensor itself. Raises
    `EngineRunError` for an element type that is neither a number nor a string.
    """

    __slots__ = ("_head", "_places", "size")

    def __init__(self, op: str, args: Mapping[str, Any], parts: Parts) -> None:
        tensors: list[_TensorHead] = []
        contents: list[Sequence[Array] | bytes] = []
        for name, arrays in parts.items():
            dtype, shape = _sent(arrays[0].dtype), _stacked(arrays)
            if dtype is None:
                raise EngineRunError(f"The tensor {name!r} holds {arrays[0].dtype}, which cannot be carried.")
            if dtype == _STRINGS:
                content: Sequence[Array] | bytes = b"".join(map(_strings_to_bytes, arrays))
                size = len(content)
            else:
                content, size = arrays, math.prod(shape) * arrays[0].dtype.itemsize
            tensors.append((name, dtype, shape, size))
            contents.append(content)
        self._head = _encode((op, args, tensors))
        self._places: list[tuple[int, _TensorHead, Sequence[Array] | bytes]] = []
        end = _LENGTH.size + len(self._head)
        for head, content in zip(tensors, contents, strict=True):
            start = _start(end, head[3])
            self._places.append((start, head, content))
            end = start + head[3]
        self.size = end

    def write(self, memory: Any) -> None:
        """Write the frame at the start of a writable buffer of at least `size` bytes."""
        _LENGTH.pack_into(memory, 0, len(self._head))
        memory[_LENGTH.size : _LENGTH.size + len(self._head)] = self._head
        for start, (_, dtype, shape, size), content in self._places:
            if isinstance(content, bytes):
                memory[start : start + size] = content
            elif size:
                _fill(np.ndarray(shape, dtype, memory, start), content)

    def places(self, memory: Any) -> dict[str, Array] | None:
        """Return where the tensors go in this buffer, for somebody else to fill: `write` leaves them alone from then
        on. None where one is of strings or empty, which nobody could fill.
        """
        if any(isinstance(content, bytes) or not head[3] for _, head, content in self._places):
            return None
        filled = {name: np.ndarray(shape, dtype, memory, at) for at, (name, dtype, shape, _), _ in self._places}
        self._places = []
        return filled

    def to_bytes(self) -> bytearray:
        """Return the frame on its own."""
        memory = bytearray(self.size)
        self.write(memory)
        return memory


def read_frame(memory: Any) -> Frame:
    """Read the frame at the start of a buffer; tensors are views into it. Raises `EngineCrashed` for what is none."""
    try:
        (length,) = _LENGTH.unpack_from(memory, 0)
        raw = bytes(memory[_LENGTH.size : _LENGTH.size + length])
        if len(raw) != length:
            raise ValueError("its head is cut short")
        op, args, places = _known_heads.get(raw) or _read_head(raw)
        tensors = {name: _tensor(memory, kind, shape, start, size) for name, kind, shape, start, size in places}
    except (msgspec.MsgspecError, struct.error, ValueError, TypeError, OverflowError) as error:
        raise EngineCrashed(f"The engine worker sent a frame that cannot be read: {error}.") from error
    return Frame(op, dict(args), tensors)


def _read_head(raw: bytes) -> _Head:
    """Decode and check a head, and keep it where such may come again."""
    op, args, heads = _decode(raw)
    places: list[_Place] = []
    end = _LENGTH.size + len(raw)
    for name, dtype, shape, size in heads:
        kind = None if dtype == _STRINGS else _known(dtype)
        if kind is not None and math.prod(shape) * kind.itemsize != size:
            raise ValueError(f"{size} bytes are not a tensor of {shape} {dtype}")
        start = _start(end, size)
        places.append((name, kind, shape, start, size))
        end = start + size
    head = op, args, tuple(places)
    # What is nested could be changed by whoever reads it.
    if len(raw) <= _MEMORABLE and all(isinstance(value, str) for value in args.values()):
        if len(_known_heads) >= _MOST:
            _known_heads.clear()
        _known_heads[raw] = head
    return head


def _tensor(memory: Any, kind: np.dtype[Any] | None, shape: tuple[int, ...], start: int, size: int) -> Array:
    if kind is None:
        raw = bytes(memory[start : start + size])
        if len(raw) != size:
            raise ValueError("a tensor is cut short")
        return _bytes_to_strings(raw, shape)
    # An empty tensor may begin behind the last byte, where numpy would not look.
    return np.ndarray(shape, kind, memory, start) if size else np.empty(shape, kind)


def _start(end: int, size: int) -> int:
    """Where a tensor begins after what ends at `end`; an empty one takes no room at all."""
    return -(-end // _ALIGN) * _ALIGN if size else end


# All numbers that a frame carries, by what their type is called there. numpy itself would read more into a name than a
# type, and not only with errors of its own: ",i2" is a SyntaxError.
_NUMBERS = {name: np.dtype(name) for name in (np.dtype(code).newbyteorder("<").str for code in "?bBhHiIlLqQefdgFDG")}


def _known(name: str) -> np.dtype[Any]:
    dtype = _NUMBERS.get(name)
    if dtype is None:
        raise ValueError(f"the element type {name!r} is not known")
    return dtype


@functools.lru_cache(64)
def _sent(dtype: np.dtype[Any]) -> str | None:
    """How an element type is called in a head; None where it cannot be carried."""
    if dtype.kind in "OSU":
        return _STRINGS
    return dtype.newbyteorder("<").str if dtype.kind in "biufc" else None


def _stacked(arrays: Sequence[Array]) -> tuple[int, ...]:
    first = arrays[0]
    return first.shape if len(arrays) == 1 else (sum(array.shape[0] for array in arrays), *first.shape[1:])


def _fill(target: Array, arrays: Sequence[Array]) -> None:
    """Copy once, from any strides and byte order."""
    if len(arrays) == 1:
        target[...] = arrays[0]
    else:
        np.concatenate(arrays, out=target)


def _strings_to_bytes(array: Array) -> bytes:
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return b"".join(_LENGTH.pack(len(item)) + item for item in items)


def _bytes_to_strings(raw: bytes, shape: tuple[int, ...]) -> Array:
    items: list[bytes] = []
    offset = 0
    while offset < len(raw):
        (size,) = _LENGTH.unpack_from(raw, offset)
        items.append(raw[offset + 4 : offset + 4 + size])
        offset += 4 + size
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)
