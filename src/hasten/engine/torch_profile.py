"""torch's own profiler over an exported program: times of its nodes, one for each run.

The program runs node by node in `torch.fx.Interpreter`, each node under a mark, so that every operator in the
profiler's trace belongs to a node. A node's time is that of the operators inside its mark: the interpreter's own
Python is left out of the sum, though not of the wall time. Needs torch; only the torch engine may import it.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hasten.errors import EngineRunError
from hasten.spec.profile import Observation, OperatorTime

__all__ = ["observe"]

_MARK = "hasten:"
# These choose from their first operand and read no more of it than they write.
_CHOOSING = frozenset({"embedding", "index", "index_select", "gather"})


@dataclass(slots=True)
class _Size:
    """What one node computes and moves, watched while it runs. `matrix` says that torch counts FLOPs for it."""

    kind: str
    flops: int
    bytes_moved: int
    matrix: bool


@dataclass(slots=True)
class _Times:
    us: list[float] = field(default_factory=list[float])
    starts: list[float] = field(default_factory=list[float])


class _Marked(torch.fx.Interpreter):
    """Runs each node under a mark that bears its name."""

    def run_node(self, n: torch.fx.Node) -> Any:
        with record_function(_MARK + n.name):
            return super().run_node(n)


class _Sized(torch.fx.Interpreter):
    """Notes the work of each node that calls an operator."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.sizes: dict[str, _Size] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.sizes[n.name] = _size(str(n.target), given, made, int(counter.get_total_flops()))
        return result


def observe(program: Any, samples: Sequence[Mapping[str, Any]], warmup: int) -> Observation:
    """Run the program on samples (tensors by input) and note its nodes. Raises `EngineRunError`."""
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            marked, sized = _Marked(program), _Sized(program)
            ordered = [_in_order(program, sample) for sample in samples]
            sized.run(*ordered[0])
            wall: list[float] = []
            with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
                # Under the profiler, which itself needs a run to come up to speed.
                for sample in [ordered[0]] * warmup + ordered:
                    started = time.perf_counter_ns()
                    marked.run(*sample)
                    wall.append((time.perf_counter_ns() - started) / 1e3)
            operators = _operators(profiler.events() or (), sized.sizes, warmup)
            return Observation(operators=operators, wall_us=tuple(wall[warmup:]))
    except Exception as error:
        raise EngineRunError(f"torch failed: {' '.join(str(error).split())[:400]}") from error


def _in_order(program: Any, sample: Mapping[str, Any]) -> list[Any]:
    """The tensors in the order of the program's placeholders, which bear the inputs' names."""
    return [sample[str(node.target)] for node in program.graph.nodes if node.op == "placeholder"]


def _operators(events: Iterable[Any], sizes: Mapping[str, _Size], skip: int) -> tuple[OperatorTime, ...]:
    found: defaultdict[str, _Times] = defaultdict(_Times)
    marks = [event for event in events if str(event.name).startswith(_MARK)]
    for mark in sorted(marks, key=lambda event: event.time_range.start):
        name = str(mark.name).removeprefix(_MARK)
        inside = list(mark.cpu_children)
        if name in sizes and inside:
            found[name].us.append(sum(float(event.time_range.elapsed_us()) for event in inside))
            found[name].starts.append(min(float(event.time_range.start) for event in inside))
    first = min((times.starts[0] for times in found.values()), default=0.0)
    return tuple(
        OperatorTime(
            name=name,
            kind=sizes[name].kind,
            nodes=(name,),
            us=tuple(times.us[skip:]),
            starts_us=tuple(start - first for start in times.starts[skip:]),
            flops=sizes[name].flops,
            bytes_moved=sizes[name].bytes_moved,
            matrix=sizes[name].matrix,
        )
        for name, times in found.items()
    )


def _size(target: str, given: Sequence[Any], made: Sequence[Any], matrix_flops: int) -> _Size:
    """A result that shares its memory with an argument is a view: nothing was computed or moved."""
    memory = {tensor.untyped_storage().data_ptr() for tensor in given}
    fresh = [tensor for tensor in made if tensor.untyped_storage().data_ptr() not in memory]
    kind = target.removeprefix("aten.").split(".")[0]
    if not fresh:
        return _Size(kind, 0, 0, False)
    read, written = _bytes(given), _bytes(made)
    passes = max(tensor.numel() for tensor in (*given[:1], *fresh))
    return _Size(kind, matrix_flops or passes, 2 * written if kind in _CHOOSING else read + written, matrix_flops > 0)


def _bytes(tensors: Sequence[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
