"""The candidates: every engine that is here and takes the model's format, in every precision that this machine
computes, with the recipes that make sense, on every sensible thread count.

What cannot even be tried is part of the answer too: it is returned as a rejection with the reason. Trying comes in two
waves: the first finds which engine, precision and recipe suit the model; the second turns the knobs of the best.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from hasten.engine.base import Probe, engines, reference_engine
from hasten.engine.host import environment
from hasten.engine.isolate import probe_isolated
from hasten.errors import MissingError
from hasten.model.base import Model
from hasten.optimize.recipes import recipes_for
from hasten.optimize.wish import Want, Wish
from hasten.spec.evidence import Rejection
from hasten.spec.target import SHAPE_KNOBS, Format, Precision, Runtime, Target
from hasten.spec.variant import REFERENCE, Step, Variant
from hasten.transform.base import transforms

__all__ = ["Planned", "plan", "probe_all", "reference_variant", "second_wave", "smaller_inputs"]

_USUALLY_FASTEST: tuple[Precision, ...] = ("bf16", "int8", "f32", "f16", "int4")
_PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "int8", "f16", "int4")
Planned = tuple[list[Wish], list[Rejection]]

_ASKED_AT_ONCE = 2
_PREPARES = ("export_onnx", "raise_opset", "fold", "flush_subnormals")
_SCALES = (0.75, 0.86)
# Knobs that the second wave turns on the best variants, where the engine obeys them.
_KNOBS: tuple[tuple[str, str], ...] = (("bound", "io_binding"), ("denormals", "flush_denormals"))
# Recipes that make no sense together with graphs for a few lengths: what these do is done there, or is about shapes.
_OWN_LENGTHS = {"trim", "graph"}
# Engines that keep threads on cores of their own, which helps until another guest or process wants one of these cores.
_PINNING = {"onnxruntime", "openvino"}


def reference_variant(model: Model) -> Variant:
    """What most teams run today: the usual engine of the file's format in f32 with its defaults, as trained."""
    return Variant(id=REFERENCE, target=Target(engine=reference_engine(model.format)))


def probe_all(formats: Collection[Format] | None = None) -> list[Probe]:
    """Ask every registered engine what it can do here; one that is not installed answers with how to install it.

    Each is asked in a process of its own, so that its libraries are not loaded here. With `formats`, engines that
    load none of them are not asked: that alone takes seconds for the large ones.
    """
    names = engines.names()
    asked = [name for name in names if formats is None or _formats(name) & set(formats)]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        answers = dict(zip(asked, pool.map(probe_isolated, asked), strict=True))
    words = " or ".join(sorted(formats or ()))
    return [answers.get(name) or Probe(engine=name, reason=f"{name} does not load {words} models.") for name in names]


def _formats(engine: str) -> frozenset[Format]:
    """What an engine loads; everything, where it cannot be imported to say so and its probe must."""
    try:
        return engines.get(engine).formats
    except MissingError:
        return frozenset({"onnx", "tflite", "openvino", "torch"})


def plan(
    model: Model,
    probes: Sequence[Probe],
    prefix: tuple[Step, ...] = (),
    lengths: tuple[int, ...] = (),
    *,
    single_row: bool = False,
) -> Planned:
    """Return the wishes of the first wave, the most promising first, and what cannot be tried with the reason.

    `prefix` is what made `model` of the trained model (such as an export to ONNX); each recipe begins with it.
    `lengths` are those that deserve graphs of their own, on engines that can (`optimize.lengths`); `single_row` says
    that single rows may have one, which makes them faster and costs memory.
    """
    planned: list[Wish] = []
    single_row = single_row and _has_open_batch(model)
    impossible: list[Rejection] = []
    for probe in probes:
        for precision in _PRECISIONS:
            wishes = list(_wishes(model, probe, precision, prefix, lengths, single_row))
            reason = _obstacle(model, probe, precision) if wishes else None
            if precision != "f32" and not (probe.devices and _loads(probe, model)):
                continue  # said once for the engine
            if reason:
                impossible.append(Rejection(variant=wishes[-1].variant, stage="build", reason=reason))
            else:
                planned += wishes
    return sorted(planned, key=_promise), impossible


def smaller_inputs(model: Model) -> list[Want]:
    """The steps that let `model` run at lower resolutions, where it can."""
    if model.format != "onnx":
        return []
    technique = transforms.get("reduce_resolution")
    steps = [Step(transform=technique.name, options={"scale": scale}) for scale in _SCALES]
    usable = [step for step in steps if technique.requires(model, {**technique.defaults, **step.options}) is None]
    return [Want(step=step) for step in usable]


def second_wave(best: Sequence[Wish], honours: dict[str, frozenset[str]], smaller: Sequence[Want] = ()) -> list[Wish]:
    """Return further wishes around the best of the first wave: lower resolutions, one thread, threads that may move,
    and each knob that the engine obeys.
    """
    wave = [_shrunk(wish, want) for wish in best[:1] for want in smaller]
    for wish in best:
        target = wish.target
        if target.threads > 1 and wish.wants:
            id_ = _id(wish.id.rpartition("-")[0], threads=1)
            wave.append(_varied(wish, id_, msgspec.structs.replace(target, threads=1)))
        if target.runtime.turned() - SHAPE_KNOBS:
            continue  # one knob at a time: what a second adds is less than a trial can tell
        if target.pin and target.threads > 1 and target.engine in _PINNING:
            free = msgspec.structs.replace(target, pin=False)
            wave.append(_varied(wish, f"{wish.id}-unpinned", free))
        for name, knob in _KNOBS:
            if knob in honours.get(target.engine, frozenset()):
                runtime = msgspec.structs.replace(target.runtime, **{knob: True})
                wave.append(_varied(wish, f"{wish.id}-{name}", msgspec.structs.replace(target, runtime=runtime)))
    return wave


def _shrunk(wish: Wish, want: Want) -> Wish:
    """The wish at a lower resolution: after what prepares the graph, before what looks at its numbers."""
    at = sum(1 for item in wish.wants if item.step.transform in _PREPARES)
    scale = str(want.step.options["scale"])
    return Wish(id=f"{wish.id}-at{scale}", target=wish.target, wants=(*wish.wants[:at], want, *wish.wants[at:]))


def _varied(wish: Wish, id_: str, target: Target) -> Wish:
    return Wish(id=id_, target=target, wants=wish.wants)


def _promise(wish: Wish) -> tuple[bool, bool, int, int]:
    """Order by what is likely to gain most for the time that it takes, so that a budget that runs short has tried the
    best: all cores before one, models as they are before those that must be built, then what usually gains most.
    """
    fewer = wish.target.threads < environment().cores_physical
    return fewer, bool(wish.wants), _USUALLY_FASTEST.index(wish.target.precision), len(wish.wants)


def _obstacle(model: Model, probe: Probe, precision: Precision) -> str | None:
    if not probe.devices:
        return f"{probe.reason or 'The engine found no device.'} {probe.remedy or ''}".strip()
    if not _loads(probe, model):
        return f"{probe.engine} does not load {model.format} models."
    device = probe.device("CPU")
    if device is None or precision not in device.precisions:
        return f"{probe.engine} does not compute {precision} on this machine's CPU."
    return None


def _has_open_batch(model: Model) -> bool:
    shapes = [spec.shape for spec in model.signature.inputs]
    return bool(shapes) and all(shape and isinstance(shape[0], str) for shape in shapes)


def _loads(probe: Probe, model: Model) -> bool:
    return model.format in engines.get(probe.engine).formats


def _wishes(
    model: Model,
    probe: Probe,
    precision: Precision,
    prefix: tuple[Step, ...],
    lengths: tuple[int, ...],
    single_row: bool,
) -> Iterator[Wish]:
    """Models as they are on each thread count, recipes on all cores: the second wave varies those that are good."""
    host = environment()
    can = engines.get(probe.engine).honours if probe.devices and _loads(probe, model) else frozenset[str]()
    plain = Runtime(single_row=single_row and "single_row" in can)
    before = tuple(Want(step=step) for step in prefix)
    if probe.engine == "torch" and precision in ("f32", "bf16"):
        yield from _compiled(precision, host.cores_physical)
    for name, wants in recipes_for(model, probe.engine, precision):
        for threads in sorted({1, host.cores_physical, host.cores_logical}) if not wants else [host.cores_physical]:
            target = Target(engine=probe.engine, precision=precision, threads=threads, runtime=plain)
            yield Wish(id=_id(probe.engine, precision, name, threads=threads), target=target, wants=(*before, *wants))
            if lengths and "lengths" in can and name not in _OWN_LENGTHS:
                yield Wish(
                    id=_id(probe.engine, precision, name, "lengths", threads=threads),
                    target=msgspec.structs.replace(target, runtime=Runtime(lengths=lengths)),
                    wants=(*before, *(want for want in wants if want.step.transform != "trim_padding")),
                )
    if precision == "f32" and probe.engine == "onnxruntime" and model.format == "onnx":
        # All cores are ONNX Runtime's default: there, the model as it is is the reference itself.
        for threads in sorted({1, host.cores_logical} - ({host.cores_physical} if not prefix else set())):
            yield Wish(
                id=_id(probe.engine, precision, threads=threads),
                target=Target(engine=probe.engine, precision=precision, threads=threads),
                wants=before,
            )


def _compiled(precision: Precision, threads: int) -> Iterator[Wish]:
    """PyTorch's own compilers: at load (inductor), and ahead of time."""
    for mode in ("inductor", "aot"):
        yield Wish(
            id=_id("torch", precision, mode, threads=threads),
            target=Target(engine="torch", precision=precision, threads=threads, options={"compile": mode}),
        )


def _id(*words: str, threads: int) -> str:
    return "-".join([*(word for word in words if word), f"{threads}t"])
