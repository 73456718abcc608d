"""Awkward models go through a whole optimization on real engines, to a verdict with reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hasten.engine.base import Probe, engines
from hasten.errors import HastenError
from hasten.optimize.run import Job, Outcome, run
from hasten.spec.slo import Goal, Slo

# One candidate or two for each engine are enough to see that nothing falls over.
ENGINES = ("onnxruntime", "openvino")


def few() -> list[Probe]:
    """The engines with their CPU in f32 only."""
    probes: list[Probe] = []
    for name in ENGINES:
        found = engines.get(name).probe()
        [cpu] = [device for device in found.devices if device.name == "CPU"]
        plain = type(cpu)(name="CPU", hardware="CPU", detail=cpu.detail, precisions=("f32",))
        probes.append(Probe(engine=name, version=found.version, devices=(plain,)))
    return probes


def optimized(made: Any, out: Path) -> Outcome:
    return run(
        Job(
            model=made.path,
            data=made.data,
            goal=Goal(slo=Slo(accuracy_drop_max=0.5)),
            out=out,
            name="awkward",
            render=lambda record: f"<p>{record.verdict}</p>",
            budget_s=2.0,
            probe=few,
            cores_given=lambda: 99.0,
        )
    )


@pytest.mark.slow
def test_it_ends_in_a_verdict_with_reasons(awkward: Any, tmp_path: Path) -> None:
    outcome = optimized(awkward, tmp_path / "b")
    assert outcome.record.verdict in ("accepted", "keep_reference", "infeasible")
    assert all(len(item.reason.split()) > 2 for item in outcome.record.rejected)
    assert outcome.report.exists()


@pytest.mark.slow
def test_three_gigabytes_of_weights_end_in_a_verdict(giant: Any, tmp_path: Path) -> None:
    assert optimized(giant, tmp_path / "b").record.verdict in ("accepted", "keep_reference")


def test_a_model_that_the_reference_engine_refuses_ends_with_its_words(one_name: Any, tmp_path: Path) -> None:
    with pytest.raises(HastenError, match="name") as caught:
        optimized(one_name, tmp_path / "b")
    assert caught.value.remedy
    assert not (tmp_path / "b").exists()
