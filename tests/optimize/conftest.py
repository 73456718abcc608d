"""A whole optimization in milliseconds: fake arms with made-up speed and answers, a real model file, real splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.engine.base import Device, Probe
from hasten.model.open import open_model
from hasten.optimize.run import Job
from hasten.spec.slo import Goal, Slo
from hasten.spec.variant import Step
from hasten.testing import FakeArm, FakeLoader
from hasten.transform.base import TransformFailed

CLASSES = 3


def probes() -> list[Probe]:
    cpu = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32", "bf16"))
    return [Probe(engine="openvino", version="1", devices=(cpu,))]


def truth(x: np.ndarray) -> np.ndarray:
    """The right class of each row is where its largest feature is."""
    return x[:, :CLASSES].argmax(1)


def answering(wrong_share: float) -> Callable[[Any], dict[str, np.ndarray]]:
    """Answer right but for a share of samples, chosen by the sample's own content."""

    def answer(inputs: Any) -> dict[str, np.ndarray]:
        x = inputs["x"]
        right = truth(x)
        wrong = (np.abs(x[:, 3]) * 1e4 % 1000) < wrong_share * 1000
        return {"y": np.eye(CLASSES, dtype=np.float32)[np.where(wrong, (right + 1) % CLASSES, right)]}

    return answer


def nothing_applies(step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float = 9.0) -> Any:
    """Recipes are for other tests: here no technique applies to the model."""
    raise TransformFailed(f"{step.transform} does not apply: this world has no techniques.")


@pytest.fixture
def dataset() -> Dataset:
    x = np.random.default_rng(0).normal(size=(900, 4)).astype(np.float32)
    return Dataset(inputs={"x": x}, labels=truth(x), name="rows")


@pytest.fixture
def make_job(tmp_path: Path, make_linear: Callable[..., Path], dataset: Dataset) -> Callable[..., Job]:
    """A job whose candidates are openvino f32 and bf16 on one and two threads; `arms` overrides (ms, wrong share)."""

    def make(arms: dict[tuple[str, str, int], Any] | None = None, **options: Any) -> Job:
        path = make_linear("model.onnx")
        signature = open_model(path).signature
        table: dict[tuple[str, str, int], Any] = {
            ("onnxruntime", "f32", 0): (10.0, 0.0),
            ("onnxruntime", "f32", 1): (14.0, 0.0),
            ("openvino", "f32", 1): (12.0, 0.0),
            ("openvino", "f32", 2): (7.0, 0.0),
            ("openvino", "bf16", 1): (6.0, 0.0),
            ("openvino", "bf16", 2): (4.0, 0.0),
            **(arms or {}),
        }

        def factory(ms: float, wrong: float) -> Callable[[], FakeArm]:
            return lambda: FakeArm(signature, answering(wrong), ms=ms, seed=int(ms * 10))

        loader = FakeLoader({k: factory(*v) if isinstance(v, tuple) else v for k, v in table.items()})
        defaults: dict[str, Any] = {
            "model": path,
            "data": dataset,
            "goal": Goal(slo=Slo(accuracy_drop_max=0.02)),
            "out": tmp_path / "out.bundle",
            "name": "linear",
            "render": lambda record: f"<p>{record.verdict}</p>",
            "loader": loader,
            "probe": probes,
            "apply": nothing_applies,
            "cores_given": lambda: 99.0,
        }
        return Job(**{**defaults, **options})

    return make


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans and forecasts depend on the machine; these tests mean one of two cores without special instructions."""
    import msgspec

    from hasten.engine.host import environment
    from hasten.optimize import forecast, plan

    two = msgspec.structs.replace(environment(), cores_logical=2, cores_physical=2, features=("avx2",))
    for module in (plan, forecast):
        monkeypatch.setattr(module, "environment", lambda: two)
