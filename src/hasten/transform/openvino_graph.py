"""OpenVINO's view of a model: reading any format that it takes, with the names of ONNX nodes kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.onnx_graph import load, name_nodes

__all__ = ["network_of"]


def network_of(model: Model) -> Any:
    """Return the model as an `openvino.Model`; its operators carry the names that `name_nodes` gives."""
    import openvino as ov

    if model.format != "onnx":
        return ov.Core().read_model(str(model.path))
    proto = load(model)
    name_nodes(proto.graph)
    with tempfile.TemporaryDirectory(prefix="hasten-openvino-") as folder:
        named = Path(folder) / "named.onnx"
        save_proto(proto, named)
        core: Any = ov.Core()
        # Weights that stay mapped would lie in a file that is gone.
        core.set_property({"ENABLE_MMAP": False})
        return core.read_model(str(named))
