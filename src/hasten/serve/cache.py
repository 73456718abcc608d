"""Answers of a model that its operator declared deterministic, kept by what was asked; off unless so declared.

The driver keeps good answers of the ladder's first variant only: an error may pass, and a cheaper variant's answer
would outlive the overload that excused it. Who asks the same at the same time is computed twice. One cache belongs to
one bundle being served: another bundle begins with an empty one. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Any

import numpy as np

from hasten.serve.batch import Tensors
from hasten.spec.request import Request

__all__ = ["HIT", "Cache", "key_of"]

# What the parameter `cache` of an answer says that was not computed anew.
HIT = "hit"
# What an entry takes beside its arrays: digest, names, the objects of Python. A measured order of magnitude; without it
# a million empty answers would be free.
_ENTRY_BYTES, _ARRAY_BYTES, _ELEMENT_BYTES = 1024, 256, 64

Array = np.ndarray[Any, Any]


class Cache:
    """At most `capacity` bytes of outputs; those that were not asked for the longest go first (LRU)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[bytes, tuple[Tensors, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Tensors | None:
        """The outputs that were kept under this key, or None. The arrays are shared, and read-only."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, outputs: Tensors) -> int | None:
        """Keep a copy of outputs, and return how many others had to go for it; None where they are kept already, or
        are larger than the cache.
        """
        size = _ENTRY_BYTES + sum(_size(array) for array in outputs.values())
        if key in self._entries or size > self._capacity:
            return None
        evicted = 0
        while self.bytes + size > self._capacity:
            _, (_, freed) = self._entries.popitem(last=False)
            self.bytes -= freed
            evicted += 1
        self._entries[key] = {name: _own(array) for name, array in outputs.items()}, size
        self.bytes += size
        return evicted


def key_of(request: Request) -> bytes:
    """A digest of the model, its version, the inputs (names, types, shapes, values) and the wanted outputs.

    Equal for equal questions, whoever computes the answer; how the answer is to be encoded is no part of it.
    """
    digest = blake2b(digest_size=32)

    def add(part: bytes | memoryview) -> None:
        # Lengths stand before parts, so that no two questions run together into the same bytes.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    add(request.model.encode())
    add(request.version.encode())
    digest.update(len(request.outputs).to_bytes(8, "little"))
    for name in request.outputs:
        add(name.encode())
    for name, array in sorted(request.inputs.items()):
        add(name.encode())
        add(f"{array.dtype.str}{array.shape}".encode())
        if array.dtype == object:
            for element in array.reshape(-1):
                add(element if isinstance(element, bytes) else str(element).encode())
        else:
            add(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.digest()


def _own(array: Array) -> Array:
    """A copy that nobody can write to: what came is a view of its whole batch."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


def _size(array: Array) -> int:
    held = array.nbytes + _ARRAY_BYTES
    return held + sum(_ELEMENT_BYTES + len(one) for one in array.reshape(-1)) if array.dtype == object else held
