"""Olive, in an environment of its own, because it brings its own versions of what hasten uses.

`olive optimize --precision int8` plans a static quantization that is calibrated on English text (wikitext), whatever
the model takes, on a CUDA device. What is run here is that plan with the model's own calibration samples on the CPU,
as Olive's users do for models that are not language models; otherwise it could not take part.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["command"]

_SCRIPT = """
from pathlib import Path

import numpy as np
from olive.data.registry import Registry


class Samples:
    def __init__(self, folder):
        self.files = sorted(Path(folder).glob("*.npz"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with np.load(self.files[index]) as archive:
            return {name: archive[name][0] for name in archive.files}, 0


@Registry.register_dataset()
def calibration_samples(folder, **_):
    return Samples(folder)
"""


def command(olive: Path, how: str, model: Path, samples: Path, out: Path) -> list[str]:
    """What to run so that Olive writes its model below the folder `out`."""
    if how == "olive-fp32":
        where = ["-m", str(model.resolve()), "-o", str(out.resolve())]
        kind = ["--provider", "CPUExecutionProvider", "--device", "cpu", "--precision", "fp32"]
        return [str(olive), "optimize", *where, *kind, "--disable_telemetry"]
    out.mkdir(parents=True, exist_ok=True)
    script = out / "samples.py"
    script.write_text(_SCRIPT)
    config = out / "plan.json"
    config.write_text(json.dumps(_plan(model.resolve(), samples.resolve(), out.resolve(), script.resolve()), indent=1))
    return [str(olive), "run", "--config", str(config.resolve()), "--disable_telemetry"]


def _plan(model: Path, samples: Path, out: Path, script: Path) -> dict[str, Any]:
    """The plan of `olive optimize --precision int8 --dry_run --save_config_file`, but for data and provider."""
    accelerator = {"execution_providers": ["CPUExecutionProvider"], "device": "cpu"}
    return {
        "input_model": {"type": "OnnxModel", "model_path": str(model)},
        "passes": {
            "onnx_peephole_optimizer": {"type": "OnnxPeepholeOptimizer"},
            "onnx_static_quantization": {
                "type": "OnnxStaticQuantization",
                "precision": "int8",
                "calibration_providers": ["CPUExecutionProvider"],
                "quant_format": "QOperator",
                "data_config": "calibration",
            },
        },
        "systems": {"local_system": {"type": "LocalSystem", "accelerators": [accelerator]}},
        "data_configs": [
            {
                "name": "calibration",
                "user_script": str(script),
                "load_dataset_config": {"type": "calibration_samples", "params": {"folder": str(samples)}},
                "dataloader_config": {"params": {"batch_size": 1}},
            }
        ],
        "target": "local_system",
        "no_artifacts": True,
        "output_dir": str(out),
        "log_severity_level": 3,
    }
