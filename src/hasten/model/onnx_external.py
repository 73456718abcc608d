"""Weights that an ONNX file keeps in other files: find every reference, and refuse those that reach elsewhere.

A reference is a path, an offset and a length, all chosen by whoever wrote the model. Runtimes have read files outside
the model's folder, through links, past the end, and memory of their own process on such words. So every tensor that a
file can hold is looked at before any runtime sees it. Sources: ONNX external data; CVE-2022-25882, CVE-2024-5187.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from hasten.errors import ModelError

__all__ = ["all_tensors", "check_external", "external_files", "function_nodes", "stored_bytes"]

_KEYS = {"location", "offset", "length", "checksum"}
_NUMBER = re.compile(r"[0-9]{1,18}")
# ONNX Runtime's mark for weights at an address in its own memory.
_IN_MEMORY = "_ORT_MEM_ADDR_"
# Element types of which several share a byte.
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def external_files(path: Path, proto: onnx.ModelProto) -> list[Path]:
    """The files of external weights that `proto`, read from `path`, refers to, in the order of their names."""
    places = {_fields(path, tensor)["location"] for tensor in _external(proto)}
    return [path.parent / place for place in sorted(places)]


def check_external(path: Path, proto: onnx.ModelProto) -> None:
    """Raise `ModelError` unless all external weights are whole, in regular files of their own below the model's
    folder, reached without links.
    """
    sizes: dict[str, int] = {}
    for tensor in _external(proto):
        fields = _fields(path, tensor)
        place = fields["location"]
        if place not in sizes:
            sizes[place] = _size(path, tensor.name, place)
        _check_range(path, tensor, fields, sizes[place])


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a model can hold: initializers, sparse values and indices, attributes, functions, training."""
    yield from _of_graph(proto.graph)
    for training in proto.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)
    for function in proto.functions:
        yield from _of_nodes(function.node)
        for attribute in function.attribute_proto:
            yield from _of_attribute(attribute)


def function_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the model's own functions, and of the graphs in them."""
    pending = [node for function in proto.functions for node in function.node]
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            pending += [inner for graph in (attribute.g, *attribute.graphs) for inner in graph.node]


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the values of a tensor take as raw data; 0 for text and unknown types, whose size nobody can tell."""
    kind = tensor.data_type
    if not _has_size(kind):
        return 0
    bits = _BITS.get(onnx.TensorProto.DataType.Name(kind)) or onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize * 8
    return -(-math.prod(tensor.dims) * bits // 8)


def _has_size(kind: int) -> bool:
    unsized = (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED)
    return kind in onnx.TensorProto.DataType.values() and kind not in unsized


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def _of_attribute(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    """Go by what is there and not by the declared type, as a reader might."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (
        *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
        *attribute.sparse_tensors,
    ):
        yield from (sparse.values, sparse.indices)
    for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
        yield from _of_graph(graph)


def _external(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    return (tensor for tensor in all_tensors(proto) if tensor.data_location == onnx.TensorProto.EXTERNAL)


def _fields(path: Path, tensor: onnx.TensorProto) -> dict[str, str]:
    """What the reference says, each word once and known: readers differ in which of two they believe."""
    keys = [item.key for item in tensor.external_data]
    unknown = sorted(set(keys) - _KEYS)
    if unknown or len(set(keys)) < len(keys) or "location" not in keys:
        what = f"the unknown word {unknown[0]!r}" if unknown else "no place, or a word twice"
        raise _refused(path, tensor.name, f"are described with {what}", "Save the model again with onnx.save_model.")
    return {item.key: item.value for item in tensor.external_data}


def _size(path: Path, name: str, place: str) -> int:
    """Follow `place` step by step from the model's folder and return the size of the file there."""
    parts = PurePosixPath(place).parts
    windows = PureWindowsPath(place)
    away = ".." in (*parts, *windows.parts) or place.startswith("/") or windows.drive or windows.root
    if away or not parts or "\0" in place or _IN_MEMORY in place:
        raise _refused(
            path, name, f"lie outside the model's folder ({place!r})", "Keep external weights beside the model."
        )
    current = path.parent
    for part in parts:
        current = current / part
        if current.is_symlink():
            raise _refused(path, name, f"are reached through the link {current.name!r}", "Put the file itself there.")
    try:
        found = current.stat()
    except OSError as error:
        raise ModelError(
            f"{path}: the external weights {place} are missing.", remedy="Put them beside the model."
        ) from error
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        what = "a file that has other names too (a hard link)" if stat.S_ISREG(found.st_mode) else "no regular file"
        raise _refused(path, name, f"lie in {place}, {what}", "Put a copy of its own there.")
    return found.st_size


def _check_range(path: Path, tensor: onnx.TensorProto, fields: dict[str, str], size: int) -> None:
    numbers = [fields.get("offset", "0"), fields.get("length", "0")]
    if not all(_NUMBER.fullmatch(number) for number in numbers) or any(dim < 0 for dim in tensor.dims):
        raise _refused(path, tensor.name, "have a negative or impossible size or offset", "Export the model again.")
    if not _has_size(tensor.data_type):
        raise _refused(path, tensor.name, "are text or of no known type", "Export the model again.")
    offset, needed = int(numbers[0]), stored_bytes(tensor)
    length = int(fields.get("length", needed))
    if length != needed:
        raise _refused(path, tensor.name, f"need {needed} bytes and state {length}", "Export the model again.")
    if offset + needed > size:
        raise _refused(
            path,
            tensor.name,
            f"end at byte {offset + needed} of {fields['location']}, which has {size}",
            "The file is incomplete or belongs to another model: export or download both again.",
        )


def _refused(path: Path, name: str, what: str, remedy: str) -> ModelError:
    return ModelError(f"{path}: the weights of {name!r} {what}.", remedy=remedy)
