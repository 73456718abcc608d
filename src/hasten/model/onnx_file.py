"""Open an ONNX file without running it: signature, digest, operators, parameters.

Weights are counted wherever they are: initializers, and `Constant` nodes, which some exporters use for all of
them. The file is refused where it is truncated, where its external weights lie outside its folder, and where it
needs operators that no engine here implements.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from hasten.errors import ModelError
from hasten.spec.signature import Signature
from hasten.spec.target import Format
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["OnnxModel", "all_nodes", "all_weights", "external_files", "open_onnx", "save_proto", "signature_of"]

_DTYPES: dict[int, DType] = {
    onnx.TensorProto.BOOL: "BOOL", onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32", onnx.TensorProto.UINT64: "UINT64", onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16", onnx.TensorProto.INT32: "INT32", onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16", onnx.TensorProto.BFLOAT16: "BF16", onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64", onnx.TensorProto.STRING: "BYTES",
}  # fmt: skip

# What a file of each foreign kind begins with: better to say what it is than that it is no ONNX.
_FOREIGN = {
    b"\x80": "a Python pickle, which hasten never loads because opening it can run any code",
    b"PK\x03\x04": "a zip archive (a PyTorch .pt file, perhaps), which can carry pickles",
    b"\x89HDF": "an HDF5 file (Keras)",
}
# A protobuf message ends at 2 GiB; what transforms and engines add must fit too.
_ONE_FILE = 3 * 2**29
_STANDARD_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}


class OnnxModel:
    """An opened ONNX model. `proto` refers to its external weights and does not hold them; treat it as read-only."""

    format: Format = "onnx"

    def __init__(self, path: Path, proto: onnx.ModelProto, digest: str) -> None:
        self.path = path
        self.proto = proto
        self.digest = digest
        self.signature = signature_of(proto)

    def files(self) -> list[Path]:
        """The file itself and those of its external weights, in the order of their names."""
        return [self.path, *external_files(self.path, self.proto)]

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return max((item.version for item in self.proto.opset_import if item.domain in ("", "ai.onnx")), default=0)

    @property
    def bytes_on_disk(self) -> int:
        """Size of the file and its external weights."""
        return sum(path.stat().st_size for path in self.files())

    def operators(self) -> Counter[str]:
        """How often each operator occurs, subgraphs included, constants left out."""
        return Counter(node.op_type for node in all_nodes(self.proto.graph) if node.op_type != "Constant")

    def parameters(self) -> int:
        """Number of floating-point and quantized weights, in initializers and `Constant` nodes alike."""
        return sum(_count(tensor) for tensor in all_weights(self.proto.graph) if _count(tensor) > 1)

    def metadata(self) -> dict[str, str]:
        """The key-value pairs that the exporter attached."""
        return {item.key: item.value for item in self.proto.metadata_props}


def open_onnx(path: Path | str) -> OnnxModel:
    """Open and check an ONNX file. Raises `ModelError` that names the file, what is wrong and what to do."""
    path = Path(path)
    raw = _read(path)
    _refuse_foreign(path, raw)
    try:
        proto = onnx.load_model_from_string(raw)
    except Exception as error:
        raise ModelError(
            f"{path} is not a complete ONNX file: {_short(error)}.", remedy="Export or download it again."
        ) from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{path} holds no graph.", remedy="Export or download it again.")
    _refuse_outside_weights(path, proto)
    _check(path, proto)
    return OnnxModel(path, proto, _digest(raw, external_files(path, proto)))


def save_proto(proto: onnx.ModelProto, out: Path) -> None:
    """Write `proto` to `out`; weights go into a file beside it where one file could not hold them (2 GiB)."""
    if proto.ByteSize() < _ONE_FILE:
        onnx.save_model(proto, str(out))
    else:
        onnx.save_model(proto, str(out), save_as_external_data=True, location=out.name + ".data", size_threshold=1024)


def external_files(path: Path, proto: onnx.ModelProto) -> list[Path]:
    """The files of external weights that `proto`, read from `path`, refers to."""
    places = {
        field.value
        for tensor in all_weights(proto.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for field in tensor.external_data
        if field.key == "location"
    }
    return [path.parent / place for place in sorted(places)]


def signature_of(proto: onnx.ModelProto) -> Signature:
    """Read inputs (without initializers) and outputs. Raises `ModelError` for anything that is not a plain tensor."""
    initial = {item.name for item in proto.graph.initializer}
    return Signature(
        inputs=tuple(_spec(value) for value in proto.graph.input if value.name not in initial),
        outputs=tuple(_spec(value) for value in proto.graph.output),
    )


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph and of the subgraphs in its If, Loop and Scan nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from all_nodes(subgraph)


def all_weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constant tensors: initializers, sparse ones' values, and the values of `Constant` nodes, at every depth."""
    yield from graph.initializer
    yield from (item.values for item in graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                yield attribute.sparse_tensor.values
            for subgraph in (attribute.g, *attribute.graphs):
                yield from all_weights(subgraph)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError(f"{path} is a folder.", remedy="Give the model file itself.")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist.", remedy="Check the path.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", remedy="Check its permissions.") from error


def _digest(raw: bytes, others: list[Path]) -> str:
    whole = hashlib.sha256(raw)
    for path in others:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def _refuse_foreign(path: Path, raw: bytes) -> None:
    if not raw:
        raise ModelError(f"{path} is empty.", remedy="Export or download it again.")
    if raw[4:8] == b"TFL3":
        what = "a TFLite model; this version of hasten opens ONNX"
    else:
        what = next((text for magic, text in _FOREIGN.items() if raw.startswith(magic)), "")
    if what:
        raise ModelError(f"{path} is {what}.", remedy="Export it as ONNX and give that file.")


def _refuse_outside_weights(path: Path, proto: onnx.ModelProto) -> None:
    """External weights must be regular files below the model's own folder (ONNX external data, path traversal)."""
    home = path.parent.resolve()
    for tensor in all_weights(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        fields = {item.key: item.value for item in tensor.external_data}
        place = Path(fields.get("location", ""))
        target = (path.parent / place).resolve()
        if place.is_absolute() or not target.is_relative_to(home) or (path.parent / place).is_symlink():
            raise ModelError(
                f"{path}: the weights of {tensor.name!r} lie outside the model's folder ({place}).",
                remedy="Keep external weights beside the model.",
            )
        if not target.is_file():
            raise ModelError(f"{path}: the external weights {place} are missing.", remedy="Put them beside the model.")


def _check(path: Path, proto: onnx.ModelProto) -> None:
    foreign = sorted(
        {item.domain for item in proto.opset_import} - _STANDARD_DOMAINS
        & {node.domain for node in all_nodes(proto.graph)}
    )
    if foreign:
        raise ModelError(
            f"{path} uses operators of the domain {foreign[0]!r}, which need a library of their own.",
            remedy="Export it with standard operators.",
        )
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise ModelError(
            f"{path} is not a valid ONNX model: {_short(error)}.", remedy="Export or download it again."
        ) from error


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    dtype = _DTYPES.get(kind.elem_type)
    if not value.type.HasField("tensor_type") or dtype is None:
        raise ModelError(
            f"The tensor {value.name!r} is not a plain tensor of a type hasten carries.",
            remedy="Export the model with plain tensors as inputs and outputs.",
        )
    return TensorSpec(name=value.name, dtype=dtype, shape=tuple(_dim(dim) for dim in kind.shape.dim))


def _dim(dim: Any) -> int | str:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or "?"


def _count(tensor: onnx.TensorProto) -> int:
    """Elements of a weight; shapes, axes and other int64 constants are no parameters."""
    if tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.STRING, onnx.TensorProto.BOOL):
        return 0
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
