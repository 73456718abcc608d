"""What the Open Inference Protocol demands of a request, however it travels: shared by the HTTP and the gRPC codec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hasten.spec.request import Request
from hasten.spec.signature import Signature
from hasten.wire.base import invalid

__all__ = ["check_input", "check_inputs_count", "check_parameters", "check_request", "flag", "wanted_outputs", "whole"]


def check_inputs_count(count: int, signature: Signature) -> None:
    """Raise `RequestError` (invalid) where there are more inputs than the model takes."""
    if count > len(signature.inputs):
        raise invalid(f"The request has {count} inputs, the model takes {len(signature.inputs)}.")


def check_input(name: str, datatype: str, signature: Signature) -> None:
    """Name and element type must be the model's, before any data is decoded: BF16 and UINT16 look alike as arrays."""
    spec = signature.input(name)
    if spec is None:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise invalid(f"The input {name[:100]!r} is unknown; the model takes: {names}.")
    if spec.dtype != datatype:
        raise invalid(f"The input {name!r} has type {datatype[:20]}, the model takes {spec.dtype}.")


def wanted_outputs(names: Sequence[str], signature: Signature) -> None:
    """Raise `RequestError` (invalid) for an output that the model does not give, or that is asked for twice."""
    known = [spec.name for spec in signature.outputs]
    for name in names:
        if name not in known:
            raise invalid(f"The output {name[:100]!r} is unknown; the model gives: {', '.join(known)}.")
    if len(set(names)) != len(names):
        raise invalid("An output is asked for twice.")


def check_parameters(parameters: Mapping[str, Any], outputs: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse what would change the meaning of a request and is not supported; other scalar parameters are let pass.

    `outputs` are names and parameters of the wanted outputs.
    """
    for key, value in parameters.items():
        if key.startswith(("triton_", "sequence_")) or key == "headers" or isinstance(value, dict | list):
            raise invalid(f"The parameter {key[:100]!r} is not supported.")
    for name, own in outputs:
        unknown = sorted(set(own) - {"binary_data"})
        if unknown:
            raise invalid(f"The parameter {unknown[0][:100]!r} of output {name[:100]!r} is not supported.")


def flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return a parameter that is true or false. Raises `RequestError` (invalid)."""
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise invalid(f"The parameter {name!r} must be true or false.")
    return value


def whole(parameters: Mapping[str, Any], name: str) -> int:
    """Return a parameter that is a whole number from 0, or 0 where it is absent. Raises `RequestError` (invalid)."""
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**63:
        raise invalid(f"The parameter {name!r} must be a whole number from 0.")
    return value


def check_request(request: Request, signature: Signature) -> Request:
    """Return the request if its inputs are all there, fit the model and are not empty. Raises `RequestError`."""
    problem = signature.problem(request.inputs)
    if problem:
        raise invalid(problem)
    for name, array in request.inputs.items():
        if 0 in array.shape:
            raise invalid(f"The input {name!r} is empty.")
    return request
