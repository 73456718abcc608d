"""One inference request and its answer, after decoding and before encoding."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from hasten.spec.values import Value

if TYPE_CHECKING:
    import numpy as np

    from hasten.spec.tensor import DType

__all__ = ["Parameter", "Request", "Response"]

Parameter = bool | int | float | str


class Request(Value, frozen=True):
    """Inputs by name; `outputs` are the wanted names, empty for all.

    `binary_outputs` names what the answer sends as raw bytes; `priority` 1 is highest, 0 is the server's default;
    `timeout_us` bounds the time from arrival to answer, 0 for none. Requests of one `form` have inputs of the same
    names, types and shapes; None where a codec did not look for that.
    """

    model: str
    inputs: Mapping[str, np.ndarray[Any, Any]]
    version: str = ""
    id: str = ""
    outputs: tuple[str, ...] = ()
    binary_outputs: frozenset[str] = frozenset()
    priority: int = 0
    timeout_us: int = 0
    form: Hashable = None

    @property
    def rows(self) -> int:
        """Length of the leading axis of the first input: how many samples the request carries if the model batches."""
        for first in self.inputs.values():
            return first.shape[0] if first.ndim else 1
        raise AssertionError("a request has inputs")


class Response(Value, frozen=True):
    """Outputs by name, in order, and which variant gave them."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, np.ndarray[Any, Any]]
    dtypes: Mapping[str, DType]
    parameters: Mapping[str, Parameter] = {}
