"""Export a PyTorch program to ONNX, with the exporter of PyTorch itself, under the program's own names.

Engines other than PyTorch begin here. The promise is `exact`, so the result is checked against the program as every
other step is: a wrapper left in training mode or a wrong operator shows before anything is measured.
"""

from __future__ import annotations

import warnings
from typing import Any, final

from hasten.formats.torch_archive import load_program, open_archive
from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.spec.signature import Signature
from hasten.spec.target import Format
from hasten.transform.base import Options, Task, Transform, TransformFailed

__all__ = ["ExportOnnx"]


@final
class ExportOnnx(Transform):
    """PyTorch program to ONNX. Options: `opset`, the operator set to write (default 18, the exporter's own)."""

    name = "export_onnx"
    promise = "exact"
    defaults = {"opset": 18}
    formats: frozenset[Format] = frozenset({"torch"})
    result: Format | None = "onnx"

    def requires(self, model: Model, options: Options) -> str | None:
        """Every program whose operators the exporter knows; it says so when it meets another."""
        return None

    def apply(self, task: Task) -> None:
        """Decompose, translate, rename inputs and outputs, write."""
        import torch

        program = load_program(open_archive(task.model.path))
        program.example_inputs = ((), _example(task.model.signature))
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                exported: Any = torch.onnx.export(
                    program, (), opset_version=int(task.options["opset"]), dynamo=True, verbose=False, optimize=True
                )
        except Exception as error:
            # The exporter wraps whatever its translation of an operator raises.
            raise TransformFailed(f"export_onnx failed: {' '.join(str(error).split())[:300]}") from error
        save_proto(_tidied(exported.model_proto, task.model.signature), task.out)


def _tidied(proto: Any, signature: Signature) -> Any:
    """Give outputs the program's names, and drop what differs between two exports: traces of source files."""
    names = {old.name: spec.name for old, spec in zip(proto.graph.output, signature.outputs, strict=True)}
    taken = {name for node in proto.graph.node for name in node.output} - set(names)
    clashes = {name: f"{name}.inner" for name in names.values() if name in taken}
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.doc_string = ""
        for place in (node.input, node.output):
            place[:] = [names.get(name, clashes.get(name, name)) for name in place]
    for value in (*proto.graph.output, *proto.graph.value_info):
        value.name = names.get(value.name, clashes.get(value.name, value.name))
        value.ClearField("metadata_props")
    for part in (proto, proto.graph):
        part.ClearField("metadata_props")
        part.doc_string = ""
    return proto


def _example(signature: Signature) -> dict[str, Any]:
    import numpy as np
    import torch

    from hasten.spec.tensor import NUMPY_NAMES

    return {
        spec.name: torch.from_numpy(
            np.zeros([dim if isinstance(dim, int) else 2 for dim in spec.shape], NUMPY_NAMES[spec.dtype])
        )
        for spec in signature.inputs
    }
