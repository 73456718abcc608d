"""`hasten inspect` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper, parser
from tests.engine.tflite import fully_connected

from hasten.cli.inspect import command

Make = Callable[..., Path]

KEYS = [
    "schema", "model", "format", "sha256", "signature", "opset", "bytes", "bytes_by_weight_type", "parameters",
    "operators", "macs", "macs_uncounted_operators", "macs_at", "flops", "flops_elementwise", "uncounted_operators",
    "activation_bytes_estimated", "limits", "findings",
]  # fmt: skip


def inspect(*words: str | Path, status: int = 0) -> Result:
    done = CliRunner().invoke(command, list(map(str, words)))
    assert done.exit_code == status, done.output
    return done


def test_json_has_every_key_and_counts_at_the_given_sizes(make_linear: Make) -> None:
    document = json.loads(inspect(make_linear(), "--dim", "batch=8", "--json").stdout)
    assert list(document) == KEYS
    assert (document["macs"], document["flops"], document["macs_at"]) == (96, 216, {"x[0]": 8})
    assert document["bytes_by_weight_type"] == {"FLOAT": 60}
    assert document["format"] == "onnx"


def test_each_finding_has_all_its_keys(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 9]> g (float[N, 4] x) => (float[N, 4] y) { h = Exp(x) y = Relu(x) }'
    onnx.save(parser.parse_model(text), str(tmp_path / "m.onnx"))
    first, second = json.loads(inspect(tmp_path / "m.onnx", "--json").stdout)["findings"]
    assert list(first) == ["code", "level", "message", "remedy", "transform", "nodes", "count"]
    assert (first["code"], first["level"], first["transform"]) == ("old-opset", "warning", "raise_opset")
    assert (second["code"], second["level"], second["nodes"]) == ("dead-nodes", "note", ["Exp → h"])


def test_people_read_sizes_work_and_findings(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 64] x) => (float[N, 64] y) '
        "{ h = MatMul(x, V) y = MatMul(h, W) }"
    )
    proto.graph.initializer.extend(numpy_helper.from_array(np.ones((64, 64), np.float32), name) for name in "VW")
    onnx.save(proto, str(tmp_path / "m.onnx"))
    said = inspect(tmp_path / "m.onnx", "--dim", "N=1000").stdout
    assert "parameters   8,192" in said
    assert "8.2 million multiply-accumulates" in said
    assert "(estimated)" in said
    assert "duplicated-initializers: 1 initializer repeats another's values: 0.0164 MB stored twice. At: W." in said
    assert "(transform deduplicate)" in said


def tflite(folder: Path, onnx_file: Path) -> Path:
    return fully_connected(folder / "m.tflite", np.ones((4, 3), np.float32), np.zeros(3, np.float32))


def intermediate(folder: Path, onnx_file: Path) -> Path:
    import openvino

    openvino.save_model(openvino.Core().read_model(str(onnx_file)), str(folder / "m.xml"), compress_to_fp16=False)
    return folder / "m.xml"


def program(folder: Path, onnx_file: Path) -> Path:
    import torch

    torch.export.save(torch.export.export(torch.nn.Linear(4, 3).eval(), (torch.ones(2, 4),)), str(folder / "m.pt2"))
    return folder / "m.pt2"


@pytest.mark.filterwarnings("ignore")  # the libraries that make these files warn about themselves
@pytest.mark.parametrize(("make", "kind"), [(tflite, "tflite"), (intermediate, "openvino"), (program, "torch")])
def test_other_formats_show_what_they_say_and_what_is_not_counted(
    make: Callable[[Path, Path], Path], kind: str, tmp_path: Path, make_linear: Make
) -> None:
    path = make(tmp_path, make_linear())
    document = json.loads(inspect(path, "--json").stdout)
    assert list(document) == KEYS
    assert (document["format"], document["parameters"]) == (kind, 15)
    assert document["signature"]["inputs"][0]["shape"][-1] == 4
    assert sum(document["operators"].values()) >= 1
    assert (document["macs"], document["flops"], document["bytes_by_weight_type"]) == (None, None, None)
    assert f"not counted in {kind} files" in document["limits"][0]
    assert "not counted" in inspect(path).stdout


def test_a_wrong_dim_is_one_clear_error(make_linear: Make) -> None:
    assert "is not NAME=SIZE" in inspect(make_linear(), "--dim", "batch", status=2).stderr
    assert "Its free dimensions: batch, x[0]" in inspect(make_linear(), "--dim", "n=2", status=2).stderr
