"""A step in a process of its own: deaths, silence and errors come back as reasons; samples cross unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.transform.small_models import images, small_convolutions

from hasten.data import Dataset
from hasten.spec.variant import Step
from hasten.transform import isolate
from hasten.transform.base import TransformFailed
from hasten.transform.isolate import apply_isolated, errors_isolated
from hasten.transform.samples import MOST, StoredSamples, store

Make = Callable[..., Path]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    store(Dataset(inputs={"x": np.zeros((4, 4), np.float32)}).subset(range(4)), tmp_path / "samples")
    return tmp_path / "samples"


def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_step_gives_its_model_and_what_was_done(make_linear: Make, samples: Path, tmp_path: Path) -> None:
    model, applied = apply_isolated(Step(transform="fold"), make_linear(), out(tmp_path), samples)
    assert model.parent == tmp_path / "out"
    assert model.is_file()
    assert applied.transform == "fold"


def test_one_process_weighs_several_sets_of_sites_and_keeps_no_model(tmp_path: Path) -> None:
    source = small_convolutions(tmp_path / "m.onnx")
    store(images(), tmp_path / "images")
    step = Step(transform="quantize_static")
    both, first, least = errors_isolated(step, source, tmp_path / "images", [(), ("second",), ("first", "second")])
    assert both is not None and first is not None
    assert both > first > 0
    assert least is not None
    with pytest.raises(TransformFailed, match="does not apply"):
        errors_isolated(Step(transform="trim_padding"), source, tmp_path / "images", [()])


def test_an_error_of_the_step_is_raised_here_as_it_was(make_linear: Make, samples: Path, tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="fold has no option 'nonsense'"):
        apply_isolated(Step(transform="fold", options={"nonsense": 1}), make_linear(), out(tmp_path), samples)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"its process died \(SIGSEGV\)"),
        ("import sys; sys.exit('out of luck')", r"its process died \(exit status 1\). It last said: out of luck"),
    ],
)
def test_the_death_of_a_step_is_a_reason(
    code: str, words: str, make_linear: Make, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "COMMAND", ("-c", code))
    with pytest.raises(TransformFailed, match=words):
        apply_isolated(Step(transform="fold"), make_linear(), out(tmp_path), samples)


def test_a_step_that_never_answers_is_ended(
    make_linear: Make, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "COMMAND", ("-c", "import threading; threading.Event().wait()"))
    with pytest.raises(TransformFailed, match="took longer than 1 s and was ended"):
        apply_isolated(Step(transform="fold"), make_linear(), out(tmp_path), samples, timeout_s=1.0)


def test_samples_of_every_type_cross_unchanged(tmp_path: Path) -> None:
    words = np.array([b"one", b"", b"three\x00four"], dtype=object)
    rows = [
        {"f": np.float16([[1.5, -2.0]]), "i": np.int64(7), "s": words, "b": np.array([True, False])},
        {"f": np.zeros((0, 2), np.float16), "i": np.int64(-1), "s": words[:1], "b": np.array([], bool)},
    ]
    stored = store(Dataset(inputs=rows).subset([1, 0]), tmp_path / "samples")
    assert len(stored) == 2
    for position, row in enumerate(reversed(rows)):
        got = stored.inputs(position)
        for name, array in row.items():
            assert got[name].dtype == np.asarray(array).dtype
            np.testing.assert_array_equal(got[name], array)


def test_no_more_samples_are_kept_than_calibration_can_use(tmp_path: Path) -> None:
    many = Dataset(inputs={"x": np.zeros((MOST + 50, 1), np.float32)})
    assert len(store(many.subset(range(MOST + 50)), tmp_path / "samples")) == MOST
    assert len(StoredSamples(tmp_path / "samples")) == MOST
