"""The client's side of the Open Inference Protocol over gRPC: arrays to messages, messages to arrays. No sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hasten.errors import RequestError
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.wire.base import Limits, invalid
from hasten.wire.contents import from_contents
from hasten.wire.grpc_framing import GRPC_STATUS
from hasten.wire.messages import message_type
from hasten.wire.oip_client import Ask, Outputs, dtype_of
from hasten.wire.oip_grpc import parse
from hasten.wire.tensors import Array, checked_shape, from_bytes, to_bytes

__all__ = ["PATH", "grpc_failure", "grpc_infer", "named", "read_flag", "read_grpc_infer", "read_grpc_metadata"]

PATH = "/inference.GRPCInferenceService/"
_LIMITS = Limits(body=2**40)
# The first code of each status is the usual one; a client that got no answer has codes of its own.
_CODES = {status: code for code, status in reversed(GRPC_STATUS.items())}


def grpc_infer(ask: Ask) -> bytes:
    """Return the message of an infer request. Raises `DataError`."""
    message = message_type("inference.ModelInferRequest")(
        model_name=ask.model, model_version=ask.version, id=ask.id, outputs=[{"name": name} for name in ask.outputs]
    )
    for name, array in ask.inputs.items():
        dtype = dtype_of(name, array)
        message.inputs.add(name=name, datatype=dtype, shape=array.shape)
        message.raw_input_contents.append(bytes(to_bytes(array, dtype)))
    if ask.priority:
        message.parameters["priority"].int64_param = ask.priority
    if ask.timeout_us:
        message.parameters["timeout"].int64_param = ask.timeout_us
    return message.SerializeToString()


def read_grpc_infer(body: bytes) -> Outputs:
    """Return the outputs of an infer response. Raises `RequestError` for what is no answer."""
    message = parse(message_type("inference.ModelInferResponse"), body)
    raw = message.raw_output_contents
    if raw and len(raw) != len(message.outputs):
        raise invalid(f"The answer has {len(message.outputs)} outputs and {len(raw)} raw contents.")
    outputs: dict[str, Array] = {}
    for number, item in enumerate(message.outputs):
        shape = checked_shape(item.name, item.shape, _LIMITS)
        if raw:
            outputs[item.name] = from_bytes(item.name, item.datatype, shape, memoryview(raw[number]))
        else:
            outputs[item.name] = from_contents(item.name, item.datatype, shape, item.contents)
    told = {key: (value, value.WhichOneof("parameter_choice")) for key, value in message.parameters.items()}
    return Outputs(outputs, {key: getattr(value, which) for key, (value, which) in told.items() if which})


def named(kind: str, model: str, version: str = "") -> bytes:
    """Return a request that names a model, such as `ModelMetadata`."""
    return message_type(f"inference.{kind}Request")(name=model, version=version).SerializeToString()


def read_flag(kind: str, body: bytes) -> bool:
    """Return the answer to ServerReady or ModelReady. Raises `RequestError`."""
    return bool(parse(message_type(f"inference.{kind}Response"), body).ready)


def read_grpc_metadata(body: bytes) -> Signature:
    """Return the signature that model metadata describe. Raises `RequestError`."""
    message = parse(message_type("inference.ModelMetadataResponse"), body)
    return Signature(inputs=_specs(message.inputs), outputs=_specs(message.outputs))


def grpc_failure(status: int, words: str, trailers: Mapping[str, Any]) -> RequestError:
    """Return the error of a status. Where our server says its code, that counts."""
    code = trailers.get("hasten-code")
    pushback = str(trailers.get("grpc-retry-pushback-ms", ""))
    return RequestError(
        words,
        code=code if code in GRPC_STATUS else _CODES.get(status, f"grpc_{status}"),
        retry_after_s=int(pushback) / 1e3 if pushback.isdigit() and len(pushback) < 12 else None,
    )


def _specs(items: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=item.name, dtype=item.datatype, shape=tuple(dim if dim >= 0 else "?" for dim in item.shape))
        for item in items
    )
