"""What a user may name to be profiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.engine.tflite import fully_connected

from hasten.data import Dataset
from hasten.errors import DataError, UsageError
from hasten.profile.subject import Wish, open_subject, typical

DATA = Dataset(inputs={"x": np.ones((20, 4), np.float32)})


def tflite(folder: Path) -> Path:
    return fully_connected(folder / "m.tflite", np.ones((4, 3), np.float32), np.zeros(3, np.float32))


def test_where_the_usual_engine_has_no_profiler_another_takes_over_and_says_so(tmp_path: Path) -> None:
    subject = open_subject(str(tflite(tmp_path)), DATA, Wish())
    assert subject.target.engine == "openvino"
    assert "Profiled on openvino instead." in subject.notes[0]


def test_an_engine_without_a_profiler_that_was_asked_for_is_refused_with_a_choice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not give the times of operators") as caught:
        open_subject(str(tflite(tmp_path)), DATA, Wish(engine="litert"))
    assert "--engine openvino" in caught.value.remedy


def test_an_engine_that_does_not_load_the_format_is_refused(make_linear: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="torch does not load onnx") as caught:
        open_subject(str(make_linear()), DATA, Wish(engine="torch"))
    assert "--engine onnxruntime or openvino" in caught.value.remedy


def test_a_model_without_data_is_refused(make_linear: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="No data was given"):
        open_subject(str(make_linear()), None, Wish())


def test_a_sample_that_does_not_fit_is_named(make_linear: Callable[..., Path]) -> None:
    subject = open_subject(str(make_linear()), Dataset(inputs={"x": np.ones((20, 5), np.float32)}), Wish())
    with pytest.raises(DataError, match="Sample 0 of 'data' does not fit"):
        subject.supply(subject.model.signature)


def test_a_bundle_stands_for_its_picked_variant_with_its_golden_samples(small_bundle: Path) -> None:
    subject = open_subject(str(small_bundle), None, Wish(threads=1))
    assert (subject.target.engine, subject.target.threads) == ("openvino", 1)
    assert len(subject.supply(subject.model.signature)) > 0


def test_another_engine_for_a_bundle_leaves_the_picked_ones_settings_behind(small_bundle: Path) -> None:
    subject = open_subject(str(small_bundle), None, Wish(engine="onnxruntime"))
    assert (subject.target.engine, subject.target.options) == ("onnxruntime", {})


def test_samples_of_the_usual_size_are_taken() -> None:
    samples = [{"x": np.zeros((1, length), np.float32)} for length in (3, 8, 8, 5, 90, 8, 200)]
    assert [sample["x"].shape for sample in typical(samples)] == [(1, 8)] * 3
