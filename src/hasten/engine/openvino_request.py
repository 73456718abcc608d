"""One infer request of OpenVINO, at the price of few calls.

The binding's own `infer(inputs)` asks the type of each value, copies each answer once more for whoever keeps it, and
finds answers by going through all of them: a tenth of a millisecond, which is a tenth of a small model's time. Here
arrays become tensors over the same memory, and answers are copied once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Feed", "Request"]

_Array = np.ndarray[Any, Any]
# Inputs by position: arrays, or tensors of the runtime for types that numpy does not have.
Feed = Mapping[int, Any]


class Request:
    """An infer request of a compiled model. One caller at a time."""

    def __init__(self, compiled: Any) -> None:
        import openvino as ov

        self._tensor: Any = ov.Tensor
        self._request: Any = compiled.create_infer_request()
        self._own: dict[int, _Array] = {}

    def infer(self, feed: Feed | None) -> tuple[_Array, ...]:
        """Return copies of the answers by position. None stands for what is in the request's own inputs already."""
        request = self._request
        # The arrays are read until the answers are there, and `feed` holds them for so long.
        for place, value in feed.items() if feed is not None else ():
            request.set_input_tensor(place, self._over(value) if isinstance(value, np.ndarray) else value)
        return request.infer().to_tuple()

    def own_input(self, place: int) -> _Array:
        """The memory of an input of fixed shape, to be filled before `infer(None)`; not of one that is ever fed."""
        own = self._own.get(place)
        if own is None:
            own = self._own[place] = self._request.get_input_tensor(place).data
        return own

    def profiling_info(self) -> Any:
        """The runtime's counters; see `openvino_profile.read_counters`."""
        return self._request.get_profiling_info()

    def _over(self, array: _Array) -> Any:
        """A tensor over the array's memory; over a copy where the runtime could not read it, or would not."""
        flags = array.flags
        return self._tensor(array, shared_memory=flags.c_contiguous and flags.writeable)
