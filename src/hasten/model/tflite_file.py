"""Open a TFLite file without running it: signature, operators, weights, read from the flatbuffer.

Every offset in a flatbuffer is trusted by its readers, so a damaged file can point anywhere. All reading happens behind
one seam that turns whatever goes wrong into a `ModelError`, and no count is believed that the file is too small for.
Source: the TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hasten.errors import MissingError, ModelError
from hasten.spec.signature import Signature
from hasten.spec.target import Format
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["DTYPES", "TfliteModel", "open_tflite"]

# Element types by their number in the schema; None where hasten cannot carry such a tensor to or from a model.
DTYPES: dict[int, DType] = {
    0: "FP32", 1: "FP16", 2: "INT32", 3: "UINT8", 4: "INT64", 5: "BYTES", 6: "BOOL", 7: "INT16", 9: "INT8",
    10: "FP64", 12: "UINT64", 15: "UINT32", 16: "UINT16", 18: "BF16",
}  # fmt: skip
_CUSTOM = 32
# Custom operators that every build of the runtime knows.
_KNOWN_CUSTOM = {"TFLite_Detection_PostProcess"}
# Shorter vectors of whole numbers are shapes, axes and paddings.
_FEWEST_WEIGHTS = 16
_WHOLE = {2, 4, 12, 15}


class TfliteModel:
    """An opened TFLite model, its first subgraph being what runs."""

    format: Format = "tflite"

    def __init__(self, path: Path, root: Any, digest: str, size: int) -> None:
        self.path = path
        self.digest = digest
        self._size = size
        self._version = int(root.Version())
        self.signature = _signature(root.Subgraphs(0), path)
        self._operators = Counter(_operators(root, path))
        self._weights = _weights(root)
        self._metadata = _metadata(root)

    @property
    def opset(self) -> int:
        """Version of the schema."""
        return self._version

    @property
    def bytes_on_disk(self) -> int:
        """Size of the file."""
        return self._size

    def files(self) -> list[Path]:
        """The one file."""
        return [self.path]

    def operators(self) -> Counter[str]:
        """How often each operator occurs, in all subgraphs."""
        return Counter(self._operators)

    def parameters(self) -> int:
        """Number of weights, whatever their type."""
        return sum(self._weights.values())

    def weights(self) -> Counter[str]:
        """Number of weights by element type."""
        return Counter(self._weights)

    def metadata(self) -> dict[str, str]:
        """The description, and the names of attached metadata buffers."""
        return dict(self._metadata)


def open_tflite(path: Path | str) -> TfliteModel:
    """Open and check a TFLite file. Raises `ModelError` for a damaged file or operators that need a library of
    their own, `MissingError` where the package that knows the schema is absent.
    """
    path = Path(path)
    raw = path.read_bytes()
    schema = _schema()
    try:
        root = schema.Model.GetRootAs(raw, 0)
        _check_counts(root, len(raw))
        return TfliteModel(path, root, hashlib.sha256(raw).hexdigest(), len(raw))
    except ModelError:
        raise
    except Exception as error:
        # The generated readers raise whatever an impossible offset leads to: struct.error, IndexError, ...
        raise ModelError(
            f"{path} is not a complete TFLite file ({type(error).__name__}).", remedy="Convert or download it again."
        ) from error


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingError(
            "Reading TFLite files needs the package ai-edge-litert, which is not installed.",
            remedy="Install it with: pip install 'hasten[litert]'",
        ) from error
    return schema_py_generated


def _check_counts(root: Any, size: int) -> None:
    """Each entry of a vector of tables takes at least four bytes."""
    counts = [root.SubgraphsLength(), root.OperatorCodesLength(), root.BuffersLength(), root.MetadataLength()]
    for index in range(min(root.SubgraphsLength(), size)):
        graph = root.Subgraphs(index)
        counts += [graph.TensorsLength(), graph.OperatorsLength(), graph.InputsLength(), graph.OutputsLength()]
    if any(count < 0 or count * 4 > size for count in counts) or not root.SubgraphsLength():
        raise ValueError("counts that the file is too small for")
    if not root.Subgraphs(0).OperatorsLength() or not root.Subgraphs(0).OutputsLength():
        raise ValueError("no graph")


def _signature(graph: Any, path: Path) -> Signature:
    inputs = [graph.Tensors(_index(graph.Inputs(i), graph)) for i in range(graph.InputsLength())]
    outputs = [graph.Tensors(_index(graph.Outputs(i), graph)) for i in range(graph.OutputsLength())]
    return Signature(
        inputs=tuple(_spec(tensor, path) for tensor in inputs), outputs=tuple(_spec(tensor, path) for tensor in outputs)
    )


def _index(number: int, graph: Any) -> int:
    if not 0 <= number < graph.TensorsLength():
        raise ValueError("a tensor that is not there")
    return int(number)


def _spec(tensor: Any, path: Path) -> TensorSpec:
    name = tensor.Name().decode()
    dtype = DTYPES.get(tensor.Type())
    if dtype is None:
        raise ModelError(
            f"{path}: the tensor {name!r} has an element type that hasten cannot carry.",
            remedy="Convert the model with plain tensors as inputs and outputs.",
        )
    fixed = [int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength())]
    declared = [int(tensor.ShapeSignature(axis)) for axis in range(tensor.ShapeSignatureLength())]
    shape = declared if len(declared) == len(fixed) else fixed
    return TensorSpec(name=name, dtype=dtype, shape=tuple(dim if dim >= 0 else "?" for dim in shape))


def _operators(root: Any, path: Path) -> Iterator[str]:
    schema = _schema()
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    for graph in (root.Subgraphs(index) for index in range(root.SubgraphsLength())):
        for position in range(graph.OperatorsLength()):
            index = graph.Operators(position).OpcodeIndex()
            if not 0 <= index < root.OperatorCodesLength():
                raise ValueError("an operator that is not there")
            code = root.OperatorCodes(index)
            # Files of old converters fill only the narrow field, which ends at 127.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            yield _custom(code, path) if number == _CUSTOM else names.get(number, f"BUILTIN_{number}")


def _custom(code: Any, path: Path) -> str:
    name = (code.CustomCode() or b"?").decode(errors="replace")
    if name not in _KNOWN_CUSTOM:
        what = "TensorFlow operators (Flex)" if name.startswith("Flex") else "a custom operator"
        raise ModelError(
            f"{path} uses {what}, {name!r}, which needs a library of its own.",
            remedy="Convert it with built-in operators only.",
        )
    return name


def _weights(root: Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    filled = {i for i in range(root.BuffersLength()) if root.Buffers(i).DataLength() or root.Buffers(i).Size() > 1}
    for graph in (root.Subgraphs(index) for index in range(root.SubgraphsLength())):
        for position in range(graph.TensorsLength()):
            tensor = graph.Tensors(position)
            size = math.prod(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))
            small = tensor.Type() in _WHOLE and size < _FEWEST_WEIGHTS
            if tensor.Buffer() in filled and not small:
                counts[DTYPES.get(tensor.Type(), "INT4" if tensor.Type() == 17 else "other")] += size
    return counts


def _metadata(root: Any) -> dict[str, str]:
    described = {"description": (root.Description() or b"").decode(errors="replace")}
    names = [(root.Metadata(i).Name() or b"").decode(errors="replace") for i in range(root.MetadataLength())]
    return {key: value for key, value in {**described, "metadata": ", ".join(names)}.items() if value}
