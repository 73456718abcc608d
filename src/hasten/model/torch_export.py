"""Export a PyTorch module to a program file, and check the file against the module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import MissingError, ModelError
from hasten.formats.torch_archive import load_program
from hasten.model.torch_program import open_program

__all__ = ["export_module"]

Arrays = Mapping[str, np.ndarray[Any, Any]]
_TOLERANCE = 1e-4


def export_module(module: Any, samples: Sequence[Arrays], out: Path) -> list[str]:
    """Export a `torch.nn.Module` to `out` and check the file against the module on `samples` (without batch axis).

    Inputs are passed by the names of `forward`'s arguments where the samples' names match them, else in order. The
    batch axis is left open where the module allows it; returns sentences on what was decided. Raises `ModelError`.
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{type(module).__name__} is not a torch.nn.Module.", remedy="Give a module or a file.")
    module.eval()
    batch = {name: torch.from_numpy(np.stack([np.asarray(s[name])] * 2)) for name in samples[0] for s in samples[:1]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program, notes = _exported(torch, module, batch)
        torch.export.save(program, str(out))
        _check_export(torch, module, out, batch)
    return notes


def _exported(torch: Any, module: Any, batch: dict[str, Any]) -> tuple[Any, list[str]]:
    """With an open batch axis, or with a fixed batch of one where the module insists."""
    dim = torch.export.Dim("batch", min=1)
    reason = ""
    for rows, shapes in ((2, {name: {0: dim} for name in batch}), (1, None)):
        inputs = {name: tensor[:rows] for name, tensor in batch.items()}
        try:
            program = torch.export.export(module, (), inputs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            # torch.export raises errors of many kinds for code that it cannot trace.
            reason = " ".join(str(error).split())[:300]
            continue
        return program, [] if shapes else [f"The batch is fixed to 1: {reason}"]
    raise ModelError(
        f"The module {type(module).__name__} cannot be exported: {reason}",
        remedy="Make it traceable by torch.export, with forward's arguments named as the samples' arrays.",
    )


def _check_export(torch: Any, module: Any, out: Path, batch: dict[str, Any]) -> None:
    """The file, read by the engine that will run it, answers as the module does."""
    from torch.utils._pytree import tree_leaves

    opened = open_program(out)
    program = load_program(opened.archive)
    rows = 2 if isinstance(opened.signature.inputs[0].shape[0], str) else 1
    inputs = {name: tensor[:rows] for name, tensor in batch.items()}
    wanted = tree_leaves(module(**inputs))
    loaded = program.module()
    loaded(**inputs)
    # The second call: what the first one left behind would show.
    got = tree_leaves(loaded(**inputs))
    for number, (left, right) in enumerate(zip(wanted, got, strict=True)):
        if not torch.allclose(left.double(), right.double(), rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            raise ModelError(
                f"The exported program answers otherwise than the module (output {number}).",
                remedy="Make it a function of its inputs: no state between calls, no random numbers.",
            )


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingError(
            "PyTorch models need the package torch, which is not installed.",
            remedy="Install it with: pip install 'hasten[torch]'",
        ) from error
    return torch
