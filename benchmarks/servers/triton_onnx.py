"""An ONNX model for Triton's Python backend: the same ONNX Runtime with one thread, with priorities and queue policies.

The wheel brings no other backend. The model stacks a batch, runs once and takes the answer apart, as the ONNX Runtime
backend does.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from hasten.serve.policy import Lane
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from servers.apart import environment
from servers.triton import NUMPY

__all__ = ["python", "write_onnx"]

_MODEL = """\
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def execute(self, requests):
        parts = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self.inputs
        ]
        stacked = [np.concatenate(some) if len(some) > 1 else some[0] for some in parts]
        found = self.session.run(None, dict(zip(self.inputs, stacked)))
        answers, start = [], 0
        for rows in [len(one) for one in parts[0]]:
            tensors = [pb_utils.Tensor(n, a[start : start + rows]) for n, a in zip(self.outputs, found)]
            answers.append(pb_utils.InferenceResponse(tensors))
            start += rows
        return answers
"""
# Requests of one lane that may wait, as at hasten's door.
_WAITING = 256


def python() -> Path:
    """The Python of an environment with what the model needs; made on the first call."""
    return environment("triton-onnxruntime", f"numpy=={NUMPY}", f"onnxruntime=={version('onnxruntime')}")


def write_onnx(
    model: Path,
    name: str,
    signature: Signature,
    lanes: Sequence[Lane],
    batch_s: float,
    max_batch: int,
    repository: Path,
) -> None:
    """Write the model into a repository. Each lane is a priority level, of which a request may wait as long as its
    deadline leaves time for a full batch, which takes `batch_s`; then it is refused.
    """
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(_MODEL)
    shutil.copy2(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(config(name, signature, lanes, batch_s, max_batch))


def config(name: str, signature: Signature, lanes: Sequence[Lane], batch_s: float, max_batch: int) -> str:
    """The model's configuration."""
    lines = [f'name: "{name}"', 'backend: "python"', f"max_batch_size: {max_batch}"]
    lines += [f"input [{_tensor(spec)}]" for spec in signature.inputs]
    lines += [f"output [{_tensor(spec)}]" for spec in signature.outputs]
    lines += ["instance_group [{ count: 1 kind: KIND_CPU }]", "dynamic_batching {"]
    lines += [f"  priority_levels: {len(lanes)}", f"  default_priority_level: {len(lanes)}"]
    for lane in lanes:
        waits_s = lane.deadline_s - batch_s if lane.deadline_s else lane.max_age_s or 0.0
        policy = (
            f"timeout_action: REJECT default_timeout_microseconds: {round(waits_s * 1e6)} "
            f"allow_timeout_override: true max_queue_size: {_WAITING}"
        )
        lines.append(f"  priority_queue_policy {{ key: {lane.priority} value {{ {policy} }} }}")
    return "\n".join([*lines, "}"]) + "\n"


def _tensor(spec: TensorSpec) -> str:
    dims = [dim if isinstance(dim, int) else -1 for dim in spec.shape[1:]]
    dtype = "STRING" if spec.dtype == "BYTES" else spec.dtype
    return f'{{ name: "{spec.name}" data_type: TYPE_{dtype} dims: {dims} }}'
