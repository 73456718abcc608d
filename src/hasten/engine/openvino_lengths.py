"""Graphs of fixed lengths: one row of tokens is fitted to the next of a few lengths and runs in a graph for just that.

A graph of open shape works out shapes, buffers and kernels at every new length, which can take longer than the tokens
themselves. So a graph is compiled for each of a few lengths, at one row, and a row is padded with masked zeros up to
the next of them, or its own padding is cut down to it. Masked positions have no weight in the answer, so it stays the
same but for rounding. Each graph holds weights in a layout of its own: memory grows with the number of lengths.

What does not fit, batches and rows longer than all lengths, runs in the graph of open shape as before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hasten.engine.openvino_profile import merged, read_counters
from hasten.engine.pool import Pool
from hasten.errors import EngineLoadError

__all__ = ["Lengths", "reshaped"]

_TOKENS = ("i32", "i64")
_REMEDY = "Leave lengths empty."


def reshaped(network: Any, lengths: Sequence[int]) -> list[Any]:
    """Return a copy of the network for each length, at one row. Raises `EngineLoadError` where its interface is not
    that of token sequences with an attention mask and one answer for each row.
    """
    _mask_of(network.inputs)
    for port in network.outputs:
        shape = port.get_partial_shape()
        if not shape.rank.is_static or any(size.is_dynamic for size in list(shape)[1:]):
            raise EngineLoadError(
                f"The output {port.get_any_name()!r} of shape {shape} may have a value for each position, which would "
                "be cut or padded with them.",
                remedy=_REMEDY,
            )
    copies: list[Any] = []
    for length in lengths:
        copy = network.clone()
        copy.reshape({port: [1, length] for port in copy.inputs})
        copies.append(copy)
    return copies


def _mask_of(ports: Sequence[Any]) -> int:
    """The position of the attention mask among inputs that are all integers [batch, sequence] of open length."""
    for port in ports:
        shape = port.get_partial_shape()
        tokens = shape.rank.is_static and len(shape) == 2 and port.get_element_type().to_string() in _TOKENS
        if not tokens or shape[1].is_static or (shape[0].is_static and shape[0].get_length() != 1):
            raise EngineLoadError(
                f"The input {port.get_any_name()!r} of shape {shape} holds no token sequences of open length.",
                remedy=_REMEDY,
            )
    masks = [place for place, port in enumerate(ports) if "mask" in port.get_any_name().lower()]
    if len(masks) != 1:
        raise EngineLoadError(
            "No input, or more than one, is called an attention mask: what is padding cannot be told.", remedy=_REMEDY
        )
    return masks[0]


class Lengths:
    """The graphs, with a request for each of `instances` callers."""

    def __init__(self, graphs: Mapping[int, Any], instances: int) -> None:
        self._graphs = dict(sorted(graphs.items()))
        self._sizes = list(self._graphs)
        self._mask = _place_of_mask(next(iter(self._graphs.values())))
        self._pools = [Pool(graph.create_infer_request() for _ in range(instances)) for graph in self._graphs.values()]
        self._runs = [0] * len(self._sizes)

    def infer(self, feed: Mapping[int, np.ndarray[Any, Any]], run: Callable[[Any], Any]) -> Any:
        """Return the results for one row by `run(request)`, or None for what the graph of open shape must do. `feed`
        are the inputs by position.
        """
        mask = feed[self._mask]
        if mask.shape[0] != 1 or any(array.shape != mask.shape for array in feed.values()):
            return None
        used = np.flatnonzero(mask[0])
        length = int(used[-1]) + 1 if used.size else 1
        place = bisect_left(self._sizes, length)
        if place == len(self._sizes):
            return None
        self._runs[place] += 1
        with self._pools[place].take() as request:
            for position, array in feed.items():
                fitted = request.get_input_tensor(position).data
                fitted[0, :length] = array[0, :length]
                fitted[0, length:] = 0
            return run(request)

    def counters(self) -> tuple[int, dict[str, float]]:
        """How many runs there were, and the mean microseconds of each operator over them."""
        counts: list[tuple[int, dict[str, float]]] = []
        for runs, pool in zip(self._runs, self._pools, strict=True):
            if runs:
                with pool.take() as request:
                    counts.append((runs, read_counters(request)))
        return merged(counts)

    def commonest(self) -> Any:
        """The graph that ran most."""
        return list(self._graphs.values())[int(np.argmax(self._runs))]

    def close(self) -> None:
        """Drop the requests and the graphs."""
        for pool in self._pools:
            pool.close()
        self._graphs.clear()


def _place_of_mask(graph: Any) -> int:
    return next(place for place, port in enumerate(graph.inputs) if "mask" in port.get_any_name().lower())
