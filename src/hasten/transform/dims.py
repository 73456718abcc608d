"""Shapes for rewriting: known sizes as numbers, free ones as tokens that can be compared.

Shape inference runs twice, with different sizes in place of the free dimensions. What comes out the same both times is
fixed; what differs becomes the pair of both sizes. Two dimensions with equal pairs depend on the free ones in the same
way, as far as any graph computes with sizes. That is why no symbolic algebra is needed.
"""

from __future__ import annotations

from functools import cached_property
from weakref import WeakKeyDictionary

from onnx import TensorProto

from hasten.model.onnx_file import OnnxModel
from hasten.model.shapes import Scope, inferred

__all__ = ["Dim", "Dims", "Shape"]

Dim = int | tuple[int, int]
Shape = tuple[Dim, ...]

# Multiples of 32, so that strided layers and patches divide them, by distinct primes, so that no two are alike.
_FIRST = [32 * prime for prime in (3, 5, 7, 11, 13, 17, 19, 23)]
_SECOND = [32 * prime for prime in (29, 31, 37, 41, 43, 47, 53, 59)]


class Dims:
    """Shapes and types of the tensors of a model's main graph, worked out when they are first asked for."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._more: dict[str, tuple[Shape | None, int]] = {}

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor, None where it is unknown."""
        if name in self._more:
            return self._more[name][0]
        first, second = (scope.shape(name) for scope in self._scopes)
        if first is None or second is None or len(first) != len(second):
            return None
        return tuple(a if a == b else (a, b) for a, b in zip(first, second, strict=True))

    def type(self, name: str) -> int:
        """The ONNX element type of a tensor, UNDEFINED where it is unknown."""
        if name in self._more:
            return self._more[name][1]
        return self._scopes[0].type(name) or self._stored.get(name, TensorProto.UNDEFINED)

    def symbol(self, dim: Dim) -> str:
        """The name that the model has for a free dimension of its inputs; empty for others."""
        return self._known[2].get(dim, "") if isinstance(dim, tuple) else ""

    def set(self, name: str, shape: Shape | None, kind: int) -> None:
        """Note shape and type of a tensor that a rewrite made."""
        self._more[name] = (shape, kind)

    @cached_property
    def _stored(self) -> dict[str, int]:
        graph = self._model.proto.graph
        return {value.name: value.type.tensor_type.elem_type for value in graph.value_info}

    @property
    def _scopes(self) -> tuple[Scope, Scope]:
        first, second, _ = self._known
        return first, second

    @property
    def _known(self) -> _Known:
        if self._model not in _KNOWN:
            _KNOWN[self._model] = _both(self._model)
        return _KNOWN[self._model]


_Known = tuple[Scope, Scope, dict[tuple[int, int], str]]
# A search for a culprit rewrites the same model many times.
_KNOWN: WeakKeyDictionary[OnnxModel, _Known] = WeakKeyDictionary()


def _both(model: OnnxModel) -> _Known:
    free: dict[str, str] = {}
    initial = {tensor.name for tensor in model.proto.graph.initializer}
    for value in model.proto.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if value.name not in initial and not dim.dim_value:
                free[dim.dim_param or f"{value.name}[{axis}]"] = dim.dim_param
    first, second = (dict(zip(free, sizes * len(free), strict=False)) for sizes in (_FIRST, _SECOND))
    symbols = {(first[place], second[place]): symbol for place, symbol in free.items() if symbol}
    return inferred(model, first)[0], inferred(model, second)[0], symbols
