"""Which nodes of the model an executed operator stands for.

Engines fuse, fold and rename. What they still say, node names and the tensors that operators make, claims nodes for
operators. Nodes that nobody claims were fused into a neighbour: an elementwise node that alone reads what matrix work
makes was done along with it; any other belongs to whoever reads its result. Matrix work is never given to an operator
that does none, or that has some already: then it stays without an owner, and the operator's work unknown rather than
wrong. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from hasten.model.node_work import WorkGraph
from hasten.spec.profile import OperatorTime

__all__ = ["named", "owned_nodes"]

# Kinds that stand for several products at once.
_WHOLE_ATTENTION = ("Attention", "MHA")
# What engines put in by themselves, named after a tensor of the model that it merely lays out anew.
_INSERTED = ("Reorder",)


def owned_nodes(operators: Sequence[OperatorTime], graph: WorkGraph) -> list[tuple[int, ...]]:
    """For each operator the numbers of its nodes in `graph`, matrix work first. Operators are in execution order."""
    owner = _claimed(operators, graph)
    _give_to_makers(owner, operators, graph)
    _give_to_readers(owner, operators, graph)
    owned: list[list[int]] = [[] for _ in operators]
    for number in sorted(owner):
        owned[owner[number]].append(number)
    return [tuple(sorted(numbers, key=lambda number: not graph.nodes[number].matrix)) for numbers in owned]


def named(operators: Sequence[OperatorTime], known: frozenset[str] | None) -> list[tuple[str, ...]]:
    """For each operator the names that the engine gives; only those in `known`, where the model's names are known."""
    return [tuple(name for name in item.nodes if known is None or name in known) for item in operators]


def _claimed(operators: Sequence[OperatorTime], graph: WorkGraph) -> dict[int, int]:
    """Node -> operator, by what the engine says. The first operator that names a node has it."""
    owner: dict[int, int] = {}
    for place, item in enumerate(operators):
        if item.kind.startswith(_INSERTED):
            continue
        said = [graph.by_name.get(name, graph.makers.get(name)) for name in item.nodes]
        said += [graph.makers.get(name) for name in item.tensors]
        for number in said:
            # Engines hand names on when they rewrite; matrix work is done by whoever multiplies.
            if number is not None and (item.matrix or not graph.nodes[number].matrix):
                owner.setdefault(number, place)
    return owner


def _give_to_makers(owner: dict[int, int], operators: Sequence[OperatorTime], graph: WorkGraph) -> None:
    for number, node in enumerate(graph.nodes):
        maker = next((graph.makers[name] for name in node.inputs if name in graph.makers), None)
        if number in owner or node.matrix or maker is None or maker not in owner:
            continue
        if operators[owner[maker]].matrix and graph.readers(maker) == [number]:
            owner[number] = owner[maker]


def _give_to_readers(owner: dict[int, int], operators: Sequence[OperatorTime], graph: WorkGraph) -> None:
    full = {place for number, place in owner.items() if graph.nodes[number].matrix}
    for number in reversed(range(len(graph.nodes))):
        found = [owner[reader] for reader in graph.readers(number) if reader in owner]
        if number in owner or not found:
            continue
        place, node = min(found), graph.nodes[number]
        if node.matrix:
            item = operators[place]
            several = any(word in item.kind for word in _WHOLE_ATTENTION)
            if not several and (not item.matrix or place in full):
                continue
            full.add(place)
        owner[number] = place
