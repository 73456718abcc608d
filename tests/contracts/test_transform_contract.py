"""Every transform keeps its promise on a model that it applies to, and says why where it does not apply.

Each technique has a test module of its own name in `tests/transform`, whose function `subject(folder)` makes a small
model that the technique applies to and samples for it. That module tests what the technique is for; this one what all
must keep.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.spec.variant import Step
from hasten.transform.base import Transform, TransformFailed, transforms
from hasten.transform.isolate import apply_isolated
from hasten.transform.numerics import answers_of, compare, probes_for
from hasten.transform.samples import store

HERE = Path(__file__).parent.parent / "transform"
NAMES = transforms.names()
Subject = tuple[Path, Samples]
# What a technique gets where its own defaults would find nothing to do on a small model: read from its test module.
Make = Callable[[Path], Subject]


def module_of(name: str) -> Any:
    path = HERE / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"subject_of_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def transform(name: str) -> Transform:
    return transforms.get(name)


@pytest.fixture
def options(name: str) -> dict[str, Any]:
    return getattr(module_of(name), "OPTIONS", {})


@pytest.fixture
def subject(name: str, tmp_path: Path) -> Subject:
    module = module_of(name)
    # What a technique is for may be absent on this processor; its module knows.
    if getattr(module, "SKIP", ""):
        pytest.skip(module.SKIP)
    (tmp_path / "source").mkdir()
    return module.subject(tmp_path / "source")


def fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_every_technique_has_a_test_module_and_a_page(name: str) -> None:
    assert (HERE / f"test_{name}.py").is_file()
    page = HERE.parent.parent / "docs" / "techniques" / f"{name}.md"
    assert page.read_text().startswith(f"# {name}\n")


def test_the_result_is_valid_keeps_the_interface_and_its_promise(
    transform: Transform, options: dict[str, Any], subject: Subject, tmp_path: Path
) -> None:
    source, samples = subject
    model, applied = transform.run(source, fresh(tmp_path / "out"), samples, options)
    before, after = open_model(source), open_model(model)
    if after.format == "onnx":
        onnx.checker.check_model(str(model))
    if not transform.changes_interface:
        assert [(s.name, s.dtype) for s in after.signature.inputs] == [
            (s.name, s.dtype) for s in before.signature.inputs
        ]
    complete = {**transform.defaults, **options}
    probes = probes_for(transform.promised(complete))
    wanted = answers_of(before, samples, lambda sample: sample, probes=probes)
    got = answers_of(after, samples, lambda sample: transform.adapt(sample, complete), transform.runs_in, probes)
    error, problem = compare(wanted, got, transform.promise)
    assert problem is None
    assert error == applied.error
    assert applied.transform == transform.name


def test_the_same_recipe_gives_the_same_bytes_or_says_that_it_may_not(
    transform: Transform, options: dict[str, Any], subject: Subject, tmp_path: Path
) -> None:
    source, samples = subject
    results = [transform.run(source, fresh(tmp_path / place), samples, options) for place in ("a", "b")]
    if not transform.deterministic:
        assert all(applied.notes for _, applied in results), "a technique that is not deterministic says why"
        return
    first, second = ({path.name: path.read_bytes() for path in open_model(model).files()} for model, _ in results)
    assert first == second


def test_its_own_process_gives_the_same_model(
    name: str, transform: Transform, options: dict[str, Any], subject: Subject, tmp_path: Path
) -> None:
    source, samples = subject
    store(samples, tmp_path / "samples")
    here, applied = transform.run(source, fresh(tmp_path / "here"), samples, options)
    there, told = apply_isolated(
        Step(transform=name, options=options), source, fresh(tmp_path / "there"), tmp_path / "samples"
    )
    assert json.loads(json.dumps(told.operators_after)) == applied.operators_after
    assert there.name == here.name
    if transform.deterministic:
        assert there.read_bytes() == here.read_bytes()


def test_sites_that_the_recipe_names_are_left_alone(
    transform: Transform, options: dict[str, Any], subject: Subject, tmp_path: Path
) -> None:
    source, samples = subject
    sites = transform.sites(open_model(source), {**transform.defaults, **options})
    assert len(set(sites)) == len(sites)
    if len(sites) < 2:
        return
    _, applied = transform.run(source, fresh(tmp_path / "out"), samples, options, skip=sites[:1])
    assert [item.site for item in applied.skipped] == sites[:1]


def test_an_option_that_it_does_not_have_is_refused_by_name(
    transform: Transform, subject: Subject, tmp_path: Path
) -> None:
    source, samples = subject
    with pytest.raises(TransformFailed, match="has no option 'nonsense'"):
        transform.run(source, fresh(tmp_path / "out"), samples, {"nonsense": 1})
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_that_it_cannot_take_is_refused_with_a_reason(
    transform: Transform, name: str, tmp_path: Path, make_linear: Callable[..., Path]
) -> None:
    """Each module may offer `refused(folder)`: a model to which the technique does not apply."""
    module = module_of(name)
    if not hasattr(module, "refused"):
        pytest.skip("it takes every model")
    (tmp_path / "source").mkdir()
    source, samples = module.refused(tmp_path / "source")
    with pytest.raises(TransformFailed, match=f"{name} does not apply: .+"):
        transform.run(source, fresh(tmp_path / "out"), samples, getattr(module, "OPTIONS", {}))
    assert list((tmp_path / "out").iterdir()) == []
