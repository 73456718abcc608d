"""A cascade over precision: the fewest close calls in f32 that make the bound hold, found on tuning data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.data import Dataset
from hasten.data.split import split
from hasten.engine.base import Device, Probe
from hasten.measure.base import AnswerBook, Arm, Pair, Plan
from hasten.measure.margins import Margins
from hasten.model.open import open_model
from hasten.optimize.cascade import SHARES, can_cascade, cascading, is_cascade, limit_for, plain_of
from hasten.optimize.pick import why_not
from hasten.optimize.run import Job, run
from hasten.spec.applied import Applied
from hasten.spec.slo import Goal, Prices, Slo
from hasten.spec.target import Precision, Target
from hasten.spec.variant import Step, Variant
from hasten.testing import FakeArm, ManualClock
from hasten.transform.base import TransformFailed

CLASSES = 3


def calls(margins: Any, wrong: Any) -> Margins:
    """Answers that are right with the reference, and wrong where `wrong` says so with the candidate."""
    count = len(margins)
    data = Dataset(inputs={"x": np.zeros((count, 1), np.float32)}, labels=np.zeros(count, int))
    pair = Pair(
        reference=None,  # type: ignore[arg-type]
        candidate=None,  # type: ignore[arg-type]
        fresh=nullcontext,  # type: ignore[arg-type]
        data=data.subset(range(count)),
        book=AnswerBook(),
        plan=Plan(),
    )
    after = 1.0 - np.array(wrong, float)[:, None]
    return Margins(np.array(margins, float), np.ones((count, 1)), after, pair)


def chances(found: Margins, by_losses: dict[int, float]) -> Callable[[float], float]:
    """The chance of a claim by how many answers would be lost; 0 where more would."""
    return lambda limit: by_losses.get(found.flips_with(limit)[1], 0.0)


EVEN = np.linspace(0, 1, 1000)


def losing(*shares: float) -> Margins:
    """One answer is lost at each of these shares of the margins."""
    wrong = np.zeros(1000, bool)
    wrong[[round(share * 1000) - 1 for share in shares]] = True
    return calls(EVEN, wrong)


@pytest.mark.parametrize(
    ("surer", "share"),
    [(0.95, 0.15), (0.85, 0.05)],
    ids=["a chance that is worth its time", "a chance that is not"],
)
def test_the_share_with_the_highest_expected_speed_is_taken(surer: float, share: float) -> None:
    found = losing(0.01, 0.04, 0.12)
    limit = limit_for(found, chances(found, {0: surer, 1: 0.8}), gain=3.0, again=0.2)
    assert limit == pytest.approx(share, abs=0.002)


def test_what_is_computed_again_counts_as_much_as_it_takes() -> None:
    found = losing(0.01, 0.04, 0.12)
    chance = chances(found, {0: 0.95, 1: 0.8})
    assert limit_for(found, chance, gain=3.0, again=2.0) == pytest.approx(0.05, abs=0.002)


def test_an_unlikely_claim_counts_where_none_is_likelier() -> None:
    found = losing(0.01, 0.12)
    assert limit_for(found, chances(found, {0: 0.7, 1: 0.6}), gain=9.0, again=1.0) == pytest.approx(0.15, abs=0.002)
    assert limit_for(found, chances(found, {0: 0.4, 1: 0.3}), gain=9.0, again=1.0) is None


def test_where_nothing_was_lost_the_smallest_share_is_for_safety() -> None:
    found = losing()
    assert limit_for(found, chances(found, {0: 0.9}), gain=2.0, again=1.0) == pytest.approx(SHARES[0], abs=0.002)


def test_losses_that_are_no_close_calls_are_beyond_a_cascade() -> None:
    found = calls(EVEN, EVEN > 0.9)
    assert limit_for(found, chances(found, {0: 1.0}), gain=2.0, again=1.0) is None


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=20, max_size=200),
    st.floats(1.0, 10.0),
    st.floats(0.1, 2.0),
)
def test_whatever_is_taken_is_likelier_than_not_and_nothing_likely_is_passed_over(
    rows: list[tuple[float, bool]], gain: float, again: float
) -> None:
    found = calls([margin for margin, _ in rows], [wrong for _, wrong in rows])
    chance = chances(found, {0: 0.9, 1: 0.8, 2: 0.6, 3: 0.3})
    limit = limit_for(found, chance, gain, again)
    usable = [one for one in map(found.below, SHARES) if one > 0]
    assert (limit is not None) == any(chance(one) >= 0.5 for one in usable)
    if limit is not None:
        assert chance(limit) >= (0.75 if any(chance(one) >= 0.75 for one in usable) else 0.5)


def test_a_cascading_variant_tells_its_limit_in_its_target() -> None:
    variant = Variant(id="openvino-bf16-2t", target=Target(engine="openvino", precision="bf16", threads=2))
    cascade = cascading(variant, 0.0612345)
    assert (cascade.id, str(cascade.target)) == (
        "openvino-bf16-2t-cascade",
        "openvino on CPU, bf16, 2 threads, cascade_below=0.0612",
    )


def test_an_int8_variant_holds_both_forms_in_its_file() -> None:
    step = Step(transform="quantize_static", options={"method": "mse"}, skip=("head",))
    recipe = (Step(transform="fold"), step)
    variant = Variant(id="int8", target=Target(engine="openvino", precision="int8"), recipe=recipe)
    cascade = cascading(variant, 0.0612345)
    assert cascade.target == variant.target
    assert cascade.recipe_text == "fold → cascade(below=0.0612, method=mse, of=quantize_static, skipping head)"
    assert is_cascade(cascade)
    assert plain_of(cascade.recipe) == recipe == plain_of(recipe)


def int8(*transforms: str, engine: str = "onnxruntime") -> Variant:
    recipe = tuple(Step(transform=name) for name in transforms)
    return Variant(id="int8", target=Target(engine=engine, precision="int8"), recipe=recipe)


def hinted(precision: Precision) -> Variant:
    return Variant(id=precision, target=Target(engine="openvino", precision=precision))


@pytest.mark.parametrize(
    ("variant", "able"),
    [
        (int8("fold", "quantize_dynamic"), True),
        (int8("quantize_static", engine="openvino"), True),
        (int8("quantize_nncf", engine="openvino"), False),
        (int8("quantize_static", "fold"), False),
        (hinted("bf16"), True),
        (hinted("f32"), False),
        (cascading(hinted("bf16"), 0.1), False),
        (cascading(int8("quantize_static"), 0.1), False),
    ],
)
def test_what_can_compute_close_calls_again(variant: Variant, able: bool) -> None:
    assert can_cascade(variant, {"cascade_below"}) is able


def test_an_engine_without_the_knob_cannot_compute_bf16_again() -> None:
    assert not can_cascade(hinted("bf16"), ())


class World:
    """bf16 gets close calls wrong, up to a margin, and right again where these are computed in f32. f32 gets some
    wrong, too, within margins where bf16 is right.
    """

    def __init__(
        self, model: Path, bf16: float = 0.1, f32: tuple[float, float] = (0.0, 0.0), again_ms: float = 0.0
    ) -> None:
        self._signature = open_model(model).signature
        self._bf16, self._f32, self._again_ms = bf16, f32, again_ms
        self.loaded: list[Target] = []

    def __call__(self, model: Path, target: Target) -> AbstractContextManager[Arm]:
        self.loaded.append(target)
        ms = {"onnxruntime": 10.0}.get(target.engine, 4.0 if target.precision == "bf16" else 9.0)
        limit = target.runtime.cascade_below if target.precision == "bf16" else np.inf
        ms += self._again_ms * (0 < limit < np.inf)
        return nullcontext(FakeArm(self._signature, lambda inputs: self._answer(inputs["x"], limit), ms=ms))

    def _answer(self, x: Any, limit: float) -> dict[str, Any]:
        right = x[:, :CLASSES].argmax(1)
        margin = np.abs(x[:, 3]) * 1e4 % 1000 / 1000
        low, high = self._f32
        wrong = np.where(margin < limit, (margin >= low) & (margin < high), margin < self._bf16)
        scores = np.zeros((len(x), CLASSES), np.float32)
        scores[np.arange(len(x)), np.where(wrong, (right + 1) % CLASSES, right)] = margin + 1e-6
        return {"y": scores}


def test_bf16_that_loses_close_calls_is_picked_as_a_cascade(make_job: Callable[..., Job]) -> None:
    world = World(make_job().model)
    record = run(make_job(loader=world)).record
    assert record.verdict == "accepted"
    assert record.picked.startswith("openvino-bf16-") and "-cascade" in record.picked
    assert any(target.runtime.cascade_below for target in world.loaded)


def test_bf16_that_is_accurate_by_luck_only_is_picked_as_a_cascade(make_job: Callable[..., Job]) -> None:
    """It changes answers both ways, and as many for the better: other samples may see it otherwise."""
    world = World(make_job().model, bf16=0.03, f32=(0.03, 0.07))
    record = run(make_job(loader=world)).record
    [plain] = [item for item in record.tuning if item.variant.id == "openvino-bf16-2t"]
    assert why_not(plain, make_job().goal, 450) is None
    assert record.picked.startswith("openvino-bf16-") and "-cascade" in record.picked


def named_by_its_step(step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float = 9.0) -> Any:
    """A file that its name tells apart; only quantizing and the cascade apply."""
    if step.transform not in ("quantize_static", "cascade"):
        raise TransformFailed(f"{step.transform} does not apply.")
    out = folder / f"{step.transform}.onnx"
    out.write_bytes(source.read_bytes())
    return out, Applied(transform=step.transform)


class Int8World(World):
    """int8 alone gets close calls wrong; the file of the cascade answers like the model."""

    def __call__(self, model: Path, target: Target) -> AbstractContextManager[Arm]:
        limit = 0.0 if model.stem == "quantize_static" else np.inf
        ms = {"int8": 2.0, "bf16": 9.0}.get(target.precision, 10.0)
        return nullcontext(FakeArm(self._signature, lambda inputs: self._answer(inputs["x"], limit), ms=ms))


def test_int8_that_loses_close_calls_is_picked_with_the_model_behind_it(make_job: Callable[..., Job]) -> None:
    cpu = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32", "int8"))
    job = make_job(
        loader=Int8World(make_job().model),
        probe=lambda: [Probe(engine="openvino", version="1", devices=(cpu,))],
        apply=named_by_its_step,
    )
    record = run(job).record
    assert record.verdict == "accepted"
    [picked] = [item.variant for item in record.holdout if item.variant.id == record.picked]
    assert picked.target.precision == "int8"
    assert [step.transform for step in picked.recipe] == ["cascade"]
    [build] = [item for item in record.builds if item.variant == picked.id]
    assert [item.transform for item in build.applied] == ["cascade"]


def test_a_narrow_format_that_is_safe_gets_a_cascade_where_margins_tell(make_job: Callable[..., Job]) -> None:
    """The reference is wrong where calls are the closest, and bf16 just there."""
    world = World(make_job().model, bf16=0.08, f32=(0.0, 0.08))
    record = run(make_job(loader=world)).record
    assert record.picked.endswith("-cascade")
    assert any(item.variant.id == record.picked.removesuffix("-cascade") for item in record.tuning)


class Rare(World):
    """bf16 gets just these samples wrong, and a cascade takes half as long again."""

    def __init__(self, model: Path, wrong: set[float]) -> None:
        super().__init__(model, again_ms=2.0)
        self._wrong = np.array(sorted(wrong), np.float32)

    def _answer(self, x: Any, limit: float) -> dict[str, Any]:
        right = x[:, :CLASSES].argmax(1)
        wrong = np.isin(x[:, 3], self._wrong) & (limit == 0.0)
        scores = np.zeros((len(x), CLASSES), np.float32)
        scores[np.arange(len(x)), np.where(wrong, (right + 1) % CLASSES, right)] = np.where(wrong, 0.1, 1.0)
        return {"y": scores}


@pytest.mark.parametrize("unseen", [0, 8], ids=["rare", "frequent"])
def test_whoever_is_asked_how_close_its_calls_are_is_judged_by_all_answers_that_it_gave(
    make_job: Callable[..., Job], dataset: Dataset, unseen: int
) -> None:
    """A short budget lets candidates answer the first hundred only: two of these are wrong, and few or many others."""
    choosing = split(dataset).choosing.indices
    wrong = {float(dataset.inputs(i)["x"][3]) for i in [*choosing[40:42], *choosing[100 : 100 + unseen]]}
    notes: list[str] = []
    world = Rare(make_job().model, wrong)
    goal = Goal(slo=Slo(accuracy_drop_max=0.02), prices=Prices(machine_hour_usd=1.0))
    job = make_job(loader=world, goal=goal, budget_s=40.0, listener=lambda progress: notes.append(progress.note or ""))
    record = run(job).record
    [plain] = [item for item in record.tuning if item.variant.id == "openvino-bf16-2t"]
    change = plain.measurement.accuracy_change
    assert (change.n, change.value) == (len(choosing), pytest.approx(-(2 + unseen) / len(choosing)))
    assert (why_not(plain, job.goal, 450) is None) == (not unseen)
    per_million, per_right = plain.measurement.cost_per_million_usd, plain.measurement.cost_per_million_correct_usd
    assert per_right.value == pytest.approx((per_million.value or 0.0) / (plain.measurement.accuracy.value or 1.0))
    [cascade] = [item for item in record.tuning if item.variant.id == "openvino-bf16-2t-cascade"]
    assert cascade.measurement.accuracy_change.n == len(choosing), "no fewer than its plain form"
    assert cascade.measurement.accuracy_change.value == 0.0, "slower, and measured in full: a claim may need it"
    assert any(note.startswith("openvino-bf16-2t:") and note.endswith("on all data for choosing") for note in notes)


def test_halfway_what_is_fast_and_may_lose_too_much_is_settled_before_others_are_tried(
    make_job: Callable[..., Job], dataset: Dataset
) -> None:
    choosing = split(dataset).choosing.indices
    world = Rare(make_job().model, {float(dataset.inputs(i)["x"][3]) for i in choosing[40:42]})
    record = run(make_job(loader=world, budget_s=40.0, clock=ManualClock(step_s=0.8))).record
    tried = [item.variant.id for item in record.tuning]
    assert tried[-1] == "openvino-bf16-2t-cascade"
    late = [item for item in record.rejected if item.stage in ("budget", "forecast")]
    assert "openvino-bf16-1t" in {item.variant.id for item in late}
