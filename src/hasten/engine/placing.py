"""Has engines write large outputs where their reader will find them, which spares a copy.

Where an answer's tensors go in shared memory follows from their types and shapes, and these from those of the inputs,
for nearly all models. So what came of inputs once is expected of inputs of the same shapes; an engine that cannot write
there says so, and is asked as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hasten.engine.base import Session, Tensors, WritesInto
from hasten.engine.frames import Frame, Layout, Parts

__all__ = ["Placing"]

# Below this, binding takes longer than the copy that it spares.
_LARGE_BYTES = 64 * 2**10
# So many shapes of inputs are remembered. Full, all are forgotten: what comes often is soon back.
_MOST = 256
_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Placing:
    """Runs a session. `room` returns at least so many bytes to write to, those that the answer's frame will begin with,
    and may raise `MemoryError`; without it, or where the session cannot write into memory, outputs are as ever.
    """

    def __init__(self, session: Session, room: Callable[[int], Any] | None) -> None:
        self._session = session
        self._writes = session if isinstance(session, WritesInto) else None
        self._room = room
        # What is expected of inputs; None where nothing is, or what came is too small.
        self._expected: dict[_Shapes, Parts | None] = {}

    def run(self, inputs: Tensors) -> Frame:
        """Run one batch and return the answer, its outputs in place or not. Raises as the session does."""
        if self._writes is None or self._room is None:
            return Frame("ran", tensors=self._session.run(inputs))
        shapes = tuple([(name, array.shape) for name, array in inputs.items()])
        expected = self._expected.get(shapes)
        if expected is not None:
            layout = Layout("ran", {}, expected)
            places = layout.places(self._room(layout.size))
            if places is not None and self._writes.run_into(inputs, places):
                return Frame("ran", layout=layout)
        outputs = self._session.run(inputs)
        if expected is not None:
            # The inputs were good and the guess was not: shapes that depend on data are no good guess again.
            self._expected[shapes] = None
        elif shapes not in self._expected:
            if len(self._expected) >= _MOST:
                self._expected.clear()
            large = sum([array.nbytes for array in outputs.values()]) > _LARGE_BYTES
            self._expected[shapes] = _like(outputs) if large else None
        return Frame("ran", tensors=outputs)


def _like(outputs: Tensors) -> Parts:
    """Types and shapes only: arrays that hold one element each."""
    return {name: (np.broadcast_to(np.empty((), array.dtype), array.shape),) for name, array in outputs.items()}
