"""A made-up profile for tests of what is done with one."""

from __future__ import annotations

import msgspec

from hasten.engine.host import environment
from hasten.spec.measurement import Figure
from hasten.spec.profile import Bandwidth, Bottleneck, Ceilings, Operator, Profile, Remedy, Timeline
from hasten.spec.target import Target

__all__ = ["figure", "operator", "profile"]


def figure(value: float) -> Figure:
    return Figure(value=value, low=value * 0.9, high=value * 1.1, n=30, method="made up")


def operator(name: str, us: float, **changes: object) -> Operator:
    usual = Operator(
        name=name, kind="Conv", nodes=(name,), time_us=figure(us), share=us / 300, flops=10_000_000,
        bytes_moved=400_000, roofline_share=figure(0.5), bound="compute",
    )  # fmt: skip
    return msgspec.structs.replace(usual, **changes)


def profile(*operators: Operator, measured: bool = True, model: str = "m.onnx") -> Profile:
    listed = operators or (operator("first", 200.0, nodes=("first", "bn", "relu")), operator("second", 100.0))
    slices = tuple((place, 7.0 + 250.0 * place, 100.0) for place in range(len(listed)))
    return Profile(
        model=model,
        sha256="0" * 64,
        format="onnx",
        target=Target(engine="onnxruntime", threads=2),
        precision="f32",
        shapes={"x": (1, 3, 8, 8)},
        samples=8,
        rounds=10,
        latency_ms=figure(0.3),
        profiled_ms=figure(0.4),
        slowdown=figure(1.3),
        operators_ms=figure(0.3),
        ceilings=Ceilings(
            threads=2,
            compute_gflop_per_s=figure(100.0),
            memory=(Bandwidth(working_set_bytes=2**17, gb_per_s=figure(50.0)),),
        ),
        operators=listed,
        bottlenecks=(
            Bottleneck(
                kind="Conv", bound="compute", count=2, time_us=figure(300.0), share=1.0, largest=("first", "second"),
                remedies=(Remedy(transform="quantize_static", why="int8.", operators=2, after="raise_opset"),),
            ),
            Bottleneck(kind="Mul", bound="memory", count=1, time_us=figure(1.0), share=0.0, largest=("m",),
                       why_none="None: nothing addresses it."),
        ),
        notes=("A note.",),
        timelines=(Timeline(slices=slices, measured=measured),) * 2,
        environment=environment(),
    )  # fmt: skip
