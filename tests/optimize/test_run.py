"""The main job, with made-up arms: what is picked, what is claimed, what is refused, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.bundle.read import open_bundle
from hasten.data import Dataset
from hasten.data.dataset import Subset
from hasten.data.split import split
from hasten.engine.base import Device, Probe
from hasten.errors import BundleError, DataError, EngineCrashed, ModelError, UsageError
from hasten.model.open import open_model
from hasten.optimize.run import Job, run
from hasten.spec.applied import Applied
from hasten.spec.progress import Progress
from hasten.spec.slo import Goal, Objective, Slo
from hasten.spec.variant import Step
from hasten.testing import FakeArm, ManualClock
from hasten.transform.base import TransformFailed

Make = Callable[..., Job]
pytestmark = pytest.mark.usefixtures("two_cores")


def test_the_fastest_safe_candidate_is_picked_claimed_and_packed(make_job: Make) -> None:
    outcome = run(make_job())
    assert outcome.record.verdict == "accepted"
    assert outcome.record.picked == "openvino-bf16-2t"
    assert outcome.record.ladder == ("openvino-bf16-2t", "openvino-f32-2t", "reference"), "f32 is looked for, too"
    bundle = open_bundle(outcome.bundle)  # type: ignore[arg-type]
    bundle.require_servable()
    speedup = bundle.evidence("openvino-bf16-2t").measurement.speedup
    assert speedup.low is not None
    assert speedup.low < 2.5 < speedup.high  # type: ignore[operator]


def test_a_fast_candidate_that_answers_wrong_is_refused_and_its_story_told(make_job: Make) -> None:
    broken = {("openvino", "bf16", n): (3.0, 0.3) for n in (1, 2)}
    record = run(make_job(broken)).record
    assert record.picked == "openvino-f32-2t"
    [reason] = [r.reason for r in record.rejected if r.variant.id == "openvino-bf16-2t"]
    assert "top1 drops by" in reason
    assert any(story.variant == "openvino-bf16-2t" for story in record.stories)


def test_where_nothing_is_faster_the_reference_is_kept(make_job: Make) -> None:
    slow = {("openvino", p, n): (15.0, 0.0) for p in ("f32", "bf16") for n in (1, 2)}
    outcome = run(make_job(slow))
    assert outcome.record.verdict == "keep_reference"
    assert open_bundle(outcome.bundle).manifest.ladder == ("reference",)  # type: ignore[arg-type]


def test_objectives_that_nothing_meets_are_infeasible_and_leave_a_report_but_no_bundle(make_job: Make) -> None:
    outcome = run(make_job(goal=Goal(slo=Slo(latency_p50_ms=1.0))))
    assert outcome.record.verdict == "infeasible"
    assert outcome.bundle is None
    assert outcome.report.read_text() == "<p>infeasible</p>"
    assert "latency_p50_ms is" in outcome.record.summary


def test_memory_can_be_what_is_minimized(make_job: Make) -> None:
    outcome = run(make_job(goal=Goal(objective=Objective(minimize="memory_mb"))))
    assert outcome.record.verdict in ("accepted", "keep_reference")


def test_a_candidate_whose_engine_crashes_costs_only_itself(make_job: Make) -> None:
    record = run(make_job({("openvino", "bf16", 2): EngineCrashed("It died (SIGSEGV).")})).record
    assert record.verdict == "accepted"
    assert record.picked == "openvino-bf16-1t"
    [rejection] = [r for r in record.rejected if r.variant.id == "openvino-bf16-2t"]
    assert rejection.stage == "run"
    assert "SIGSEGV" in rejection.reason


def quantizing(
    step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float = 9.0
) -> tuple[Path, Applied]:
    """Every quantizer applies and leaves the file as it is; the fake arms tell what it does to answers."""
    if not step.transform.startswith("quantize"):
        raise TransformFailed(f"{step.transform} does not apply: nothing to do.")
    (folder / "model.onnx").write_bytes(source.read_bytes())
    return folder / "model.onnx", Applied(transform=step.transform)


def test_a_mix_that_cannot_be_built_costs_only_itself(make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from hasten.optimize.races import Races

    def broken(self: Races, step: Step, before: tuple[Step, ...]) -> list[str]:
        raise EngineCrashed("It died while it was mixed.")

    monkeypatch.setattr(Races, "sites", broken)
    cpu = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32", "bf16", "int8"))
    notes: list[str] = []
    record = run(
        make_job(
            {("openvino", "int8", threads): (1.0, 0.3) for threads in (1, 2)},
            apply=quantizing,
            probe=lambda: [Probe(engine="openvino", version="1", devices=(cpu,))],
            listener=lambda progress: notes.append(progress.note or ""),
        )
    ).record
    assert any("-mixed: It died while it was mixed." in note for note in notes)
    assert record.picked == "openvino-bf16-2t"


def test_bf16_that_is_fast_and_not_safe_is_mixed_with_f32(make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from hasten.optimize.chances import SecondChances

    mixed: list[str] = []
    monkeypatch.setattr(SecondChances, "_mixed", lambda self, tuned, trial, late: mixed.append(trial.variant.id))
    run(make_job({("openvino", "bf16", threads): (2.0, 0.3) for threads in (1, 2)}))
    assert any(id_.startswith("openvino-bf16") for id_ in mixed)


def test_a_mix_is_not_begun_where_its_builds_would_take_more_than_is_left(
    make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hasten.optimize.chances import SecondChances

    mixed: list[str] = []
    monkeypatch.setattr(SecondChances, "_mixed", lambda self, tuned, trial, late: mixed.append(trial.variant.id))
    clock = ManualClock()

    def slowly(step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float) -> tuple[Path, Applied]:
        clock.advance(25.0 if step.transform.startswith("quantize") else 0.0)
        return quantizing(step, source, folder, samples, timeout_s=timeout_s)

    cpu = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32", "bf16", "int8"))
    for budget_s, begun in ((180.0, False), (3000.0, True)):
        mixed.clear()
        run(
            make_job(
                {("openvino", "int8", threads): (1.0, 0.3) for threads in (1, 2)},
                apply=slowly,
                probe=lambda: [Probe(engine="openvino", version="1", devices=(cpu,))],
                budget_s=budget_s,
                clock=clock,
                overwrite=True,
            )
        )
        assert bool(mixed) is begun


def test_a_model_that_the_reference_cannot_run_is_bad_input(make_job: Make) -> None:
    with pytest.raises(ModelError, match="does not run on the reference engine: It died"):
        run(make_job({("onnxruntime", "f32", 0): EngineCrashed("It died.")}))


def test_transforms_are_given_calibration_samples_only(
    make_job: Make, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hasten.optimize import run as module

    given: list[Sequence[int]] = []

    class Spy(module.Builder):
        def __init__(self, source: Path, calibration: Subset, *rest: Any) -> None:
            given.append(calibration.indices)
            super().__init__(source, calibration, *rest)

    monkeypatch.setattr(module, "Builder", Spy)
    run(make_job())
    assert [set(indices) for indices in given] == [set(split(dataset).calibration.indices)]


def test_an_interrupted_run_resumes_with_its_finished_trials(make_job: Make) -> None:
    job = make_job()
    notes: list[str] = []

    def interrupt(progress: Progress) -> None:
        if progress.note:
            notes.append(progress.note)
        if len(notes) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_job(listener=interrupt))
    assert not job.out.exists()
    again = make_job(resume=True)
    outcome = run(again)
    assert outcome.record.verdict == "accepted"
    trials = [t for t in again.loader.loaded if t.engine == "openvino" and t.threads == 1 and t.precision == "f32"]  # type: ignore[attr-defined]
    assert trials == []
    assert [path.name for path in job.out.parent.iterdir() if path.name.startswith(".")] == []


def test_resuming_with_other_objectives_is_refused(make_job: Make) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_job(listener=interrupt))
    with pytest.raises(UsageError, match="Leave out --resume"):
        run(make_job(resume=True, goal=Goal(slo=Slo(accuracy_drop_max=0.5))))


def test_candidates_that_the_budget_does_not_reach_are_named(make_job: Make) -> None:
    record = run(make_job(clock=ManualClock(step_s=100.0))).record
    late = [r for r in record.rejected if r.stage == "budget"]
    assert late
    assert "10 minutes" in late[0].reason


def test_an_existing_bundle_is_not_replaced_without_being_told(make_job: Make) -> None:
    run(make_job())
    with pytest.raises(BundleError, match=r"exists already.*--overwrite"):
        run(make_job())
    assert run(make_job(overwrite=True)).record.verdict == "accepted"


def test_a_folder_that_is_no_bundle_is_left_alone(make_job: Make, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a bundle; it is left alone"):
        run(make_job(out=tmp_path / "precious", overwrite=True))
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine"


def test_data_of_another_shape_is_refused_before_any_work(make_job: Make) -> None:
    bad = Dataset(inputs={"x": np.zeros((50, 5), np.float32)})
    with pytest.raises(DataError, match="has 5 at axis 1"):
        run(make_job(data=bad))
    wrong_type = Dataset(inputs={"x": np.zeros((50, 4), np.float64)})
    with pytest.raises(DataError, match="has type float64, the model takes FP32"):
        run(make_job(data=wrong_type))
    unnamed = Dataset(inputs={"z": np.zeros((50, 4), np.float32)})
    with pytest.raises(DataError, match="'z' is unknown; the model takes: x"):
        run(make_job(data=unnamed))


def test_what_is_far_behind_is_stopped_after_a_glance_and_says_so(make_job: Make) -> None:
    record = run(make_job({("openvino", "f32", 2): (30.0, 0.0)})).record
    [lost] = [r for r in record.rejected if r.variant.id == "openvino-f32-2t"]
    assert lost.stage == "tuning"
    assert lost.reason.startswith("Stopped after 8 rounds: 0.3")
    assert lost.evidence is not None
    assert lost.evidence.measurement.accuracy.value is None


def test_what_cannot_win_any_more_is_not_tried_and_says_what_was_expected(make_job: Make) -> None:
    slow = {("openvino", p, n): (200.0, 0.0) for p in ("f32", "bf16") for n in (1, 2)}
    record = run(make_job(slow)).record
    untried = [r for r in record.rejected if r.stage == "forecast"]
    assert untried
    assert all("Not worth a trial" in r.reason and "the reference itself" in r.reason for r in untried)


def test_an_exhaustive_run_measures_every_candidate_in_full(make_job: Make) -> None:
    slow = {("openvino", "f32", n): (90.0, 0.0) for n in (1, 2)}
    record = run(make_job(slow, exhaustive=True)).record
    assert {item.variant.id for item in record.tuning} >= {
        "openvino-f32-1t", "openvino-f32-2t", "openvino-bf16-1t", "openvino-bf16-2t",
    }  # fmt: skip
    assert not [r for r in record.rejected if r.stage in ("budget", "forecast") or "Stopped after" in r.reason]
    assert record.picked == "openvino-bf16-2t"


def test_a_build_may_take_what_is_left_for_trying_and_no_more(make_job: Make) -> None:
    limits: list[float] = []
    clock = ManualClock()

    def slow(step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float) -> Any:
        limits.append(timeout_s)
        clock.advance(timeout_s)
        raise TransformFailed("took too long")

    run(make_job(apply=slow, budget_s=400.0, clock=clock, exhaustive=True))
    assert limits[0] == pytest.approx(280.0)
    assert limits[1:] == [30.0] * len(limits[1:])


def test_where_memory_is_what_counts_nothing_is_stopped_for_its_speed(make_job: Make) -> None:
    slow = {("openvino", p, n): (30.0, 0.0) for p in ("f32", "bf16") for n in (1, 2)}
    record = run(make_job(slow, goal=Goal(objective=Objective(minimize="memory_mb")))).record
    assert not [r for r in record.rejected if r.stage == "forecast" or "Stopped" in r.reason]


def test_a_run_that_ended_leaves_its_lessons_to_the_next(make_job: Make, tmp_path: Path) -> None:
    from hasten.optimize.history import History

    run(make_job(history=tmp_path / "history.sqlite"))
    lessons = History(tmp_path / "history.sqlite").lessons()
    assert any("engine=openvino" in lesson.traits and (lesson.log_gain or 0) > 0 for lesson in lessons)


def test_samples_of_stories_are_kept_as_the_data_shows_them(make_job: Make, dataset: Dataset) -> None:
    x = np.stack([dataset.inputs(i)["x"] for i in range(len(dataset))])
    labels = [dataset.label(i) for i in range(len(dataset))]
    data = Dataset(inputs={"x": x}, labels=labels, describe=lambda index: f"row {index}", name="rows")
    record = run(make_job({("openvino", "bf16", n): (3.0, 0.3) for n in (1, 2)}, data=data)).record
    assert {item.sample: item.text for item in record.shown} == {s.sample: f"row {s.sample}" for s in record.stories}
    holdout = set(split(data).holdout.open([]).indices)
    assert record.shown
    assert not holdout & {item.sample for item in record.shown}


class Profiled(FakeArm):
    """Notes when it was profiled."""

    def profile(self, slots: Sequence[int], *, warmup: int = 1) -> Any:
        PROFILED.append(self)
        return super().profile(slots, warmup=warmup)


PROFILED: list[FakeArm] = []


def profiled_arms(make_job: Make) -> dict[tuple[str, str, int], Any]:
    signature = open_model(make_job().model).signature
    PROFILED.clear()

    def arm(ms: float) -> Callable[[], FakeArm]:
        answer = lambda inputs: {"y": np.eye(3, dtype=np.float32)[inputs["x"][:, :3].argmax(1)]}  # noqa: E731
        return lambda: Profiled(signature, answer, ms=ms, kinds={"MatMul": ms * 900, "Add": ms * 100})

    return {("onnxruntime", "f32", 0): arm(10.0), ("openvino", "bf16", 2): arm(4.0)}


def test_operators_are_timed_once_every_claim_is_made(make_job: Make) -> None:
    before: list[int] = []

    def listen(progress: Progress) -> None:
        if progress.stage.startswith("holdout/"):
            before.append(len(PROFILED))

    record = run(make_job(profiled_arms(make_job), listener=listen)).record
    assert before
    assert set(before) == {0}
    assert [item.variant for item in record.operators] == ["reference", "openvino-bf16-2t"]
    assert [item.total_us.value for item in record.operators] == pytest.approx([10_000, 4_000])
    assert [kind.kind for kind in record.operators[1].kinds] == ["MatMul", "Add"]


def test_engines_without_profilers_leave_a_reason_and_the_verdict_as_it_is(make_job: Make) -> None:
    record = run(make_job()).record
    assert record.verdict == "accepted"
    assert [item.reason for item in record.operators] == ["The fake engine has no profiler."] * 2


def test_a_pick_that_does_not_load_again_to_be_profiled_leaves_a_reason(
    make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hasten.optimize import explain

    def dying(*arguments: object, **options: object) -> None:
        raise EngineCrashed("It died when it was loaded once more.")

    monkeypatch.setattr(explain, "operator_times", dying)
    record = run(make_job()).record
    assert record.verdict == "accepted"
    assert [item.reason for item in record.operators] == ["It died when it was loaded once more."]


def test_where_the_reference_is_kept_there_is_no_before_and_after(make_job: Make) -> None:
    slow = {("openvino", p, n): (15.0, 0.0) for p in ("f32", "bf16") for n in (1, 2)}
    assert run(make_job(slow)).record.operators == ()


def test_a_resumed_run_profiles_and_tells_classes_from_the_log(make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from hasten.optimize.pack import Packer

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    arms = profiled_arms(make_job)
    with monkeypatch.context() as patched:
        patched.setattr(Packer, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(make_job(arms))
    assert PROFILED
    PROFILED.clear()
    record = run(make_job(arms, resume=True)).record
    assert PROFILED == []
    assert len(record.operators) == 2
    assert record.operators[0].reason is None
    assert record.classes
