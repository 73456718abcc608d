"""A profile from start to end: load, measure in rounds, match operators with nodes, place them, name bottlenecks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from hasten.engine.base import Tensors
from hasten.engine.host import environment
from hasten.engine.isolate import IsolatedSession, load_isolated
from hasten.measure.contention import Watch
from hasten.model.node_work import NodeWork, WorkGraph, work_graph
from hasten.model.onnx_file import OnnxModel
from hasten.model.openvino_ir import IrModel
from hasten.profile.advice import Adviser, Part
from hasten.profile.ceilings import gauge, no_ceilings
from hasten.profile.owners import named, owned_nodes
from hasten.profile.roofline import place
from hasten.profile.rounds import Noted, Table, measure, merged
from hasten.profile.subject import Subject, typical
from hasten.spec.profile import Bottleneck, Bound, Ceilings, Observation, Operator, Profile, Shapes, Timeline
from hasten.spec.progress import Listener, Progress, ignore
from hasten.stats.percentiles import percentile
from hasten.stats.ratio import speedup

__all__ = ["profile_of"]

_BOTTLENECKS = 3
_LARGEST = 4
_PATIENCE_S = 20.0
# A trace of a few runs shows all that there is to see.
_TRACED_RUNS = 5
# From here on the profiler distorts what it shows enough to say so.
_SLOWED = 1.1
# An operator that passes the roof by more than this says that the roof was measured too low.
_ABOVE = 1.1


def profile_of(subject: Subject, *, seed: int = 0, listener: Listener = ignore) -> Profile:
    """Profile `subject`. Raises `EngineError`, and `DataError` for samples that do not fit."""
    listener(Progress(stage="loading"))
    target = subject.target
    threads = target.threads or environment().cores_physical
    with load_isolated(subject.model.path, target) as session:
        samples = typical(subject.supply(session.signature))
        for slot, sample in enumerate(samples):
            session.put(slot, sample)
        with gauge(threads) if target.device == "CPU" else nullcontext() as reader:
            noted = measure(
                session, range(len(samples)), reader, seed=seed, watch=Watch(_PATIENCE_S), listener=listener
            )
            listener(Progress(stage="looking for remedies"))
            reason = f"the model runs on {target.device}; hasten measures the ceilings of the processor only"
            ceilings = reader.ceilings() if reader is not None else no_ceilings(threads, reason)
        return _summed_up(subject, session, samples, noted, ceilings)


def _summed_up(
    subject: Subject, session: IsolatedSession, samples: Sequence[Tensors], noted: Noted, ceilings: Ceilings
) -> Profile:
    shapes: Shapes = {name: tuple(map(int, array.shape)) for name, array in samples[0].items()}
    table = merged(noted.observations)
    nodes = _nodes(subject, table, shapes)
    operators = _operators(table, nodes, ceilings)
    plain = [float(np.median(times)) for times in noted.plain]
    profiled = [float(np.median(times)) for times in noted.profiled]
    return Profile(
        model=subject.name,
        sha256=subject.model.digest,
        format=subject.model.format,
        target=subject.target,
        precision=session.precision,
        shapes=shapes,
        samples=len(samples),
        rounds=len(noted.plain),
        latency_ms=percentile([ms for times in noted.plain for ms in times], 50),
        profiled_ms=percentile([ms for times in noted.profiled for ms in times], 50),
        slowdown=speedup(profiled, plain),
        operators_ms=percentile((table.us.sum(axis=0) / 1e3).tolist(), 50),
        ceilings=ceilings,
        operators=operators,
        bottlenecks=_bottlenecks(subject, table, operators, nodes),
        notes=tuple(_notes(subject, session, noted, operators)),
        timelines=_timelines(noted.observations, table),
        environment=environment(),
    )


class _Nodes:
    """What each operator stands for: names for people, and nodes with their work where the model is ONNX."""

    def __init__(self, names: list[tuple[str, ...]], graph: WorkGraph | None, owned: list[tuple[int, ...]]) -> None:
        self.names = names
        self._graph = graph
        self._owned = owned

    def of(self, place: int) -> tuple[NodeWork, ...]:
        """The model's nodes of an operator."""
        return tuple(self._graph.nodes[number] for number in self._owned[place]) if self._graph else ()

    def flops(self, place: int, *, matrix: bool) -> int | None:
        """FLOPs by the model's own shapes; None where no node, or not the one with the work, was matched."""
        nodes = self.of(place)
        if self._graph is None or not nodes or (matrix and not any(node.matrix for node in nodes)):
            return None
        return self._graph.flops(self._owned[place])

    def bytes_moved(self, place: int) -> int | None:
        """Bytes by the model's own shapes."""
        return self._graph.bytes_moved(self._owned[place]) if self._graph and self._owned[place] else None


def _nodes(subject: Subject, table: Table, shapes: Shapes) -> _Nodes:
    model = subject.model
    if isinstance(model, OnnxModel):
        free = {
            f"{spec.name}[{axis}]": shapes[spec.name][axis]
            for spec in model.signature.inputs
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str)
        }
        graph = work_graph(model, free)
        owned = owned_nodes(table.operators, graph)
        return _Nodes([tuple(graph.nodes[number].label for number in numbers) for numbers in owned], graph, owned)
    # Of other formats only names are compared: PyTorch's are the program's own, those of TFLite files get lost.
    known = model.layer_names() if isinstance(model, IrModel) else None if model.format == "torch" else frozenset[str]()
    return _Nodes(named(table.operators, known), None, [()] * len(table.operators))


def _operators(table: Table, nodes: _Nodes, ceilings: Ceilings) -> tuple[Operator, ...]:
    medians = np.median(table.us, axis=1)
    total = float(medians.sum()) or 1.0
    found: list[Operator] = []
    for number, item in enumerate(table.operators):
        time_us = percentile(table.us[number].tolist(), 50)
        flops = item.flops if item.flops is not None else nodes.flops(number, matrix=item.matrix)
        # What an engine puts in by itself lays data out anew and computes nothing.
        flops = 0 if flops is None and not item.matrix and not nodes.names[number] and item.bytes_moved else flops
        moved = item.bytes_moved if item.bytes_moved is not None else nodes.bytes_moved(number)
        placed = place(time_us, flops, moved, ceilings)
        found.append(
            Operator(
                name=item.name,
                kind=item.kind,
                nodes=nodes.names[number],
                time_us=time_us,
                share=float(medians[number]) / total,
                flops=flops,
                bytes_moved=moved,
                roofline_share=placed.share,
                bound=placed.bound,
                reason=placed.reason,
            )
        )
    return tuple(found)


def _bottlenecks(
    subject: Subject, table: Table, operators: Sequence[Operator], nodes: _Nodes
) -> tuple[Bottleneck, ...]:
    groups: defaultdict[tuple[str, Bound | None], list[int]] = defaultdict(list)
    for number, item in enumerate(operators):
        groups[item.kind, item.bound].append(number)
    shares = {key: sum(operators[number].share for number in members) for key, members in groups.items()}
    adviser = Adviser(subject.model, subject.target.engine)
    found: list[Bottleneck] = []
    for kind, bound in sorted(groups, key=lambda key: -shares[key])[:_BOTTLENECKS]:
        members = sorted(groups[kind, bound], key=lambda number: -operators[number].share)
        parts = [
            Part(operator=operators[number], nodes=nodes.of(number), matrix=table.operators[number].matrix)
            for number in members
        ]
        remedies = adviser.remedies(parts, bound)
        found.append(
            Bottleneck(
                kind=kind,
                bound=bound,
                count=len(members),
                time_us=percentile(table.us[members].sum(axis=0).tolist(), 50),
                share=shares[kind, bound],
                largest=tuple(operators[number].label for number in members[:_LARGEST]),
                remedies=remedies,
                why_none=None if remedies else _why_none(kind, bound, subject.target.engine),
            )
        )
    return tuple(found)


def _why_none(kind: str, bound: Bound | None, engine: str) -> str:
    how = f"{kind} bound by {bound}" if bound else f"{kind}, whose bound is unknown,"
    return f"None: no technique of hasten addresses {how} in this model on {engine}."


def _timelines(observations: Sequence[Observation], table: Table) -> tuple[Timeline, ...]:
    """A few runs of the round whose sum is the middle one; typical times end to end where there are no starts."""
    sums = [sum(sum(item.us) / max(1, len(item.us)) for item in one.operators) for one in observations]
    middle = observations[int(np.argsort(sums)[len(sums) // 2])]
    places = {(item.name, item.kind): place for place, item in enumerate(table.operators)}
    timed = [(places.get((item.name, item.kind)), item) for item in middle.operators if item.starts_us]
    if not timed:
        medians = np.median(table.us, axis=1)
        starts = np.concatenate([[0.0], np.cumsum(medians)])
        laid = tuple((place, float(starts[place]), float(us)) for place, us in enumerate(medians))
        return (Timeline(slices=laid, measured=False),)
    runs = min(_TRACED_RUNS, len(middle.wall_us))
    return tuple(
        Timeline(
            slices=tuple((place, item.starts_us[run], item.us[run]) for place, item in timed if place is not None),
            measured=True,
        )
        for run in range(runs)
    )


def _notes(subject: Subject, session: IsolatedSession, noted: Noted, operators: Sequence[Operator]) -> list[str]:
    notes = list(subject.notes)
    if noted.observations[0].averaged:
        notes.append(
            f"{subject.target.engine} keeps means, not single runs: each figure of an operator is the median of "
            f"{len(noted.observations)} means, each of a freshly compiled model."
        )
    if noted.contended:
        notes.append(f"{noted.contended} of {len(noted.plain)} rounds ran on a contended machine.")
    above = [item for item in operators if (item.roofline_share.low or 0.0) > _ABOVE]
    if above:
        notes.append(
            f"{_counted(len(above))} faster than the ceilings found: other work held these down, or the data lay "
            "in a nearer cache than a copy of its size."
        )
    unplaced = [item for item in operators if item.bound is None and item.reason and "work" in item.reason]
    if unplaced:
        share = sum(item.share for item in unplaced)
        notes.append(f"The work of {len(unplaced)} operators ({share:.1%} of the time) is unknown.")
    if session.precision not in ("f32",):
        notes.append(f"The compute ceiling is that of f32; arithmetic in {session.precision} can exceed it.")
    slower = speedup([float(np.median(t)) for t in noted.profiled], [float(np.median(t)) for t in noted.plain])
    if slower.value is not None and slower.value > _SLOWED:
        notes.append(
            f"The profiler makes the model {slower.value:.2f} times as slow. It adds about as much to each operator, "
            "so that many small ones look larger than they are."
        )
    return notes


def _counted(operators: int) -> str:
    return "1 operator is" if operators == 1 else f"{operators} operators are"
