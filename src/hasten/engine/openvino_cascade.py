"""A cascade over precision: rows whose answer is a close call are computed again in f32.

A narrower number format changes few answers, and those are close calls nearly all: two classes whose scores hardly
differ. The margin of a row is the difference between its two highest scores (last axis of the first output), the least
one where a row has many positions. It is computed inside the graph, beside the answer, so that it costs next to
nothing; the second graph is compiled from the same file with another precision hint.

Sources: cascades of classifiers that may say "I don't know" (IDK cascades; Wang et al. 2018), with the margin as
confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.engine.openvino_request import Feed, Request
from hasten.engine.openvino_values import from_runtime
from hasten.engine.pool import Pool
from hasten.errors import EngineLoadError
from hasten.spec.tensor import TensorSpec

__all__ = ["Cascade", "add_margin", "takes_rows"]

_Arrays = dict[str, np.ndarray[Any, Any]]

# So many shapes are met before they have to be.
_MET = 32


def add_margin(network: Any) -> None:
    """Add the margin of each row as the last output, [batch]. Raises `EngineLoadError` where there are no scores."""
    import openvino as ov
    from openvino import opset13 as opset

    port = network.output(0)
    shape = port.get_partial_shape()
    scored = port.get_element_type().is_real() and shape.rank.is_static and len(shape) >= 2 and shape[-1].is_static
    if not scored or shape[-1].get_length() < 2:
        raise EngineLoadError(
            f"The first output, {shape}, holds no scores over two classes or more for each row.",
            remedy="Leave cascade_below at 0.",
        )
    scores = port.get_node().input_value(0)
    two: Any = opset.topk(scores, opset.constant(2, ov.Type.i64), len(shape) - 1, "max", "value")
    first, second = (opset.gather(two.output(0), opset.constant(place), opset.constant(-1)) for place in (0, 1))
    margin: Any = opset.subtract(first, second)
    if len(shape) > 2:
        margin = opset.reduce_min(margin, opset.constant(np.arange(1, len(shape) - 1)), keep_dims=False)
    network.add_results([opset.result(opset.convert(margin, "f32"))])


class Cascade:
    """The second graph. `limit` is the margin below which a row is computed again; `by_row` says whether the graph
    takes one row (`at_one_row`) or whole batches.

    What a graph meets for the first time it compiles, some ten times as long as a run takes, and close calls are rare:
    the first one would come when everybody takes the service for warm. So the first shapes that come are met by this
    graph too, whether they are close calls or not. Those are the shapes of a warm-up.
    """

    def __init__(
        self, compiled: Any, outputs: Sequence[TensorSpec], limit: float, *, by_row: bool, instances: int
    ) -> None:
        self._limit = limit
        self._outputs = outputs
        self._pool = Pool(Request(compiled) for _ in range(instances))
        self._by_row = by_row
        self._met: set[tuple[Any, ...]] = set()

    def settle(self, feed: Feed, answers: _Arrays, margins: np.ndarray[Any, Any]) -> None:
        """Replace what is a close call in `answers`; `feed` are the inputs of the whole batch by position."""
        # Scores that are no numbers or infinite, as where f16 overflows, decide nothing.
        close = np.flatnonzero((margins < self._limit) | ~np.isfinite(margins))
        if margins.size and len(self._met) < _MET:
            self._meet(feed)
        if close.size and not self._by_row:
            answers |= self._run(feed)
            return
        for row in close:
            for name, found in self._run(_row_of(feed, int(row))).items():
                answers[name][row] = found[0]

    def close(self) -> None:
        """Drop the requests."""
        self._pool.close()

    def _meet(self, feed: Feed) -> None:
        """Run what has a shape that is new."""
        shapes = tuple(tuple(array.shape)[self._by_row :] for array in feed.values())
        if shapes not in self._met:
            self._met.add(shapes)
            self._run(_row_of(feed, 0) if self._by_row else feed)

    def _run(self, feed: Feed) -> _Arrays:
        with self._pool.take() as request:
            results = request.infer(feed)
            return {spec.name: from_runtime(found, spec) for spec, found in zip(self._outputs, results, strict=True)}


def takes_rows(network: Any) -> bool:
    """Whether rows can be taken out of a batch: every tensor has an open axis in front, and a type that numpy has."""
    ports = [*network.inputs, *network.outputs]
    shapes = [port.get_partial_shape() for port in ports]
    is_open = all(shape.rank.is_static and len(shape) and shape[0].is_dynamic for shape in shapes)
    return is_open and all(port.get_element_type().to_string() != "bf16" for port in ports)


def _row_of(feed: Feed, row: int) -> Feed:
    return {place: array[row : row + 1] for place, array in feed.items()}
