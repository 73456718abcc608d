"""Which few lengths deserve a graph of their own follows from the samples for calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from hasten.data.dataset import Arrays
from hasten.model.base import Model
from hasten.model.open import open_model
from hasten.optimize.lengths import lengths_for


class Texts:
    """Texts that hold so many tokens, sent with so many positions."""

    def __init__(self, held: Sequence[int], sent: int = 0, *, left: bool = False) -> None:
        self._held, self._sent, self._left = held, sent, left

    def __len__(self) -> int:
        return len(self._held)

    def inputs(self, position: int, /) -> Arrays:
        held = self._held[position]
        mask = (np.arange(self._sent or held) < held).astype(np.int64)
        return {"ids": np.ones_like(mask), "mask": mask[::-1].copy() if self._left else mask}


def model(folder: Path, text: str) -> Model:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}'), str(folder / "m.onnx"))
    return open_model(folder / "m.onnx")


SUM = "{ a = Add(ids, mask) i = Constant<value = int64[1] {1}>() y = ReduceSum(a, i) }"


@pytest.fixture
def text(tmp_path: Path) -> Model:
    return model(tmp_path, f"(int64[n, s] ids, int64[n, s] mask) => (int64[n, 1] y) {SUM}")


def test_lengths_are_those_of_the_text_whether_it_is_padded_or_not(text: Model) -> None:
    held = [3, 5, 9, 16, 40]
    assert lengths_for(text, Texts(held)) == (4, 8, 12, 16, 40)
    assert lengths_for(text, Texts(held, sent=128)) == (4, 8, 12, 16, 40)


def test_there_are_eight_at_the_most_and_the_longest_text_fits(text: Model) -> None:
    found = lengths_for(text, Texts(range(1, 121)))
    assert len(found) == 8
    assert found[-1] == 120


def test_padding_before_the_text_is_no_padding_to_cut(text: Model) -> None:
    assert lengths_for(text, Texts([3, 5], sent=8, left=True)) == ()


def test_without_samples_there_are_none(text: Model) -> None:
    assert lengths_for(text, Texts([])) == ()


@pytest.mark.parametrize(
    "interface",
    [
        "(int64[n, 8] ids, int64[n, 8] mask) => (int64[n, 1] y)",
        "(int64[n, s] ids, int64[n, s] kind) => (int64[n, 1] y)",
    ],
    ids=["fixed", "no mask"],
)
def test_other_models_have_none(tmp_path: Path, interface: str) -> None:
    body = SUM.replace("mask", "kind") if "kind" in interface else SUM
    assert lengths_for(model(tmp_path, f"{interface} {body}"), Texts([3, 5])) == ()
