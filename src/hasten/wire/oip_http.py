"""Open Inference Protocol v2 over HTTP: JSON, and the binary tensor extension.

Source: the protocol's documents (KServe "Predict Protocol v2", Triton's binary tensor data extension). Where they
are silent this codec is strict: what it does not understand, it refuses, and says which input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np

from hasten.errors import RequestError
from hasten.spec.request import Request, Response
from hasten.spec.signature import Signature
from hasten.spec.tensor import DTYPE_SIZES, DType, TensorSpec
from hasten.wire.base import Encoded, Limits, invalid
from hasten.wire.compression import accepted, compress, decompress
from hasten.wire.depth import check_depth
from hasten.wire.known import MEMORABLE_BYTES, Exact, Memory, Template, is_repeatable
from hasten.wire.oip_body import Body, Input, decode_body
from hasten.wire.oip_rules import (
    check_input,
    check_inputs_count,
    check_parameters,
    check_request,
    flag,
    wanted_outputs,
    whole,
)
from hasten.wire.tensors import Array, checked_shape, from_bytes, from_flat_text, from_json_text, to_bytes, to_json_text

__all__ = ["BINARY", "HEADER_LENGTH", "OipHttp", "encode_error"]

HEADER_LENGTH = "inference-header-content-length"
JSON, BINARY = "application/json", "application/octet-stream"
_encode_json = msgspec.json.Encoder().encode


# So many requests are remembered that differ only behind their data.
_MOST_ALIKE = 8


class _Text(Template):
    """A request of one input in JSON: `rest` is what follows its data."""

    __slots__ = ("rest",)

    def __init__(self, request: Request, signature: Signature, rest: bytes) -> None:
        super().__init__(request, signature)
        self.rest = rest

    def read(self, data: bytes, depth: int) -> Request:
        """Return the request with other data, nested at most to `depth`. Raises `RequestError`, and `DecodeError` for
        what is no JSON value.
        """
        [(name, dtype, shape, _)] = self.tensors
        # Most are flat, which is seen while they are read.
        array = from_flat_text(name, dtype, shape, data)
        if array is None:
            check_depth(data, depth)
            array = from_json_text(name, dtype, shape, data)
        return self.request({name: array})


# Name, type and shape of an output, and the size of its blob where it is sent as one.
_Sent = tuple[str, DType, tuple[int, ...], int | None]


class _Frame:
    """The JSON of an answer but for the data of its outputs, which come between the `pieces`. `fixed` are the headers
    and `lines` the same for HTTP/1.1, empty where the JSON has another length each time and a header tells it.
    """

    __slots__ = ("fixed", "lines", "pieces")

    def __init__(self, response: Response, shapes: list[_Sent]) -> None:
        self.pieces: list[bytes] = []
        text = _begin(response) + b',"outputs":['
        for place, (name, dtype, shape, size) in enumerate(shapes):
            described: dict[str, Any] = {"name": name, "datatype": dtype, "shape": shape}
            if size is not None:
                described["parameters"] = {"binary_data_size": size}
            text += (b"," if place else b"") + _encode_json(described)[:-1]
            if size is None:
                self.pieces.append(text + b',"data":')
                text = b""
            text += b"}"
        self.pieces.append(text + b"]}")
        binary = any(size is not None for *_, size in shapes)
        self.fixed = {"content-type": BINARY if binary else JSON}
        if binary:
            self.fixed[HEADER_LENGTH] = str(sum(map(len, self.pieces)))
        self.lines = ""
        if not binary or len(self.pieces) == 1:
            self.lines = "".join(f"{name}: {value}\r\n" for name, value in self.fixed.items())

    def head(self, texts: list[bytes]) -> bytes:
        """The JSON with its data."""
        parts = [self.pieces[0]]
        for text, piece in zip(texts, self.pieces[1:], strict=True):
            parts += text, piece
        return b"".join(parts)

    def headers(self, texts: list[bytes]) -> dict[str, str]:
        """The headers of an answer with these data."""
        if not texts or HEADER_LENGTH not in self.fixed:
            return self.fixed
        size = sum(map(len, self.pieces)) + sum(map(len, texts))
        return {**self.fixed, HEADER_LENGTH: str(size)}


class OipHttp:
    """The codec."""

    name = "oip-http"

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._templates: Memory[tuple[str, str, bytes], Template] = Memory()
        self._texts: Memory[tuple[str, str, bytes], list[_Text]] = Memory()
        self._exact = Exact()
        self._frames: Memory[tuple[object, ...], _Frame] = Memory()

    def decode(
        self, model: str, version: str, headers: Mapping[str, str], body: bytes | memoryview, signature: Signature
    ) -> Request:
        """Return the request after checking it against the signature. Raises `RequestError`."""
        encoding = headers.get("content-encoding")
        content = decompress(bytes(body), encoding, self.limits.body) if encoding else body
        announced = headers.get(HEADER_LENGTH)
        if announced is None:
            return self._json(model, version, bytes(content), signature)
        head_size = _head_size(announced, len(content))
        if head_size == 0:
            return check_request(_raw_request(model, version, content, signature), signature)
        if head_size == len(content):
            return self._json(model, version, bytes(content), signature)
        head = bytes(content[:head_size])
        template = self._templates.get((model, version, head))
        if template is not None and template.signature is signature and head_size + template.size == len(content):
            return template.request(template.views(content, head_size))
        request = self._decoded(model, version, head, memoryview(content)[head_size:], signature)
        self._keep(head, len(content) - head_size, request, signature)
        return request

    def announced(
        self, model: str, version: str, headers: Mapping[str, str], beginning: bytes, signature: Signature
    ) -> Request | None:
        """Return the request of which this is the beginning, with arrays of the right shapes and no data. None where it
        is not one that has come before: only `decode` can tell then what it is.
        """
        size = headers.get(HEADER_LENGTH, "")
        if "content-encoding" in headers or not size.isdecimal() or len(size) > 6 or int(size) > len(beginning):
            return None
        template = self._templates.get((model, version, beginning[: int(size)]))
        length = headers.get("content-length")
        if template is None or template.signature is not signature or length != str(int(size) + template.size):
            return None
        return template.hollow()

    def _json(self, model: str, version: str, text: bytes, signature: Signature) -> Request:
        """A request that is JSON throughout. Where all but its data came before, only the data are read."""
        start = _data_start(text)
        for template in self._texts.get((model, version, text[:start]), ()) if start else ():
            if template.signature is signature and text.endswith(template.rest):
                data = text[start : len(text) - len(template.rest)]
                # More or less than one value: that is another request, which is found out by reading it all.
                with suppress(msgspec.DecodeError):
                    return template.read(data, self.limits.depth)
        parsed = self._parse(text)
        inputs = self._inputs(parsed, memoryview(b""), signature)
        request = check_request(_request(model, version, parsed, inputs, signature), signature)
        if start and len(parsed.inputs) == 1 and not request.id:
            self._remember(text, start, parsed.inputs[0].data, request, signature)
        return request

    def _remember(self, text: bytes, start: int, data: msgspec.Raw, request: Request, signature: Signature) -> None:
        """Remember what surrounds the data, if they begin where the next look will suppose it."""
        rest = text[start + len(memoryview(data)) :]
        # The parser gives the data as a part of the text, so that addresses tell the place.
        if start + len(rest) > MEMORABLE_BYTES or _address(data) - _address(text) != start:
            return
        key = (request.model, request.version, text[:start])
        others = [template for template in self._texts.get(key, ()) if template.rest != rest]
        self._texts.keep(key, [_Text(request, signature, rest), *others[: _MOST_ALIKE - 1]])

    def _decoded(self, model: str, version: str, head: bytes, blobs: memoryview, signature: Signature) -> Request:
        parsed = self._parse(head)
        inputs = self._inputs(parsed, blobs, signature)
        return check_request(_request(model, version, parsed, inputs, signature), signature)

    def _keep(self, head: bytes, size: int, request: Request, signature: Signature) -> None:
        """Remember what a head came to, where all data lie behind it in the order of the inputs."""
        if len(head) <= MEMORABLE_BYTES and is_repeatable(request, signature):
            template = Template(request, signature)
            if template.size == size:
                self._templates.keep((request.model, request.version, head), template)

    def encode(self, request: Request, response: Response, headers: Mapping[str, str]) -> Encoded:
        """Return JSON, or JSON and blobs where any output is wanted as binary."""
        texts: list[bytes] = []
        blobs: list[bytes | memoryview] = []
        shapes: list[_Sent] = []
        for name, array in response.outputs.items():
            dtype = response.dtypes[name]
            if name in request.binary_outputs:
                blob = to_bytes(array, dtype)
                blobs.append(blob)
                shapes.append((name, dtype, array.shape, len(blob)))
            else:
                texts.append(to_json_text(name, array, dtype))
                shapes.append((name, dtype, array.shape, None))
        frame = self._frame(response, shapes)
        wanted = headers.get("accept-encoding")
        encoding = accepted(wanted) if wanted else None
        if encoding is not None:
            return _compressed([frame.head(texts), *blobs], frame.headers(texts), encoding)
        if frame.lines:
            head = frame.head(texts) if texts else frame.pieces[0]
            return Encoded(parts=[head, *blobs], headers=frame.fixed, lines=frame.lines)
        return Encoded(parts=[frame.head(texts), *blobs], headers=frame.headers(texts))

    def _frame(self, response: Response, shapes: list[_Sent]) -> _Frame:
        """What surrounds the data of an answer; kept where no id makes it different each time."""
        if response.id:
            return _Frame(response, shapes)
        key = (response.model, response.version, self._exact.of(response.parameters), *shapes)
        found = self._frames.get(key)
        if found is None:
            found = _Frame(response, shapes)
            self._frames.keep(key, found)
        return found

    def _parse(self, head: bytes) -> Body:
        check_depth(head, self.limits.depth)
        try:
            return decode_body(head)
        except msgspec.ValidationError as error:
            raise invalid(f"The request is not valid: {error}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            hint = "; for NaN and infinity use binary tensor data" if _NOT_A_NUMBER.search(head) else ""
            raise invalid(f"The request is not valid JSON: {error}{hint}.") from error

    def _inputs(self, body: Body, blobs: memoryview, signature: Signature) -> dict[str, Array]:
        check_inputs_count(len(body.inputs), signature)
        inputs: dict[str, Array] = {}
        offset = 0
        for item in body.inputs:
            if item.name in inputs:
                raise invalid(f"The input {item.name[:100]!r} is given twice.")
            check_input(item.name, item.datatype, signature)
            shape = checked_shape(item.name[:100], item.shape, self.limits)
            size = _binary_size(item)
            if size is None:
                inputs[item.name] = from_json_text(item.name[:100], item.datatype, shape, item.data)
                continue
            if offset + size > len(blobs):
                raise invalid(f"The input {item.name[:100]!r} names {size} bytes, {len(blobs) - offset} are left.")
            inputs[item.name] = from_bytes(item.name[:100], item.datatype, shape, blobs[offset : offset + size])
            offset += size
        if offset != len(blobs):
            raise invalid(f"{len(blobs) - offset} bytes after the last input belong to nothing.")
        return inputs


def encode_error(error: RequestError) -> bytes:
    """Body of every answer that is not a success."""
    return msgspec.json.encode({"error": error.message, "code": error.code})


# JSON bodies are scanned only for what the parser already refused; blobs are never scanned.
_NOT_A_NUMBER = re.compile(rb"\b(NaN|-?Infinity)\b")


def _data_start(text: bytes) -> int:
    """Where the first data begin, or 0 where that is far behind or nowhere."""
    at = text.find(b'"data":', 0, MEMORABLE_BYTES)
    if at < 0:
        return 0
    return at + 8 if text.startswith(b" ", at + 7) else at + 7


def _address(buffer: bytes | msgspec.Raw) -> int:
    return np.frombuffer(buffer, np.uint8).ctypes.data


def _head_size(text: str, total: int) -> int:
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else -1
    if not 0 <= size <= total:
        raise invalid(f"Inference-Header-Content-Length must be a number from 0 to {total}, not {text[:40]!r}.")
    return size


def _binary_size(item: Input) -> int | None:
    """The size of the input's blob, or None where the data is JSON."""
    size = item.parameters.get("binary_data_size")
    unknown = set(item.parameters) - {"binary_data_size"}
    if unknown:
        raise invalid(f"The input {item.name[:100]!r} has an unknown parameter {sorted(unknown)[0][:100]!r}.")
    if size is None:
        if not item.data:
            raise invalid(f"The input {item.name[:100]!r} has neither data nor binary_data_size.")
        return None
    if item.data:
        raise invalid(f"The input {item.name[:100]!r} has both data and binary_data_size.")
    if type(size) is not int or size < 0:
        raise invalid(f"The binary_data_size of {item.name[:100]!r} must be a number from 0.")
    return size


def _request(model: str, version: str, body: Body, inputs: dict[str, Array], signature: Signature) -> Request:
    check_parameters(body.parameters, ((item.name, item.parameters) for item in body.outputs))
    by_default = flag(body.parameters, "binary_data_output", False)
    wanted = tuple(item.name for item in body.outputs)
    binary: list[str] = []
    if wanted:
        wanted_outputs(wanted, signature)
        binary = [item.name for item in body.outputs if flag(item.parameters, "binary_data", by_default)]
    elif by_default:
        binary = [spec.name for spec in signature.outputs]
    return Request(
        model=model,
        version=version,
        id=body.id,
        inputs=inputs,
        outputs=wanted,
        binary_outputs=frozenset(binary),
        priority=whole(body.parameters, "priority"),
        timeout_us=whole(body.parameters, "timeout"),
    )


def _raw_request(model: str, version: str, content: bytes | memoryview, signature: Signature) -> Request:
    """A raw body: one input, at most one free dimension besides the batch of one, all outputs as binary."""
    if len(signature.inputs) != 1:
        raise invalid("A raw body needs a model with one input.")
    spec = signature.inputs[0]
    return Request(
        model=model,
        version=version,
        inputs={spec.name: from_bytes(spec.name, spec.dtype, _raw_shape(spec, len(content)), memoryview(content))},
        binary_outputs=frozenset(item.name for item in signature.outputs),
    )


def _raw_shape(spec: TensorSpec, size: int) -> tuple[int, ...]:
    dims = [1 if axis == 0 and isinstance(dim, str) else dim for axis, dim in enumerate(spec.shape)]
    free = [axis for axis, dim in enumerate(dims) if isinstance(dim, str)]
    if len(free) > 1:
        raise invalid("A raw body needs a model with at most one free dimension.")
    if spec.dtype == "BYTES":
        return tuple(1 if isinstance(dim, str) else dim for dim in dims)
    fixed = DTYPE_SIZES[spec.dtype]
    for dim in dims:
        fixed *= dim if isinstance(dim, int) else 1
    # A dimension fixed at zero leaves nothing to divide by; the empty input is refused later, as any other.
    return tuple(size // max(fixed, 1) if isinstance(dim, str) else dim for dim in dims)


def _begin(response: Response) -> bytes:
    head: dict[str, Any] = {"model_name": response.model, "model_version": response.version or "1"}
    if response.id:
        head["id"] = response.id
    if response.parameters:
        head["parameters"] = dict(response.parameters)
    return _encode_json(head)[:-1]


def _compressed(parts: list[bytes | memoryview], headers: dict[str, str], encoding: str) -> Encoded:
    return Encoded(parts=[compress(b"".join(parts), encoding)], headers={**headers, "content-encoding": encoding})
