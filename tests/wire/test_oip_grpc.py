from __future__ import annotations

import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.spec.request import Request, Response
from hasten.spec.signature import Signature
from hasten.spec.tensor import DType, TensorSpec
from hasten.wire.base import STATUS, Codec, Limits, codecs
from hasten.wire.contents import fill_contents, from_contents, has_contents
from hasten.wire.oip_grpc import OipGrpc, stream_error, stream_response
from hasten.wire.tensors import to_bytes

pb = pytest.importorskip("tritonclient.grpc.service_pb2", reason="an independent client writes the messages")

DTYPES: tuple[DType, ...] = get_args(DType)
LIMITS = Limits(body=100_000)
SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="FP32", shape=("batch", 4)),
        TensorSpec(name="words", dtype="BYTES", shape=("batch",)),
    ),
    outputs=(
        TensorSpec(name="y", dtype="FP32", shape=("batch", 3)),
        TensorSpec(name="z", dtype="INT64", shape=("batch",)),
    ),
)
RAW_X, RAW_WORDS = np.arange(4, dtype="<f4").tobytes(), b"\x01\0\0\0a"
HEAD_X: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
HEAD_WORDS: dict[str, Any] = {"name": "words", "shape": [1], "datatype": "BYTES"}
TYPED_X = {**HEAD_X, "contents": {"fp32_contents": [0, 1, 2, 3]}}
TYPED_WORDS = {**HEAD_WORDS, "contents": {"bytes_contents": [b"a"]}}


def codec() -> OipGrpc:
    return OipGrpc(LIMITS)


def decode(body: bytes, signature: Signature = SIGNATURE) -> Request:
    return codec().request(codec().parse(body), signature)


def typed(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return pb.ModelInferRequest(
        **{"model_name": "m", "inputs": list(inputs) or [TYPED_X, TYPED_WORDS], **fields}
    ).SerializeToString()


def raw(*blobs: bytes, **fields: Any) -> bytes:
    heads = [HEAD_X, HEAD_WORDS]
    contents = list(blobs) or [RAW_X, RAW_WORDS]
    return pb.ModelInferRequest(
        **{"model_name": "m", "inputs": heads, "raw_input_contents": contents, **fields}
    ).SerializeToString()


def with_x(**changes: Any) -> bytes:
    """A valid request of typed values but for the fields given; `...` takes a field away."""
    return typed({key: value for key, value in {**TYPED_X, **changes}.items() if value is not ...}, TYPED_WORDS)


def raw_x(**changes: Any) -> bytes:
    return raw(inputs=[{**HEAD_X, **changes}, HEAD_WORDS])


def of_contents(**lists: Any) -> bytes:
    return with_x(contents=lists)


def one_tensor(dtype: DType, shape: tuple[int | str, ...]) -> Signature:
    spec = TensorSpec(name="t", dtype=dtype, shape=shape)
    return Signature(inputs=(spec,), outputs=(spec,))


VALID: dict[str, bytes] = {
    "typed": typed(),
    "raw": raw(),
    "in another order": raw(RAW_WORDS, RAW_X, inputs=[HEAD_WORDS, HEAD_X]),
    "with outputs and an id": raw(outputs=[{"name": "z"}, {"name": "y"}], id="7"),
    "with priority and timeout": raw(parameters={"priority": {"uint64_param": 1}, "timeout": {"int64_param": 5000}}),
    "with a parameter of the client's own": raw(parameters={"trace": {"string_param": "abc"}}),
    "with the size that KServe's client repeats": raw_x(parameters={"binary_data_size": {"int64_param": 16}}),
}


@pytest.mark.parametrize("body", VALID.values(), ids=VALID)
def test_a_valid_request_is_decoded(body: bytes) -> None:
    request = decode(body)
    assert SIGNATURE.problem(request.inputs) is None
    assert request.inputs["x"].tolist() == [[0, 1, 2, 3]]
    assert request.inputs["words"].tolist() == [b"a"]


@pytest.mark.parametrize("body", VALID.values(), ids=VALID)
def test_a_view_of_a_message_is_read_as_its_bytes_are_also_when_it_comes_again(body: bytes) -> None:
    codec = OipGrpc()
    for _ in range(2):
        seen = memoryview(body)
        request = codec.read(seen, SIGNATURE, codec.parse(seen))
        assert request.inputs["x"].tolist() == [[0, 1, 2, 3]]
        assert request.inputs["words"].tolist() == [b"a"]


def test_what_steers_a_request_is_read_from_its_parameters() -> None:
    request = decode(raw(id="7", outputs=[{"name": "z"}], parameters={
        "priority": {"uint64_param": 2}, "timeout": {"int64_param": 1500},
    }))  # fmt: skip
    assert (request.model, request.version, request.id) == ("m", "", "7")
    assert (request.priority, request.timeout_us, request.outputs) == (2, 1500, ("z",))


def test_a_raw_request_is_answered_raw_and_a_typed_one_typed() -> None:
    assert decode(raw()).binary_outputs == {"y", "z"}
    assert decode(typed()).binary_outputs == frozenset()


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"binary_data_output": {"bool_param": True}}},
        {"outputs": [{"name": "y", "parameters": {"binary_data": {"bool_param": True}}}]},
    ],
    ids=["for all outputs", "for one output"],
)
def test_a_typed_request_that_asks_for_raw_outputs_is_answered_raw(fields: dict[str, Any]) -> None:
    assert "y" in decode(typed(**fields)).binary_outputs


MALFORMED: dict[str, bytes] = {
    # not a message, or not this message
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "JSON": b'{"inputs":[]}',
    "cut off": raw()[:-1],
    "something after the end": raw() + b"\0",
    "an unknown field": raw() + b"\x7a\0",
    "an unknown field in an input": typed() + b"\x2a\x02\x7a\0",
    "a group": raw() + b"\x43\x44",
    "nested groups": b"\x2b" * 10_000,
    "unknown fields without end": b"\x7a\0" * 10_000,
    "a name that is not UTF-8": raw().replace(b"\x0a\x05words", b"\x0a\x05word\xff"),
    "a number where a text belongs": raw() + b"\x18\x01",
    # fields of the request
    "an empty message": b"",
    "no inputs": typed(inputs=[]),
    "an input is missing": raw(RAW_X, inputs=[HEAD_X]),
    "an input is given twice": raw(RAW_X, RAW_X, inputs=[HEAD_X, HEAD_X]),
    "more inputs than the model takes": typed(TYPED_X, TYPED_WORDS, TYPED_WORDS),
    "an unknown output": raw(outputs=[{"name": "q"}]),
    "an output asked for twice": raw(outputs=[{"name": "y"}, {"name": "y"}]),
    "an output without a name": raw(outputs=[{}]),
    "an output as classes": raw(outputs=[{"name": "y", "parameters": {"classification": {"int64_param": 3}}}]),
    "an output in shared memory": raw(outputs=[{"name": "y", "parameters": {"shared_memory_region": {}}}]),
    # parameters
    "a parameter without a value": raw(parameters={"p": {}}),
    "a negative priority": raw(parameters={"priority": {"int64_param": -1}}),
    "a priority that is a text": raw(parameters={"priority": {"string_param": "1"}}),
    "a priority that is true": raw(parameters={"priority": {"bool_param": True}}),
    "a timeout that is a fraction": raw(parameters={"timeout": {"double_param": 0.5}}),
    "a timeout beyond 63 bits": raw(parameters={"timeout": {"uint64_param": 2**63}}),
    "a sequence": raw(parameters={"sequence_id": {"int64_param": 1}}),
    "a parameter of Triton's own": raw(parameters={"triton_enable_empty_final_response": {"bool_param": True}}),
    "headers": raw(parameters={"headers": {"string_param": "a"}}),
    "binary_data_output that is a number": raw(parameters={"binary_data_output": {"int64_param": 1}}),
    "binary_data that is a text": raw(outputs=[{"name": "y", "parameters": {"binary_data": {"string_param": "t"}}}]),
    "an input in shared memory": raw_x(parameters={"shared_memory_region": {"string_param": "r"}}),
    "an unknown parameter of a typed input": with_x(parameters={"surprise": {"bool_param": True}}),
    "a binary_data_size that is wrong": raw_x(parameters={"binary_data_size": {"int64_param": 15}}),
    # names, types and shapes
    "an input without a name": with_x(name=...),
    "an unknown input": with_x(name="q"),
    "a name with a null byte": with_x(name="x\0"),
    "an input without a type": with_x(datatype=...),
    "an unknown type": with_x(datatype="FP128"),
    "a type in small letters": with_x(datatype="fp32"),
    "a type of the same size that the model does not take": raw_x(datatype="INT32"),
    "an input without a shape": with_x(shape=...),
    "a shape of another rank": with_x(shape=[4]),
    "a shape that the model does not take": with_x(shape=[2, 2]),
    "a negative dimension": with_x(shape=[-1, -4]),
    "a free dimension, as in the metadata": with_x(shape=[-1, 4]),
    "a dimension of zero": raw(b"", RAW_WORDS, inputs=[{**HEAD_X, "shape": [0, 4]}, HEAD_WORDS]),
    "a product that wraps around": raw_x(shape=[2**62, 4]),
    "a product that wraps around to zero": raw_x(shape=[2**32, 2**32]),
    "a product behind a zero": raw_x(shape=[0, 2**62]),
    "more dimensions than any tensor has": raw_x(shape=[1] * 33),
    "a thousand dimensions": raw_x(shape=[1] * 1000),
    # typed values
    "neither contents nor raw": with_x(contents=...),
    "contents that are empty": of_contents(),
    "too few elements": of_contents(fp32_contents=[1, 2, 3]),
    "too many elements": of_contents(fp32_contents=[1, 2, 3, 4, 5]),
    "the list of another type": of_contents(fp64_contents=[1, 2, 3, 4]),
    "two lists": of_contents(fp32_contents=[1, 2, 3, 4], int_contents=[1]),
    "bytes for numbers": of_contents(bytes_contents=[b"1", b"2", b"3", b"4"]),
    # raw values
    "contents beside raw": raw(inputs=[TYPED_X, HEAD_WORDS]),
    "one raw content too few": raw(RAW_X),
    "one raw content too many": raw(RAW_X, RAW_WORDS, RAW_X),
    "raw without inputs": raw(RAW_X, inputs=[]),
    "raw in the wrong order": raw(RAW_WORDS, RAW_X),
    "a byte too few": raw(RAW_X[:-1], RAW_WORDS),
    "a byte too many": raw(RAW_X + b"\0", RAW_WORDS),
    "raw contents that are empty": raw(b"", RAW_WORDS),
    "a string without its length": raw(RAW_X, b"a"),
    "a string that is cut off": raw(RAW_X, b"\x02\0\0\0a"),
    "a string of 4 GiB": raw(RAW_X, b"\xff\xff\xff\xffa"),
    "two strings for one": raw(RAW_X, RAW_WORDS * 2),
    "no string for one": raw(RAW_X, b""),
    "bytes after the last string": raw(RAW_X, RAW_WORDS + b"\0"),
}  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_the_client_s_fault(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode(body)
    assert caught.value.code == "invalid"
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("dtype", "field", "value"),
    [
        ("INT8", "int_contents", 128),
        ("INT8", "int_contents", -129),
        ("INT16", "int_contents", 2**15),
        ("UINT8", "uint_contents", 256),
        ("UINT16", "uint_contents", 2**16),
    ],
)
def test_a_value_that_does_not_fit_its_narrow_type_is_refused(dtype: DType, field: str, value: int) -> None:
    body = typed({"name": "t", "shape": [1], "datatype": dtype, "contents": {field: [value]}})
    with pytest.raises(RequestError, match=f"no {dtype}"):
        decode(body, one_tensor(dtype, ("?",)))


@pytest.mark.parametrize("dtype", ["FP16", "BF16"])
def test_half_precision_travels_raw_only(dtype: DType) -> None:
    body = typed({"name": "t", "shape": [1], "datatype": dtype, "contents": {"fp32_contents": [1]}})
    with pytest.raises(RequestError, match="raw_input_contents"):
        decode(body, one_tensor(dtype, ("?",)))


@pytest.mark.parametrize("dtype", ["FP16", "BF16"])
def test_half_precision_is_answered_raw_also_where_nobody_asked(dtype: DType) -> None:
    array = np.zeros(2, np.float16 if dtype == "FP16" else np.uint16)
    answer = encode({"t": array}, {"t": dtype}, binary=False)
    assert answer.raw_output_contents[:] == [bytes(4)]


def test_raw_bools_other_than_zero_and_one_are_refused() -> None:
    head = {"name": "t", "shape": [1], "datatype": "BOOL"}
    with pytest.raises(RequestError, match="BOOL"):
        decode(raw(b"\2", inputs=[head]), one_tensor("BOOL", ("?",)))


def test_a_message_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(RequestError) as caught:
        codec().parse(bytes(LIMITS.body + 1))
    assert caught.value.code == "too_large"


def test_a_flood_of_inputs_does_not_fill_the_memory() -> None:
    body = b"\x2a\0" * (16 * 2**20)
    tracemalloc.start()
    with pytest.raises(RequestError) as caught:
        OipGrpc().parse(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "too_large"
    assert peak < 2**20


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_request_of_any_type_is_decoded_as_it_was(dtype: DType, arrays: Any, data: st.DataObject) -> None:
    array = data.draw(arrays.of(dtype))
    head = pb.ModelInferRequest.InferInputTensor(name="t", datatype=dtype, shape=array.shape)
    if has_contents(dtype) and data.draw(st.booleans()):
        fill_contents(head.contents, array, dtype)
        message = pb.ModelInferRequest(inputs=[head])
    else:
        message = pb.ModelInferRequest(inputs=[head], raw_input_contents=[bytes(to_bytes(array, dtype))])
    back = decode(message.SerializeToString(), one_tensor(dtype, tuple("?" * array.ndim))).inputs["t"]
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert same(back, array)


def same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Equal element for element, where one NaN is like another: which of them it was is lost in typed values."""
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def encode(outputs: dict[str, np.ndarray[Any, Any]], dtypes: dict[str, DType], *, binary: bool, **fields: Any) -> Any:
    """What an independent client reads in our answer."""
    request = Request(model="m", inputs={}, binary_outputs=frozenset(outputs if binary else ()))
    response = Response(model="m", version="", id="7", outputs=outputs, dtypes=dtypes, **fields)
    return pb.ModelInferResponse.FromString(b"".join(codec().encode(request, response, {}).parts))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_an_independent_client_reads_an_answer_of_any_type(dtype: DType, arrays: Any, data: st.DataObject) -> None:
    from tritonclient.grpc import InferResult

    array = data.draw(arrays.of(dtype))
    answer = encode({"t": array}, {"t": dtype}, binary=data.draw(st.booleans()))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    assert (answer.outputs[0].name, answer.outputs[0].datatype) == ("t", dtype)
    assert tuple(answer.outputs[0].shape) == array.shape
    assert bool(answer.raw_output_contents) != answer.outputs[0].HasField("contents")
    if answer.outputs[0].HasField("contents"):  # that client reads typed values of BYTES only
        assert same(from_contents("t", dtype, array.shape, answer.outputs[0].contents), array)
    elif dtype != "BF16":  # that client makes float32 of it
        assert same(InferResult(answer).as_numpy("t").astype(array.dtype), array)


def test_the_parameters_of_an_answer_keep_their_types() -> None:
    values = {"variant": "int8", "step": 2, "share": 0.5, "degraded": True}
    answer = encode({}, {}, binary=True, parameters=values)
    read = {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in answer.parameters.items()}
    assert read == values
    assert answer.parameters["degraded"].WhichOneof("parameter_choice") == "bool_param"


def test_raw_outputs_are_not_copied() -> None:
    array = np.arange(1000, dtype=np.float32)
    request = Request(model="m", inputs={}, binary_outputs=frozenset({"t"}))
    response = Response(model="m", version="", id="", outputs={"t": array}, dtypes={"t": "FP32"})
    blob = codec().encode(request, response, {}).parts[-1]
    assert np.shares_memory(np.frombuffer(blob, np.float32), array)


def test_an_answer_on_a_stream_is_the_answer_in_an_envelope() -> None:
    request = Request(model="m", inputs={}, binary_outputs=frozenset({"t"}))
    response = Response(model="m", version="", id="7", outputs={"t": np.zeros(99)}, dtypes={"t": "FP64"})
    parts = codec().encode(request, response, {}).parts
    streamed = pb.ModelStreamInferResponse.FromString(b"".join(stream_response(list(parts))))
    assert streamed.infer_response.SerializeToString() == b"".join(parts)
    assert streamed.error_message == ""


def test_an_error_on_a_stream_names_the_request_that_failed() -> None:
    streamed = pb.ModelStreamInferResponse.FromString(stream_error("The queue is full.", "7"))
    assert (streamed.error_message, streamed.infer_response.id) == ("The queue is full.", "7")


def test_the_codec_can_be_had_by_name_and_takes_only_messages_for_the_model_it_was_given() -> None:
    found: Codec = codecs.get("oip-grpc")
    assert found.decode("m", "", {}, raw(), SIGNATURE).model == "m"
    with pytest.raises(RequestError) as caught:
        found.decode("other", "", {}, raw(), SIGNATURE)
    assert caught.value.code in STATUS
