"""The engine behind a model: a worker process with one loaded variant, driven from one thread.

A batch is stacked along the first axis and its outputs are taken apart again by rows. If the process dies, the
batch that was running fails and a new process is started.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from hasten.bundle.read import Bundle
from hasten.engine.isolate import IsolatedSession, load_isolated
from hasten.errors import EngineRunError
from hasten.spec.serving import Serving

__all__ = ["EngineWorker", "split_rows", "stack"]

Tensors = dict[str, np.ndarray[Any, Any]]


class EngineWorker:
    """One variant of one bundle, loaded and warm. Not thread-safe: one thread owns it. `serving` is how the variant is
    served, by default as the bundle says.
    """

    def __init__(self, bundle: Bundle, variant: str, serving: Serving | None = None) -> None:
        self._bundle = bundle
        self._variant = variant
        self._serving = serving or bundle.manifest.serving_of(variant)
        self._session: IsolatedSession | None = None

    def start(self) -> None:
        """Load and warm up: golden samples alone and, where the model batches, at every power of two up to the limit.

        Raises `EngineError` where the engine refuses or dies.
        """
        self.close()
        entry = self._bundle.entry(self._variant)
        target = self._serving.one(entry.variant.target)
        self._session = load_isolated(self._bundle.model_path(self._variant), target)
        samples = self._bundle.golden(self._variant).inputs
        limit, size = self._bundle.manifest.max_batch, 1
        while samples and size <= limit:
            self._session.run(stack([samples[0]] * size))
            size *= 2

    def run(self, inputs: Sequence[Tensors]) -> list[Tensors | EngineRunError]:
        """Run requests as one batch and return each one's outputs, or its own error. Raises `EngineCrashed`.

        Where a batch fails, its requests run one by one: a bad input is not to fail its neighbours.
        """
        assert self._session is not None, "start the worker first"
        if len(inputs) > 1:
            try:
                outputs = self._session.run(stack(inputs))
                return list(split_rows(outputs, [rows_of(item) for item in inputs]))
            except EngineRunError:
                return [self._alone(self._session, item) for item in inputs]
        return [self._alone(self._session, inputs[0])]

    def _alone(self, session: IsolatedSession, inputs: Tensors) -> Tensors | EngineRunError:
        try:
            return session.run(inputs)
        except EngineRunError as error:
            return error

    def kill(self) -> None:
        """End the engine process from any thread, whatever it is doing; the thread that waits for it learns of it."""
        pid = self.pid
        if pid is not None:
            # It may be gone already, which is what we want.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int | None:
        """Process id of the engine process, while there is one."""
        return None if self._session is None else self._session.pid

    def close(self) -> None:
        """End the engine process. Safe to call twice."""
        if self._session is not None:
            self._session.close()
            self._session = None


def rows_of(inputs: Tensors) -> int:
    """Length of the first axis."""
    first = next(iter(inputs.values()))
    return int(first.shape[0]) if first.ndim else 1


def stack(inputs: Sequence[Tensors]) -> Tensors:
    """Join requests along the first axis; one request passes through without a copy."""
    if len(inputs) == 1:
        return inputs[0]
    return {name: np.concatenate([item[name] for item in inputs]) for name in inputs[0]}


def split_rows(outputs: Tensors, rows: Sequence[int]) -> list[Tensors]:
    """Take a batch's outputs apart: request i gets its own rows, as views.

    Raises `EngineRunError` where an output has not one row for each row that went in: nobody could tell whose is whose.
    """
    edges = np.cumsum([0, *rows])
    for name, array in outputs.items():
        if not array.ndim or array.shape[0] != edges[-1]:
            raise EngineRunError(f"The output {name!r} has shape {list(array.shape)} for a batch of {edges[-1]} rows.")
    return [{name: array[start:stop] for name, array in outputs.items()} for start, stop in itertools.pairwise(edges)]
