"""Lint rules about weights: where they stand, what they hold, how they are typed, and whether they are needed.

Weights in other files are read through memory maps, a piece at a time: a model of many gigabytes never stands in
memory.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from hasten.model.flops import MATRIX
from hasten.model.lint_base import Found, Rule, View, label, rule_of, seen
from hasten.model.onnx_file import all_weights
from hasten.model.shapes import BITS

__all__ = ["RULES", "raw_bytes", "weight_bytes"]

RULES: list[Rule] = []

# Subnormals are looked for in so many bytes of weights at most: some seconds of reading.
_MOST_BYTES = 4 * 2**30
_PIECE = 2**22
# Two tensors that begin alike are hashed whole; all others are told apart by this much.
_PREFIX = 4096
# Below this many bytes, a duplicate is not worth a word.
_WORTH_BYTES = 1024


def raw_bytes(tensor: onnx.TensorProto, folder: Path) -> np.ndarray[Any, Any]:
    """The bytes of a tensor's elements: a view of the file where they are external, else of the message."""
    if tensor.data_location != TensorProto.EXTERNAL:
        if tensor.HasField("raw_data"):
            return np.frombuffer(tensor.raw_data, np.uint8)
        return np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).reshape(-1).view(np.uint8)
    fields = {item.key: item.value for item in tensor.external_data}
    offset, path = int(fields.get("offset", 0)), folder / fields["location"]
    length = int(fields.get("length", 0)) or weight_bytes(tensor)
    if not length:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, "r", offset, (length,))


def weight_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that a tensor's elements take; 0 for text, whose size is not fixed."""
    return (math.prod(tensor.dims) * BITS.get(tensor.data_type, 0) + 7) // 8


@rule_of(
    RULES,
    "weights-in-constants",
    "Tools that look only at initializers see an empty model; hasten folds them first.",
    transform="fold",
)
def constant_weights(view: View) -> Found | None:
    """Most weights stand in `Constant` nodes."""
    held = [tensor for name, tensor in view.constants.items() if _is_weight(tensor) and name in view.producers]
    listed = sum(math.prod(tensor.dims) for tensor in view.graph.initializer if _is_weight(tensor))
    if sum(math.prod(tensor.dims) for tensor in held) <= listed:
        return None
    share = "All" if not listed else "Most"
    return Found(f"{share} weights stand in {len(held):,} Constant nodes, not in initializers.")


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return math.prod(tensor.dims) > 1 and tensor.data_type not in (TensorProto.INT64, TensorProto.STRING)


@rule_of(
    RULES,
    "subnormal-weights",
    "Set weights below 1.2e-38 to zero, or let the engine flush subnormal numbers.",
    transform="flush_subnormals",
)
def subnormals(view: View) -> Found | None:
    """f32 weights so small that processors compute with them by microcode."""
    count, places, read = 0, list[str](), 0
    for tensor in all_weights(view.graph):
        if tensor.data_type != TensorProto.FLOAT or read > _MOST_BYTES:
            continue
        read += weight_bytes(tensor)
        found = sum(_count_subnormal(piece) for piece in _pieces(raw_bytes(tensor, view.model.path.parent)))
        count += found
        places += [tensor.name] * bool(found)
    if not count:
        return None
    part = "" if read <= _MOST_BYTES else f" in the first {_MOST_BYTES // 2**30} GiB"
    return Found(
        f"{count:,} of the weights{part} are subnormal numbers, on which processors compute 5 to 10 times slower.",
        tuple(places),
    )


def _pieces(data: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    bits = data[: data.size // 4 * 4].view(np.uint32)
    for start in range(0, bits.size, _PIECE):
        yield bits[start : start + _PIECE]


def _count_subnormal(bits: np.ndarray[Any, Any]) -> int:
    """Numbers with exponent 0 and another fraction than 0; minus one wraps zero around to the largest."""
    fraction = (bits & np.uint32(0x7FFFFFFF)) - np.uint32(1)
    return int(np.count_nonzero(fraction < np.uint32(0x7FFFFF)))


@rule_of(
    RULES,
    "duplicated-initializers",
    "Keep one copy and let all nodes read it.",
    transform="deduplicate",
)
def duplicates(view: View) -> Found | None:
    """Initializers with the same values."""
    groups: defaultdict[tuple[Any, ...], list[onnx.TensorProto]] = defaultdict(list)
    for tensor in view.graph.initializer:
        if weight_bytes(tensor) >= _WORTH_BYTES:
            groups[(tensor.data_type, *tensor.dims)].append(tensor)
    copies = [copy for group in groups.values() if len(group) > 1 for copy in _copies(group, view.model.path.parent)]
    wasted = f"{sum(weight_bytes(tensor) for tensor in copies) / 1e6:,.3g} MB stored twice."
    return seen(
        [tensor.name for tensor in copies],
        "{} initializer repeats another's values: " + wasted,
        "{} initializers repeat another's values: " + wasted,
    )


def _copies(group: list[onnx.TensorProto], folder: Path) -> list[onnx.TensorProto]:
    """The tensors of a group of like type and shape that equal an earlier one."""
    alike: defaultdict[bytes, list[tuple[onnx.TensorProto, np.ndarray[Any, Any]]]] = defaultdict(list)
    for tensor in group:
        data = raw_bytes(tensor, folder)
        alike[data[:_PREFIX].tobytes()].append((tensor, data))
    copies: list[onnx.TensorProto] = []
    for members in alike.values():
        seen: set[bytes] = set()
        for tensor, data in members if len(members) > 1 else ():
            digest = hashlib.sha256(data.data).digest()
            copies += [tensor] * (digest in seen)
            seen.add(digest)
    return copies


@rule_of(
    RULES,
    "unused-initializers",
    "They cost disk, load time and memory; hasten drops them when it folds.",
    transform="fold",
)
def unused_initializers(view: View) -> Found | None:
    """Initializers that no node reads."""
    idle = [t for t in view.graph.initializer if not view.read(t.name) and t.name not in view.outputs]
    size = f"{sum(weight_bytes(tensor) for tensor in idle) / 1e6:,.3g} MB"
    return seen(
        [tensor.name for tensor in idle],
        f"{{}} initializer of {size} is read by no node.",
        f"{{}} initializers of {size} are read by no node.",
    )


@rule_of(
    RULES,
    "fp16-weights",
    "Good for size. Engines widen them once at load, so do not expect speed from it; and whatever quantizes them "
    "starts from values that are already rounded.",
    level="note",
)
def half_weights(view: View) -> Found | None:
    """fp16 weights that are widened before they are used."""
    half = [
        name
        for name, tensor in view.constants.items()
        if tensor.data_type == TensorProto.FLOAT16
        and math.prod(tensor.dims) > 1
        and any(node.op_type == "Cast" for node in view.read(name))
    ]
    return seen(
        half,
        "{} weight tensor is stored in fp16 and widened by Cast.",
        "{} weight tensors are stored in fp16 and widened by Cast.",
    )


@rule_of(
    RULES,
    "misaligned-channels",
    "Vector units fill 8 or 16 lanes: train or prune to multiples of 16. Depthwise and last layers are not looked at, "
    "nor input channels.",
)
def odd_channels(view: View) -> Found | None:
    """Convolutions inside the network whose output channels leave vector lanes empty."""
    inner = _before_others(view)
    convolutions = [
        node for node in view.nodes if node.op_type == "Conv" and node.output[0] in inner and not _grouped(node)
    ]
    odd = [node for node in convolutions if _channels(view, node) % 16]
    rest = f"of {len(convolutions):,} inner convolutions have output channels that are no multiple of 16."
    return seen([f"{label(node)} ({_channels(view, node)})" for node in odd], "{} " + rest, "{} " + rest)


def _before_others(view: View) -> set[str]:
    """Tensors that further matrix work reads, directly or through other nodes: what is left over is the last layer."""
    reach: set[str] = set()
    for node in reversed(view.nodes):
        if node.op_type in MATRIX or any(name in reach for name in node.output):
            reach |= set(node.input)
    return reach


def _grouped(node: onnx.NodeProto) -> bool:
    return any(a.name == "group" and a.i > 1 for a in node.attribute)


def _channels(view: View, node: onnx.NodeProto) -> int:
    """Output channels, by the weights or what they are dequantized from; 0 where they are computed."""
    name = node.input[1]
    maker = view.producers.get(name)
    if maker is not None and maker.op_type == "DequantizeLinear":
        name = maker.input[0]
    tensor = view.constants.get(name)
    return tensor.dims[0] if tensor is not None and tensor.dims else 0
