"""`hasten profile` as a user types it, with fewer and shorter rounds than a user gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hasten.cli.profile import command
from hasten.profile import ceilings, rounds, run

Make = Callable[..., Path]
FIGURE = {"value", "low", "high", "n"}
KEYS = [
    "schema", "model", "sha256", "format", "engine", "device", "precision", "threads", "shapes", "samples", "rounds",
    "latency_p50_ms", "profiled_latency_p50_ms", "profiler_slowdown", "operators_sum_p50_ms", "ceilings", "operators",
    "bottlenecks", "notes", "environment", "page", "trace",
]  # fmt: skip
OPERATOR = [
    "name", "kind", "nodes", "position", "time_p50_us", "share", "flops", "bytes_moved", "roofline_share", "bound",
    "bound_reason",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ROUNDS", 6)
    monkeypatch.setattr(rounds, "_ROUND_MS", 1.0)
    # Beyond the last cache lies a gigabyte on some machines.
    monkeypatch.setattr(ceilings, "_MOST_OF_MEMORY", 2**10)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32))
    return tmp_path / "d.npz"


def profile(*words: str | Path, status: int = 0) -> Result:
    done = CliRunner().invoke(command, list(map(str, words)))
    assert done.exit_code == status, done.output
    return done


def test_json_has_every_key_and_shares_that_add_up(make_linear: Make, data: Path) -> None:
    document = json.loads(profile(make_linear(features=64), "--data", data, "--threads", "1", "--json").stdout)
    assert list(document) == KEYS
    assert all(list(item) == OPERATOR for item in document["operators"])
    assert set(document["operators"][0]["time_p50_us"]) >= FIGURE
    assert sum(item["share"] for item in document["operators"]) == pytest.approx(1.0)
    assert document["operators"][0]["flops"] == 2 * 64 * 3 + 3
    assert document["ceilings"]["compute_gflop_per_s"]["value"] > 0
    assert document["bottlenecks"][0]["remedies"] or document["bottlenecks"][0]["no_remedy_reason"]
    assert (document["page"], document["shapes"]) == (None, {"x": [1, 64]})


def test_people_read_a_table_and_get_a_page_and_a_trace(make_linear: Make, data: Path, tmp_path: Path) -> None:
    page, trace = tmp_path / "new" / "p.html", tmp_path / "t.json"
    said = profile(
        make_linear(features=64), "--data", data, "--threads", "1", "--engine", "openvino", "--out", page,
        "--trace", trace,
    ).stdout  # fmt: skip
    assert "bottleneck" in said and "ceilings" in said and f"page: {page}" in said
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_bundle_is_profiled_as_it_serves_on_its_golden_samples(small_bundle: Path) -> None:
    document = json.loads(profile(small_bundle, "--json").stdout)
    assert document["engine"] == "openvino"
    assert document["model"].startswith(str(small_bundle))
    assert document["operators"]


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (["none.onnx", "--data", "d.npz"], "none.onnx does not exist", 2),
        (["m.onnx"], "No data was given", 2),
        (["m.onnx", "--data", "none.npz"], "none.npz", 2),
        (["m.onnx", "--data", "wide.npz"], "does not fit the model", 2),
        (["m.onnx", "--data", "d.npz", "--engine", "nothing"], "There is no engine called 'nothing'", 2),
        (["m.onnx", "--data", "d.npz", "--engine", "litert"], "does not load onnx models", 2),
        (["m.onnx", "--data", "d.npz", "--out", "d.npz/p.html"], "cannot be written", 2),
        (["m.onnx", "--data", "d.npz", "--trace", "."], "Choose another --trace", 2),
        (["zoo:nothing"], "Choose one of: ppocr-rec", 2),
    ],
)
def test_bad_input_is_one_clear_error_before_anything_is_written(
    make_linear: Make,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
    status: int,
) -> None:
    make_linear("m.onnx", features=64)
    np.savez(tmp_path / "wide.npz", x=np.ones((50, 9), np.float32))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    done = profile(*words, status=status)
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1
    assert message in done.stderr
    assert set(tmp_path.iterdir()) == before


def test_an_engine_that_is_not_installed_says_what_to_type(
    make_linear: Make, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hasten.engine.base import engines
    from hasten.registry import Entry

    absent = Entry(name="openvino", target="nowhere:X", requires="no_such_package", extra="openvino")
    monkeypatch.setitem(engines._entries, "openvino", absent)
    monkeypatch.delitem(engines._made, "openvino", raising=False)
    done = profile(make_linear(features=64), "--data", data, "--engine", "openvino", status=3)
    assert "pip install 'hasten[openvino]'" in done.stderr


def test_an_interruption_leaves_no_page_and_no_worker(
    make_linear: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure", interrupted)
    profile(make_linear(features=64), "--data", data, "--out", tmp_path / "p.html", status=130)
    assert not (tmp_path / "p.html").exists()
    assert not [child for child in psutil.Process().children() if "hasten.engine.worker" in " ".join(child.cmdline())]
