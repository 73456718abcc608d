"""How requests become one batch of an engine and its answer becomes theirs again. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from hasten.errors import EngineRunError, RequestError

__all__ = [
    "Outcome", "Tensors", "parts_of", "result_of", "rows_of", "shape_key", "split_rows", "together_or_alone",
]  # fmt: skip

Tensors = Mapping[str, np.ndarray[Any, Any]]
Outcome = Tensors | EngineRunError
_PATH = re.compile(r"(?<![\w.])(?:/[\w.+-]+){2,}(?::\d+)?")


def together_or_alone(batch: Sequence[Tensors]) -> Generator[Sequence[Tensors], Outcome, list[Outcome]]:
    """Yield what to run next, take what came of it, and return each request's outputs or its own error.

    All together first. Where that fails, one by one: a bad input is not to fail its neighbours.
    """
    if len(batch) > 1:
        outcome = yield batch
        if not isinstance(outcome, EngineRunError):
            try:
                return list(split_rows(outcome, [rows_of(inputs) for inputs in batch]))
            except EngineRunError:
                # Nobody could tell whose rows are whose; alone they are plain.
                pass
    results: list[Outcome] = []
    for inputs in batch:
        results.append((yield (inputs,)))
    return results


def parts_of(batch: Sequence[Tensors]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """The arrays of each input, to be stacked along the first axis."""
    return {name: [inputs[name] for inputs in batch] for name in batch[0]}


def rows_of(inputs: Tensors) -> int:
    """Length of the first axis."""
    first = next(iter(inputs.values()))
    return int(first.shape[0]) if first.ndim else 1


def split_rows(outputs: Tensors, rows: Sequence[int]) -> list[Tensors]:
    """Take a batch's outputs apart: request i gets its own rows, as views.

    Raises `EngineRunError` where an output has not one row for each row that went in: nobody could tell whose is whose.
    """
    edges = [0, *itertools.accumulate(rows)]
    for name, array in outputs.items():
        if not array.ndim or array.shape[0] != edges[-1]:
            raise EngineRunError(f"The output {name!r} has shape {list(array.shape)} for a batch of {edges[-1]} rows.")
    return [{name: array[start:stop] for name, array in outputs.items()} for start, stop in itertools.pairwise(edges)]


def shape_key(inputs: Tensors) -> tuple[object, ...]:
    """Equal for requests that differ in their number of rows only.

    A request whose inputs disagree on the number of rows is like no other: its outputs could not be told apart.
    """
    if len(inputs) == 1:
        # Most models: worth its line, since every request comes by.
        [(name, array)] = inputs.items()
        return ((name, array.dtype.str, array.shape[1:]),) if array.ndim else (object(),)
    leading = {array.shape[0] if array.ndim else -1 for array in inputs.values()}
    if len(leading) != 1 or -1 in leading:
        return (object(),)
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))


def result_of(outcome: Outcome) -> Tensors | RequestError:
    """What a client is told of an outcome: what happened, not where the runtime was built."""
    if not isinstance(outcome, EngineRunError):
        return outcome
    words = _PATH.sub("…", outcome.message)
    lost = outcome.code in ("unavailable", "out_of_memory")
    return RequestError(
        f"The engine failed: {words}",
        code="unavailable" if lost else "internal",
        retry_after_s=1.0 if lost else None,
    )
