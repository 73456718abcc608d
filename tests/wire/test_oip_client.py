"""The client's side of the codecs against the server's side, over HTTP and gRPC."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import DataError, RequestError
from hasten.spec.request import Request, Response
from hasten.spec.signature import Signature
from hasten.spec.tensor import DType, TensorSpec
from hasten.wire.oip_client import (
    Ask,
    Outputs,
    decode_metadata,
    dtype_of,
    failure,
    http_infer,
    model_path,
    read_http_infer,
)
from hasten.wire.oip_grpc import OipGrpc
from hasten.wire.oip_grpc_client import grpc_failure, grpc_infer, read_grpc_infer
from hasten.wire.oip_http import OipHttp
from hasten.wire.oip_http_admin import model_metadata

# BF16 travels as 16 bits, which numpy has no type of its own for.
DTYPES: tuple[DType, ...] = tuple(dtype for dtype in get_args(DType) if dtype != "BF16")

TOLD: dict[str, Any] = {"variant": "int8", "step": 2, "share": 0.5, "degraded": True}


def one_tensor(dtype: DType, rank: int) -> Signature:
    spec = TensorSpec(name="t", dtype=dtype, shape=tuple("?" * rank))
    return Signature(inputs=(spec,), outputs=(spec,))


def over_http(ask: Ask, signature: Signature) -> tuple[Request, Outputs]:
    headers, body = http_infer(ask)
    request = OipHttp().decode(ask.model, ask.version, headers, body, signature)
    answer = OipHttp().encode(request, answered(request, signature), {})
    return request, read_http_infer(answer.headers, b"".join(answer.parts))


def over_grpc(ask: Ask, signature: Signature) -> tuple[Request, Outputs]:
    codec = OipGrpc()
    request = codec.request(codec.parse(grpc_infer(ask)), signature)
    return request, read_grpc_infer(b"".join(codec.encode(request, answered(request, signature), {}).parts))


def answered(request: Request, signature: Signature) -> Response:
    return Response(
        model=request.model,
        version="",
        id="",
        outputs=request.inputs,
        dtypes={"t": signature.outputs[0].dtype},
        parameters=TOLD,
    )


@pytest.mark.parametrize("way", [over_http, over_grpc])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_an_array_of_any_type_goes_there_and_comes_back(
    way: Any, dtype: DType, arrays: Any, data: st.DataObject
) -> None:
    array = data.draw(arrays.of(dtype))
    ask = Ask(model="m", inputs={"t": array}, version="1", outputs=("t",), id="7", priority=2, timeout_us=5)
    request, outputs = way(ask, one_tensor(dtype, array.ndim))
    assert (request.model, request.version, request.id) == ("m", "1", "7")
    assert (request.priority, request.timeout_us, request.outputs) == (2, 5, ("t",))
    assert outputs["t"].dtype == array.dtype
    np.testing.assert_array_equal(outputs["t"], array)
    assert (outputs.variant, outputs.parameters) == ("int8", TOLD)


def test_a_server_that_names_no_variant_has_none() -> None:
    assert read_http_infer({}, b'{"outputs": []}').variant == ""
    assert read_grpc_infer(b"").variant == ""


@pytest.mark.parametrize(
    ("array", "dtype"),
    [(np.array(["a"]), "BYTES"), (np.array([b"a"]), "BYTES"), (np.zeros(1, ">f4"), "FP32"), (np.array([True]), "BOOL")],
)
def test_the_element_type_is_that_of_the_array(array: Any, dtype: str) -> None:
    assert dtype_of("t", array) == dtype


@pytest.mark.parametrize("array", [np.zeros(1, complex), np.zeros(1, "M8[s]"), np.zeros(1, "V3")])
def test_a_type_that_the_protocol_does_not_have_is_refused(array: Any) -> None:
    with pytest.raises(DataError, match="astype"):
        dtype_of("t", array)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"outputs":[1]}', b'{"outputs":[{"name":"t"}]}', b"\xff"])
def test_an_http_answer_that_is_none_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(RequestError):
        read_http_infer({}, body)


@pytest.mark.parametrize("size", ["-1", "x", "9" * 30])
def test_a_header_length_that_is_none_is_an_error_of_ours(size: str) -> None:
    with pytest.raises(RequestError):
        read_http_infer({"inference-header-content-length": size}, b"{}")


def test_a_name_is_escaped_on_its_way_into_a_path() -> None:
    assert model_path("a/b c", "1") == "/v2/models/a%2Fb%20c/versions/1"


def test_an_error_has_the_server_s_code_or_that_of_its_status() -> None:
    assert failure(429, {"retry-after": "2"}, b'{"error":"full","code":"overloaded"}').retry_after_s == 2
    assert failure(404, {}, b"<html>").code == "not_found"
    assert failure(418, {"retry-after": "soon"}, b"{}").code == "http_418"
    assert grpc_failure(8, "full", {"hasten-code": "too_large"}).code == "too_large"
    pushed = grpc_failure(8, "full", {"grpc-retry-pushback-ms": "250", "hasten-code": "overloaded"})
    assert (pushed.code, pushed.retry_after_s) == ("overloaded", 0.25)
    assert grpc_failure(3, "bad", {"grpc-retry-pushback-ms": "-1"}).retry_after_s is None
    assert grpc_failure(2, "?", {}).code == "grpc_2"


def test_a_client_reads_the_signature_from_the_metadata() -> None:
    told = Signature(
        inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch", 4)),),
        outputs=tuple(TensorSpec(name=name, dtype="INT64", shape=("batch",)) for name in ("y", "z")),
    )
    read = decode_metadata(model_metadata("m", told))
    assert read.inputs[0] == TensorSpec(name="x", dtype="FP32", shape=("?", 4))
    assert [spec.name for spec in read.outputs] == ["y", "z"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'{"inputs":1,"outputs":[]}', b'{"inputs":[1],"outputs":[]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":["a"]}],"outputs":[]}',
        b'{"inputs":[{"name":"x","datatype":"FP32"}],"outputs":[]}',
    ],
)  # fmt: skip
def test_metadata_that_make_no_sense_are_a_request_error(body: bytes) -> None:
    with pytest.raises(RequestError):
        decode_metadata(body)
