"""A look at the bytes of a protobuf message before a parser gets them.

A parser makes an object of every field, so that two bytes on the wire can become a hundred in memory, and it keeps
what it does not know. Here the bytes are walked along the message's descriptor first, without making anything: every
field must be one that the descriptor has, in a wire type that it may have, and all that is not tensor data must stay
within a bound. Nothing nests deeper than the descriptor does, and groups are never walked. Source: the protobuf
encoding (protobuf.dev, "Encoding").
"""

from __future__ import annotations

from typing import Any

from hasten.errors import RequestError
from hasten.wire.base import invalid

__all__ = ["STRUCTURE_BYTES", "Shape", "check_wire", "shape_of", "varint"]

STRUCTURE_BYTES = 2**18
"""What names, shapes, parameters and the like of one message may take together: tensor data is not counted. The walk
looks at each field, two bytes at the least, so that this also bounds its time."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LEAF, _DATA = 1, 2
Shape = dict[int, "Shape | int"]
"""What may follow each tag: a varint or fixed width (the wire type, negative), bytes, tensor data, or a message."""


def shape_of(descriptor: Any, data: frozenset[str] = frozenset()) -> Shape:
    """Return what the walk needs to know of a message. `data` are the full names of fields that hold tensor data."""
    shape: Shape = {}
    for field in descriptor.fields:
        kind = _wire_type(field)
        leaf = _DATA if field.full_name in data else _LEAF
        if field.message_type is not None:
            shape[field.number << 3 | _BYTES] = shape_of(field.message_type, data)
            continue
        shape[field.number << 3 | kind] = leaf if kind == _BYTES else -kind - 1
        if field.is_repeated and kind != _BYTES:
            shape[field.number << 3 | _BYTES] = leaf
    return shape


def check_wire(body: bytes | memoryview, shape: Shape, limit: int = STRUCTURE_BYTES) -> None:
    """Raise `RequestError` (invalid) unless `body` holds only what `shape` knows, complete, and within `limit`."""
    if len(body) - _data_bytes(body, shape, 0, len(body), limit) > limit:
        raise _too_large(limit)


def varint(number: int) -> bytes:
    """Return the base 128 form of a number from 0."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _wire_type(field: Any) -> int:
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FIXED64, field.TYPE_SFIXED64):
        return _FIXED64
    if field.type in (field.TYPE_FLOAT, field.TYPE_FIXED32, field.TYPE_SFIXED32):
        return _FIXED32
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE):
        return _BYTES
    return _VARINT


def _data_bytes(body: bytes | memoryview, shape: Shape, at: int, end: int, limit: int) -> int:
    """Walk one message and return how many of its bytes are tensor data."""
    begin, found = at, 0
    try:
        while at < end:
            if at - begin - found > limit:
                raise _too_large(limit)
            tag = body[at]
            at += 1
            # Fields above 15 have tags of two bytes; the protocol's requests have none, so that one byte must do.
            what = shape.get(tag)
            if what is None:
                raise _unknown(tag)
            if what == -1:
                at = _after_varint(body, at)
            elif isinstance(what, int) and what < 0:
                at += 8 if what == -2 else 4
            else:
                size = body[at]
                at += 1
                if size > 0x7F:
                    size, at = _long_size(body, at - 1)
                if not isinstance(what, int):
                    found += _data_bytes(body, what, at, at + size, limit)
                elif what == _DATA:
                    found += size
                at += size
    except IndexError as error:
        raise _cut_off() from error
    if at != end:
        raise _cut_off()
    return found


def _after_varint(body: bytes | memoryview, at: int) -> int:
    last = at + 10
    while body[at] > 0x7F:
        at += 1
        if at == last:
            raise invalid("The message is not valid: a number has more than ten bytes.")
    return at + 1


def _long_size(body: bytes | memoryview, at: int) -> tuple[int, int]:
    size, shift = 0, 0
    while True:
        byte = body[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return size, at
        shift += 7
        if shift > 28:
            raise invalid("The message is not valid: a length has more than five bytes.")


def _unknown(tag: int) -> RequestError:
    return invalid(
        f"The message is not valid: it has a field {tag >> 3} of wire type {tag & 7} where the protocol knows none."
    )


def _too_large(limit: int) -> RequestError:
    return RequestError(f"Names, shapes and parameters take more than {limit} bytes.", code="too_large")


def _cut_off() -> RequestError:
    return invalid("The message is not valid: it is cut off, or a length in it is wrong.")
