"""OpenVINO's format is read without being run; entities, missing weights and damage are refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from hasten.engine.base import engines
from hasten.errors import ModelError
from hasten.model.open import open_model
from hasten.spec.target import Target

Make = Callable[..., Path]


@pytest.fixture
def ir(tmp_path: Path, make_linear: Make) -> Path:
    ov.save_model(ov.Core().read_model(str(make_linear())), str(tmp_path / "model.xml"), compress_to_fp16=False)
    return tmp_path / "model.xml"


def test_it_says_the_same_as_the_engine_that_loads_it(ir: Path) -> None:
    model = open_model(ir)
    session = engines.get("openvino").load(ir, Target(engine="openvino"))
    assert model.format == "openvino"
    assert model.signature == session.signature
    assert model.operators() == {"MatMul": 1, "Add": 1}
    assert model.parameters() == 15
    assert [path.name for path in model.files()] == ["model.xml", "model.bin"]
    assert model.bytes_on_disk == sum(path.stat().st_size for path in model.files())


def test_other_weights_are_another_model(ir: Path) -> None:
    before = open_model(ir).digest
    weights = bytearray(ir.with_suffix(".bin").read_bytes())
    weights[0] ^= 1
    ir.with_suffix(".bin").write_bytes(bytes(weights))
    assert open_model(ir).digest != before


@pytest.mark.parametrize("keep", [0, 20])
def test_missing_or_short_weights_are_told(keep: int, ir: Path) -> None:
    weights = ir.with_suffix(".bin")
    raw = weights.read_bytes()[:keep]
    weights.unlink()
    if keep:
        weights.write_bytes(raw)
    with pytest.raises(ModelError, match=r"model\.bin is (missing|too short)"):
        open_model(ir)


def test_entities_are_refused_before_they_are_expanded(ir: Path) -> None:
    laughs = '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    ir.write_text(laughs + ir.read_text().partition("?>")[2])
    with pytest.raises(ModelError, match="declares XML entities"):
        open_model(ir)


def test_a_link_in_place_of_the_weights_is_refused(ir: Path, tmp_path: Path) -> None:
    weights = ir.with_suffix(".bin")
    (tmp_path / "elsewhere").mkdir()
    weights.rename(tmp_path / "elsewhere" / "w")
    weights.symlink_to(tmp_path / "elsewhere" / "w")
    with pytest.raises(ModelError, match="is a link"):
        open_model(ir)


def test_an_operator_of_an_extension_is_refused_by_name(ir: Path) -> None:
    ir.write_text(ir.read_text().replace('type="MatMul" version="opset1"', 'type="Mystery" version="mine"'))
    with pytest.raises(ModelError, match="the operator 'Mystery' of 'mine'"):
        open_model(ir)


def test_a_file_cut_anywhere_is_refused(ir: Path) -> None:
    raw = ir.read_bytes()
    for cut in np.linspace(30, len(raw) - 20, 16).astype(int):
        ir.write_bytes(raw[:cut])
        with pytest.raises(ModelError):
            open_model(ir)


def test_xml_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.xml").write_text("<?xml version='1.0'?><html/>")
    with pytest.raises(ModelError, match="no network of version"):
        open_model(tmp_path / "page.xml")
