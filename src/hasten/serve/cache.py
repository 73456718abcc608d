"""Answers of a model that its operator declared deterministic, kept by what was asked; off unless so declared.

Only good answers of the ladder's first variant are kept: an error may pass, and a cheaper variant's answer would
outlive the overload that excused it. Whoever asks twice at once is computed twice. One cache belongs to one bundle
being served: another bundle begins with an empty one. Pure: nothing here knows of time, sockets or engines.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from hasten.spec.request import Request, Response

__all__ = ["HIT", "Cache", "Counts", "key_of"]

# What the parameter `cache` of an answer says that was not computed anew.
HIT = "hit"
# What an entry takes beside its arrays: digest, names, the objects of Python. A measured order of magnitude; without it
# a million empty answers would be free.
_ENTRY_BYTES, _ARRAY_BYTES, _ELEMENT_BYTES = 1024, 256, 64

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the cache holds, and what became of requests since it began. `misses` were computed."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0


class Cache:
    """At most `capacity` bytes of answers of `variant`; the one that was not asked for the longest goes first (LRU)."""

    def __init__(self, capacity: int, variant: str) -> None:
        assert capacity > 0, "a cache without room is no cache"
        self._capacity = capacity
        self._variant = variant
        self._entries: OrderedDict[bytes, tuple[Response, int]] = OrderedDict()
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0

    @property
    def counts(self) -> Counts:
        """How it stands."""
        return Counts(len(self._entries), self._bytes, self._hits, self._misses, self._evictions)

    def get(self, key: bytes, request: Request) -> Response | None:
        """The answer of an earlier request of this key, with this one's id and marked as a hit; None where there is
        none. Its arrays are shared, and read-only.
        """
        found = self._entries.get(key)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        kept, _ = found
        return replace(kept, id=request.id, version=request.version, parameters={**kept.parameters, "cache": HIT})

    def put(self, key: bytes, response: Response) -> int:
        """Keep an answer, and return how many others had to go for it. One that is larger than the cache, or of
        another variant, is not kept.
        """
        if response.parameters.get("variant") != self._variant or key in self._entries:
            return 0
        size = _ENTRY_BYTES + sum(_size(array) for array in response.outputs.values())
        if size > self._capacity:
            return 0
        evicted = 0
        while self._bytes + size > self._capacity:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed
            evicted += 1
        self._evictions += evicted
        outputs = {name: _own(array) for name, array in response.outputs.items()}
        self._entries[key] = replace(response, outputs=outputs), size
        self._bytes += size
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
