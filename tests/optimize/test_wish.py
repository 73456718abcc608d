"""From a wish to a variant: what applies is built, what does not is left out with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.optimize.build import Builder
from hasten.optimize.wish import Want, Wish, compose
from hasten.spec.applied import Applied
from hasten.spec.target import Target
from hasten.spec.variant import Step
from hasten.transform.base import TransformFailed

CALLS: list[str] = []


def apply(step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float = 9.0) -> tuple[Path, Applied]:
    CALLS.append(step.transform)
    if step.transform in ("layout", "quantize_static"):
        (folder / "rubbish").write_text("half a model")
        raise TransformFailed(f"{step.transform} does not apply: nothing to do.")
    (folder / "model.onnx").write_bytes(source.read_bytes())
    return folder / "model.onnx", Applied(transform=step.transform, error=0.0)


@pytest.fixture
def builder(tmp_path: Path, make_linear: Callable[..., Path]) -> Builder:
    CALLS.clear()
    calibration = Dataset(inputs={"x": np.zeros((4, 4), np.float32)}).subset(range(4))
    return Builder(make_linear(), calibration, tmp_path / "work", apply)


def wish(*names: str, required: tuple[str, ...] = ()) -> Wish:
    wants = tuple(Want(step=Step(transform=name), required=name in required) for name in names)
    return Wish(id="graph", target=Target(engine="onnxruntime"), wants=wants)


def test_what_does_not_apply_is_left_out_and_the_rest_built_on_what_does(builder: Builder) -> None:
    made = compose(wish("fold", "layout", "fuse"), builder)
    assert [step.transform for step in made.variant.recipe] == ["fold", "fuse"]
    assert [item.transform for item in made.build.applied] == ["fold", "fuse"]
    assert [(item.transform, item.reason) for item in made.build.left_out] == [
        ("layout", "layout does not apply: nothing to do.")
    ]


def test_a_wish_fails_without_what_it_is_about(builder: Builder) -> None:
    with pytest.raises(TransformFailed, match="quantize_static does not apply"):
        compose(wish("fold", "quantize_static", required=("quantize_static",)), builder)


def test_equal_beginnings_are_built_once_and_failures_are_not_repeated(builder: Builder) -> None:
    compose(wish("fold", "layout", "fuse"), builder)
    compose(wish("fold", "layout", "deduplicate"), builder)
    assert CALLS == ["fold", "layout", "fuse", "deduplicate"]


def test_a_step_that_failed_leaves_no_file_behind(builder: Builder, tmp_path: Path) -> None:
    compose(wish("layout"), builder)
    assert [path for path in (tmp_path / "work").rglob("*") if path.name == "rubbish"] == []
    assert list((tmp_path / "work" / "models").iterdir()) == []


def test_another_builder_in_the_same_folder_finds_what_was_built(builder: Builder, tmp_path: Path) -> None:
    compose(wish("fold", "fuse"), builder)
    calibration = Dataset(inputs={"x": np.zeros((4, 4), np.float32)}).subset(range(4))
    again = Builder(builder._source, calibration, tmp_path / "work", apply)
    made = compose(wish("fold", "fuse"), again)
    assert CALLS == ["fold", "fuse"]
    assert [item.transform for item in made.build.applied] == ["fold", "fuse"]
