"""Graphs of fixed shape for single rows, beside the graph of open shape that takes the batches.

A graph of open shape works out shapes, buffers and kernels anew at every length, and leaves out optimizations even
where only the batch is open. A request of one row is the commonest there is. So a graph is compiled for just one row;
and where rows are token sequences with an attention mask, one for each of a few lengths: a row is padded with masked
zeros up to the next of them, or its own padding is cut down to it. Masked positions have no weight in the answer, so it
stays the same but for rounding. Graphs that are compiled apart hold weights in a layout each; those of lengths can be
branches of one (`openvino_branches`), which share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hasten.engine.openvino_profile import merged, read_counters
from hasten.engine.openvino_request import Feed, Request
from hasten.engine.pool import Pool
from hasten.errors import EngineLoadError
from hasten.spec.cascade import FOUND

__all__ = ["Fixed", "Lengths", "OneRow", "at_lengths", "at_one_row"]

_TOKENS = ("i32", "i64")
# Runs a request with a feed.
_Run = Callable[[Request, Feed], Any]


def at_one_row(network: Any) -> Any:
    """Return a copy of the network for a batch of one. Raises `EngineLoadError` where the batch axis is not open."""
    shapes: dict[Any, Any] = {}
    copy = network.clone()
    for port in copy.inputs:
        shape = port.get_partial_shape()
        if not shape.rank.is_static or len(shape) == 0 or shape[0].is_static:
            raise EngineLoadError(
                f"The input {port.get_any_name()!r} of shape {shape} has no open batch axis: there is nothing to fix.",
                remedy="Leave single_row off.",
            )
        shape[0] = 1
        shapes[port] = shape
    copy.reshape(shapes)
    _settle_cascade(copy)
    return copy


def _settle_cascade(network: Any) -> None:
    """Say which row a cascade inside a graph of one row computes again, where it does: there is but one. All shapes
    behind it are fixed then, which would be open else.
    """
    from openvino import opset13 as opset

    for node in network.get_ordered_ops():
        if node.get_type_name() != "If":
            continue
        body = node.get_then_body()
        for found in body.get_ordered_ops():
            if found.get_friendly_name() == FOUND:
                found.output(0).replace(opset.constant(np.zeros((1, 1), np.int64)).output(0))
                body.validate_nodes_and_infer_types()
                network.validate_nodes_and_infer_types()


def at_lengths(network: Any, lengths: Sequence[int]) -> tuple[int, list[Any]]:
    """Return the position of the attention mask, and a copy of the network for each length, at one row. Raises
    `EngineLoadError` where its interface is not that of token sequences with such a mask and one answer for each row.
    """
    mask = _check_tokens(network.inputs)
    for port in network.outputs:
        shape = port.get_partial_shape()
        if not shape.rank.is_static or any(size.is_dynamic for size in list(shape)[1:]):
            raise _no_lengths(
                f"The output {port.get_any_name()!r} of shape {shape} may have a value for each position."
            )
    copies: list[Any] = []
    for length in lengths:
        copy = network.clone()
        copy.reshape({port: [1, length] for port in copy.inputs})
        _settle_cascade(copy)
        copies.append(copy)
    return mask, copies


def _check_tokens(ports: Sequence[Any]) -> int:
    """Return the position of the mask."""
    for port in ports:
        shape = port.get_partial_shape()
        tokens = shape.rank.is_static and len(shape) == 2 and port.get_element_type().to_string() in _TOKENS
        if not tokens or shape[1].is_static or (shape[0].is_static and shape[0].get_length() != 1):
            raise _no_lengths(
                f"The input {port.get_any_name()!r} of shape {shape} holds no token sequences of open length."
            )
    masks = [place for place, port in enumerate(ports) if "mask" in port.get_any_name().lower()]
    if len(masks) != 1:
        raise _no_lengths("No input, or more than one, is called an attention mask: what is padding cannot be told.")
    return masks[0]


def _no_lengths(why: str) -> EngineLoadError:
    return EngineLoadError(why, remedy="Leave lengths empty.")


class Fixed(ABC):
    """Compiled graphs with a request of each for each of `instances` callers."""

    def __init__(self, graphs: Sequence[Any], instances: int) -> None:
        self._graphs = list(graphs)
        self._pools = [Pool(Request(graph) for _ in range(instances)) for graph in self._graphs]
        self._runs = [0] * len(self._graphs)

    @abstractmethod
    def infer(self, feed: Feed, run: _Run) -> Any:
        """Return what `run` gives for one row, or None for what the graph of open shape must do. `feed` are the inputs
        by position.
        """

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
        return self._graphs[int(np.argmax(self._runs))]

    def close(self) -> None:
        """Drop the requests and the graphs."""
        for pool in self._pools:
            pool.close()
        self._graphs.clear()

    @contextmanager
    def _take(self, place: int) -> Generator[Request]:
        self._runs[place] += 1
        with self._pools[place].take() as request:
            yield request


class OneRow(Fixed):
    """One graph, for a batch of one."""

    def infer(self, feed: Feed, run: _Run) -> Any:
        """See `Fixed.infer`."""
        if any(array.shape[0] != 1 for array in feed.values()):
            return None
        with self._take(0) as request:
            return run(request, feed)


class Lengths(Fixed):
    """A graph for each of a few lengths of token sequences, ascending, or one with a branch for each; `mask` is the
    position of the attention mask among the inputs.
    """

    def __init__(self, lengths: Sequence[int], mask: int, graphs: Sequence[Any], instances: int) -> None:
        super().__init__(graphs, instances)
        self._lengths = list(lengths)
        self._mask = mask
        self._places = range(len(graphs)) if len(graphs) == len(lengths) else [0] * len(lengths)

    def infer(self, feed: Feed, run: _Run) -> Any:
        """See `Fixed.infer`. Rows longer than all lengths are for the open graph, too."""
        mask = feed[self._mask]
        if mask.shape[0] != 1 or any(array.shape != mask.shape for array in feed.values()):
            return None
        used = np.flatnonzero(mask[0])
        length = int(used[-1]) + 1 if used.size else 1
        at = bisect_left(self._lengths, length)
        if at == len(self._lengths):
            return None
        size = self._lengths[at]
        with self._take(self._places[at]) as request:
            return run(request, {position: _fitted(array, length, size) for position, array in feed.items()})


def _fitted(array: np.ndarray[Any, Any], length: int, size: int) -> np.ndarray[Any, Any]:
    """The first `length` positions of one row, and zeros up to `size`."""
    if array.shape[1] == size:
        return array
    fitted = np.zeros((1, size), array.dtype)
    fitted[0, :length] = array[0, :length]
    return fitted
