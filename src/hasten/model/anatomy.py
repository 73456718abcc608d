"""The anatomy of a model: everything that `hasten inspect` shows, for every file format.

ONNX files are looked at in depth. Of other formats it tells what the file itself says; what is not counted is None, and
`limits` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from hasten.errors import UsageError
from hasten.model.base import Model
from hasten.model.flops import Work, count_work
from hasten.model.lint import findings
from hasten.model.lint_base import Finding
from hasten.model.lint_weights import weight_bytes
from hasten.model.onnx_file import OnnxModel, all_weights
from hasten.spec.values import Value

__all__ = ["Anatomy", "anatomy", "weights_by_type"]


class Anatomy(Value, frozen=True):
    """What a model is made of. `work` and `weights` are None for formats in which they are not counted.

    `weights` are bytes by ONNX element type. `limits` are sentences on what was not counted or looked for.
    """

    parameters: int
    operators: dict[str, int]
    work: Work | None
    weights: dict[str, int] | None
    findings: tuple[Finding, ...]
    limits: tuple[str, ...]


def anatomy(model: Model, dims: Mapping[str, int], features: Iterable[str] = ()) -> Anatomy:
    """Look at `model` with its free dimensions set to `dims`, by place ("x[0]") or symbol; others become 1.

    `features` are the processor's instruction sets, which some findings depend on. Raises `UsageError` for a dimension
    that the model does not have.
    """
    _check_dims(model, dims)
    deep = isinstance(model, OnnxModel)
    work = count_work(model, dims) if deep else None
    return Anatomy(
        parameters=model.parameters(),
        operators=dict(model.operators().most_common()),
        work=work,
        weights=weights_by_type(model) if deep else None,
        findings=tuple(findings(model, features)) if deep else (),
        limits=_limits(model, work),
    )


def weights_by_type(model: OnnxModel) -> dict[str, int]:
    """Bytes of all constant tensors by ONNX element type (FLOAT, INT8, ...), most first."""
    import onnx

    total: Counter[str] = Counter()
    for tensor in all_weights(model.proto.graph):
        total[onnx.TensorProto.DataType.Name(tensor.data_type)] += weight_bytes(tensor)
    return {name: size for name, size in total.most_common() if size}


def _check_dims(model: Model, dims: Mapping[str, int]) -> None:
    places = {
        name
        for spec in model.signature.inputs
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str)
        for name in (f"{spec.name}[{axis}]", dim)
    }
    unknown = sorted(set(dims) - places)
    if unknown:
        known = ", ".join(sorted(places - {"?"})) or "none"
        raise UsageError(f"The model has no free dimension {unknown[0]!r}.", remedy=f"Its free dimensions: {known}.")


def _limits(model: Model, work: Work | None) -> tuple[str, ...]:
    if work is None:
        return (
            f"Operations, activations and bytes by type are not counted in {model.format} files, "
            "and findings are looked for in ONNX files only.",
        )
    limits = list(work.notes)
    if work.uncounted:
        kinds = ", ".join(f"{name} {count}" for name, count in work.uncounted.items())
        limits.append(f"Not counted, because their shapes are unknown: {kinds}.")
    if work.activation_bytes is None:
        limits.append("The memory of activations is not estimated: the shape of a tensor is unknown.")
    return tuple(limits)
