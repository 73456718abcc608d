"""The candidates: every engine that is here, in every precision that this machine computes, on every sensible
thread count.

What cannot even be tried is part of the answer too: it is returned as a rejection with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.engine.base import Probe, engines, reference_engine
from hasten.engine.host import environment
from hasten.errors import MissingError
from hasten.model.base import Model
from hasten.spec.evidence import Rejection
from hasten.spec.target import Precision, Target
from hasten.spec.variant import REFERENCE, Step, Variant

__all__ = ["Planned", "plan", "probe_all", "reference_variant"]

_USUALLY_FASTEST: tuple[Precision, ...] = ("bf16", "int8", "f32", "f16")
_PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "int8")
Planned = tuple[list[Variant], list[Rejection]]


def reference_variant(model: Model) -> Variant:
    """What most teams run today: the usual engine of the file's format in f32 with its defaults, as trained."""
    return Variant(id=REFERENCE, target=Target(engine=reference_engine(model.format)))


def probe_all() -> list[Probe]:
    """Ask every registered engine what it can do here; one that is not installed answers with how to install it."""
    return [_probe(name) for name in engines.names()]


def plan(model: Model, probes: list[Probe]) -> Planned:
    """Return the variants to try, and those that cannot be tried with the reason."""
    planned: list[Variant] = []
    impossible: list[Rejection] = []
    for probe in probes:
        for precision in _PRECISIONS:
            variants = list(_variants(model, probe, precision))
            reason = _obstacle(probe, precision)
            if reason:
                impossible.append(Rejection(variant=variants[-1], stage="build", reason=reason))
            else:
                planned += variants
    return sorted(planned, key=_promise), impossible


def _promise(variant: Variant) -> tuple[bool, int]:
    """Order by what usually gains most, so that a budget that runs short has tried the best: all cores before one."""
    most = environment().cores_physical
    return variant.target.threads < most, _USUALLY_FASTEST.index(variant.target.precision)


def _probe(name: str) -> Probe:
    try:
        return engines.get(name).probe()
    except MissingError as error:
        return Probe(engine=name, reason=error.message, remedy=error.remedy)


def _obstacle(probe: Probe, precision: Precision) -> str | None:
    if not probe.devices:
        return f"{probe.reason or 'The engine found no device.'} {probe.remedy or ''}".strip()
    device = probe.device("CPU")
    if device is None or precision not in device.precisions:
        return f"{probe.engine} does not compute {precision} on this machine's CPU."
    return None


def _variants(model: Model, probe: Probe, precision: Precision) -> Iterator[Variant]:
    host = environment()
    for threads in sorted({1, host.cores_physical, host.cores_logical}):
        is_reference = probe.engine == "onnxruntime" and precision == "f32" and threads == host.cores_physical
        # ONNX Runtime's default is one thread for each physical core: that candidate is the reference itself.
        if not is_reference or threads == 1:
            yield Variant(
                id=f"{probe.engine}-{precision}-{threads}t",
                target=Target(engine=probe.engine, precision=precision, threads=threads),
                recipe=_recipe(model) if precision == "int8" else (),
            )


def _recipe(model: Model) -> tuple[Step, ...]:
    """Plain static quantization, preceded by what it needs."""
    raised = (Step(transform="raise_opset", options={"to": 17}),) if model.opset < 13 else ()
    return (*raised, Step(transform="fold"), Step(transform="quantize_static"))
