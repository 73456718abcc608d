"""May this bundle serve here? Hashes, evidence, instruction sets, and golden samples run again on this machine.

Every problem names its file or variant. A variant whose golden outputs do not come back is a problem of that
variant only; the caller decides whether the rest of the ladder is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hasten.bundle.read import Bundle, Golden, file_problems
from hasten.engine.base import Tensors
from hasten.engine.host import environment
from hasten.engine.isolate import load_isolated
from hasten.errors import HastenError
from hasten.spec.progress import Listener, Progress, ignore
from hasten.spec.target import Precision

__all__ = ["golden_problem", "problems"]

# Instruction sets without which a precision is emulated, slower than what was measured.
_NEEDS: dict[Precision, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "f16": ("avx512_fp16", "amx_fp16", "asimdhp"),
}


def problems(bundle: Bundle, listener: Listener = ignore) -> list[str]:
    """Return everything that speaks against serving this bundle on this machine; empty if nothing does."""
    found = file_problems(bundle.path, bundle.manifest)
    try:
        bundle.require_servable()
    except HastenError as error:
        found.append(error.message)
    ids = list(bundle.manifest.variants)
    for number, id_ in enumerate(ids):
        listener(Progress(stage=f"golden samples of {id_}", done=number, total=len(ids)))
        problem = _instruction_problem(bundle, id_) or golden_problem(bundle, id_)
        if problem:
            found.append(f"variant {id_!r}: {problem}")
    return found


def golden_problem(bundle: Bundle, variant: str) -> str | None:
    """Load one variant, run its golden inputs, and say how the outputs differ from what they were; None if they
    agree.
    """
    entry = bundle.entry(variant)
    try:
        golden = bundle.golden(variant)
        with load_isolated(bundle.model_path(variant), entry.variant.target) as session:
            return _first_difference(golden, entry.tolerance, session.run)
    except HastenError as error:
        return error.message


def _first_difference(golden: Golden, tolerance: dict[str, float], run: Callable[[Tensors], Tensors]) -> str | None:
    for index, (inputs, expected) in enumerate(zip(golden.inputs, golden.outputs, strict=True)):
        outputs = run(inputs)
        for name, wanted in expected.items():
            problem = _difference(outputs[name], wanted, tolerance.get(name, 0.0))
            if problem:
                return f"golden sample {index}, output {name!r}: {problem}"
    return None


def _difference(
    got: np.ndarray[Any, Any],
    wanted: np.ndarray[Any, Any],
    allowed: float,
) -> str | None:
    if got.shape != wanted.shape:
        return f"the shape is {got.shape}, it was {wanted.shape}."
    if wanted.dtype.kind != "f":
        same = np.array_equal(got.astype(wanted.dtype), wanted)
        return None if same else "the values differ."
    # Equal infinities and equal not-a-numbers are agreement; numpy's difference of them is not zero.
    agree = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    gap = np.asarray(got, dtype=np.float64) - np.asarray(wanted, dtype=np.float64)
    error = float(np.abs(gap[~agree]).max(initial=0.0))
    return None if error <= allowed else f"it differs by {error:.3g}, {allowed:.3g} is allowed."


def _instruction_problem(bundle: Bundle, variant: str) -> str | None:
    target = bundle.entry(variant).variant.target
    needs = _NEEDS.get(target.precision)
    here = set(environment().features)
    if target.device != "CPU" or not needs or here & set(needs):
        return None
    return f"it computes in {target.precision}, and this processor has none of {', '.join(needs)}."
