"""What is recognised decodes exactly as what is read for the first time: the same request, or the same refusal."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.spec.request import Request, Response
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.wire.known import Memory
from hasten.wire.oip_grpc import OipGrpc, Recognised
from hasten.wire.oip_http import HEADER_LENGTH, OipHttp

pb = pytest.importorskip("tritonclient.grpc.service_pb2", reason="an independent client writes the messages")

ONE = Signature(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch", 2)),),
    outputs=(TensorSpec(name="y", dtype="FP32", shape=("batch", 2)),),
)
TWO = Signature(
    inputs=(
        TensorSpec(name="x", dtype="FP32", shape=("batch", 2)),
        TensorSpec(name="n", dtype="INT8", shape=("batch",)),
    ),
    outputs=ONE.outputs,
)
X = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
N = {"name": "n", "datatype": "INT8", "shape": [1]}

number = st.one_of(st.floats(width=32), st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.none(), st.text())
row = st.one_of(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    st.lists(number, max_size=3),
    st.lists(st.lists(number, max_size=3), max_size=2),
)
tail = st.sampled_from(
    [{}, {"outputs": [{"name": "y"}]}, {"parameters": {"priority": 1}}, {"outputs": [{"name": "z"}]}]
)


def http(codec: OipHttp, body: bytes, headers: dict[str, str] | None = None, signature: Signature = ONE) -> Any:
    return came_to(lambda: codec.decode("m", "1", headers or {}, body, signature))


def grpc(codec: OipGrpc, body: bytes, signature: Signature = TWO) -> Any:
    return came_to(lambda: codec.read(body, signature, codec.parse(body)))


def came_to(decode: Any) -> Any:
    """The request as plain values, its numbers by their bits; or the refusal's words."""
    try:
        request: Request = decode()
    except RequestError as error:
        return error.code, error.message
    arrays = [(name, array.dtype.str, array.shape, array.tobytes()) for name, array in request.inputs.items()]
    rest = (request.model, request.version, request.id, request.outputs, request.binary_outputs, request.priority)
    return arrays, rest, request.timeout_us


def binary(values: bytes, *inputs: dict[str, Any], **fields: Any) -> tuple[bytes, dict[str, str]]:
    head = json.dumps({"inputs": list(inputs), **fields}).encode()
    return head + values, {HEADER_LENGTH: str(len(head))}


def message(x: bytes, n: bytes = b"\1", id_: str = "") -> bytes:
    inputs = [pb.ModelInferRequest.InferInputTensor(**one) for one in (X, N)]
    made = pb.ModelInferRequest(model_name="m", inputs=inputs, raw_input_contents=[x, n], id=id_)
    return made.SerializeToString()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(row, tail), min_size=2, max_size=4), st.sampled_from([(", ", ": "), (",", ":")]))
def test_json_is_read_the_same_whatever_was_read_before(rows: list[Any], separators: tuple[str, str]) -> None:
    used = OipHttp()
    for data, rest in [([1.5, 2.0], {}), *rows]:
        text = json.dumps({"inputs": [{**X, "data": data}], **rest}, separators=separators).encode()
        assert http(used, text) == http(OipHttp(), text)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 120), st.sampled_from(b'[]{},:"9.e- ')), max_size=3))
def test_damaged_json_is_refused_the_same_after_a_good_one(damage: list[tuple[int, int]]) -> None:
    good = json.dumps({"inputs": [{**X, "data": [1.5, 2.25]}]}).encode()
    used = OipHttp()
    http(used, good)
    bad = bytearray(good)
    for place, byte in damage:
        bad[place % len(bad)] = byte
    assert http(used, bytes(bad)) == http(OipHttp(), bytes(bad))


def test_data_given_twice_are_read_as_ever() -> None:
    used = OipHttp()
    once = json.dumps({"inputs": [{**X, "data": [1.0, 2.0]}]}).encode()
    twice = once.replace(b'"data": [1.0, 2.0]', b'"data": [1.0, 2.0], "data": [3.0, 4.0]')
    for text in (once, twice, once, twice):
        assert http(used, text) == http(OipHttp(), text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=12), min_size=2, max_size=4))
def test_binary_tensors_are_read_the_same_whatever_was_read_before(blobs: list[bytes]) -> None:
    x, n = {**X, "parameters": {"binary_data_size": 8}}, {**N, "parameters": {"binary_data_size": 1}}
    used = OipHttp()
    for blob in (b"12345678\1", *blobs, b"87654321\2"):
        body, headers = binary(blob, x, n)
        assert http(used, body, headers, TWO) == http(OipHttp(), body, headers, TWO)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=2)), min_size=1, max_size=3))
def test_messages_are_read_the_same_whatever_was_read_before(blobs: list[tuple[bytes, bytes]]) -> None:
    used = OipGrpc()
    for x, n in ((b"12345678", b"\1"), *blobs, (b"87654321", b"\2")):
        assert grpc(used, message(x, n)) == grpc(OipGrpc(), message(x, n))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_message_is_refused_the_same_after_a_good_one(damage: list[tuple[int, int]]) -> None:
    good = message(b"12345678")
    used = OipGrpc()
    grpc(used, good)
    bad = bytearray(good)
    for place, byte in damage:
        bad[place % len(bad)] = byte
    assert grpc(used, bytes(bad)) == grpc(OipGrpc(), bytes(bad))


def test_a_message_like_one_before_is_recognised_and_one_with_an_id_is_not() -> None:
    codec = OipGrpc()
    for id_ in ("", "7"):
        body = message(b"12345678", id_=id_)
        codec.read(body, TWO, codec.parse(body))
    assert isinstance(codec.parse(message(b"abcdefgh")), Recognised)
    assert not isinstance(codec.parse(message(b"abcdefgh", id_="7")), Recognised)


def test_what_only_looks_like_data_at_the_end_of_a_message_is_not_taken_for_it() -> None:
    codec = OipGrpc()
    data = struct.pack("<2f", 1.0, 2.0)
    inner = b"\x3a\x08" + data
    # The data come first; behind them a name of an output that ends as data would.
    body = b"\x0a\x01m\x3a\x08" + data + pb.ModelInferRequest(inputs=[X]).SerializeToString()
    body += b"\x1a" + bytes([len(inner)]) + inner
    for one in (body, body.replace(inner, b"\x3a\x08" + bytes(8)[:8])):
        assert grpc(codec, one, ONE) == grpc(OipGrpc(), one, ONE)


def test_a_model_that_was_loaded_anew_has_its_requests_checked_anew() -> None:
    wider = Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch", 3)),), outputs=ONE.outputs)
    text = json.dumps({"inputs": [{**X, "data": [1.0, 2.0]}]}).encode()
    body, headers = binary(b"12345678", {**X, "parameters": {"binary_data_size": 8}})
    for sent, given_headers in ((text, {}), (body, headers)):
        codec = OipHttp()
        assert http(codec, sent, given_headers)[0] != "invalid"
        assert http(codec, sent, given_headers, wider)[0] == "invalid"
    grpc_codec = OipGrpc()
    assert grpc(grpc_codec, message(b"12345678"))[0] != "invalid"
    assert grpc(grpc_codec, message(b"12345678"), ONE)[0] == "invalid"


@given(st.lists(st.tuples(st.sampled_from(["json", "binary", "grpc"]), st.integers(1, 3)), min_size=2, max_size=8))
def test_requests_of_one_form_differ_in_nothing_but_data(several: list[tuple[str, int]]) -> None:
    http_codec, grpc_codec = OipHttp(), OipGrpc()
    shapes: dict[Any, Any] = {}
    for kind, rows in several:
        described = {**X, "shape": [rows, 2]}
        if kind == "grpc":
            inputs = [pb.ModelInferRequest.InferInputTensor(**described)]
            made = pb.ModelInferRequest(model_name="m", inputs=inputs, raw_input_contents=[bytes(8 * rows)])
            body = made.SerializeToString()
            request = grpc_codec.read(body, ONE, grpc_codec.parse(body))
        elif kind == "json":
            text = json.dumps({"inputs": [{**described, "data": [0.5] * (2 * rows)}]}).encode()
            request = http_codec.decode("m", "1", {}, text, ONE)
        else:
            body, headers = binary(bytes(8 * rows), {**described, "parameters": {"binary_data_size": 8 * rows}})
            request = http_codec.decode("m", "1", headers, body, ONE)
        found = [(name, array.dtype, array.shape) for name, array in request.inputs.items()]
        if request.form is not None:
            assert shapes.setdefault(request.form, found) == found


ALIKE = st.sampled_from([True, 1, 1.0, False, 0, 0.0, -0.0, "1", "True", "0.0"])


@given(st.lists(st.dictionaries(st.sampled_from("pq"), ALIKE, max_size=2), min_size=2, max_size=4))
def test_answers_are_written_the_same_whatever_was_written_before(several: list[dict[str, Any]]) -> None:
    """In Python True, 1 and 1.0 are equal, and so are 0.0 and -0.0; in an answer they are not."""
    request = Request(model="m", inputs={}, binary_outputs=frozenset({"y"}))
    for make in (OipHttp, OipGrpc):
        used = make()
        for parameters in several:
            outputs = {"y": np.zeros((1, 2), np.float32)}
            answer = Response("m", "1", "", outputs, {"y": "FP32"}, parameters)
            encoded = [b"".join(codec.encode(request, answer, {}).parts) for codec in (used, make())]
            assert encoded[0] == encoded[1]


def test_the_data_of_a_recognised_request_are_its_own() -> None:
    codec = OipHttp()
    for value in (1.0, 2.0):
        text = json.dumps({"inputs": [{**X, "data": [value, 0.5]}]}).encode()
        request = codec.decode("m", "1", {}, text, ONE)
        np.testing.assert_array_equal(request.inputs["x"], [[value, 0.5]])


def test_a_memory_is_bounded() -> None:
    memory: Memory[int, int] = Memory()
    for key in range(10_000):
        memory.keep(key, key)
    assert len(memory) <= 256
    assert memory[9_999] == 9_999


def test_of_a_request_that_has_come_before_the_beginning_tells_the_rest() -> None:
    codec, data = OipHttp(), np.ones((3, 2), np.float32).tobytes()
    head = json.dumps(
        {"inputs": [{**X, "shape": [3, 2], "parameters": {"binary_data_size": 24}}], "parameters": {"priority": 2}}
    ).encode()
    headers = {HEADER_LENGTH: str(len(head)), "content-length": str(len(head) + 24)}
    assert codec.announced("m", "1", headers, head, ONE) is None
    codec.decode("m", "1", headers, head + data, ONE)
    found = codec.announced("m", "1", headers, head + data[:5], ONE)
    assert found is not None
    assert (found.rows, found.priority, found.inputs["x"].shape) == (3, 2, (3, 2))
    for other in (
        {**headers, HEADER_LENGTH: str(len(head) + 1)},
        {**headers, HEADER_LENGTH: "1e1"},
        {**headers, "content-length": str(len(head) + 23)},
        {**headers, "content-encoding": "gzip"},
        {"content-length": headers["content-length"]},
    ):
        assert codec.announced("m", "1", other, head + data[:5], ONE) is None
    assert codec.announced("m", "1", headers, head[:-1], ONE) is None
    assert codec.announced("other", "1", headers, head, ONE) is None
