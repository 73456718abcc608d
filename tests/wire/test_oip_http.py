from __future__ import annotations

import gzip
import json
import zlib
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
from hasten.wire.oip_client import encode_request
from hasten.wire.oip_http import HEADER_LENGTH, OipHttp, encode_error

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
X: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
WORDS: dict[str, Any] = {"name": "words", "shape": [1], "datatype": "BYTES", "data": ["a"]}
BLOBS = np.arange(4, dtype="<f4").tobytes() + b"\x01\0\0\0a"
BINARY_X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
BINARY_WORDS = {"name": "words", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
Case = tuple[bytes, dict[str, str]]


def decode(body: bytes, headers: dict[str, str] | None = None, signature: Signature = SIGNATURE) -> Request:
    return OipHttp(LIMITS).decode("m", "1", headers or {}, body, signature)


def a_request(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs) or [X, WORDS], **fields}).encode()


def with_x(**changes: Any) -> bytes:
    """A valid request but for the fields given; `...` takes a field away."""
    x = {key: value for key, value in {**X, **changes}.items() if value is not ...}
    return a_request(x, WORDS)


def binary(blobs: bytes = BLOBS, *inputs: dict[str, Any], length: str | None = None, **fields: Any) -> Case:
    head = a_request(*(inputs or (BINARY_X, BINARY_WORDS)), **fields)
    return head + blobs, {HEADER_LENGTH: str(len(head)) if length is None else length}


def one_tensor(dtype: DType, shape: tuple[int | str, ...]) -> Signature:
    spec = TensorSpec(name="t", dtype=dtype, shape=shape)
    return Signature(inputs=(spec,), outputs=(spec,))


VALID: list[Case] = [
    (a_request(), {}),
    (with_x(data=[[1, 2, 3, 4]]), {}),
    (a_request(outputs=[{"name": "z"}, {"name": "y", "parameters": {"binary_data": True}}], id="7"), {}),
    (a_request(parameters={"priority": 1, "timeout": 5000, "binary_data_output": True}), {}),
    (gzip.compress(a_request()), {"content-encoding": "gzip"}),
    (zlib.compress(a_request()), {"content-encoding": "deflate"}),
    binary(),
    binary(BLOBS[:16], BINARY_X, WORDS),
    binary(BLOBS[16:], X, BINARY_WORDS),
    binary(BLOBS[16:] + BLOBS[:16], BINARY_WORDS, BINARY_X),
]


@pytest.mark.parametrize(("body", "headers"), VALID)
def test_a_valid_request_is_decoded(body: bytes, headers: dict[str, str]) -> None:
    request = decode(body, headers)
    assert SIGNATURE.problem(request.inputs) is None
    assert request.inputs["words"].tolist() == [b"a"]


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_client_s_binary_request_of_any_type_is_decoded_as_it_was(
    dtype: DType, arrays: Any, data: st.DataObject
) -> None:
    array = data.draw(arrays.of(dtype))
    signature = one_tensor(dtype, tuple("?" * array.ndim))
    body, headers = encode_request({"t": array}, signature)
    request = decode(body, headers, signature)
    back = request.inputs["t"]
    assert request.binary_outputs == {"t"}
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert back.tobytes() == array.tobytes() if dtype != "BYTES" else back.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_an_answer_of_any_type_can_be_read_back(dtype: DType, encoding: str, arrays: Any, data: st.DataObject) -> None:
    array = data.draw(arrays.of(dtype, finite=True, text=True))
    wants_binary = dtype == "BF16" or data.draw(st.booleans())
    request = Request(model="m", inputs={}, binary_outputs=frozenset({"t"} if wants_binary else ()))
    response = Response(model="m", version="", id="", outputs={"t": array}, dtypes={"t": dtype})
    answer = OipHttp().encode(request, response, {"accept-encoding": encoding})
    body = b"".join(answer.parts)
    body = {"": bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}[encoding](body)
    # An answer's output has the form of a request's input, so the server's side of the codec reads it.
    size = int(answer.headers.get(HEADER_LENGTH, len(body)))
    head = json.dumps({"inputs": json.loads(body[:size])["outputs"]}).encode()
    signature = one_tensor(dtype, tuple("?" * array.ndim))
    back = decode(head + body[size:], {HEADER_LENGTH: str(len(head))}, signature).inputs["t"]
    assert (HEADER_LENGTH in answer.headers) == bool(wants_binary)
    assert answer.headers.get("content-encoding", "") == encoding
    assert (back.shape, back.tolist()) == (array.shape, array.tolist())


def nested(depth: int) -> bytes:
    return b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"


MALFORMED: dict[str, tuple[bytes | Case, str]] = {
    # not JSON, or not this JSON
    "an empty body": (b"", "invalid"),
    "white space": (b" \n", "invalid"),
    "a null byte": (b"\0", "invalid"),
    "cut off": (a_request()[:-1], "invalid"),
    "something after the end": (a_request() + b"x", "invalid"),
    "two documents": (a_request() * 2, "invalid"),
    "a byte order mark": (b"\xef\xbb\xbf" + a_request(), "invalid"),
    "UTF-16": (a_request().decode().encode("utf-16"), "invalid"),
    "not UTF-8": (a_request(id="é").replace(b"\\u00e9", b"\xe9"), "invalid"),
    "half a surrogate pair": (a_request(id="\ud800"), "invalid"),
    "null": (b"null", "invalid"),
    "a number": (b"1", "invalid"),
    "an array": (b"[]", "invalid"),
    "a trailing comma": (a_request()[:-1] + b",}", "invalid"),
    "single quotes": (a_request().replace(b'"', b"'"), "invalid"),
    "brackets without end": (b"[" * 250_000, "invalid"),
    "brackets that end": (nested(250_000), "invalid"),
    "braces without end": (b'{"a":' * 15_000, "invalid"),
    "one level too deep": (nested(100), "invalid"),
    "deep in a parameter": (a_request(parameters={"p": 0}).replace(b": 0", b": " + b"[" * 200 + b"]" * 200), "invalid"),
    # fields of the request
    "no inputs": (b"{}", "invalid"),
    "inputs are null": (b'{"inputs":null}', "invalid"),
    "inputs are an object": (b'{"inputs":{}}', "invalid"),
    "an empty list of inputs": (b'{"inputs":[]}', "invalid"),
    "an input that is a number": (b'{"inputs":[1]}', "invalid"),
    "an unknown field": (a_request(surprise=1), "invalid"),
    "an id that is a number": (a_request(id=7), "invalid"),
    "parameters that are a list": (a_request(parameters=[]), "invalid"),
    "outputs that are an object": (a_request(outputs={}), "invalid"),
    # fields of an input
    "an unknown field in an input": (with_x(surprise=1), "invalid"),
    "an input without a name": (with_x(name=...), "invalid"),
    "an input without a shape": (with_x(shape=...), "invalid"),
    "an input without a type": (with_x(datatype=...), "invalid"),
    "an input without data": (with_x(data=...), "invalid"),
    "a name that is a number": (with_x(name=1), "invalid"),
    "an unknown type": (with_x(datatype="FP128"), "invalid"),
    "a type in small letters": (with_x(datatype="fp32"), "invalid"),
    "a type of the same size that the model does not take": (with_x(datatype="INT32"), "invalid"),
    "data that are null": (with_x(data=None), "invalid"),
    "data that are a number": (with_x(data=1), "invalid"),
    "data that are an object": (with_x(data={}), "invalid"),
    "too few elements": (with_x(data=[1, 2, 3]), "invalid"),
    "too many elements": (with_x(data=[1, 2, 3, 4, 5]), "invalid"),
    "ragged data": (with_x(shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7]]), "invalid"),
    "nested otherwise than the shape": (with_x(data=[[1, 2], [3, 4]]), "invalid"),
    "a string among numbers": (with_x(data=[1, 2, 3, "4"]), "invalid"),
    "true among numbers": (with_x(data=[1, 2, 3, True]), "invalid"),
    "null among numbers": (with_x(data=[1, 2, 3, None]), "invalid"),
    "an object among numbers": (with_x(data=[1, 2, 3, {}]), "invalid"),
    "a number too large for the type": (with_x(data=[1, 2, 3, 1e39]), "invalid"),
    "a number too large for any type": (with_x().replace(b"3, 4", b"3, 1e999"), "invalid"),
    "an integer of 400 digits": (with_x(data=[1, 2, 3, 10**400]), "invalid"),
    "an integer of 50,000 digits": (with_x().replace(b"3, 4", b"3, " + b"9" * 50_000), "invalid"),
    # shapes
    "a shape that is a number": (with_x(shape=4), "invalid"),
    "a dimension that is a string": (with_x(shape=[1, "4"]), "invalid"),
    "a dimension that is a fraction": (with_x(shape=[1, 4.5]), "invalid"),
    "a dimension that is true": (with_x(shape=[True, 4]), "invalid"),
    "a negative dimension": (with_x(shape=[-1, -4]), "invalid"),
    "a dimension of zero": (with_x(shape=[0, 4], data=[]), "invalid"),
    "a product that wraps around": (with_x(shape=[16, 2**60 + 2]), "invalid"),
    "a product that wraps around to zero": (with_x(shape=[2**32, 2**32], data=[]), "invalid"),
    "a dimension of 400 digits": (with_x(shape=[10**400]), "invalid"),
    "too many dimensions": (with_x(shape=[1] * 50 + [4]), "invalid"),
    "a dimension too few": (with_x(shape=[4]), "invalid"),
    "a dimension too many": (with_x(shape=[1, 1, 4]), "invalid"),
    "a fixed dimension of another size": (with_x(shape=[1, 3], data=[1, 2, 3]), "invalid"),
    # which inputs and outputs
    "an input is missing": (a_request(X), "invalid"),
    "an input is unknown": (a_request(X, {**WORDS, "name": "w"}), "invalid"),
    "an input is given twice": (a_request(X, X), "invalid"),
    "one input too many": (a_request(X, WORDS, {**WORDS, "name": "w"}), "invalid"),
    "an output is unknown": (a_request(outputs=[{"name": "w"}]), "invalid"),
    "an output is asked for twice": (a_request(outputs=[{"name": "y"}, {"name": "y"}]), "invalid"),
    "an output without a name": (a_request(outputs=[{}]), "invalid"),
    # parameters
    "a parameter of Triton": (a_request(parameters={"triton_enable_empty_final_response": True}), "invalid"),
    "a parameter of sequences": (a_request(parameters={"sequence_id": 1}), "invalid"),
    "the parameter headers": (a_request(parameters={"headers": "x"}), "invalid"),
    "a parameter that is an object": (a_request(parameters={"p": {}}), "invalid"),
    "a negative timeout": (a_request(parameters={"timeout": -1}), "invalid"),
    "a timeout that is a string": (a_request(parameters={"timeout": "5"}), "invalid"),
    "a timeout that is a fraction": (a_request(parameters={"timeout": 0.5}), "invalid"),
    "a timeout that is true": (a_request(parameters={"timeout": True}), "invalid"),
    "a timeout beyond 63 bits": (a_request(parameters={"timeout": 2**63}), "invalid"),
    "a negative priority": (a_request(parameters={"priority": -1}), "invalid"),
    "binary_data_output is a number": (a_request(parameters={"binary_data_output": 1}), "invalid"),
    "binary_data is a number": (a_request(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), "invalid"),
    "classification": (a_request(outputs=[{"name": "y", "parameters": {"classification": 3}}]), "invalid"),
    "shared memory for an input": (with_x(parameters={"shared_memory_region": "r"}), "invalid"),
    # binary data
    "data and binary_data_size": (with_x(parameters={"binary_data_size": 16}), "invalid"),
    "a binary_data_size without bytes": (a_request(BINARY_X, WORDS), "invalid"),
    "a negative binary_data_size": (with_x(data=..., parameters={"binary_data_size": -1}), "invalid"),
    "a binary_data_size that is a string": (with_x(data=..., parameters={"binary_data_size": "16"}), "invalid"),
    "a binary_data_size that is true": (with_x(data=..., parameters={"binary_data_size": True}), "invalid"),
    "a byte too few": (binary(BLOBS[:-1]), "invalid"),
    "a byte too many": (binary(BLOBS + b"x"), "invalid"),
    "bytes that belong to nothing": (binary(b"x", X, WORDS), "invalid"),
    "a size other than the shape's": (
        binary(BLOBS, {**BINARY_X, "parameters": {"binary_data_size": 12}}, BINARY_WORDS),
        "invalid",
    ),
    "a string of the largest length": (binary(BLOBS[:16] + b"\xff\xff\xff\xffa"), "invalid"),
    "a string cut off": (binary(BLOBS[:16] + b"\x02\0\0\0a"), "invalid"),
    # headers
    "a length beyond the body": (binary(length="100000"), "invalid"),
    "a negative length": (binary(length="-1"), "invalid"),
    "a length that is no number": (binary(length="many"), "invalid"),
    "an empty length": (binary(length=""), "invalid"),
    "a fraction as length": (binary(length="1.0"), "invalid"),
    "a length in hexadecimal": (binary(length="0x10"), "invalid"),
    "a length with a sign": (binary(length="+10"), "invalid"),
    "a length in other digits": (binary(length="١٢"), "invalid"),
    "a superscript as length": (binary(length="²"), "invalid"),
    "a length of 5,000 digits": (binary(length="1" * 5000), "invalid"),
    "two lengths": (binary(length="10, 10"), "invalid"),
    "a length that cuts the JSON": (binary(length="20"), "invalid"),
    "a raw body for two inputs": ((BLOBS[:16], {HEADER_LENGTH: "0"}), "invalid"),
    "an unknown encoding": ((a_request(), {"content-encoding": "br"}), "unsupported_encoding"),
    "two encodings": ((a_request(), {"content-encoding": "gzip, deflate"}), "unsupported_encoding"),
    "gzip announced, plain sent": ((a_request(), {"content-encoding": "gzip"}), "invalid"),
    "gzip cut off": ((gzip.compress(a_request())[:-3], {"content-encoding": "gzip"}), "invalid"),
    "a gzip bomb": ((gzip.compress(bytes(50_000_000)), {"content-encoding": "gzip"}), "too_large"),
    "a deflate bomb": ((zlib.compress(b"[" * 50_000_000), {"content-encoding": "deflate"}), "too_large"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_is_refused_with_its_code(what: str) -> None:
    case, code = MALFORMED[what]
    body, headers = (case, {}) if isinstance(case, bytes) else case
    with pytest.raises(RequestError) as caught:
        decode(body, headers)
    assert caught.value.code == code
    assert len(caught.value.message) < 1000
    assert json.loads(encode_error(caught.value)) == {"error": caught.value.message, "code": code}


def test_the_battery_covers_every_code_that_decoding_can_give() -> None:
    assert {code for _, code in MALFORMED.values()} == {"invalid", "too_large", "unsupported_encoding"}
    assert len(MALFORMED) >= 60
    assert {code for _, code in MALFORMED.values()} <= set(STATUS)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_points_to_binary_data(word: str) -> None:
    body = with_x().replace(b"3, 4", f"3, {word}".encode())
    with pytest.raises(RequestError, match="use binary tensor data") as caught:
        decode(body)
    assert caught.value.code == "invalid"


def test_nan_and_infinity_pass_as_binary_data() -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0], "<f4").tobytes()
    assert decode(*binary(values + BLOBS[16:])).inputs["x"].tobytes() == values


def test_brackets_inside_strings_are_not_nesting() -> None:
    word = "[{" * 500 + '\\"' + "[" * 500
    assert decode(a_request(X, {**WORDS, "data": [word]})).inputs["words"].tolist() == [word.encode()]


def test_a_string_that_ends_in_backslashes_does_not_hide_the_nesting_after_it() -> None:
    body = b'{"id":"\\\\","inputs":' + b"[" * 5000 + b"]" * 5000 + b"}"
    with pytest.raises(RequestError, match="nested deeper"):
        decode(body)


def test_the_depth_limit_is_the_number_of_levels_allowed() -> None:
    codec = OipHttp(Limits(depth=4))
    flat, deep = with_x(data=[1, 2, 3, 4]), with_x(data=[[1, 2, 3, 4]])
    assert codec.decode("m", "1", {}, flat, SIGNATURE).rows == 1
    with pytest.raises(RequestError, match="deeper than 4"):
        codec.decode("m", "1", {}, deep, SIGNATURE)


@settings(deadline=None, max_examples=300)
@given(body=st.binary(max_size=200), length=st.none() | st.integers(-1, 250) | st.text(max_size=5))
def test_random_bytes_raise_nothing_but_request_errors(body: bytes, length: object) -> None:
    headers = {} if length is None else {HEADER_LENGTH: str(length)}
    with pytest.raises(RequestError) as caught:
        decode(body, headers)
    assert caught.value.code in STATUS


@settings(deadline=None, max_examples=500)
@given(
    case=st.sampled_from(VALID),
    edits=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4),
    off_by=st.sampled_from([0, 0, 0, -5, -1, 1, 5]),
)
def test_a_mutated_request_is_refused_or_still_fits_the_model(
    case: Case, edits: list[tuple[int, int, bytes]], off_by: int
) -> None:
    body, headers = case
    for place, cut, insert in edits:
        at = place % (len(body) + 1)
        body = body[:at] + insert + body[at + cut :]
    if HEADER_LENGTH in headers:
        headers = {HEADER_LENGTH: str(int(headers[HEADER_LENGTH]) + off_by)}
    request = code = None
    try:
        request = decode(body, headers)
    except RequestError as error:
        code = error.code
    assert request is not None or code in STATUS
    if request is not None:
        assert SIGNATURE.problem(request.inputs) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(
    part=st.sampled_from(["top", "x", "words", "output"]),
    field=st.sampled_from(["name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id"]),
    value=JSON_VALUES,
)
def test_any_json_in_any_field_is_refused_or_still_fits_the_model(part: str, field: str, value: object) -> None:
    output: dict[str, Any] = {"name": "y"}
    parts: dict[str, dict[str, Any]] = {"x": dict(X), "words": dict(WORDS), "output": output}
    body: dict[str, Any] = {"inputs": [parts["x"], parts["words"]], "outputs": [output]}
    parts.get(part, body)[field] = value
    request = code = None
    try:
        request = decode(json.dumps(body).encode())
    except RequestError as error:
        code = error.code
    assert request is not None or code == "invalid"
    if request is not None:
        assert SIGNATURE.problem(request.inputs) is None


def test_a_raw_body_is_one_input_of_batch_one_and_is_answered_as_binary() -> None:
    signature = one_tensor("FP32", ("batch", 4))
    request = decode(BLOBS[:16], {HEADER_LENGTH: "0"}, signature)
    assert request.inputs["t"].tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert request.binary_outputs == {"t"}


def test_a_raw_body_fills_the_one_free_dimension() -> None:
    request = decode(bytes(24), {HEADER_LENGTH: "0"}, one_tensor("INT16", ("batch", "time", 2)))
    assert request.inputs["t"].shape == (1, 6, 2)


def test_a_raw_body_may_hold_one_string() -> None:
    request = decode(b"\x02\0\0\0ab", {HEADER_LENGTH: "0"}, one_tensor("BYTES", ("batch",)))
    assert request.inputs["t"].tolist() == [b"ab"]


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        pytest.param(one_tensor("FP32", ("batch", 4)), bytes(15), id="a byte too few"),
        pytest.param(one_tensor("FP32", ("batch", 4)), bytes(32), id="two rows"),
        pytest.param(one_tensor("FP32", ("batch", 4)), b"", id="nothing"),
        pytest.param(one_tensor("FP32", ("batch", "time")), b"", id="nothing for a free dimension"),
        pytest.param(one_tensor("FP32", ("batch", "time")), bytes(7), id="half an element"),
        pytest.param(one_tensor("FP32", ("batch", "h", "w")), bytes(16), id="two free dimensions"),
        pytest.param(one_tensor("FP32", ("batch", "time", 0)), b"", id="a dimension that is always zero"),
    ],
)
def test_a_raw_body_that_does_not_fit_is_refused(signature: Signature, body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode(body, {HEADER_LENGTH: "0"}, signature)
    assert caught.value.code == "invalid"


def test_the_client_s_wishes_reach_the_request() -> None:
    request = decode(
        a_request(id="7", parameters={"priority": 2, "timeout": 1500, "note": "let pass"}, outputs=[{"name": "z"}])
    )
    assert (request.model, request.version, request.id) == ("m", "1", "7")
    assert (request.priority, request.timeout_us, request.outputs) == (2, 1500, ("z",))
    assert request.binary_outputs == frozenset()


@pytest.mark.parametrize(
    ("by_default", "y", "expected"),
    [(None, None, ""), (True, None, "yz"), (True, False, "z"), (False, True, "y"), (None, True, "y")],
)
def test_an_output_s_own_wish_for_binary_goes_before_the_request_s(
    by_default: bool | None, y: bool | None, expected: str
) -> None:
    parameters = {} if by_default is None else {"binary_data_output": by_default}
    of_y = {} if y is None else {"binary_data": y}
    outputs = [{"name": "y", "parameters": of_y}, {"name": "z"}]
    assert decode(a_request(parameters=parameters, outputs=outputs)).binary_outputs == set(expected)


def test_all_outputs_are_binary_where_none_is_named_and_binary_is_the_default() -> None:
    assert decode(a_request(parameters={"binary_data_output": True})).binary_outputs == {"y", "z"}


def answered(request: Request, **fields: Any) -> tuple[dict[str, Any], bytes, dict[str, str]]:
    outputs = {"y": np.array([[1, 2, 3]], np.float32), "z": np.array([-1], np.int64)}
    dtypes: dict[str, DType] = {"y": "FP32", "z": "INT64"}
    response = Response(model="m", version="", outputs=outputs, dtypes=dtypes, **{"id": "", **fields})
    answer = OipHttp().encode(request, response, {})
    body = b"".join(answer.parts)
    size = int(answer.headers.get(HEADER_LENGTH, len(body)))
    return json.loads(body[:size]), body[size:], answer.headers


def test_an_answer_in_json_names_model_outputs_types_and_shapes() -> None:
    head, blobs, headers = answered(decode(a_request()))
    assert head == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]},
            {"name": "z", "datatype": "INT64", "shape": [1], "data": [-1]},
        ],
    }
    assert (blobs, headers) == (b"", {"content-type": "application/json"})


def test_binary_and_json_outputs_may_be_mixed() -> None:
    outputs = [{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}]
    head, blobs, headers = answered(decode(a_request(outputs=outputs)))
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert "data" not in head["outputs"][0]
    assert head["outputs"][1]["data"] == [-1]
    assert blobs == np.array([1, 2, 3], "<f4").tobytes()
    assert headers["content-type"] == "application/octet-stream"


def test_the_id_and_parameters_are_echoed_only_where_there_are_any() -> None:
    head, _, _ = answered(decode(a_request()), id="7", parameters={"variant": "reference"})
    assert (head["id"], head["parameters"]) == ("7", {"variant": "reference"})
    assert not {"id", "parameters"} & set(answered(decode(a_request()))[0])


def test_the_registry_gives_the_codec_by_name() -> None:
    codec: Codec = codecs.get("oip-http")
    assert codec.name == "oip-http"
