"""What the constant part of a request came to, kept by its bytes: a client sends the same again and again.

Equal bytes for the same model mean the same, so that what was parsed and checked once needs no second look. Only the
parts between tensors are kept, never data; both how much is kept and how much of one request has a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from hasten.spec.request import Parameter, Request
from hasten.spec.signature import Signature
from hasten.spec.tensor import DTYPE_SIZES, DType
from hasten.wire.tensors import Array, hollow, view_of

__all__ = ["MEMORABLE_BYTES", "Exact", "Memory", "Template", "exact", "is_repeatable"]

MEMORABLE_BYTES = 4 * 2**10
"""How long the constant part of a request may be that is kept."""
_MOST = 256

K = TypeVar("K")
V = TypeVar("V")


class Memory(dict[K, V], Generic[K, V]):
    """A dictionary of bounded size. Full, it forgets everything: what is asked often is soon back."""

    def keep(self, key: K, value: V) -> None:
        """Remember a value."""
        if len(self) >= _MOST:
            self.clear()
        self[key] = value


def exact(parameters: Mapping[str, Parameter]) -> tuple[tuple[str, str], ...]:
    """Return parameters as a part of a key. As values True would equal 1, 1 would equal 1.0 and 0.0 would equal -0.0,
    which are written differently.
    """
    return tuple([(name, repr(value)) for name, value in parameters.items()])


class Exact:
    """`exact`, remembered for the mapping that was asked about last: an answer's parameters are the same with every
    answer of a variant, and no one changes them.
    """

    __slots__ = ("_key", "_of")

    def __init__(self) -> None:
        self._of: Mapping[str, Parameter] = {}
        self._key = exact(self._of)

    def of(self, parameters: Mapping[str, Parameter]) -> tuple[tuple[str, str], ...]:
        """Return parameters as a part of a key."""
        if parameters is not self._of:
            self._of, self._key = parameters, exact(parameters)
        return self._key


class Template:
    """A request that was decoded and checked, without its data: `tensors` are name, type, shape and size in bytes of
    each input, in the order of the data. It holds for the very signature that it was checked against.
    """

    __slots__ = (
        "_binary",
        "_hollow",
        "_model",
        "_outputs",
        "_priority",
        "_timeout_us",
        "_version",
        "signature",
        "size",
        "tensors",
    )

    def __init__(self, request: Request, signature: Signature) -> None:
        self.signature = signature
        self.tensors: list[tuple[str, DType, tuple[int, ...], int]] = []
        for name, array in request.inputs.items():
            spec = signature.input(name)
            assert spec is not None, "it was checked against this signature"
            self.tensors.append((name, spec.dtype, array.shape, array.nbytes))
        self.size = sum(tensor[3] for tensor in self.tensors)
        self._model, self._version = request.model, request.version
        self._outputs, self._binary = request.outputs, request.binary_outputs
        self._priority, self._timeout_us = request.priority, request.timeout_us
        self._hollow: Request | None = None

    def request(self, inputs: dict[str, Array]) -> Request:
        """Return the request with other data."""
        return Request(
            model=self._model,
            version=self._version,
            inputs=inputs,
            outputs=self._outputs,
            binary_outputs=self._binary,
            priority=self._priority,
            timeout_us=self._timeout_us,
            form=self,
        )

    def hollow(self) -> Request:
        """Return the request with arrays of the right types and shapes that hold nothing."""
        if self._hollow is None:
            self._hollow = self.request({name: hollow(dtype, shape) for name, dtype, shape, _ in self.tensors})
        return self._hollow

    def views(self, body: bytes | memoryview, start: int) -> dict[str, Array]:
        """Return the inputs whose data lie one after another in `body` from `start` on, `size` bytes in all."""
        inputs: dict[str, Array] = {}
        for name, dtype, shape, size in self.tensors:
            inputs[name] = view_of(dtype, shape, body, start)
            start += size
        return inputs


def is_repeatable(request: Request, signature: Signature) -> bool:
    """Whether only sizes have to be looked at when the same request comes with other data: booleans and strings can be
    wrong in themselves. An id is different each time.
    """
    dtypes = [spec.dtype for spec in signature.inputs if spec.name in request.inputs]
    return not request.id and all(dtype != "BOOL" and dtype in DTYPE_SIZES for dtype in dtypes)
