"""Open Inference Protocol v2 over gRPC: the message of an infer request to `Request`, and `Response` to a message.

Source: the protocol's `open_inference_grpc.proto` and Triton's extensions. As over HTTP, what is not understood is
refused. A request whose tensors are raw, or that asks for binary outputs, is answered raw; tensor data is copied once
on its way in, by the parser, and not at all on its way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from hasten.errors import RequestError
from hasten.spec.request import Request, Response
from hasten.spec.signature import Signature
from hasten.spec.tensor import DType
from hasten.wire.base import Encoded, Limits, invalid
from hasten.wire.contents import fill_contents, from_contents, has_contents
from hasten.wire.known import MEMORABLE_BYTES, Exact, Memory, Template, is_repeatable
from hasten.wire.messages import POOL, message_type
from hasten.wire.oip_rules import (
    check_input,
    check_inputs_count,
    check_parameters,
    check_request,
    flag,
    wanted_outputs,
    whole,
)
from hasten.wire.protobuf import check_wire, shape_of, varint
from hasten.wire.tensors import Array, checked_shape, from_bytes, to_bytes, view_of

__all__ = ["InferMessage", "OipGrpc", "Recognised", "parse", "stream_error", "stream_response"]

Parameters = dict[str, Any]
Body = bytes | memoryview
InferMessage = Any
"""A parsed `inference.ModelInferRequest`: protobuf makes its class at run time."""

_REQUEST, _RESPONSE = message_type("inference.ModelInferRequest"), message_type("inference.ModelInferResponse")
_STREAMED = message_type("inference.ModelStreamInferResponse")
_CONTENTS = POOL.FindMessageTypeByName("inference.InferTensorContents")
_DATA = frozenset({"inference.ModelInferRequest.raw_input_contents", *(f.full_name for f in _CONTENTS.fields)})
_SHAPE = shape_of(_REQUEST.DESCRIPTOR, _DATA)
_RAW_INPUT = bytes([7 << 3 | 2])  # the tag of ModelInferRequest.raw_input_contents
_RAW_OUTPUT = bytes([6 << 3 | 2])  # the tag of ModelInferResponse.raw_output_contents
_INFER_RESPONSE = bytes([2 << 3 | 2])  # the tag of ModelStreamInferResponse.infer_response


# So many requests of the same length are recognised.
_MOST_OF_A_LENGTH = 8


class _Recognisable(Template):
    """A message by the pieces around its raw data, each with the place where it begins."""

    __slots__ = ("_places", "_starts", "model_name", "model_version")

    def __init__(self, request: Request, signature: Signature, pieces: list[tuple[int, bytes]], version: str) -> None:
        super().__init__(request, signature)
        self.model_name, self.model_version = request.model, version
        self._starts = [at + len(piece) for at, piece in pieces]
        self._places = [(slice(at, at + len(piece)), piece) for at, piece in pieces]

    def fits(self, body: Body) -> bool:
        """Whether a message of the right length is this one, with data of its own."""
        return all([body[place] == piece for place, piece in self._places])

    def inputs(self, body: Body) -> dict[str, Array]:
        """The data of a message that fits."""
        places = zip(self.tensors, self._starts, strict=True)
        return {name: view_of(dtype, shape, body, start) for (name, dtype, shape, _), start in places}


class Recognised:
    """A message that differs in its data only from one that was parsed and checked before."""

    __slots__ = ("_body", "model_name", "model_version", "template")

    def __init__(self, template: _Recognisable, body: Body) -> None:
        self.template = template
        self._body = body
        self.model_name, self.model_version = template.model_name, template.model_version

    def request(self) -> Request:
        """The request, for the template's signature."""
        return self.template.request(self.template.inputs(self._body))


class OipGrpc:
    """The codec. `parse` comes first, because the message itself names the model whose signature `request` needs."""

    name = "oip-grpc"

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        # By length: what comes again has the same.
        self._templates: Memory[int, list[_Recognisable]] = Memory()
        self._exact = Exact()
        self._answers: Memory[tuple[object, ...], list[bytes]] = Memory()

    def parse(self, body: Body) -> InferMessage | Recognised:
        """Return the message after a look at its bytes; its model and version are `model_name` and `model_version`.

        Raises `RequestError`: too_large beyond the limits, invalid for what the protocol does not know.
        """
        if len(body) > self.limits.body:
            raise RequestError(f"The message exceeds {self.limits.body} bytes.", code="too_large")
        for template in self._templates.get(len(body), ()):
            if template.fits(body):
                return Recognised(template, body)
        return _read(body)

    def read(self, body: Body, signature: Signature, message: InferMessage | Recognised) -> Request:
        """Return the request of a message that was parsed from `body`, after checking it against the signature; the
        next one like it is recognised. Raises `RequestError`.
        """
        if message.__class__ is Recognised:
            if message.template.signature is signature:
                return message.request()
            message = _read(body)
        request = self.request(message, signature)
        if is_repeatable(request, signature):
            self._remember(body, request, signature, message)
        return request

    def _remember(self, body: Body, request: Request, signature: Signature, message: InferMessage) -> None:
        pieces = _around(body, message.raw_input_contents)
        if pieces is not None and sum(len(piece) for _, piece in pieces) <= MEMORABLE_BYTES:
            others = [template for template in self._templates.get(len(body), ()) if not template.fits(body)]
            template = _Recognisable(request, signature, pieces, message.model_version)
            self._templates.keep(len(body), [template, *others[: _MOST_OF_A_LENGTH - 1]])

    def request(self, message: InferMessage, signature: Signature) -> Request:
        """Return the request after checking it against the signature. Raises `RequestError`."""
        outputs = [(item.name, _parameters(item.parameters)) for item in message.outputs]
        parameters = _parameters(message.parameters)
        wanted = [name for name, _ in outputs]
        wanted_outputs(wanted, signature)
        check_parameters(parameters, outputs)
        request = Request(
            model=message.model_name,
            version=message.model_version,
            id=message.id,
            inputs=self._inputs(message, signature),
            outputs=tuple(wanted),
            binary_outputs=_binary(message, parameters, outputs, signature),
            priority=whole(parameters, "priority"),
            timeout_us=whole(parameters, "timeout"),
        )
        return check_request(request, signature)

    def decode(
        self, model: str, version: str, headers: Mapping[str, str], body: bytes, signature: Signature
    ) -> Request:
        """Return the request of a message that must name this model and version. Raises `RequestError`."""
        message = _read(body)
        if (message.model_name, message.model_version) != (model, version):
            raise invalid(f"The message is for {message.model_name[:100]!r}, not for {model!r} {version!r}.")
        return self.request(message, signature)

    def encode(self, request: Request, response: Response, headers: Mapping[str, str]) -> Encoded:
        """Return the message in parts: raw where any output is wanted raw or has no typed form, else typed values."""
        raw = bool(request.binary_outputs) or not all(has_contents(response.dtypes[name]) for name in response.outputs)
        if not raw:
            return Encoded(parts=[_message(response, raw).SerializeToString()])
        parts: list[bytes | memoryview] = []
        shapes: list[tuple[str, DType, tuple[int, ...], int]] = []
        for name, array in response.outputs.items():
            dtype = response.dtypes[name]
            blob = to_bytes(array, dtype)
            shapes.append((name, dtype, array.shape, len(blob)))
            parts += (b"", blob)
        parts[::2] = self._frame(response, shapes)
        return Encoded(parts=parts)

    def _frame(self, response: Response, shapes: list[tuple[str, DType, tuple[int, ...], int]]) -> list[bytes]:
        """What comes before each of an answer's blobs; kept where no id makes it different each time."""
        if response.id:
            return _frame(response, shapes)
        key = (response.model, response.version, self._exact.of(response.parameters), *shapes)
        frame = self._answers.get(key)
        if frame is None:
            frame = _frame(response, shapes)
            self._answers.keep(key, frame)
        return frame

    def _inputs(self, message: InferMessage, signature: Signature) -> dict[str, Array]:
        check_inputs_count(len(message.inputs), signature)
        blobs = message.raw_input_contents
        if blobs and len(blobs) != len(message.inputs):
            raise invalid(f"The request has {len(message.inputs)} inputs and {len(blobs)} raw_input_contents.")
        inputs: dict[str, Array] = {}
        for number, item in enumerate(message.inputs):
            name = item.name
            if name in inputs:
                raise invalid(f"The input {name[:100]!r} is given twice.")
            check_input(name, item.datatype, signature)
            shape = checked_shape(name, item.shape, self.limits)
            inputs[name] = _raw(item, shape, blobs[number]) if blobs else _typed(item, shape)
        return inputs


def parse(kind: Any, body: Body) -> Any:
    """Return a message of the class `kind`. Raises `RequestError` (invalid)."""
    try:
        return kind.FromString(bytes(body))
    except DecodeError as error:
        raise invalid(f"The message is no valid {kind.DESCRIPTOR.name}: {error}.") from error


def _read(body: Body) -> InferMessage:
    check_wire(body, _SHAPE)
    return parse(_REQUEST, body)


def _around(body: Body, blobs: Sequence[bytes]) -> list[tuple[int, bytes]] | None:
    """The pieces of a message before each of its blobs, and where they begin; None unless the blobs come last, as
    every usual writer puts them.
    """
    pieces: list[tuple[int, bytes]] = []
    end = len(body)
    for blob in reversed(blobs):
        tag = _RAW_INPUT + varint(len(blob))
        end -= len(blob) + len(tag)
        if end < 0 or body[end : end + len(tag)] != tag:
            return None
        pieces.append((end, tag))
    if not pieces:
        return None
    try:
        # What is left must be a message of its own, without data: else a blob was only seen where there is none.
        if _REQUEST.FromString(bytes(body[:end])).raw_input_contents:
            return None
    except DecodeError:
        return None
    pieces[-1] = (0, bytes(body[:end]) + pieces[-1][1])
    return pieces[::-1]


def _frame(response: Response, shapes: Sequence[tuple[str, DType, tuple[int, ...], int]]) -> list[bytes]:
    pieces = [_RAW_OUTPUT + varint(size) for *_, size in shapes]
    pieces[0] = _message(response, True).SerializeToString() + pieces[0]
    return pieces


def _message(response: Response, raw: bool) -> Any:
    """An answer without its raw data, or with typed values."""
    message = _RESPONSE(model_name=response.model, model_version=response.version or "1", id=response.id)
    for key, value in response.parameters.items():
        _set_parameter(message.parameters[key], value)
    for name, array in response.outputs.items():
        dtype = response.dtypes[name]
        output = message.outputs.add(name=name, datatype=dtype, shape=array.shape)
        if not raw:
            fill_contents(output.contents, array, dtype)
    return message


def stream_response(parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Wrap the parts of an infer response into those of a `ModelStreamInferResponse`."""
    size = sum(len(part) for part in parts)
    return [_INFER_RESPONSE + varint(size), *parts]


def stream_error(message: str, request_id: str) -> bytes:
    """Return a `ModelStreamInferResponse` for a request that failed: the stream goes on."""
    return _STREAMED(error_message=message, infer_response=_RESPONSE(id=request_id)).SerializeToString()


def _raw(item: Any, shape: tuple[int, ...], blob: bytes) -> Array:
    if item.HasField("contents"):
        raise invalid(f"The input {item.name!r} has contents, and the request has raw_input_contents; send one.")
    parameters = _parameters(item.parameters)
    # KServe's client repeats the size that it would name over HTTP.
    size = parameters.pop("binary_data_size", len(blob))
    if size != len(blob):
        raise invalid(f"The binary_data_size of {item.name!r} is not the size of its raw contents.")
    _no_parameters(item.name, parameters)
    return from_bytes(item.name, item.datatype, shape, memoryview(blob))


def _typed(item: Any, shape: tuple[int, ...]) -> Array:
    if not item.HasField("contents"):
        raise invalid(f"The input {item.name!r} has neither contents nor raw_input_contents.")
    _no_parameters(item.name, _parameters(item.parameters))
    return from_contents(item.name, item.datatype, shape, item.contents)


def _no_parameters(name: str, parameters: Parameters) -> None:
    if parameters:
        raise invalid(f"The input {name!r} has an unknown parameter {sorted(parameters)[0][:100]!r}.")


def _binary(
    message: InferMessage, parameters: Parameters, outputs: list[tuple[str, Parameters]], signature: Signature
) -> frozenset[str]:
    """The outputs wanted raw: all, or none, since the protocol allows no mixture."""
    by_default = flag(parameters, "binary_data_output", bool(message.raw_input_contents))
    names = [name for name, _ in outputs] or [spec.name for spec in signature.outputs]
    asked = [flag(own, "binary_data", by_default) for _, own in outputs] or [by_default]
    return frozenset(names if any(asked) else ())


def _parameters(entries: Any) -> Parameters:
    if not entries:
        return {}
    found: Parameters = {}
    for key, value in entries.items():
        which = value.WhichOneof("parameter_choice")
        if which is None:
            raise invalid(f"The parameter {key[:100]!r} has no value.")
        found[key] = getattr(value, which)
    return found


def _set_parameter(parameter: Any, value: bool | int | float | str) -> None:
    # bool is a subclass of int in Python, not in the protocol.
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    setattr(parameter, kinds[type(value)], value)
