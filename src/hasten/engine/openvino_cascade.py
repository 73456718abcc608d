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

from hasten.engine.openvino_values import from_runtime
from hasten.engine.pool import Pool
from hasten.errors import EngineLoadError
from hasten.spec.tensor import TensorSpec

__all__ = ["Cascade", "add_margin"]

_Arrays = dict[str, np.ndarray[Any, Any]]


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
    """The second graph. `limit` is the margin below which a row is computed again."""

    def __init__(self, compiled: Any, outputs: Sequence[TensorSpec], limit: float, instances: int) -> None:
        self._limit = limit
        self._outputs = outputs
        self._pool: Pool[Any] = Pool(compiled.create_infer_request() for _ in range(instances))
        ports = [*compiled.inputs, *compiled.outputs]
        # Rows can be taken out of a batch where every tensor has an open batch axis.
        self._by_row = all(len(port.get_partial_shape()) and port.get_partial_shape()[0].is_dynamic for port in ports)

    def settle(self, feed: dict[int, Any], answers: _Arrays, margins: np.ndarray[Any, Any]) -> None:
        """Replace what is a close call in `answers`; `feed` are the inputs of the whole batch by position."""
        # Scores that are no numbers or infinite, as where f16 overflows, decide nothing.
        close = np.flatnonzero((margins < self._limit) | ~np.isfinite(margins))
        if not close.size:
            return
        # Tensors of the runtime's own stand for element types that numpy lacks, and have no rows.
        rows = self._by_row and all(isinstance(array, np.ndarray) for array in feed.values())
        some = rows and close.size < margins.size
        with self._pool.take() as request:
            again = {place: array[close] for place, array in feed.items()} if some else feed
            results = request.infer(again, share_inputs=True)
            for place, spec in enumerate(self._outputs):
                found = from_runtime(results[place], spec)
                if some:
                    answers[spec.name][close] = found
                else:
                    answers[spec.name] = found

    def close(self) -> None:
        """Drop the requests."""
        self._pool.close()
