"""`hasten inspect` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner, Result
from onnx import numpy_helper, parser

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


def test_a_wrong_dim_is_one_clear_error(make_linear: Make) -> None:
    assert "is not NAME=SIZE" in inspect(make_linear(), "--dim", "batch", status=2).stderr
    assert "Its free dimensions: batch, x[0]" in inspect(make_linear(), "--dim", "n=2", status=2).stderr
