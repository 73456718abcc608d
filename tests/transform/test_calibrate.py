"""Ranges from samples: as onnxruntime's own calibrators find them, in memory that does not grow with the samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.transform.small_models import images, small_convolutions

from hasten.transform import calibrate as module
from hasten.transform.calibrate import METHODS, Method, calibrate

TENSORS = ["image", "r1", "c2", "r2"]


@pytest.fixture
def proto(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(str(small_convolutions(tmp_path / "m.onnx")))


def ranges(proto: onnx.ModelProto, method: Method, *, count: int = 12, percentile: float = 99.9) -> dict:
    return calibrate(proto, TENSORS, images(count), count=count, method=method, percentile=percentile)


def activations(proto: onnx.ModelProto, count: int = 12) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in TENSORS if name != "image")
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.stack([images(count).inputs(i)["image"] for i in range(count)])
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": x}), strict=True))
    return {"image": x, **found}


def test_minmax_is_the_range_over_all_samples(proto: onnx.ModelProto) -> None:
    truth = activations(proto)
    for name, (low, high) in ranges(proto, "minmax").items():
        assert low == pytest.approx(float(truth[name].min()), rel=1e-4, abs=1e-5)
        assert high == pytest.approx(float(truth[name].max()), rel=1e-4, abs=1e-5)


def test_percentiles_cut_equal_tails(proto: onnx.ModelProto) -> None:
    truth = activations(proto)
    for name, (low, high) in ranges(proto, "percentile", percentile=98.0).items():
        width = float(np.ptp(truth[name]))
        assert low == pytest.approx(min(0.0, float(np.quantile(truth[name], 0.01))), abs=0.01 * width)
        assert high == pytest.approx(max(0.0, float(np.quantile(truth[name], 0.99))), abs=0.01 * width)


@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_zero_and_lies_within_what_was_seen(method: Method, proto: onnx.ModelProto) -> None:
    seen = ranges(proto, "minmax")
    for name, (low, high) in ranges(proto, method).items():
        assert low <= 0 <= high or method == "minmax"
        assert min(seen[name][0], 0.0) - 1e-6 <= low
        assert high <= max(seen[name][1], 0.0) + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 6.0))
def test_mse_never_loses_more_than_the_whole_range_does(seed: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=4000) * np.exp(rng.normal(0, tail / 4, 4000))
    counts, edges = np.histogram(values, bins=module.BINS)
    loss = module._squared_error
    best = min(loss(counts, edges, low, high) for low, high in module._candidates(edges))
    assert best <= loss(counts, edges, float(edges[0]), float(edges[-1])) + 1e-9


def test_a_long_tail_is_clipped_by_mse_and_not_by_minmax() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=100_000), [60.0]])
    counts, edges = np.histogram(values, bins=module.BINS)
    span = module._Span(float(edges[0]), float(edges[-1]), values.size)
    assert module._clipped(counts.astype(float), span, "mse", 0)[1] < 57.0


def test_a_constant_activation_has_a_range() -> None:
    span = module._Span(2.0, 2.0, 10)
    counts = np.zeros(module.BINS)
    counts[0] = 10
    assert module._clipped(counts, span, "percentile", 99.9)[1] == pytest.approx(2.0, rel=1e-5)


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    path = small_convolutions(tmp_path / "m.onnx")
    code = (
        "import onnx, sys; from hasten.transform.calibrate import calibrate; import numpy as np\n"
        "from hasten.engine.memory import peak_memory_mb\n"
        "class Many:\n"
        "    def __len__(self): return 400\n"
        "    def inputs(self, i): return {'image': np.full((3, 16, 16), i % 7, np.float32)}\n"
        "proto = onnx.load(sys.argv[1])\n"
        "calibrate(proto, ['c2', 'r2'], Many(), count=int(sys.argv[2]), method='percentile', percentile=99.9)\n"
        "print(peak_memory_mb())"
    )
    peaks = [
        float(subprocess.run([sys.executable, "-c", code, path, str(count)], capture_output=True, check=True).stdout)
        for count in (8, 400)
    ]
    # 392 more samples hold 2.4 MB of images and 13 MB of activations: keeping them would show.
    assert peaks[1] - peaks[0] < 8
