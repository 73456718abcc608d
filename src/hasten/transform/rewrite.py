"""Rewriting by rules: find a pattern at an *anchor*, the node that makes its result, and put other nodes in its place.

The result keeps its name, so that whoever reads it notices nothing; what only the pattern read falls away. Sites, the
places that a recipe may skip, are found by doing all of it once on a copy: what one rule makes, another may match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from hasten.model.onnx_file import OnnxModel, save_proto
from hasten.transform.base import Task
from hasten.transform.graph import Graph
from hasten.transform.onnx_graph import load, site_names

__all__ = ["Change", "Rule", "apply_rules", "rewrite", "rewritten_sites"]

_MOST_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Change:
    """What a rule wants done at its anchor: the nodes that take its place, and what to call this."""

    form: str
    nodes: Sequence[onnx.NodeProto]


# Looks at one node as an anchor. None where its pattern is not there. Must not change the graph unless it matches.
Rule = Callable[["Graph", onnx.NodeProto], Change | None]


def rewrite(graph: Graph, rules: Iterable[Rule], skip: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Apply each rule at every node, again until nothing more matches. Return the sites and forms of what was done."""
    rules, done = list(rules), list[tuple[str, str]]()
    graph.skip = skip
    for _ in range(_MOST_ROUNDS):
        before = len(done)
        for rule in rules:
            for node in graph.nodes():
                if not graph.has(node) or not graph.allowed(node):
                    continue
                site, change = graph.site(node), rule(graph, node)
                if change is not None:
                    done.append((site, change.form))
                    if change.nodes:
                        graph.put(node, change.nodes)
        if len(done) == before:
            break
    return done


def rewritten_sites(model: OnnxModel, rules: Iterable[Rule]) -> list[str]:
    """The sites that `rewrite` would act on, in graph order: it tries on a copy, weights left on disk."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    order = list(site_names(model.proto.graph))
    found = {site for site, _ in rewrite(Graph(proto, model), rules)}
    return [site for site in order if site in found]


def apply_rules(task: Task, rules: Iterable[Rule], names: Mapping[str, str]) -> None:
    """Rewrite the task's model and write it; put how often each form was used into the notes, as `names` calls it."""
    assert isinstance(task.model, OnnxModel), "the base lets only the declared formats through"
    graph = Graph(load(task.model), task.model)
    done = [form for _, form in rewrite(graph, rules, task.skip)]
    for form in dict.fromkeys(done):
        task.notes.append(f"{names.get(form, form)}: {done.count(form)}.")
    save_proto(graph.finish(), task.out)
