"""OpenVINO's own format: `model.xml`, the graph, and `model.bin` beside it, the weights. Read without being run.

The XML comes from outside, so entities and document types are refused before a parser sees them (billion laughs,
external entities), and every offset into the weights is held against the file's size. Source: OpenVINO IR,
versions 10 and 11.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from hasten.errors import ModelError
from hasten.spec.signature import Signature
from hasten.spec.target import Format
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["IrModel", "open_ir"]

_DTYPES: dict[str, DType] = {
    "f32": "FP32", "f16": "FP16", "bf16": "BF16", "f64": "FP64", "boolean": "BOOL", "string": "BYTES", "i8": "INT8",
    "i16": "INT16", "i32": "INT32", "i64": "INT64", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64",
}  # fmt: skip
_WHOLE = {"i64", "i32", "u64", "u32", "boolean", "string"}
_LARGEST_XML = 512 * 2**20
_OLDEST = 10
# Operators of libraries that an extension would have to bring.
_STANDARD = re.compile(r"opset\d+|experimental|type_relaxed_opset|util|extension_none|ie_internal_opset")


class IrModel:
    """An opened model of OpenVINO's format."""

    format: Format = "openvino"

    def __init__(self, path: Path, root: ElementTree.Element, digest: str) -> None:
        self.path = path
        self.digest = digest
        self._root = root
        self.signature = _signature(path, root)

    @property
    def opset(self) -> int:
        """Version of the format."""
        return int(self._root.get("version", "0"))

    @property
    def bytes_on_disk(self) -> int:
        """Size of both files."""
        return sum(path.stat().st_size for path in self.files())

    def files(self) -> list[Path]:
        """The graph and, if there are weights, their file."""
        weights = self.path.with_suffix(".bin")
        return [self.path, *([weights] if weights.exists() else [])]

    def operators(self) -> Counter[str]:
        """How often each operator occurs, subgraphs included; parameters, results and constants left out."""
        kinds = (layer.get("type", "?") for layer in self._root.iter("layer"))
        return Counter(kind for kind in kinds if kind not in ("Parameter", "Result", "Const"))

    def layer_names(self) -> frozenset[str]:
        """The names of all layers, by which the engine speaks of them."""
        return frozenset(layer.get("name", "") for layer in self._root.iter("layer"))

    def parameters(self) -> int:
        """Number of weights; shapes and axes are none."""
        return sum(self.weights().values())

    def weights(self) -> Counter[str]:
        """Number of weights by element type."""
        counts: Counter[str] = Counter()
        for data in _constants(self._root):
            dims = [int(dim) for dim in data.get("shape", "").replace(" ", "").split(",") if dim]
            kind = data.get("element_type", "?")
            if kind not in _WHOLE and math.prod(dims) > 1:
                counts[_DTYPES.get(kind, kind.upper())] += math.prod(dims)
        return counts

    def metadata(self) -> dict[str, str]:
        """What the tool that wrote it noted about itself, as far as it is plain."""
        found = {}
        for item in self._root.iterfind("./rt_info//*[@value]"):
            found[item.tag] = str(item.get("value"))[:200]
        return found


def open_ir(path: Path | str) -> IrModel:
    """Open and check a model. Raises `ModelError` that names the file, what is wrong and what to do."""
    path = Path(path)
    if path.stat().st_size > _LARGEST_XML:
        raise ModelError(f"{path} is larger than any graph.", remedy="Give the .xml file of an OpenVINO model.")
    raw = path.read_bytes()
    # Checked as bytes, so that no encoding can hide a declaration: the format is written in UTF-8.
    if b"\x00" in raw or b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ModelError(
            f"{path} declares XML entities or another encoding, which no OpenVINO model needs.",
            remedy="Export it again with openvino.save_model.",
        )
    try:
        root = ElementTree.fromstring(raw)
        _check(path, root)
        return IrModel(path, root, _digest(raw, path.with_suffix(".bin")))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not a complete OpenVINO model: {error}.", remedy="Export or download both files again."
        ) from error


def _check(path: Path, root: ElementTree.Element) -> None:
    if root.tag != "net" or int(root.get("version", "0")) < _OLDEST:
        raise ValueError(f"it is no network of version {_OLDEST} or newer")
    foreign = [layer for layer in root.iter("layer") if not _STANDARD.fullmatch(layer.get("version") or "experimental")]
    if foreign:
        raise ModelError(
            f"{path} uses the operator {foreign[0].get('type')!r} of {foreign[0].get('version')!r}, which needs a "
            "library of its own.",
            remedy="Export it with standard operators.",
        )
    weights = path.with_suffix(".bin")
    if weights.is_symlink():
        raise ModelError(f"{weights} is a link.", remedy="Put the weights themselves beside the graph.")
    there = weights.stat().st_size if weights.exists() else 0
    for data in _constants(root):
        offset, size = int(data.get("offset", "0")), int(data.get("size", "0"))
        if offset < 0 or size < 0 or offset + size > there:
            raise ModelError(
                f"{path}: {weights.name} {'is too short' if there else 'is missing'}.",
                remedy="Put the .bin file that belongs to the .xml file beside it.",
            )


def _constants(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for layer in root.iter("layer"):
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            yield data


def _signature(path: Path, root: ElementTree.Element) -> Signature:
    """Inputs in the order of the file; outputs under the engine's names for them: the tensors that Results read."""
    layers = root.findall("./layers/layer")
    inputs = [_input(path, layer) for layer in layers if layer.get("type") == "Parameter"]
    producers = {(edge.get("to-layer")): edge for edge in root.iterfind("./edges/edge")}
    by_id = {layer.get("id"): layer for layer in layers}
    outputs: list[TensorSpec] = []
    for layer in layers:
        if layer.get("type") != "Result":
            continue
        edge = producers.get(layer.get("id"))
        if edge is None:
            raise ValueError("a result that reads nothing")
        source = by_id[edge.get("from-layer")]
        outputs.append(_output(path, source, str(edge.get("from-port"))))
    if not outputs:
        raise ValueError("it has no output")
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def _input(path: Path, layer: ElementTree.Element) -> TensorSpec:
    port = layer.find("./output/port")
    if port is None:
        raise ValueError("an input without a port")
    return _spec(path, layer, port)


def _output(path: Path, layer: ElementTree.Element, port_id: str) -> TensorSpec:
    port = next((item for item in layer.iterfind("./output/port") if item.get("id") == port_id), None)
    if port is None:
        raise ValueError("a result that reads nothing")
    return _spec(path, layer, port)


def _spec(path: Path, layer: ElementTree.Element, port: ElementTree.Element) -> TensorSpec:
    names = str(port.get("names") or layer.get("name") or "?")
    kind = str(port.get("precision", "?")).lower()
    dtype = _DTYPES.get({"fp32": "f32", "fp16": "f16", "fp64": "f64", "bool": "boolean"}.get(kind, kind))
    if dtype is None:
        raise ModelError(
            f"{path}: the tensor {names!r} has type {kind}, which hasten cannot carry.",
            remedy="Export the model with plain tensors as inputs and outputs.",
        )
    dims = [int(dim.text or "-1") for dim in port.iterfind("dim")]
    return TensorSpec(
        name=sorted(names.split(","))[0], dtype=dtype, shape=tuple(dim if dim >= 0 else "?" for dim in dims)
    )


def _digest(raw: bytes, weights: Path) -> str:
    whole = hashlib.sha256(raw)
    if weights.exists():
        with weights.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
