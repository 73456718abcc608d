"""Makes one peer's model, in a process of its own: python make.py HOW MODEL SAMPLES OUT.

Nothing of hasten is in here: these are the tools as their users call them, with the tools' own defaults. `SAMPLES` is a
folder of `.npz` files, one calibration sample each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MAKERS", "suffix"]


def suffix(how: str) -> str:
    """What the name of a made file ends in."""
    return {"nncf": ".xml", "nncf-transformer": ".xml", "torch": ".pt2"}.get(how, ".onnx")


def samples(folder: Path) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            yield {name: archive[name] for name in archive.files}


def ort_static(model: Path, folder: Path, out: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = samples(folder)

        def get_next(self) -> Any:
            return next(self._left, None)

    prepared = out.with_name("prepared.onnx")
    try:
        quant_pre_process(str(model), str(prepared))
    except Exception as error:
        # What its own message tells users to do where symbolic shape inference gives up.
        print(f"quant_pre_process again with skip_symbolic_shape=True: {error}", file=sys.stderr)
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(out), Reader())


def ort_dynamic(model: Path, folder: Path, out: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(model), str(out))


def nncf_plain(model: Path, folder: Path, out: Path) -> None:
    _nncf(model, folder, out)


def nncf_transformer(model: Path, folder: Path, out: Path) -> None:
    import nncf

    _nncf(model, folder, out, model_type=nncf.ModelType.TRANSFORMER)


def _nncf(model: Path, folder: Path, out: Path, **options: Any) -> None:
    import nncf
    import openvino as ov

    network = ov.Core().read_model(str(model))
    quantized: Any = nncf.quantize(network, nncf.Dataset(list(samples(folder))), **options)
    ov.save_model(quantized, str(out))


def torch_program(model: Path, folder: Path, out: Path) -> None:
    """The zoo's encoder as a module, carried into the worker as a program with open dimensions."""
    import torch

    from hasten.zoo.fetch import obtain
    from hasten.zoo.minilm import LONGEST, encoder

    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=LONGEST)}
    ids, mask = torch.arange(18).reshape(2, 9) + 1000, torch.ones(2, 9, dtype=torch.int64)
    shapes = {"input_ids": dims, "attention_mask": dims}
    module = encoder(obtain("minilm-weights"))
    torch.export.save(torch.export.export(module, (ids, mask), dynamic_shapes=shapes), str(out))


MAKERS: dict[str, Callable[[Path, Path, Path], None]] = {
    "ort-static": ort_static,
    "ort-dynamic": ort_dynamic,
    "nncf": nncf_plain,
    "nncf-transformer": nncf_transformer,
    "torch": torch_program,
}


if __name__ == "__main__":
    MAKERS[sys.argv[1]](*(Path(word) for word in sys.argv[2:5]))
