"""Records as an optimization of a text-line recogniser leaves them: accepted, keep the reference, infeasible."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from hasten.spec.environment import Environment
from hasten.spec.evidence import (
    Check,
    ClassChange,
    ClassChanges,
    Evidence,
    KindTime,
    OperatorTimes,
    Outcome,
    Record,
    Rejection,
    Shown,
    Story,
)
from hasten.spec.measurement import Figure, Measurement, MetricInfo, Split, unmeasured
from hasten.spec.slo import Goal, Prices, Slo
from hasten.spec.target import Precision, Target
from hasten.spec.variant import REFERENCE, Step, Variant

EXACT = MetricInfo(name="exact_match", higher_is_better=True)
CER = MetricInfo(name="char_error_rate", higher_is_better=False)
NO_COUNTER = unmeasured("this virtual machine exposes no energy counter")
GOAL = Goal(
    slo=Slo(latency_p99_ms=20.0, throughput_rps=60.0, accuracy_drop_max=0.005, memory_max_mb=500.0),
    prices=Prices(machine_hour_usd=0.10),
)


def fig(value: float, half: float, n: int = 300) -> Figure:
    return Figure(value=value, low=value - half, high=value + half, n=n)


def variant(id_: str, engine: str, precision: Precision = "f32", threads: int = 2, *steps: Step) -> Variant:
    return Variant(id=id_, target=Target(engine=engine, precision=precision, threads=threads), recipe=steps)


REF = variant(REFERENCE, "onnxruntime")
OV_BF16 = variant("openvino-bf16-t2", "openvino", "bf16")
OV_F32 = variant("openvino-f32-t2", "openvino")
OV_BF16_T1 = variant("openvino-bf16-t1", "openvino", "bf16", 1)
ORT_T1 = variant("onnxruntime-f32-t1", "onnxruntime", "f32", 1)
ORT_FUSED = variant("onnxruntime-f32-t2-fused", "onnxruntime", "f32", 2, Step(transform="fuse_graph"))
INT8 = variant(
    "onnxruntime-int8-t2",
    "onnxruntime",
    "int8",
    2,
    Step(transform="quantize_static", options={"calibration": "minmax", "per_channel": True}),
)
INT8_OV = variant("openvino-int8-t2", "openvino", "int8", 2, Step(transform="quantize_static"))
F16 = variant("onnxruntime-f16-t2", "onnxruntime", "f16", 2, Step(transform="to_f16"))


def measured(
    split: Split,
    speed: float,
    change: float,
    *,
    metric: MetricInfo = EXACT,
    memory: float = 312.0,
    cer_change: float = 0.0,
    speed_half: float = 0.06,
) -> Measurement:
    latency, n = 14.8 / speed, 1560 if split == "holdout" else 480
    half = 0.004 if split == "holdout" else 0.0035 + abs(change) * 0.05
    base = 0.9013 if metric.higher_is_better else 0.0571
    throughput = 1000 / latency
    return Measurement(
        split=split,
        metric=metric,
        latency_p50_ms=fig(latency, latency * 0.024),
        latency_p95_ms=fig(latency * 1.09, latency * 0.04),
        latency_p99_ms=fig(latency * 1.22, latency * 0.07),
        throughput_rps=fig(throughput, throughput * 0.02),
        speedup=fig(speed, speed_half),
        accuracy=fig(base + change, 0.014, n),
        accuracy_change=fig(change, half, n),
        memory_peak_mb=fig(memory, 4.0, 5),
        load_ms=fig(210.0, 12.0, 5),
        energy_per_prediction_j=NO_COUNTER,
        cost_per_million_usd=fig(latency / 3.6 * 0.1, 0.004),
        extra={
            "char_error_rate": fig(0.0057 + cer_change, 0.0017, n),
            "char_error_rate_change": fig(cer_change, 0.0008, n),
        },
    )


def evidence(
    of: Variant, measurement: Measurement, outcome: Outcome = "accepted", *checks: Check, why: str = ""
) -> Evidence:
    return Evidence(variant=of, measurement=measurement, checks=checks, outcome=outcome, reasons=(why,) if why else ())


def check(objective: str, bound: float, outcome: Outcome = "accepted", reason: str = "") -> Check:
    return Check(objective=objective, bound=bound, outcome=outcome, reason=reason)


def passing(p99: str, change: str, memory: str) -> tuple[Check, ...]:
    return (
        check("latency_p99_ms", 20.0, reason=f"p99 latency is at most {p99} ms, the bound is 20 ms."),
        check("throughput_rps", 60.0, reason="Throughput is above 60 predictions/s."),
        check("accuracy_drop_max", 0.005, reason=f"At most {change} points are lost, 0.5 are allowed."),
        check("memory_max_mb", 500.0, reason=f"Peak memory is {memory} MB, the bound is 500 MB."),
    )


def reference(split: Split) -> Evidence:
    found = measured(split, 1.0, 0.0, memory=268.0)
    found = msgspec.structs.replace(found, speedup=fig(1.0, 0.0), accuracy_change=fig(0.0, 0.0, found.accuracy.n))
    return evidence(REF, found, "accepted", *passing("19.1", "0.0", "268"))


BROKEN = evidence(
    INT8,
    measured("tuning", 2.63, -0.452, memory=241.0, cer_change=0.187),
    "rejected",
    check("latency_p99_ms", 20.0, reason="p99 latency is at most 7.3 ms."),
    check("accuracy_drop_max", 0.005, "rejected", "Exact match falls by 45.2 points, 0.5 are allowed."),
    why="Exact match falls by 45.2 points (−47.8 to −42.6); 0.5 are allowed.",
)
BROKEN_OV = evidence(
    INT8_OV,
    measured("tuning", 2.41, -0.0312, memory=288.0, cer_change=0.0041),
    "rejected",
    check("accuracy_drop_max", 0.005, "rejected", "Exact match falls by 3.1 points."),
    why="Exact match falls by 3.1 points (−3.6 to −2.6); 0.5 are allowed.",
)
STORIES = tuple(
    Story(variant=INT8.id, sample=sample, label=label, reference=label, answer=answer)
    for sample, label, answer in (
        (17, "Invoice 2024-0381", "Invo1ce 2O24-O38l"),
        (58, "Total: 1,204.50 EUR", "Tota: 1204 50 EJR"),
        (211, "Hauptstraße 12", ""),
        (305, "deliver before noon", "deliver befre nn"),
        (391, "SKU 88-1107-B", "SKU BB-1l07-8"),
        (402, "Platform 4, 18:05", "Piatform 4 18.O5"),
    )
)
ENVIRONMENT = Environment(
    processor="AMD EPYC 9R14",
    architecture="x86_64",
    features=("avx2", "avx512f", "avx512_vnni", "avx512_bf16"),
    cores_logical=2,
    cores_physical=1,
    memory_mb=15740,
    system="Linux 6.1",
    python="3.11.9",
    packages={"onnxruntime": "1.20.1", "openvino": "2025.0.0", "numpy": "2.1.3", "hasten": "0.1.0"},
    virtual=True,
)


def sample_record() -> Record:
    picked_checks = passing("7.2", "0.5", "312")
    tuning = (
        reference("tuning"),
        evidence(OV_BF16, measured("tuning", 2.24, -0.0008), "accepted", *picked_checks),
        evidence(OV_BF16_T1, measured("tuning", 1.31, -0.0008, memory=301.0)),
        evidence(OV_F32, measured("tuning", 1.46, 0.0, memory=305.0)),
        evidence(ORT_FUSED, measured("tuning", 1.08, 0.0, memory=268.0)),
        evidence(ORT_T1, measured("tuning", 0.58, 0.0, memory=262.0)),
        BROKEN,
        BROKEN_OV,
    )
    holdout = (
        reference("holdout"),
        evidence(OV_BF16, measured("holdout", 2.21, -0.001), "accepted", *picked_checks),
        evidence(OV_F32, measured("holdout", 1.45, 0.0, memory=305.0), "accepted", *passing("13.2", "0.3", "305")),
    )
    crash = "The engine process ended with signal 11 (segmentation fault) while loading the model."
    return Record(
        verdict="accepted",
        summary="openvino bf16 with 2 threads is 2.21 times as fast and meets every objective.",
        goal=GOAL,
        picked=OV_BF16.id,
        ladder=(OV_BF16.id, OV_F32.id),
        reference=holdout[0],
        holdout=holdout,
        tuning=tuning,
        rejected=(
            Rejection(variant=INT8, stage="tuning", reason=BROKEN.reasons[0], evidence=BROKEN),
            Rejection(variant=INT8_OV, stage="tuning", reason=BROKEN_OV.reasons[0], evidence=BROKEN_OV),
            Rejection(variant=F16, stage="run", reason=crash),
            Rejection(variant=OV_BF16_T1, stage="tuning", reason="openvino f32, 2 threads is faster at no loss."),
            Rejection(variant=ORT_FUSED, stage="tuning", reason="openvino f32, 2 threads is faster."),
            Rejection(variant=ORT_T1, stage="tuning", reason="It is slower than the reference."),
        ),
        environment=ENVIRONMENT,
        model={"name": "ppocr-rec", "digest": "sha256:" + "4f" * 32, "bytes": 10_900_000, "parameters": 2_690_000},
        data={
            "name": "text lines (rendered)",
            "digest": "sha256:" + "a7" * 32,
            "samples": 2400,
            "calibration": 360,
            "tuning": 480,
            "holdout": 1560,
        },
        seed=20240,
        elapsed_s=372.4,
        command="hasten optimize zoo:ppocr-rec --data zoo:text-lines --slo slo.toml --out ppocr.bundle --budget 10m",
        stories=STORIES,
    )


def keep_reference_record() -> Record:
    base = sample_record()
    slow = tuple(e for e in base.tuning if e.variant.id in (REFERENCE, ORT_T1.id, INT8.id))
    return msgspec.structs.replace(
        base,
        verdict="keep_reference",
        summary="No candidate was faster than the reference and kept exact match within 0.5 points.",
        picked=REFERENCE,
        ladder=(REFERENCE,),
        holdout=(base.reference,),
        tuning=slow,
        rejected=tuple(r for r in base.rejected if r.variant.id in (INT8.id, ORT_T1.id, F16.id)),
    )


def infeasible_record() -> Record:
    base = keep_reference_record()
    late = check("latency_p99_ms", 3.0, "rejected", "p99 latency is above 3 ms.")

    def fails(e: Evidence) -> Evidence:
        checks = (late, *(c for c in e.checks if c.objective == "accuracy_drop_max"))
        return msgspec.structs.replace(e, outcome="rejected", checks=checks)

    return msgspec.structs.replace(
        base,
        verdict="infeasible",
        summary="Neither the reference nor any candidate meets p99 latency of 3 ms.",
        goal=msgspec.structs.replace(GOAL, slo=Slo(latency_p99_ms=3.0)),
        reference=fails(base.reference),
        holdout=(),
        tuning=tuple(fails(e) for e in base.tuning),
    )


def error_rate_record() -> Record:
    """The same run judged by character error rate, where less is better."""
    base = sample_record()

    def rejudge(e: Evidence, change: float) -> Evidence:
        found = measured(e.measurement.split, e.measurement.speedup.value or 1.0, change, metric=CER)
        return msgspec.structs.replace(e, measurement=msgspec.structs.replace(found, extra={}))

    changes = {INT8.id: 0.187, INT8_OV.id: 0.012, OV_BF16.id: 0.0004}
    tuning = tuple(rejudge(e, changes.get(e.variant.id, 0.0)) for e in base.tuning)
    holdout = tuple(rejudge(e, changes.get(e.variant.id, 0.0)) for e in base.holdout)
    return msgspec.structs.replace(
        base, tuning=tuning, holdout=holdout, reference=holdout[0], rejected=base.rejected[2:]
    )


def class_change(name: str, samples: int, before: float, after: float, half: float = 0.05) -> ClassChange:
    small = unmeasured(f"{samples} samples: too few to say anything")
    return ClassChange(
        name=name,
        samples=samples,
        reference=fig(before, 0.04, samples),
        accuracy=fig(after, 0.04, samples),
        change=small if samples < 10 else fig(after - before, half, samples),
    )


def kind(name: str, count: int, us: float) -> KindTime:
    return KindTime(kind=name, count=count, time_us=fig(us, us * 0.05, 6))


def picture_of(side: int = 24) -> bytes:
    from hasten.data.show import picture

    return picture(np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8))


def full_record() -> Record:
    """The accepted run with everything that people can look at: classes, samples, operators."""
    base = sample_record()
    changes = (
        class_change("shirt", 60, 0.9, 0.7),
        class_change("coat", 60, 0.9, 0.92),
        class_change("bag", 4, 1.0, 0.5),
    )
    same = tuple(class_change(f"kind {n}", 40, 0.9, 0.9) for n in range(20))
    told = tuple(
        Story(variant=OV_BF16.id, sample=sample, label="coat", reference="coat", answer="shirt") for sample in (17, 3)
    )
    return msgspec.structs.replace(
        base,
        stories=(*base.stories, *told),
        shown=(Shown(sample=17, picture=picture_of()), Shown(sample=58, text="Total: 1,204.50 EUR, on paper")),
        classes=(
            ClassChanges(variant=OV_F32.id, metric=EXACT, total=20, changes=same),
            ClassChanges(variant=OV_BF16.id, metric=EXACT, total=230, changes=(*changes, *same)),
        ),
        operators=(
            OperatorTimes(
                variant=REFERENCE,
                total_us=fig(14_000.0, 300.0, 6),
                kinds=(kind("Conv", 36, 12_000.0), kind("MatMul", 4, 1_900.0), kind("Mystery", 1, 100.0)),
            ),
            OperatorTimes(
                variant=OV_BF16.id,
                total_us=fig(5_000.0, 200.0, 6),
                kinds=(kind("FullyConnected", 4, 3_000.0), kind("Convolution", 36, 1_990.0), kind("Convert", 2, 10.0)),
            ),
        ),
    )


@pytest.fixture
def full() -> Record:
    return full_record()


@pytest.fixture
def accepted() -> Record:
    return sample_record()


@pytest.fixture
def kept() -> Record:
    return keep_reference_record()


@pytest.fixture
def infeasible() -> Record:
    return infeasible_record()


@pytest.fixture
def error_rate() -> Record:
    return error_rate_record()
