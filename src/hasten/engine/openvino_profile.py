"""OpenVINO's performance counters: times of operators, and what the executed graph says of each.

The counters of the CPU plugin are running means over all runs since the model was compiled, in whole microseconds. The
first run, which also prepares kernels, is taken out of the mean again: it was read when it was alone. So one compiled
model gives one mean for each operator, and spread comes from compiling anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hasten.engine.openvino_request import Request
from hasten.spec.profile import OperatorTime

__all__ = ["means_without", "merged", "operators_of", "read_counters"]

_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution", "Deconvolution"})
_PRODUCTS = frozenset({"FullyConnected", "MatMul"})
_MATRIX = _CONVOLUTIONS | _PRODUCTS | {"RNNSeq", "RNNCell", "MHA", "ScaledDotProductAttention", "Interaction"}
_DATA = frozenset({"Const", "Input", "Output", "Parameter", "Result"})
_BITS = {
    "f64": 64, "i64": 64, "u64": 64, "f32": 32, "i32": 32, "u32": 32, "f16": 16, "bf16": 16, "i16": 16, "u16": 16,
    "i8": 8, "u8": 8, "boolean": 8, "i4": 4, "u4": 4,
}  # fmt: skip
_UNSEEN_US = 0.5
Shape = tuple[int, ...]


def read_counters(request: Request) -> dict[str, float]:
    """Mean microseconds of every node, in the order of execution; 0 for those that were fused, and for the quickest.

    The runtime's own word for what was executed is of no use: it says no of whatever took less than a microsecond.
    """
    return {str(info.node_name): info.real_time.total_seconds() * 1e6 for info in request.profiling_info()}


def means_without(means: Mapping[str, float], before: Mapping[str, float], runs: int, skip: int) -> dict[str, float]:
    """Means over the last `runs` runs, where `means` are over all and `before` over the first `skip`.

    The counters are cut to whole microseconds, so the result is right to about one.
    """
    total = runs + skip
    return {name: max(0.0, (mean * total - before.get(name, 0.0) * skip) / runs) for name, mean in means.items()}


def merged(counts: Sequence[tuple[int, Mapping[str, float]]]) -> tuple[int, dict[str, float]]:
    """Runs and mean microseconds of several graphs of one model together, from those of each."""
    total = sum(runs for runs, _ in counts)
    means: dict[str, float] = {}
    for runs, each in counts:
        for name, mean in each.items():
            means[name] = means.get(name, 0.0) + mean * runs / total
    return total, means


def operators_of(executed: Any, means: Mapping[str, float]) -> tuple[OperatorTime, ...]:
    """Operators of the executed graph (`get_runtime_model`), in the order of the means. Data is no operator.

    Where every operator is quicker than the counters' microsecond, each counts as half of one: they ran, and none of
    them is known to be longer than another.
    """
    ops = {str(op.get_friendly_name()): op for op in executed.get_ordered_ops()}
    kinds = {name: _said(op, "layerType") for name, op in ops.items()}
    listed = [name for name in means if kinds.get(name, "Const") not in _DATA]
    seen = any(means[name] > 0.0 for name in listed)
    return tuple(_operator(name, kinds[name], ops[name], means[name] if seen else _UNSEEN_US) for name in listed)


def _operator(name: str, kind: str, op: Any, us: float) -> OperatorTime:
    origins = tuple(part for part in _said(op, "originalLayersNames").split(",") if part)
    inputs, outputs = [_port(port.get_source_output()) for port in op.inputs()], [_port(port) for port in op.outputs()]
    return OperatorTime(
        name=name,
        kind=kind,
        nodes=origins,
        us=(us,),
        flops=_flops(kind, [shape for shape, _ in inputs], outputs[0][0], len(origins)) if outputs else None,
        bytes_moved=_sum([size for _, size in (*inputs, *outputs)]),
        matrix=kind in _MATRIX,
    )


def _said(op: Any, key: str) -> str:
    """What the executed graph notes of an operator; empty where it does not."""
    info = op.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def _port(port: Any) -> tuple[Shape | None, int | None]:
    """Shape and bytes of what an operator makes; None where the shape depends on the input or the type is unknown."""
    partial = port.get_partial_shape()
    if not partial.is_static:
        return None, None
    shape = tuple(int(size) for size in partial.to_shape())
    precisions = _said(port.get_node(), "outputPrecisions").split(",")
    bits = _BITS.get(precisions[min(port.get_index(), len(precisions) - 1)])
    return shape, None if bits is None else (math.prod(shape) * bits + 7) // 8


def _flops(kind: str, inputs: list[Shape | None], out: Shape | None, origins: int) -> int | None:
    """Two for each multiply-accumulate, one for each element and fused operator; None where a shape is unknown."""
    if out is None or None in inputs[:2]:
        return None
    known = [shape for shape in inputs if shape is not None]
    if kind in _MATRIX - _CONVOLUTIONS - _PRODUCTS or (kind in _MATRIX and len(known) < 2):
        return None
    fused = math.prod(out) * max(0, origins - 1)
    if kind in _CONVOLUTIONS:
        # Weights are [outputs, inputs, ...] or [groups, outputs, inputs, ...]; transposed ones spread each input.
        weights = known[1][2:] if len(known[1]) > len(out) else known[1][1:]
        places = known[0] if kind == "Deconvolution" else out
        return 2 * math.prod(places) * math.prod(weights) + fused
    if kind in _PRODUCTS:
        return 2 * math.prod(out) * (known[0][-1] if known[0] else 1) + fused
    return math.prod(out) * max(1, origins)


def _sum(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
