"""Open an ONNX file without running it: signature, digest, operators, parameters.

Weights are counted wherever they are: initializers, and `Constant` nodes, which some exporters use for all of
them. The file is refused where it is truncated, where its external weights lie outside its folder, and where it
needs operators that no engine here implements. External weights are not read: a model of many gigabytes opens at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx

from hasten.errors import ModelError
from hasten.model.foreign import HEAD, refuse_foreign
from hasten.model.onnx_external import all_tensors, check_external, external_files, function_nodes, stored_bytes
from hasten.spec.signature import Signature
from hasten.spec.target import Format
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["OnnxModel", "all_nodes", "all_weights", "open_onnx", "save_proto", "signature_of"]

_DTYPES: dict[int, DType] = {
    onnx.TensorProto.BOOL: "BOOL", onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32", onnx.TensorProto.UINT64: "UINT64", onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16", onnx.TensorProto.INT32: "INT32", onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16", onnx.TensorProto.BFLOAT16: "BF16", onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64", onnx.TensorProto.STRING: "BYTES",
}  # fmt: skip

# A protobuf message ends at 2 GiB; what transforms and engines add must fit too.
_ONE_FILE = 3 * 2**29
_LARGEST_FILE = 2**31
_FEWEST_OUTSIDE = 1024
_OLDEST_OPSET = 9
_STANDARD_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
# What ONNX Runtime writes when it optimizes a model for the processor that it runs on.
_ONE_PROCESSOR = ("com.microsoft.nchwc", "com.ms.internal")


class OnnxModel:
    """An opened ONNX model. `proto` refers to its external weights and does not hold them; treat it as read-only."""

    format: Format = "onnx"

    def __init__(self, path: Path, proto: onnx.ModelProto, digest: str | Callable[[], str]) -> None:
        self.path = path
        self.proto = proto
        self._digest = digest
        self.signature = signature_of(proto)

    @property
    def digest(self) -> str:
        """SHA-256 over the file and its external weights, computed when it is first asked for."""
        if not isinstance(self._digest, str):
            self._digest = self._digest()
        return self._digest

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
        inner = (a.t for node in function_nodes(self.proto) for a in node.attribute if a.HasField("t"))
        return sum(_count(tensor) for tensor in (*all_weights(self.proto.graph), *inner) if _count(tensor) > 1)

    def metadata(self) -> dict[str, str]:
        """The key-value pairs that the exporter attached."""
        return {item.key: item.value for item in self.proto.metadata_props}


def open_onnx(path: Path | str) -> OnnxModel:
    """Open and check an ONNX file. Raises `ModelError` that names the file, what is wrong and what to do."""
    path = Path(path)
    raw = _read(path)
    try:
        proto = onnx.load_model_from_string(raw)
    except Exception as error:
        raise ModelError(
            f"{path} is not a complete ONNX file: {_short(error)}.", remedy="Export or download it again."
        ) from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{path} holds no graph.", remedy="Export or download it again.")
    check_external(path, proto)
    _check_versions(path, proto)
    _check_operators(path, proto)
    _check_interface(path, proto)
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise ModelError(
            f"{path} is not a valid ONNX model: {_short(error)}.", remedy="Export or download it again."
        ) from error
    return OnnxModel(path, proto, _digest(raw, external_files(path, proto)))


def save_proto(proto: onnx.ModelProto, out: Path) -> None:
    """Write `proto` to `out`. Where one file could not hold its weights (2 GiB), they move out of `proto` into
    `out`.data beside it.
    """
    inside = sum(stored_bytes(t) for t in all_tensors(proto) if t.data_location != onnx.TensorProto.EXTERNAL)
    if inside < _ONE_FILE:
        onnx.save_model(proto, str(out))
        return
    place = out.name + ".data"
    # onnx appends to a file that is there.
    (out.parent / place).unlink(missing_ok=True)
    onnx.save_model(
        proto, str(out), save_as_external_data=True, location=place, size_threshold=_FEWEST_OUTSIDE,
        convert_attribute=True,
    )  # fmt: skip


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
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            refuse_foreign(path, head)
            if path.stat().st_size >= _LARGEST_FILE:
                raise ModelError(
                    f"{path} has 2 GiB or more, which no ONNX file can have.",
                    remedy="Export it with its weights as external data.",
                )
            return head + stream.read()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist.", remedy="Check the path.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", remedy="Check its permissions.") from error


def _digest(raw: bytes, others: list[Path]) -> str | Callable[[], str]:
    """The digest, or a function that computes it where gigabytes may have to be read."""
    own = hashlib.sha256(raw)

    def whole() -> str:
        for path in others:
            with path.open("rb") as stream:
                own.update(hashlib.file_digest(stream, "sha256").digest())
        return own.hexdigest()

    return whole if others else own.hexdigest()


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    versions = [item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")]
    if not versions and proto.ir_version < 3:
        versions = [1]
    if versions and max(versions) < _OLDEST_OPSET:
        raise ModelError(
            f"{path} uses ONNX operators of version {max(versions)}; hasten opens {_OLDEST_OPSET} and newer.",
            remedy="Export it anew with opset 17, or raise it with onnx.version_converter.convert_version(model, 17).",
        )
    if max(versions, default=0) > newest or proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{path} is newer than the ONNX of this machine: it has operators of version {max(versions, default=0)} "
            f"and format {proto.ir_version}, known are {newest} and {onnx.IR_VERSION}.",
            remedy="Update with: pip install -U onnx onnxruntime; or export it with opset 17.",
        )


def _check_operators(path: Path, proto: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in proto.functions}
    for node in (*all_nodes(proto.graph), *function_nodes(proto)):
        if node.op_type == "EPContext":
            raise ModelError(
                f"{path} holds a part that was compiled for one accelerator (EPContext).",
                remedy="Give the model that it was compiled from.",
            )
        if node.domain in _STANDARD_DOMAINS or (node.domain, node.op_type) in own:
            continue
        if node.domain.startswith(_ONE_PROCESSOR):
            raise ModelError(
                f"{path} was optimized by ONNX Runtime for one processor (operators of {node.domain!r}).",
                remedy="Give the model that it was made from.",
            )
        raise ModelError(
            f"{path} uses {node.op_type!r} of the domain {node.domain!r}, which needs a library of its own.",
            remedy="Export it with standard operators.",
        )


def _check_interface(path: Path, proto: onnx.ModelProto) -> None:
    """What cannot be fed or read: sequences, optional values, unknown ranks, element types without a wire name."""
    initial = {item.name for item in proto.graph.initializer}
    for what, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            if value.name in initial and what == "input":
                continue
            kind = (value.type.WhichOneof("value") or "no type").removesuffix("_type").replace("_", " ")
            if kind == "tensor" and value.type.tensor_type.elem_type not in _DTYPES:
                number = value.type.tensor_type.elem_type
                known = number in onnx.TensorProto.DataType.values()
                kind = f"tensor of {onnx.TensorProto.DataType.Name(number) if known else f'type {number}'}"
            elif kind == "tensor" and not value.type.tensor_type.HasField("shape"):
                kind = "tensor of unknown rank"
            if kind != "tensor":
                raise ModelError(
                    f"{path}: the {what} {value.name!r} is no plain tensor ({kind}).",
                    remedy="Export the model with tensors as inputs and outputs, each with its number of dimensions.",
                )


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
    """A size, 0 being one that takes nothing; some exporters write -1 for an open dimension, and so does ONNX Runtime
    read it.
    """
    if dim.HasField("dim_value") and dim.dim_value >= 0:
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
