"""A record on disk outlives the version that wrote it."""

from __future__ import annotations

import msgspec
import pytest

from hasten.spec.environment import Environment
from hasten.spec.evidence import ClassChange, ClassChanges, Evidence, KindTime, OperatorTimes, Record, Shown
from hasten.spec.measurement import Figure, Measurement, MetricInfo, unmeasured
from hasten.spec.slo import Goal
from hasten.spec.target import Target
from hasten.spec.variant import REFERENCE, Variant

TOP1 = MetricInfo(name="top1", higher_is_better=True)


@pytest.fixture
def record() -> Record:
    reference = Evidence(
        variant=Variant(id=REFERENCE, target=Target(engine="onnxruntime")),
        measurement=Measurement(split="holdout", metric=TOP1),
        checks=(),
        outcome="accepted",
    )
    return Record(
        verdict="keep_reference",
        summary="Keep the reference.",
        goal=Goal(),
        picked=REFERENCE,
        ladder=(REFERENCE,),
        reference=reference,
        holdout=(),
        tuning=(),
        rejected=(),
        environment=Environment(
            processor="p", architecture="x86_64", features=(), cores_logical=2, cores_physical=1, memory_mb=1,
            system="s", python="3", packages={}, virtual=True,
        ),
        model={},
        data={},
        seed=0,
        elapsed_s=1.0,
        command="",
    )  # fmt: skip


def test_a_record_without_classes_samples_and_operators_is_read_as_one_that_has_none(record: Record) -> None:
    written = msgspec.json.decode(msgspec.json.encode(record))
    assert not {"classes", "shown", "operators"} & set(written)
    assert msgspec.json.decode(msgspec.json.encode(written), type=Record) == record


def test_pictures_classes_and_operators_come_back_from_json_as_they_were(record: Record) -> None:
    figure = Figure(value=0.5, low=0.4, high=0.6, n=20)
    change = ClassChange(name="dog", samples=20, reference=figure, accuracy=figure, change=unmeasured("too few"))
    full = msgspec.structs.replace(
        record,
        classes=(ClassChanges(variant="fast", metric=TOP1, total=1, changes=(change,)),),
        shown=(Shown(sample=3, picture=b"\x89PNG\x00"), Shown(sample=4, text="words")),
        operators=(
            OperatorTimes(variant="fast", total_us=figure, kinds=(KindTime(kind="Conv", count=3, time_us=figure),)),
            OperatorTimes(variant="slow", total_us=unmeasured("no profiler"), reason="no profiler"),
        ),
    )
    assert msgspec.json.decode(msgspec.json.encode(full), type=Record) == full
