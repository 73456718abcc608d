"""A third party's package adds an engine and a transform by entry points, and a broken one costs only itself."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from hasten.data import Dataset
from hasten.transform.samples import store

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
MODULE = EXAMPLE / "hasten_example_plugin.py"
Make = Callable[..., Path]


def install(folder: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """What an installer writes for a package that is one module: metadata and entry points."""
    info = folder / f"{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) for group, rows in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in which the example is installed, without network or build tools."""
    folder = tmp_path / "site"
    folder.mkdir()
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(folder, project["name"].replace("-", "_"), project["entry-points"])
    shutil.copy(MODULE, folder)
    return folder


def python(site: Path, *words: str, cwd: Path) -> str:
    places = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=cwd, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_is_forty_lines_of_code() -> None:
    source = MODULE.read_text()
    texts = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef) and ast.get_docstring(node)
        for number in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    assert sum(1 for n, line in lines if line.strip() and not line.startswith("#") and n not in texts) <= 40


def test_devices_shows_the_engine_of_a_plugin(site: Path, tmp_path: Path) -> None:
    document = json.loads(python(site, "-m", "hasten.cli", "devices", "--json", cwd=tmp_path))
    [row] = [row for row in document["devices"] if (row["engine"] or "").startswith("onnx-reference")]
    assert (row["class"], row["state"], row["precisions"]) == ("CPU", "available", ["f32"])


def test_the_engine_of_a_plugin_keeps_the_basic_promises_in_a_process_of_its_own(
    site: Path, tmp_path: Path, make_linear: Make
) -> None:
    make_linear("m.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:-20])
    code = """
import json
from pathlib import Path
import numpy as np
from hasten.engine.isolate import load_isolated
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.target import Runtime, Target

def refused(call, kind):
    try:
        call()
    except kind as error:
        return error.message
    raise SystemExit(f"no {kind.__name__}")

x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
target = Target(engine="onnx-reference")
usual_target = Target(engine="onnxruntime")
with load_isolated(Path("m.onnx"), target) as ours, load_isolated(Path("m.onnx"), usual_target) as usual:
    together = ours.run({"x": x})["y"]
    alone = np.concatenate([ours.run({"x": x[i : i + 1]})["y"] for i in range(5)])
    wrong = refused(lambda: ours.run({"x": x[:, :3]}), EngineRunError)
    print(json.dumps({
        "signature": [str(s) for s in (*ours.signature.inputs, *ours.signature.outputs)],
        "precision": ours.precision,
        "like the usual engine": bool(np.allclose(together, usual.run({"x": x})["y"], rtol=1e-4, atol=1e-5)),
        "row by row": bool(np.allclose(together, alone, rtol=1e-5, atol=1e-6)),
        "lives on": ours.run({"x": x})["y"].shape,
        "wrong": wrong,
        "cut": refused(lambda: load_isolated(Path("cut.onnx"), target), EngineLoadError),
        "knob": refused(lambda: load_isolated(Path("m.onnx"), Target(engine="onnx-reference",
                                                                     runtime=Runtime(arena=False))), EngineLoadError),
    }))
"""
    said = json.loads(python(site, "-c", code, cwd=tmp_path))
    assert said["signature"] == ["x: FP32[batch, 4]", "y: FP32[batch, 3]"]
    assert (said["precision"], said["like the usual engine"], said["row by row"]) == ("f32", True, True)
    assert said["lives on"] == [5, 3]
    assert said["wrong"].startswith("onnx-reference failed: ")
    assert said["cut"].startswith("onnx-reference refused cut.onnx: ")
    assert said["knob"] == "onnx-reference has no runtime knob 'arena'."


def test_the_transform_of_a_plugin_runs_in_a_process_of_its_own(site: Path, tmp_path: Path, make_linear: Make) -> None:
    traced = onnx.load(make_linear("m.onnx"))
    for node in traced.graph.node:
        node.doc_string = "File /home/someone/secret.py, line 7"
    onnx.save(traced, str(tmp_path / "m.onnx"))
    store(Dataset(inputs={"x": np.ones((4, 4), np.float32)}).subset(range(4)), tmp_path / "samples")
    (tmp_path / "out").mkdir()
    code = """
from pathlib import Path
from hasten.spec.variant import Step
from hasten.transform.isolate import apply_isolated
model, applied = apply_isolated(Step(transform="strip_traces"), Path("m.onnx"), Path("out"), Path("samples"))
print(model, applied.transform, applied.error)
"""
    assert python(site, "-c", code, cwd=tmp_path).split() == ["out/model.onnx", "strip_traces", "0.0"]
    assert b"secret.py" in (tmp_path / "m.onnx").read_bytes()
    assert b"secret.py" not in (tmp_path / "out" / "model.onnx").read_bytes()


def test_a_broken_plugin_is_a_row_with_its_error_and_hasten_goes_on(
    site: Path, tmp_path: Path, make_linear: Make
) -> None:
    make_linear("m.onnx")
    points = {"hasten.engine": {"broken": "broken_plugin:Engine"}, "hasten.transform": {"gone": "nowhere:Transform"}}
    install(site, "broken_plugin", points)
    (site / "broken_plugin.py").write_text("import a_package_that_nobody_has\n")
    rows = json.loads(python(site, "-m", "hasten.cli", "devices", "--json", cwd=tmp_path))["devices"]
    [broken] = [row for row in rows if row["engine"] == "broken"]
    assert broken["state"] == "not available"
    assert "ModuleNotFoundError: No module named 'a_package_that_nobody_has'" in broken["reason"]
    assert "broken_plugin:Engine" in broken["remedy"]
    assert any((row["engine"] or "").startswith("onnxruntime") and row["state"] == "available" for row in rows)
    code = """
from hasten.model.open import open_model
from hasten.optimize.plan import plan, probe_all
planned, impossible = plan(open_model("m.onnx"), probe_all())
assert planned
print({item.reason for item in impossible if item.variant.target.engine == "broken"} or "-")
from hasten.errors import MissingError
from hasten.transform.base import transforms
try:
    transforms.get("gone")
except MissingError as error:
    print(error.message)
"""
    assert "The transform 'gone' cannot be loaded" in python(site, "-c", code, cwd=tmp_path)
