"""What lint rules are made of: a finding, a rule, and a view of an ONNX graph that answers what rules ask.

A rule is one small function from a view to the places that it finds, with a code, a remedy and, where hasten can mend
it, the name of the transform that does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hasten.model.flops import MATRIX
from hasten.model.onnx_file import OnnxModel, all_nodes
from hasten.model.shapes import Scope, constant_tensor, inferred
from hasten.spec.values import Value

__all__ = ["FREE_DIM", "Finding", "Found", "Level", "Rule", "View", "axis_sizes", "label", "rule_of", "seen"]

# "warning": it costs speed, memory or honesty and can be mended. "note": good to know; often nothing is wrong.
Level = Literal["warning", "note"]
# Nodes that a finding lists by name; more than a few help nobody.
_MOST_NAMES = 4
# Divisible by what networks usually halve sizes to, and no longer than what short position tables hold.
FREE_DIM = 64
_SMALL = 4096


class Finding(Value, frozen=True):
    """Something in the model that costs speed or honesty, and what to do about it.

    `transform` names the technique of hasten that mends it, if one does. `nodes` are the first few places of `count`.
    """

    code: str
    message: str
    remedy: str
    level: Level = "warning"
    transform: str | None = None
    nodes: tuple[str, ...] = ()
    count: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule saw: a sentence, and the names of the places."""

    message: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One check. `look` returns None where there is nothing to say."""

    code: str
    look: Callable[[View], Found | None]
    remedy: str
    level: Level = "warning"
    transform: str | None = None

    def finding(self, view: View) -> Finding | None:
        """Look, and dress what was seen as a finding."""
        found = self.look(view)
        if found is None:
            return None
        return Finding(
            code=self.code,
            message=found.message,
            remedy=self.remedy,
            level=self.level,
            transform=self.transform,
            nodes=found.places[:_MOST_NAMES],
            count=max(1, len(found.places)),
        )


def rule_of(
    rules: list[Rule], code: str, remedy: str, *, level: Level = "warning", transform: str | None = None
) -> Callable[[Callable[[View], Found | None]], Callable[[View], Found | None]]:
    """Make a function a rule: it joins `rules`."""

    def join(look: Callable[[View], Found | None]) -> Callable[[View], Found | None]:
        rules.append(Rule(code=code, look=look, remedy=remedy, level=level, transform=transform))
        return look

    return join


class View:
    """An ONNX model as rules look at it. `features` are the processor's instruction sets, empty where unknown."""

    def __init__(self, model: OnnxModel, features: Iterable[str] = ()) -> None:
        self.model = model
        self.features = frozenset(features)
        self.graph = model.proto.graph
        self.nodes = list(self.graph.node)

    @cached_property
    def everywhere(self) -> list[onnx.NodeProto]:
        """All nodes, those in subgraphs included."""
        return list(all_nodes(self.graph))

    @cached_property
    def scope(self) -> Scope:
        """Shapes and types with every free dimension set to 64."""
        return inferred(self.model, axis_sizes(self.model))[0]

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """Constant tensors of the main graph by name: initializers and `Constant` nodes."""
        found = {tensor.name: tensor for tensor in self.graph.initializer}
        found |= {node.output[0]: t for node in self.nodes if (t := constant_tensor(node)) is not None}
        return found

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node of the main graph that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes, in subgraphs too, that read each tensor."""
        found: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.everywhere:
            for name in node.input:
                found[name].append(node)
        return dict(found)

    @cached_property
    def outputs(self) -> set[str]:
        """Names of the graph's outputs, and of what subgraphs pass out of themselves."""
        names = {value.name for value in self.graph.output}
        for node in self.everywhere:
            for attribute in node.attribute:
                for body in (attribute.g, *attribute.graphs):
                    names |= {value.name for value in body.output}
        return names

    def read(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return self.consumers.get(name, [])

    def of(self, *kinds: str) -> list[onnx.NodeProto]:
        """All nodes of these operator types."""
        return [node for node in self.everywhere if node.op_type in kinds]

    def heavy(self) -> list[onnx.NodeProto]:
        """Nodes that do matrix work."""
        return [node for node in self.everywhere if node.op_type in MATRIX]

    def value(self, name: str) -> np.ndarray | None:  # pyright: ignore[reportMissingTypeArgument]
        """The values of a small constant of the main graph; None where there are none or they lie in another file."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) > _SMALL:
            return None
        return numpy_helper.to_array(tensor)


def axis_sizes(model: OnnxModel) -> dict[str, int]:
    """`FREE_DIM` for each free dimension of the inputs."""
    return {
        f"{spec.name}[{axis}]": FREE_DIM
        for spec in model.signature.inputs
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str)
    }


def label(node: onnx.NodeProto) -> str:
    """What to call a node: its name, or what it computes where it has none."""
    return node.name or f"{node.op_type} → {next((name for name in node.output if name), '?')}"


def seen(places: Iterable[str], one: str, several: str) -> Found | None:
    """What was seen at these places, in words: `{}` stands for their number. None where there are none."""
    found = tuple(places)
    return Found((one if len(found) == 1 else several).format(f"{len(found):,}"), found) if found else None
