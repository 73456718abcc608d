"""Which techniques of hasten address a bottleneck: what would suit its kind and bound, held against the model.

A technique is named only where it says itself that it would act on nodes of the bottleneck (`Transform.sites`), or
where a finding of `hasten inspect` that it mends lies there. Whether it pays is for `hasten optimize` to measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from hasten.engine.host import environment
from hasten.errors import HastenError
from hasten.model.base import Model
from hasten.model.lint import RULES
from hasten.model.lint_base import View
from hasten.model.node_work import NodeWork
from hasten.model.onnx_file import OnnxModel
from hasten.spec.profile import Bound, Operator, Remedy
from hasten.transform.base import transforms

__all__ = ["Adviser", "Part"]

# A refusal may name the technique that makes the model fit: "... the model uses 12 (raise_opset first)."
_FIRST = re.compile(r"\((\w+) first\)")
_PRODUCTS = frozenset({"MatMul", "Gemm"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_WORKING: frozenset[Bound] = frozenset({"compute", "memory"})
# Below this many bytes weights stay in the caches, and narrower ones save no traffic.
_LARGE_WEIGHTS = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One operator of a bottleneck, and the model's nodes that it stands for, where they are known."""

    operator: Operator
    nodes: tuple[NodeWork, ...]
    matrix: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cure:
    """A technique, what it is good for, and why.

    `kinds` are the types of nodes that it helps (empty: any), `matrix` narrows it to matrix work. `alone` is for
    techniques that join or replace nodes: an operator that the engine has made of several nodes has been helped.
    `whole` is for techniques without sites, which change every operator.
    """

    transform: str
    why: str
    bounds: frozenset[Bound]
    kinds: frozenset[str] = frozenset()
    engines: frozenset[str] = frozenset()
    matrix: bool = False
    alone: bool = False
    whole: bool = False
    least_bytes: int = 0


_ANY: frozenset[Bound] = frozenset({"compute", "memory", "overhead"})
_CURES = (
    _Cure(transform="layout", why="Transposes that undo each other, or that can move to where they do, go away.",
          bounds=_ANY, kinds=frozenset({"Transpose"})),
    _Cure(transform="fuse", why="Joined with their neighbours, they pass over memory once and start one kernel.",
          bounds=frozenset({"memory", "overhead"}), alone=True),
    _Cure(transform="replace_operators", why="A cheaper form gives the same result.", bounds=_ANY, alone=True),
    _Cure(transform="quantize_static", why="int8 needs fewer instructions for the same arithmetic and a quarter of the "
          "bytes; costs accuracy.", bounds=_WORKING, kinds=_PRODUCTS | _CONVOLUTIONS),
    _Cure(transform="quantize_dynamic", why="int8 weights and arithmetic without calibration; costs accuracy.",
          bounds=_WORKING, kinds=_PRODUCTS | {"Attention", "LSTM", "GRU"}, engines=frozenset({"onnxruntime"})),
    _Cure(transform="quantize_nncf", why="int8 that fits this engine's kernels, with corrected biases; costs accuracy.",
          bounds=_WORKING, engines=frozenset({"openvino"}), matrix=True),
    _Cure(transform="quantize_weights", why="Weights of 4 or 8 bits are less to read.", bounds=frozenset({"memory"}),
          kinds=_PRODUCTS, engines=frozenset({"onnxruntime"}), least_bytes=_LARGE_WEIGHTS),
    _Cure(transform="reduce_resolution", why="Smaller pictures are less work everywhere; costs accuracy.",
          bounds=_WORKING, whole=True),
    _Cure(transform="reduce_length", why="Shorter sequences are less work everywhere; costs accuracy.", bounds=_WORKING,
          whole=True),
    _Cure(transform="export_onnx", why="Engines for ONNX fuse what PyTorch starts one by one from Python.", bounds=_ANY,
          engines=frozenset({"torch"}), whole=True),
)  # fmt: skip


class Adviser:
    """Looks at one model on one engine. What a technique would act on is asked once."""

    def __init__(self, model: Model, engine: str) -> None:
        self._model = model
        self._engine = engine
        self._asked: dict[str, frozenset[str] | None] = {}
        self._after: dict[str, str] = {}

    def remedies(self, parts: Sequence[Part], bound: Bound | None) -> tuple[Remedy, ...]:
        """Techniques for the operators of one bottleneck: what `inspect` finds there first, then what suits it."""
        found = {remedy.transform: remedy for remedy in self._from_findings(parts)}
        for cure in _CURES:
            if bound in cure.bounds and (not cure.engines or self._engine in cure.engines):
                count = self._count(cure, parts)
                if count:
                    after = self._after.get(cure.transform)
                    remedy = Remedy(transform=cure.transform, why=cure.why, operators=count, after=after)
                    found.setdefault(cure.transform, remedy)
        return tuple(found.values())

    def _count(self, cure: _Cure, parts: Sequence[Part]) -> int:
        """How many of the operators the technique would change."""
        if self._model.bytes_on_disk < cure.least_bytes:
            return 0
        suited = [part for part in parts if _suits(cure, part)]
        sites = self._sites(cure.transform) if suited else None
        if sites is None:
            return 0
        if not sites:
            # A technique without sites acts on the whole; one with sites would name them for an ONNX model.
            return len(suited) if cure.whole or self._model.format != "onnx" else 0
        return sum(any(_names(node) & sites for node in part.nodes) for part in suited)

    def _sites(self, name: str) -> frozenset[str] | None:
        """Where a technique would act; None where it does not apply here or is not installed."""
        if name not in self._asked:
            self._asked[name] = self._ask(name)
        return self._asked[name]

    def _ask(self, name: str) -> frozenset[str] | None:
        try:
            transform = transforms.get(name)
            options = transform.defaults
            if self._model.format not in transform.formats:
                return None
            refusal = transform.requires(self._model, options)
            first = _FIRST.search(refusal or "")
            if first:
                self._after[name] = first[1]
            elif refusal:
                return None
            return frozenset(transform.sites(self._model, options))
        except HastenError:
            return None

    def _from_findings(self, parts: Sequence[Part]) -> Iterable[Remedy]:
        for transform, words, places in self._findings:
            count = sum(any(_touched(node) & places for node in part.nodes) for part in parts)
            if count:
                yield Remedy(transform=transform, why=words, operators=count)

    @cached_property
    def _findings(self) -> list[tuple[str, str, frozenset[str]]]:
        """Transform, words and all places of each finding that a technique mends."""
        if not isinstance(self._model, OnnxModel):
            return []
        view = View(self._model, environment().features)
        looked = [(rule, rule.look(view)) for rule in RULES if rule.transform and rule.level == "warning"]
        return [
            (str(rule.transform), f"{found.message} {rule.remedy}", frozenset(found.places))
            for rule, found in looked
            if found is not None
        ]


def _suits(cure: _Cure, part: Part) -> bool:
    if cure.alone and len(part.nodes) > 1:
        return False
    if cure.matrix and not part.matrix:
        return False
    return not cure.kinds or any(node.kind in cure.kinds for node in part.nodes)


def _names(node: NodeWork) -> set[str]:
    """What techniques call a node (`hasten.transform.onnx_graph.site_names`)."""
    return {node.name, f"{node.kind}:{node.outputs[0] if node.outputs else '?'}"} - {""}


def _touched(node: NodeWork) -> set[str]:
    """What findings call a node, and the tensors that it reads."""
    return {node.label, *node.inputs} - {""}
