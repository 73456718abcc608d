"""Ranges of activations from samples, one sample at a time: memory does not grow with their number.

First pass: minimum, maximum and size of every tensor, reduced inside the graph, so that no activation leaves it.
Second pass, for every method but minmax: a histogram of fixed bins over that range for each tensor, in groups of
tensors whose activations fit a bound. Then a threshold from each histogram:

- minmax: the range itself (Jacob et al. 2018).
- percentile: the range without equal tails.
- entropy: the clipping whose quantized distribution loses least information, by Kullback-Leibler divergence (Migacz
  2017, "8-bit Inference with TensorRT").
- mse: the clipping with the least expected squared error of 8-bit values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from hasten.data.dataset import Samples
from hasten.data.feed import feed
from hasten.model.onnx_file import save_proto, signature_of

__all__ = ["METHODS", "Method", "calibrate"]

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")
BINS = 2048
_LEVELS = 256
_GROUP_BYTES = 64 * 2**20
_CLIPPINGS = np.linspace(1.0, 0.3, 36)
# Values of one tensor that are counted of each sample: evenly spread ones tell its distribution as well as all.
_ENOUGH = 2**15

_BOUNDED = frozenset({"Softmax", "Sigmoid", "HardSigmoid", "Tanh"})
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split"})

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class _Span:
    """What the first pass learns of one tensor."""

    low: float = np.inf
    high: float = -np.inf
    size: int = 0


def calibrate(
    proto: onnx.ModelProto,
    tensors: Sequence[str],
    samples: Samples,
    *,
    count: int,
    method: Method,
    percentile: float,
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each of `tensors`, which are f32 activations of `proto`, over the first `count` samples.

    A tensor that had no finite value in any sample is left out.
    """
    spans = _spans(proto, tensors, samples, count)
    found = {name: span for name, span in spans.items() if span.low <= span.high}
    kept = set(found) if method == "minmax" else _bounded(proto)
    ranges = {name: (span.low, span.high) for name, span in found.items() if name in kept}
    for group in _groups({name: span for name, span in found.items() if name not in kept}):
        for name, counts in _histograms(proto, group, samples, count).items():
            ranges[name] = _clipped(counts, found[name], method, percentile)
    return ranges


def _bounded(proto: onnx.ModelProto) -> set[str]:
    """Outputs of functions with a bounded range, also after they were moved about. These are not clipped.

    Among thousands of probabilities the few large ones are the answer; to a histogram they are outliers.
    """
    names: set[str] = set()
    for node in proto.graph.node:
        if node.op_type in _BOUNDED or (node.op_type in _MOVES and node.input[0] in names):
            names.update(node.output)
    return names


def _spans(proto: onnx.ModelProto, tensors: Sequence[str], samples: Samples, count: int) -> dict[str, _Span]:
    """Minimum, maximum and size of each tensor, reduced in the graph."""
    reduced = _Probe(proto)
    for name in tensors:
        for operator in ("ReduceMin", "ReduceMax"):
            reduced.add(operator, name, f"{name}/{operator}", TensorProto.FLOAT, keepdims=0)
        reduced.add("Size", name, f"{name}/Size", TensorProto.INT64)
    spans = {name: _Span() for name in tensors}
    for values in reduced.run(samples, count):
        for name, span in spans.items():
            low, high = float(values[f"{name}/ReduceMin"]), float(values[f"{name}/ReduceMax"])
            span.size = max(span.size, int(values[f"{name}/Size"]))
            if np.isfinite(low) and np.isfinite(high):
                span.low, span.high = min(span.low, low), max(span.high, high)
    return spans


def _groups(spans: Mapping[str, _Span]) -> Iterator[dict[str, _Span]]:
    """Tensors whose activations of one sample fit the bound together."""
    group: dict[str, _Span] = {}
    size = 0
    for name, span in spans.items():
        if group and size + 4 * span.size > _GROUP_BYTES:
            yield group
            group, size = {}, 0
        group[name] = span
        size += 4 * span.size
    if group:
        yield group


def _histograms(proto: onnx.ModelProto, group: Mapping[str, _Span], samples: Samples, count: int) -> dict[str, Array]:
    probe = _Probe(proto)
    for name in group:
        probe.add("Identity", name, f"{name}/all", TensorProto.FLOAT)
    counts = {name: np.zeros(BINS) for name in group}
    for values in probe.run(samples, count):
        for name, span in group.items():
            edges = _edges(span)
            seen = values[f"{name}/all"].reshape(-1)
            seen = seen[:: max(1, seen.size // _ENOUGH)]
            counts[name] += np.histogram(seen, bins=BINS, range=(edges[0], edges[-1]))[0]
    return counts


def _edges(span: _Span) -> Array:
    high = span.high if span.high > span.low else span.low + max(abs(span.low), 1.0) * 1e-6
    return np.linspace(span.low, high, BINS + 1)


def _clipped(counts: Array, span: _Span, method: Method, percentile: float) -> tuple[float, float]:
    edges = _edges(span)
    if method == "percentile":
        low, high = _percentile(counts, edges, percentile)
    else:
        candidates = list(_candidates(edges))
        counts = _without_zeros(counts, edges)
        loss = _divergence if method == "entropy" else _squared_error
        losses = [loss(counts, edges, low, high) for low, high in candidates]
        low, high = candidates[int(np.argmin(losses))]
    # Zero must stay a value of its own: padding and ReLU depend on it.
    return min(float(low), 0.0), max(float(high), 0.0)


def _without_zeros(counts: Array, edges: Array) -> Array:
    """Level the bin that holds zero with the larger of its neighbours.

    Zero has a code of its own in every quantization and costs nothing. Counted, the many zeros behind a ReLU would
    outweigh everything else, and the range with the finest steps near zero would win, whatever it clips.
    """
    if not edges[0] <= 0.0 <= edges[-1]:
        return counts
    place = min(max(int(np.searchsorted(edges, 0.0, side="right")) - 1, 0), BINS - 1)
    beside = counts[max(place - 1, 0) : place + 2].tolist()
    beside.pop(place - max(place - 1, 0))
    levelled = counts.copy()
    levelled[place] = min(counts[place], max(beside))
    return levelled


def _percentile(counts: Array, edges: Array, percentile: float) -> tuple[float, float]:
    tail = (100.0 - percentile) / 200.0
    share = np.cumsum(counts) / max(counts.sum(), 1.0)
    first, last = int(np.searchsorted(share, tail)), int(np.searchsorted(share, 1.0 - tail))
    return float(edges[min(first, BINS - 1)]), float(edges[min(last + 1, BINS)])


def _candidates(edges: Array) -> Iterator[tuple[float, float]]:
    """Ranges that clip both ends by the same factor."""
    for factor in _CLIPPINGS:
        yield float(edges[0] * factor), float(edges[-1] * factor)


def _squared_error(counts: Array, edges: Array, low: float, high: float) -> float:
    """Expected squared error of 256 levels on [low, high], clipping included."""
    middles = (edges[:-1] + edges[1:]) / 2
    scale = max(max(high, 0.0) - min(low, 0.0), 1e-12) / 255
    zero = np.round(-min(low, 0.0) / scale)
    codes = np.clip(np.round(middles / scale) + zero, 0, 255)
    return float(((codes - zero) * scale - middles) ** 2 @ counts)


def _divergence(counts: Array, edges: Array, low: float, high: float) -> float:
    """Information lost by clipping to [low, high] and merging the bins there into 256 levels."""
    inside = (edges[:-1] >= low - 1e-12) & (edges[1:] <= high + 1e-12)
    kept = counts[inside]
    if kept.size < _LEVELS or kept.sum() == 0:
        return np.inf
    outside_left, outside_right = counts[edges[:-1] < low].sum(), counts[edges[1:] > high].sum()
    wanted = kept.copy()
    wanted[0] += outside_left
    wanted[-1] += outside_right
    level = np.arange(kept.size) * _LEVELS // kept.size
    filled = (wanted > 0).astype(float)
    merged = np.bincount(level, kept, _LEVELS) / np.maximum(np.bincount(level, filled, _LEVELS), 1.0)
    given = merged[level] * filled
    p, q = wanted / wanted.sum(), given / max(given.sum(), 1e-12)
    where = p > 0
    return float(np.sum(p[where] * np.log(p[where] / np.maximum(q[where], 1e-9))))


class _Probe:
    """The model with further outputs, run sample by sample."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._proto = onnx.ModelProto()
        self._proto.CopyFrom(proto)
        self._signature = signature_of(proto)
        del self._proto.graph.output[:]

    def add(self, operator: str, tensor: str, output: str, kind: int, **attributes: Any) -> None:
        """Let `operator` of a tensor be an output."""
        self._proto.graph.node.append(helper.make_node(operator, [tensor], [output], **attributes))
        self._proto.graph.output.append(helper.make_tensor_value_info(output, kind, None))

    def run(self, samples: Samples, count: int) -> Iterator[dict[str, Array]]:
        """Yield the outputs of each sample."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        # As written: an optimizer would fuse away the very tensors that are observed.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        names = [value.name for value in self._proto.graph.output]
        with tempfile.TemporaryDirectory(prefix="hasten-calibrate-") as folder:
            path = Path(folder) / "probe.onnx"
            save_proto(self._proto, path)
            session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for position in range(count):
                inputs = feed(self._signature, [samples.inputs(position)])
                yield dict(zip(names, session.run(names, inputs), strict=True))
