"""From candidates to claims: the seal of the holdout data, the run-off, and spares that stand in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.data.split import split
from hasten.errors import EngineCrashed
from hasten.model.open import open_model
from hasten.optimize.run import Job, run
from hasten.spec.progress import Progress
from hasten.spec.slo import Goal, Slo
from hasten.testing import FakeArm, ManualClock

Make = Callable[..., Job]
pytestmark = pytest.mark.usefixtures("two_cores")


def test_a_run_off_whose_engine_dies_leaves_the_trials_figures(make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from hasten.optimize import claims as module

    def dying(*arguments: object) -> dict[str, object]:
        raise EngineCrashed("It died in the race.")

    monkeypatch.setattr(module, "race", dying)
    assert run(make_job()).record.picked == "openvino-bf16-2t"


class Watched(Dataset):
    """A dataset that notes which samples were looked at, in order."""

    looks: list[int]

    def inputs(self, index: int) -> Any:
        self.__dict__.setdefault("looks", []).append(index)
        return super().inputs(index)


def watched(like: Dataset) -> Watched:
    x = np.stack([like.inputs(i)["x"] for i in range(len(like))])
    data = Watched(inputs={"x": x}, labels=[like.label(i) for i in range(len(like))], name="rows")
    data.digest()
    data.looks = []
    return data


def test_no_holdout_sample_is_looked_at_before_the_picks_are_fixed(make_job: Make, dataset: Dataset) -> None:
    data = watched(dataset)
    at_opening: list[int] = []

    def listen(progress: Progress) -> None:
        if progress.stage.startswith("picked on tuning data"):
            at_opening.append(len(data.looks))

    run(make_job(data=data, listener=listen))
    holdout = set(split(data).holdout.open([]).indices)
    # The first, a middle and the last sample are looked at once, for their shape, before anything is split.
    before = data.looks[3 : at_opening[0]]
    assert before
    assert not holdout & set(before)
    assert holdout & set(data.looks[at_opening[0] :])


@pytest.mark.parametrize(("seeds", "dealt"), [({"seed": 1}, 0), ({"split_seed": 1}, 1)])
def test_another_seed_measures_in_another_order_and_only_another_split_seed_deals_anew(
    make_job: Make, dataset: Dataset, seeds: dict[str, int], dealt: int
) -> None:
    """Whoever runs again until the luck of another holdout passes must say so."""
    data, at_opening = watched(dataset), list[int]()

    def listen(progress: Progress) -> None:
        if progress.stage.startswith("picked on tuning data"):
            at_opening.append(len(data.looks))

    record = run(make_job(data=data, listener=listen, **seeds)).record
    assert record.data["split_seed"] == dealt
    chosen_by = set(data.looks[3 : at_opening[0]])
    untouched = [deal for deal in (0, 1) if not chosen_by & set(split(dataset, seed=deal).holdout.open([]).indices)]
    assert untouched == [dealt]


def test_holdout_answers_change_no_choice(make_job: Make, dataset: Dataset) -> None:
    """Poison every holdout label: the picks stay the same, only the claim changes."""
    honest = run(make_job()).record
    holdout = split(dataset).holdout.open([]).indices
    labels = [dataset.label(i) for i in range(len(dataset))]
    for index in holdout:
        labels[index] = (labels[index] + 1) % 3
    x = np.stack([dataset.inputs(i)["x"] for i in range(len(dataset))])
    poisoned = Dataset(inputs={"x": x}, labels=labels, name="rows")
    record = run(make_job(data=poisoned, overwrite=True)).record
    assert [e.variant.id for e in record.holdout] == [e.variant.id for e in honest.holdout]
    assert [e.measurement.accuracy for e in record.tuning] == [e.measurement.accuracy for e in honest.tuning]
    assert record.reference.measurement.accuracy.value == 0.0


def overfitting(make_job: Make, dataset: Dataset) -> dict[tuple[str, str, int], Any]:
    """A variant that is right on the data for choosing, wrong on holdout data, and faster than one always right."""
    seen = {float(dataset.inputs(i)["x"][3]) for i in split(dataset).choosing.indices}
    signature = open_model(make_job().model).signature

    def answer(inputs: Any) -> dict[str, np.ndarray]:
        x = inputs["x"]
        right = x[:, :3].argmax(1)
        known = np.array([float(row[3]) in seen for row in x])
        return {"y": np.eye(3, dtype=np.float32)[np.where(known, right, (right + 1) % 3)]}

    return {("openvino", "bf16", n): lambda n=n: FakeArm(signature, answer, ms=7.0 - n / 8) for n in (1, 2)}


def test_where_the_claim_of_the_first_pick_fails_a_spare_stands_in(make_job: Make, dataset: Dataset) -> None:
    record = run(make_job(overfitting(make_job, dataset))).record
    assert [e.outcome for e in record.holdout] == ["rejected", "accepted"]
    assert record.verdict == "accepted"
    assert record.picked == "openvino-f32-2t"
    assert record.ladder == ("openvino-f32-2t", "reference")
    assert "It stands in for openvino-bf16-2t, whose claim failed: top1 drops by" in record.summary
    failed, proven = (item.measurement for item in record.holdout)
    assert proven.accuracy_change_claimed != proven.accuracy_change
    assert failed.accuracy_change_claimed == failed.accuracy_change, "its share is what the proven one left"


def test_where_samples_suffice_for_a_lone_claim_only_no_spare_stands_in(make_job: Make, dataset: Dataset) -> None:
    """Of 586 samples none changes: within 0.66 points for one claim, and not for two that share the error."""
    goal = Goal(slo=Slo(accuracy_drop_max=0.0066))
    record = run(make_job(overfitting(make_job, dataset), goal=goal)).record
    assert [e.outcome for e in record.holdout] == ["rejected", "accepted"]
    assert record.verdict == "keep_reference"
    assert record.ladder == ("reference",)
    assert "openvino-bf16-2t did not hold on holdout data" in record.summary
    left = next(item for item in record.rejected if item.stage == "holdout" and "f32" in item.variant.id)
    assert "too few for it to have a claim behind the others" in left.reason


def test_picks_that_the_budget_leaves_no_time_to_claim_are_named(make_job: Make) -> None:
    clock = ManualClock()

    def late(progress: Progress) -> None:
        if progress.stage.startswith("run-off:"):
            clock.advance(20.0)

    close = {("openvino", "f32", 2): (4.2, 0.0)}
    record = run(make_job(close, budget_s=11.0, clock=clock, listener=late)).record
    assert [item.variant.id for item in record.holdout] == ["openvino-bf16-2t"]
    [unclaimed] = [r.variant for r in record.rejected if "left time for the claims of 1 before it" in r.reason]
    assert (unclaimed.target.engine, unclaimed.target.precision) == ("openvino", "f32")


def test_the_claim_is_told_class_by_class_on_holdout_data(make_job: Make) -> None:
    record = run(make_job()).record
    [found] = [item for item in record.classes if item.variant == "openvino-bf16-2t"]
    claim = next(item for item in record.holdout if item.variant.id == "openvino-bf16-2t")
    assert sum(item.samples for item in found.changes) == claim.measurement.accuracy_change.n
    assert {item.name for item in found.changes} == {"0", "1", "2"}
