"""Models in ONNX's text format with weights, samples for them, and one line to apply a technique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.spec.applied import Applied
from hasten.transform.base import transforms

__all__ = ["apply", "domains", "normal", "operators", "sample", "write"]

SAMPLES = 4


def write(
    path: Path, text: str, weights: dict[str, np.ndarray] | None = None, *, opset: int = 17, domain: str = ""
) -> Path:
    """Write the graph `text` with these initializers; node names are op_type and place."""
    more = f', "{domain}" : 1' if domain else ""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}{more}]> g {text}')
    proto.ir_version = max(8, onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True))
    for place, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}{place}"
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()
    )
    onnx.save(proto, str(path))
    return path


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def sample(**inputs: Sequence[int] | np.ndarray) -> Samples:
    """Samples of normal numbers, of these shapes without batch axis; or given arrays."""
    arrays = {
        name: value if isinstance(value, np.ndarray) else normal(SAMPLES, *value, seed=place)
        for place, (name, value) in enumerate(inputs.items())
    }
    return Dataset(inputs=arrays).subset(range(len(next(iter(arrays.values())))))


def apply(
    name: str, source: Path, samples: Samples, options: dict[str, Any] | None = None, skip: Sequence[str] = ()
) -> tuple[Path, Applied]:
    """Apply a technique beside the model."""
    folder = source.with_name(f"{source.stem}-{name}")
    folder.mkdir()
    return transforms.get(name).run(source, folder, samples, options or {}, skip)


def operators(path: Path) -> Counter[str]:
    return open_model(path).operators()


def domains(path: Path) -> set[str]:
    return {node.domain for node in onnx.load(str(path)).graph.node}
