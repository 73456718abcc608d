"""On awkward models each technique gives a model that keeps its promise, or one sentence that says why it does not."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from hasten.errors import MissingError
from hasten.model.open import open_model
from hasten.transform.base import Transform, TransformFailed, transforms
from hasten.transform.numerics import answers_of, compare

# In a process of their own, as in the product, libraries may warn as they like.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Keep what the libraries hold out of the collections that follow each comparison: they are most of the time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("technique", transforms.names())
def test_it_keeps_its_promise_or_says_why_not(awkward: Any, technique: str, tmp_path: Path) -> None:
    samples, folder = awkward.data.subset(range(8)), tmp_path / "out"
    folder.mkdir()
    try:
        transform: Transform = transforms.get(technique)
        model, _ = transform.run(awkward.path, folder, samples, transform.defaults)
    except (TransformFailed, MissingError) as error:
        assert len(error.message.split()) > 3, error.message
        assert "Traceback" not in error.message
        assert list(folder.iterdir()) == []
        return
    before, after = open_model(awkward.path), open_model(model)
    if after.format == "onnx":
        onnx.checker.check_model(str(model))
    wanted = answers_of(before, samples, lambda sample: sample)
    got = answers_of(after, samples, lambda sample: transform.adapt(sample, transform.defaults), transform.runs_in)
    assert compare(wanted, got, transform.promise)[1] is None
    assert all(path.parent == model.parent for path in after.files())


def test_a_model_that_the_engine_refuses_is_a_reason_and_no_crash(one_name: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TransformFailed, match=r"fold failed: .*name"):
        transforms.get("fold").run(one_name.path, tmp_path / "out", one_name.data.subset(range(4)), {})
