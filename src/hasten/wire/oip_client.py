"""The client's side of the Open Inference Protocol over HTTP: arrays to requests, answers to arrays. No sockets.

Tensors travel raw both ways. Element types are those of the arrays: strings and bytes are BYTES; or those of a
signature.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import quote

import msgspec

from hasten.errors import DataError, RequestError
from hasten.spec.request import Parameter
from hasten.spec.signature import Signature
from hasten.spec.tensor import NUMPY_NAMES, DType, TensorSpec
from hasten.wire.base import LANE_HEADER, STATUS, Limits, invalid
from hasten.wire.oip_http import BINARY, HEADER_LENGTH
from hasten.wire.tensors import Array, checked_shape, from_bytes, from_json, to_bytes

__all__ = [
    "Ask",
    "Outputs",
    "decode_metadata",
    "dtype_of",
    "encode_request",
    "failure",
    "http_infer",
    "model_path",
    "read_http_infer",
]

_DTYPES: dict[str, DType] = {name: dtype for dtype, name in NUMPY_NAMES.items() if dtype not in ("BF16", "BYTES")}
_CODES = {status: code for code, status in STATUS.items()}
# An answer may hold more than a request: the server's own word is taken for its size.
_LIMITS = Limits(body=2**40)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a client wants inferred. `timeout_us` is what the server may take, 0 for any time. A lane travels beside the
    request, as `LANE_HEADER`, and a priority in it; empty and 0 are no wish.
    """

    model: str
    inputs: Mapping[str, Array]
    version: str = ""
    outputs: tuple[str, ...] = ()
    id: str = ""
    priority: int = 0
    lane: str = ""
    timeout_us: int = 0


@final
class Outputs(dict[str, Array]):
    """Outputs by name, and the `parameters` of the answer."""

    def __init__(self, outputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> None:
        super().__init__(outputs)
        self.parameters = parameters

    @property
    def variant(self) -> str:
        """The variant of the model that computed them, as a server of hasten says; empty where the server does not."""
        return str(self.parameters.get("variant", ""))


def dtype_of(name: str, array: Array) -> DType:
    """Return the element type of an array. Raises `DataError` for one that the protocol does not have."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    dtype = _DTYPES.get(array.dtype.name)
    if dtype is None:
        raise DataError(
            f"The input {name!r} has type {array.dtype}, which cannot be sent.",
            remedy=f"Convert it with .astype(), to one of: {', '.join(_DTYPES)}.",
        )
    return dtype


def model_path(model: str, version: str = "") -> str:
    """Return the path of a model over HTTP."""
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def http_infer(ask: Ask) -> tuple[dict[str, str], bytes]:
    """Return headers and body of an infer request. Raises `DataError`."""
    heads: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for name, array in ask.inputs.items():
        dtype = dtype_of(name, array)
        blob = to_bytes(array, dtype)
        size = {"binary_data_size": len(blob)}
        heads.append({"name": name, "datatype": dtype, "shape": list(array.shape), "parameters": size})
        blobs.append(blob)
    parameters: dict[str, Any] = {"binary_data_output": True}
    if ask.priority:
        parameters["priority"] = ask.priority
    if ask.timeout_us:
        parameters["timeout"] = ask.timeout_us
    head: dict[str, Any] = {"inputs": heads, "parameters": parameters}
    if ask.outputs:
        head["outputs"] = [{"name": name} for name in ask.outputs]
    if ask.id:
        head["id"] = ask.id
    text = msgspec.json.encode(head)
    headers = {HEADER_LENGTH: str(len(text)), "content-type": BINARY}
    if ask.lane:
        headers[LANE_HEADER] = ask.lane
    return headers, b"".join([text, *blobs])


def encode_request(inputs: Mapping[str, Array], signature: Signature) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an infer request with all that a signature has, raw both ways."""
    heads: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for spec in signature.inputs:
        array = inputs[spec.name]
        blob = to_bytes(array, spec.dtype)
        parameters = {"binary_data_size": len(blob)}
        heads.append({"name": spec.name, "datatype": spec.dtype, "shape": list(array.shape), "parameters": parameters})
        blobs.append(blob)
    head = msgspec.json.encode({"inputs": heads, "parameters": {"binary_data_output": True}})
    headers = {HEADER_LENGTH: str(len(head)), "content-type": BINARY}
    return b"".join([head, *blobs]), headers


def read_http_infer(headers: Mapping[str, str], body: bytes) -> Outputs:
    """Return the outputs of a 200 answer; header names are lower-case. Raises `RequestError` for what is no answer."""
    try:
        size = int(headers.get(HEADER_LENGTH, len(body)))
        blobs, offset = memoryview(body)[size:], 0
        outputs: dict[str, Array] = {}
        head = msgspec.json.decode(body[:size])
        for item in head["outputs"]:
            name, dtype = item["name"], item["datatype"]
            shape = checked_shape(name, item["shape"], _LIMITS)
            length = item.get("parameters", {}).get("binary_data_size")
            if length is None:
                outputs[name] = from_json(name, dtype, shape, item["data"])
            else:
                outputs[name] = from_bytes(name, dtype, shape, blobs[offset : offset + length])
                offset += length
        return Outputs(outputs, dict(head.get("parameters", {})))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise invalid(f"The server's answer cannot be read: {error}.") from error


def decode_metadata(body: bytes) -> Signature:
    """Return the signature that a server's model metadata describes. Raises `RequestError`."""
    try:
        data = msgspec.json.decode(body)
        return Signature(
            inputs=tuple(_tensor_spec(item) for item in data["inputs"]),
            outputs=tuple(_tensor_spec(item) for item in data["outputs"]),
        )
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise invalid(f"The server's model metadata cannot be read: {error}.") from error


def failure(status: int, headers: Mapping[str, str], body: bytes) -> RequestError:
    """Return the error that an answer other than 200 stands for."""
    words, code = f"The server answered {status}: {body[:200]!r}.", None
    try:
        content = msgspec.json.decode(body, type=dict[str, Any])
        words, code = str(content.get("error", words)), content.get("code")
    except msgspec.MsgspecError:
        pass
    known = code if code in STATUS else _CODES.get(status, f"http_{status}")
    return RequestError(words, code=known, retry_after_s=_seconds(headers.get("retry-after")))


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; a date is not read."""
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None


def _tensor_spec(item: Mapping[str, Any]) -> TensorSpec:
    dims = tuple(dim if dim >= 0 else "?" for dim in item["shape"])
    return TensorSpec(name=item["name"], dtype=item["datatype"], shape=dims)
