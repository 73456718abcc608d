"""Questions over HTTP: JSON and binary tensors, good requests and bad ones of every class, and all about models."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

from conformance.probe import HttpProbe

__all__ = ["http_probes"]

INFER, KINDS = "/v2/models/tiny/infer", "/v2/models/kinds/infer"
X: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2.5, -3, 4e2]}
NAMELESS = {key: value for key, value in X.items() if key != "name"}
BLOB = struct.pack("<4f", 1, 2.5, -3, 400)
VALUES: dict[str, tuple[str, list[Any], bytes]] = {
    "in_bool": ("BOOL", [True, False], b"\x01\x00"),
    "in_int8": ("INT8", [-128, 127], b"\x80\x7f"),
    "in_uint8": ("UINT8", [0, 255], b"\x00\xff"),
    "in_int64": ("INT64", [-(2**63), 2**63 - 1], struct.pack("<2q", -(2**63), 2**63 - 1)),
    "in_fp16": ("FP16", [0.5, -2], struct.pack("<2e", 0.5, -2)),
    "in_fp64": ("FP64", [1e300, -0.1], struct.pack("<2d", 1e300, -0.1)),
}


def http_probes() -> list[HttpProbe]:
    """All of them, each with a name of its own."""
    return [*_good_json(), *_values(), *_bad_json(), *_bad_shapes(), *_binary(), *_bad_binary(), *_about(), *_paths()]


def _ask(name: str, *inputs: dict[str, Any], path: str = INFER, **fields: Any) -> HttpProbe:
    return HttpProbe(name, path, json.dumps({"inputs": list(inputs), **fields}).encode())


def _text(name: str, body: bytes, **headers: str) -> HttpProbe:
    return HttpProbe(name, INFER, body, {key.replace("_", "-"): value for key, value in headers.items()})


def _good_json() -> list[HttpProbe]:
    whole = json.dumps({"inputs": [X]}).encode()
    nested = {**X, "data": [[1, 2, 3, 4]]}
    return [
        _ask("json: flat data", X),
        _ask("json: nested data", nested),
        _ask("json: id is echoed", X, id="a7"),
        _ask("json: output named", X, outputs=[{"name": "y"}]),
        _ask("json: two rows", {**X, "shape": [2, 4], "data": list(range(8))}),
        _ask("json: as many rows as a batch", {**X, "shape": [16, 4], "data": list(range(64))}),
        _ask("json: no outputs listed", X, outputs=[]),
        _ask("json: custom parameters", X, parameters={"mine": "1", "other": 2, "third": True}),
        _ask("json: priority 0", X, parameters={"priority": 0}),
        _ask("json: timeout of a minute", X, parameters={"timeout": 60_000_000}),
        _ask("json: version in the path", X, path="/v2/models/tiny/versions/1/infer"),
        _ask("json: slash at the end", X, path=INFER + "/"),
        _ask("json: query after the path", X, path=INFER + "?a=1"),
        _ask("json: name percent-encoded", X, path="/v2/models/t%69ny/infer"),
        _text("json: content type of a form", whole, Content_Type="application/x-www-form-urlencoded"),
        _text("json: gzip both ways", gzip.compress(whole), Content_Encoding="gzip", Accept_Encoding="gzip"),
        _text("json: deflate both ways", zlib.compress(whole), Content_Encoding="deflate", Accept_Encoding="deflate"),
        HttpProbe("json: chunked", INFER, whole, chunked=True),
        _text("json: white space around", b" \n" + whole + b" \r\n"),
    ]


def _kind(name: str, data: list[Any]) -> list[dict[str, Any]]:
    """Every input of the model of all types, one of them with other data."""
    return [
        {"name": one, "shape": [1, 2], "datatype": dtype, "data": data if one == name else values}
        for one, (dtype, values, _) in VALUES.items()
    ]


def _values() -> list[HttpProbe]:
    def nan(word: str) -> bytes:
        return f'{{"inputs":[{{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,{word}]}}]}}'.encode()

    return [
        _ask("value: every type at its ends", *_kind("", []), path=KINDS),
        _ask("value: 0 and 1 for BOOL", *_kind("in_bool", [1, 0]), path=KINDS),
        _ask("value: 2 for BOOL", *_kind("in_bool", [2, 0]), path=KINDS),
        _ask("value: 128 for INT8", *_kind("in_int8", [128, 0]), path=KINDS),
        _ask("value: -1 for UINT8", *_kind("in_uint8", [-1, 0]), path=KINDS),
        _ask("value: 2^63 for INT64", *_kind("in_int64", [2**63, 0]), path=KINDS),
        _ask("value: 1.0 for INT64", *_kind("in_int64", [1.0, 0]), path=KINDS),
        _ask("value: 1.5 for INT64", *_kind("in_int64", [1.5, 0]), path=KINDS),
        _ask("value: true for FP64", *_kind("in_fp64", [True, 0]), path=KINDS),
        _ask("value: true for INT8", *_kind("in_int8", [True, 0]), path=KINDS),
        _ask("value: text for FP32", {**X, "data": ["1", "2", "3", "4"]}),
        _ask("value: null for FP32", {**X, "data": [None, 2, 3, 4]}),
        _text("value: NaN", nan("NaN")),
        _text("value: Infinity", nan("Infinity")),
        _text("value: 1e999", nan("1e999")),
        _text("value: 1e39 for FP32", nan("1e39")),
    ]


def _bad_json() -> list[HttpProbe]:
    two = json.dumps({"inputs": [X]}).encode()
    return [
        _text("bad: empty body", b""),
        _text("bad: no JSON", b"inputs"),
        _text("bad: cut off", two[:-1]),
        _text("bad: more after the JSON", two + b"x"),
        _text("bad: a list", b"[]"),
        _text("bad: no inputs", b"{}"),
        _text("bad: not UTF-8", two.replace(b'"x"', b'"\xff"')),
        _text("bad: depth 101", b'{"inputs":' + b"[" * 101 + b"]" * 101 + b"}"),
        _ask("bad: empty inputs"),
        _ask("bad: inputs is an object", inputs={}),
        _ask("bad: unknown field", X, surprise=1),
        _ask("bad: id is a number", X, id=7),
        _ask("bad: input without name", NAMELESS),
        _ask("bad: input unknown", {**X, "name": "q"}),
        _ask("bad: input unknown beside the right one", X, {**X, "name": "q"}),
        _ask("bad: input twice", X, X),
        _ask("bad: input missing", *_kind("", [])[1:], path=KINDS),
        _ask("bad: other type", {**X, "datatype": "FP64"}),
        _ask("bad: no such type", {**X, "datatype": "FP8"}),
        _ask("bad: no type", {key: value for key, value in X.items() if key != "datatype"}),
        _ask("bad: no data", {key: value for key, value in X.items() if key != "data"}),
        _ask("bad: data is a number", {**X, "data": 1}),
        _ask("bad: data is null", {**X, "data": None}),
        _ask("bad: too few elements", {**X, "data": [1, 2, 3]}),
        _ask("bad: too many elements", {**X, "data": [1, 2, 3, 4, 5]}),
        _ask("bad: output unknown", X, outputs=[{"name": "q"}]),
        _ask("bad: output twice", X, outputs=[{"name": "y"}, {"name": "y"}]),
        _ask("bad: output without name", X, outputs=[{}]),
        _ask("bad: reserved parameter", X, parameters={"triton_mine": 1}),
        _ask("bad: timeout is text", X, parameters={"timeout": "soon"}),
        _ask("bad: sequence for a model without state", X, parameters={"sequence_id": 3, "sequence_start": True}),
        _ask("bad: more rows than a batch", {**X, "shape": [17, 4], "data": list(range(68))}),
        _text("bad: unknown encoding", two, Content_Encoding="br"),
        _text("bad: gzip that is none", two, Content_Encoding="gzip"),
    ]


def _bad_shapes() -> list[HttpProbe]:
    shapes: dict[str, Any] = {
        "no batch": [4],
        "another width": [1, 5],
        "three dimensions": [1, 1, 4],
        "empty": [],
        "negative": [-1, 4],
        "two negatives": [-1, -4],
        "fraction": [1.5, 4],
        "truth": [True, 4],
        "text": ["1", 4],
        "null": None,
        "number": 4,
        "overflow to the right count": [2**62, 4],
        "beyond 64 bits": [2**64 + 1, 4],
    }
    made = [_ask(f"shape: {name}", {**X, "shape": shape}) for name, shape in shapes.items()]
    missing = {key: value for key, value in X.items() if key != "shape"}
    return [*made, _ask("shape: missing", missing), _ask("shape: no rows", {**X, "shape": [0, 4], "data": []})]


def _blob(
    name: str,
    *inputs: dict[str, Any],
    data: bytes = BLOB,
    length: str | None = None,
    path: str = INFER,
    **fields: Any,
) -> HttpProbe:
    head = json.dumps({"inputs": list(inputs), **fields}).encode()
    announced = str(len(head)) if length is None else length
    return HttpProbe(name, path, head + data, {"Inference-Header-Content-Length": announced})


def _sized(size: Any = 16, **fields: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}, **fields}


def _binary() -> list[HttpProbe]:
    kinds = [
        {"name": name, "shape": [1, 2], "datatype": dtype, "parameters": {"binary_data_size": len(raw)}}
        for name, (dtype, _, raw) in VALUES.items()
    ]
    raw = b"".join(value[2] for value in VALUES.values())
    everything = {"binary_data_output": True}
    y = {"name": "y", "parameters": {"binary_data": True}}
    return [
        _blob("binary: in, JSON out", _sized()),
        _blob("binary: both ways", _sized(), outputs=[y]),
        _blob("binary: both ways, all outputs", _sized(), parameters=everything),
        _blob(
            "binary: an output overrides the request",
            _sized(),
            parameters=everything,
            outputs=[{"name": "y", "parameters": {"binary_data": False}}],
        ),
        _ask("binary: out only", X, outputs=[y]),
        _blob("binary: every type", *kinds, data=raw, path=KINDS, parameters=everything),
        _blob("binary: NaN", _sized(), data=struct.pack("<4f", 1, float("nan"), 0, 1), parameters=everything),
        _blob("binary: NaN, JSON out", _sized(), data=struct.pack("<4f", 1, float("nan"), 0, 1)),
        _blob("binary: 16 rows", _sized(256, shape=[16, 4]), data=BLOB * 16, parameters=everything),
        _blob("binary: length header without blobs", X, data=b""),
        HttpProbe("binary: raw request", INFER, BLOB, {"Inference-Header-Content-Length": "0"}),
    ]


def _bad_binary() -> list[HttpProbe]:
    lengths = {"negative": "-1", "text": "abc", "huge": "99999999999", "beyond the body": "500", "empty": ""}
    return [
        *(_blob(f"blob: length {name}", _sized(), length=length) for name, length in lengths.items()),
        _blob("blob: length cuts the JSON", _sized(), length="10"),
        _blob("blob: a byte left over", _sized(), data=BLOB + b"\0"),
        _blob("blob: a byte missing", _sized(), data=BLOB[:-1]),
        _blob("blob: size too small for the shape", _sized(12), data=BLOB[:12]),
        _blob("blob: size negative", _sized(-1)),
        _blob("blob: size is text", _sized("16")),
        _blob("blob: size beyond 64 bits", _sized(2**64 + 16)),
        _blob("blob: data as well", _sized(data=[1, 2, 3, 4])),
        _blob("blob: two inputs, one blob", _sized(), _sized()),
        HttpProbe("blob: no length header", INFER, json.dumps({"inputs": [_sized()]}).encode() + BLOB),
        HttpProbe("blob: raw request of no whole row", INFER, BLOB[:-4], {"Inference-Header-Content-Length": "0"}),
        HttpProbe("blob: raw request to many inputs", KINDS, BLOB, {"Inference-Header-Content-Length": "0"}),
    ]


def _about() -> list[HttpProbe]:
    models = "/v2/models/"
    return [
        *(HttpProbe(f"about: GET {path}", path) for path in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready")),
        *(HttpProbe(f"about: GET {models}{path}", models + path) for path in (
            "tiny", "tiny/", "tiny/versions/1", "kinds", "tiny/ready", "tiny/versions/1/ready",
            "tiny/config", "tiny/stats", "stats", "nobody", "nobody/ready", "nobody/config", "nobody/stats",
            "tiny/versions/2", "tiny/versions/2/ready", "tiny/versions/one", "tiny/versions/-1",
        )),
        HttpProbe("about: POST /v2/repository/index", "/v2/repository/index", b""),
        HttpProbe("about: repository index with a body", "/v2/repository/index", b'{"ready":true}'),
    ]  # fmt: skip


def _paths() -> list[HttpProbe]:
    body = json.dumps({"inputs": [X]}).encode()
    return [
        HttpProbe("path: nothing there", "/v2/nothing"),
        HttpProbe("path: root", "/"),
        HttpProbe("path: double slash", "//v2/health/live"),
        HttpProbe("path: dots", "/v2/models/../health/live"),
        HttpProbe("path: model name of dots", "/v2/models/%2e%2e/infer", body),
        HttpProbe("path: model name with NUL", "/v2/models/tiny%00/infer", body),
        HttpProbe("path: infer of nobody", "/v2/models/nobody/infer", body),
        HttpProbe("path: infer of version 2", "/v2/models/tiny/versions/2/infer", body),
        HttpProbe("path: GET infer", INFER),
        HttpProbe("path: PUT infer", INFER, body, method="PUT"),
        HttpProbe("path: POST metadata", "/v2/models/tiny", b"{}"),
        HttpProbe("path: DELETE metadata", "/v2/models/tiny", method="DELETE"),
        HttpProbe("path: load, not allowed", "/v2/repository/models/tiny/load", b""),
        HttpProbe("path: unload, not allowed", "/v2/repository/models/tiny/unload", b""),
        HttpProbe("path: shared memory", "/v2/systemsharedmemory/status"),
        HttpProbe("path: trace settings", "/v2/trace/setting"),
        HttpProbe("path: log settings", "/v2/logging"),
    ]
