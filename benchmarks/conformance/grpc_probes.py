"""Questions over gRPC, in the messages of an independent client's package."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import service_pb2 as pb

from conformance.http_probes import BLOB, VALUES
from conformance.probe import GrpcProbe

__all__ = ["grpc_probes"]

FLOATS = {"fp32_contents": [1, 2.5, -3, 400]}
CONTENTS = {
    "in_bool": {"bool_contents": [True, False]},
    "in_int8": {"int_contents": [-128, 127]},
    "in_uint8": {"uint_contents": [0, 255]},
    "in_int64": {"int64_contents": [-(2**63), 2**63 - 1]},
    "in_fp64": {"fp64_contents": [1e300, -0.1]},
}


def grpc_probes() -> list[GrpcProbe]:
    """All of them, each with a name of its own."""
    return [*_good(), *_bad(), *_bad_raw(), *_streams(), *_about()]


def _x(contents: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    one: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 4], **fields}
    return one if contents is None else {**one, "contents": contents}


def _infer(
    name: str, inputs: list[dict[str, Any]], raw: list[bytes] | None = None, streams: bool = False, **fields: Any
) -> GrpcProbe:
    asked = {"model_name": "tiny", "inputs": inputs, "raw_input_contents": raw or [], **fields}
    message = pb.ModelInferRequest(**asked)
    if streams:
        return GrpcProbe(name, "ModelStreamInfer", message.SerializeToString(), pb.ModelStreamInferResponse, True)
    return GrpcProbe(name, "ModelInfer", message.SerializeToString(), pb.ModelInferResponse)


def _good() -> list[GrpcProbe]:
    kinds = [{"name": name, "datatype": dtype, "shape": [1, 2]} for name, (dtype, _, _) in VALUES.items()]
    typed = [{**one, "contents": CONTENTS.get(one["name"], {})} for one in kinds]
    return [
        _infer("grpc: raw", [_x()], [BLOB]),
        _infer("grpc: typed contents", [_x(FLOATS)]),
        _infer("grpc: id is echoed", [_x()], [BLOB], id="a7"),
        _infer("grpc: version 1", [_x()], [BLOB], model_version="1"),
        _infer("grpc: output named", [_x()], [BLOB], outputs=[{"name": "y"}]),
        _infer("grpc: 16 rows", [_x(shape=[16, 4])], [BLOB * 16]),
        _infer("grpc: every type raw", kinds, [VALUES[one["name"]][2] for one in kinds], model_name="kinds"),
        _infer("grpc: every type, FP16 typed", typed, model_name="kinds"),
        _infer("grpc: custom parameter", [_x()], [BLOB], parameters={"mine": pb.InferParameter(string_param="1")}),
        _infer("grpc: priority", [_x()], [BLOB], parameters={"priority": pb.InferParameter(uint64_param=0)}),
    ]


def _bad() -> list[GrpcProbe]:
    shapes = {
        "no batch": [4], "another width": [1, 5], "negative": [-1, 4], "empty": [], "no rows": [0, 4],
        "overflow": [2**62, 4], "more rows than a batch": [17, 4],
    }  # fmt: skip
    twice = [_x(FLOATS), _x(FLOATS)]
    return [
        *(_infer(f"grpc shape: {name}", [_x(shape=shape)], [BLOB * 17 if shape[:1] == [17] else BLOB])
          for name, shape in shapes.items()),
        _infer("grpc bad: model unknown", [_x()], [BLOB], model_name="nobody"),
        _infer("grpc bad: no model named", [_x()], [BLOB], model_name=""),
        _infer("grpc bad: version unknown", [_x()], [BLOB], model_version="2"),
        _infer("grpc bad: version is a word", [_x()], [BLOB], model_version="one"),
        _infer("grpc bad: no inputs", []),
        _infer("grpc bad: input unknown", [_x(name="q")], [BLOB]),
        _infer("grpc bad: input twice", twice),
        _infer("grpc bad: input twice, raw", [_x(), _x()], [BLOB, BLOB]),
        _infer("grpc bad: other type", [_x(datatype="INT32")], [BLOB]),
        _infer("grpc bad: no such type", [_x(datatype="FP8")], [BLOB]),
        _infer("grpc bad: no type", [_x(datatype="")], [BLOB]),
        _infer("grpc bad: output unknown", [_x()], [BLOB], outputs=[{"name": "q"}]),
        _infer("grpc bad: output twice", [_x()], [BLOB], outputs=[{"name": "y"}, {"name": "y"}]),
        _infer("grpc bad: contents of another type", [_x({"int_contents": [1, 2, 3, 4]})]),
        _infer("grpc bad: contents of two types", [_x({**FLOATS, "int_contents": [1, 2, 3, 4]})]),
        _infer("grpc bad: too few typed elements", [_x({"fp32_contents": [1, 2, 3]})]),
        _infer("grpc bad: too many typed elements", [_x({"fp32_contents": [1, 2, 3, 4, 5]})]),
        _infer("grpc bad: sequence for a model without state", [_x()], [BLOB],
               parameters={"sequence_id": pb.InferParameter(int64_param=3)}),
        _infer("grpc bad: reserved parameter", [_x()], [BLOB],
               parameters={"triton_mine": pb.InferParameter(int64_param=3)}),
    ]  # fmt: skip


def _bad_raw() -> list[GrpcProbe]:
    return [
        _infer("grpc raw: a byte too few", [_x()], [BLOB[:-1]]),
        _infer("grpc raw: a byte too many", [_x()], [BLOB + b"\0"]),
        _infer("grpc raw: empty", [_x()], [b""]),
        _infer("grpc raw: more blobs than inputs", [_x()], [BLOB, BLOB]),
        _infer("grpc raw: no data at all", [_x()]),
        _infer("grpc raw: typed contents as well", [_x(FLOATS)], [BLOB]),
        GrpcProbe("grpc raw: no message", "ModelInfer", b"\xff\xff\xff", pb.ModelInferResponse),
        GrpcProbe("grpc raw: message cut off", "ModelInfer", b"\x0a\x10tiny", pb.ModelInferResponse),
        GrpcProbe("grpc raw: method unknown", "ModelGuess", b"", pb.ModelInferResponse),
    ]


def _streams() -> list[GrpcProbe]:
    return [
        _infer("grpc stream: one request", [_x()], [BLOB], streams=True, id="s"),
        _infer("grpc stream: a bad request", [_x(shape=[1, 5])], [BLOB], streams=True, id="s"),
        _infer("grpc stream: model unknown", [_x()], [BLOB], streams=True, model_name="nobody"),
    ]


def _about() -> list[GrpcProbe]:
    def call(method: str, **fields: Any) -> GrpcProbe:
        body = getattr(pb, f"{method}Request")(**fields).SerializeToString()
        name = " ".join([method, *map(str, fields.values())])
        return GrpcProbe(f"grpc about: {name}", method, body, getattr(pb, f"{method}Response"))

    return [
        call("ServerLive"),
        call("ServerReady"),
        call("ServerMetadata"),
        call("ModelReady", name="tiny"),
        call("ModelReady", name="tiny", version="1"),
        call("ModelReady", name="tiny", version="2"),
        call("ModelReady", name="nobody"),
        call("ModelMetadata", name="kinds"),
        call("ModelMetadata", name="nobody"),
        call("ModelMetadata", name="tiny", version="2"),
        call("ModelConfig", name="tiny"),
        call("ModelConfig", name="nobody"),
        call("ModelStatistics", name="tiny"),
        call("ModelStatistics", name="nobody"),
        call("RepositoryIndex"),
        call("RepositoryIndex", ready=True),
        call("RepositoryIndex", repository_name="nowhere"),
        call("RepositoryModelLoad", model_name="tiny"),
        call("RepositoryModelLoad", model_name="nobody"),
        call("RepositoryModelUnload", model_name="tiny"),
        call("RepositoryModelUnload", model_name="nobody"),
        call("SystemSharedMemoryStatus"),
    ]
