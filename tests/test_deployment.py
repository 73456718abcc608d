"""The real server, rehearsed: started as users start it, put under load, and gone afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.deployment import RealDeployer, served
from hasten.errors import EngineError
from hasten.optimize.run import Job, run
from hasten.spec.slo import Goal, Slo

Make = Callable[..., Path]


@pytest.mark.slow
def test_the_reference_of_a_tiny_model_is_rehearsed_at_the_load_that_was_asked_for(
    make_linear: Make, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    goal = Goal(slo=Slo(accuracy_drop_max=0.05, throughput_rps=70))
    job = Job(
        model=make_linear("model.onnx"),
        data=Dataset(inputs={"x": x}),
        goal=goal,
        out=tmp_path / "out.bundle",
        name="linear",
        render=lambda record: "",
        budget_s=10.0,
        deployer=RealDeployer(),
        probe=list,
    )
    record = run(job).record
    [deployment] = record.deployments
    assert deployment.rehearsed is not None
    assert deployment.rehearsed.load_rps == 70
    assert deployment.rehearsed.failed == 0
    assert deployment.predicted.latency_p50_ms.value is not None
    assert {prediction.load_rps for _, prediction in deployment.considered} == {70}
    checks = {check.objective for check in record.reference.checks}
    assert "throughput_rps" in checks


def test_what_is_no_bundle_does_not_start_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"), served(tmp_path / "nothing"):
        pass
