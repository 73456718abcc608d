"""ONNX Runtime's profiler: times of operators from the trace that a session writes, one for each run.

The trace names the executed nodes, whose names the runtime's fusions invent. What a node makes is therefore read from
the graph that the runtime writes down once: fusions keep the names of the tensors that come out of them. Only where the
layout changes is a tensor renamed, and then the node bears the old name (`_NCHWC`).
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hasten.engine.onnxruntime_options import provider_options, provider_row, session_options
from hasten.engine.onnxruntime_precision import is_arithmetic
from hasten.errors import EngineRunError
from hasten.spec.profile import OperatorTime
from hasten.spec.target import Target

__all__ = ["operators_of", "tensors_made"]

_SUFFIX = "_kernel_time"
_NCHWC = re.compile(r"_nchwc(_token_\d+)?$")
# These choose from their first operand, or look at its shape alone: they read no more of it than they write.
_CHOOSING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Shape", "Size"})
# These give the same buffer another shape.
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"})


@dataclass(slots=True)
class _Node:
    """One executed node. `us` and `starts` are by number of the run; a node in the body of a loop adds up."""

    kind: str
    args: Mapping[str, Any]
    us: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    starts: dict[int, float] = field(default_factory=dict[int, float])


def operators_of(
    events: Iterable[Mapping[str, Any]], made: Mapping[str, tuple[str, ...]], *, skip: int, runs: int
) -> tuple[OperatorTime, ...]:
    """Operators from the events of a trace, without the first `skip` runs. `made` are the tensors that each node makes.

    Raises `EngineRunError` where the trace does not hold all runs: the runtime stops noting at a million events.
    """
    listed = sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in listed if event["name"] == "model_run"]
    if len(spans) != skip + runs:
        raise EngineRunError(f"The trace of onnxruntime holds {len(spans)} of {skip + runs} runs.")
    nodes: dict[str, _Node] = {}
    kernels = [event for event in listed if event["cat"] == "Node" and event["name"].endswith(_SUFFIX)]
    run = 0
    for event, own in _own_times(kernels):
        while run < len(spans) - 1 and event["ts"] >= spans[run][1]:
            run += 1
        if run >= skip:
            _note(nodes, event, run - skip, own)
    first = min((start for node in nodes.values() for start in node.starts.values()), default=0.0)
    return tuple(_operator(name, node, made, runs, first) for name, node in nodes.items())


@functools.lru_cache(maxsize=1)
def tensors_made(model: str, target: bytes) -> dict[str, tuple[str, ...]]:
    """The tensors that each node of the executed graph makes; `target` is JSON, so that the answer can be kept.

    Empty where the runtime cannot write its graph down, as with providers that compile: nodes then have names alone.
    """
    import onnx
    import onnxruntime as ort

    wanted = msgspec.json.decode(target, type=Target)
    row = provider_row(wanted)
    with tempfile.TemporaryDirectory(prefix="hasten-graph-") as folder:
        path = Path(folder) / "executed.onnx"
        options = session_options(Path(model), wanted, row)
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        try:
            providers = [(row.name, provider_options(row, wanted))]
            ort.InferenceSession(model, options, providers=providers, enable_fallback=False)
            graph = onnx.load(str(path), load_external_data=False).graph
        except Exception:
            return {}
    return {node.name: tuple(name for name in node.output if name) for node in graph.node if node.name}


def _own_times(kernels: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Each event with its own time: without that of the nodes in its body, which the trace lists inside it."""
    listed = list(kernels)
    inside: defaultdict[int, float] = defaultdict(float)
    open_: defaultdict[Any, list[int]] = defaultdict(list)
    for place, event in enumerate(listed):
        around = open_[event["tid"]]
        while around and event["ts"] >= listed[around[-1]]["ts"] + listed[around[-1]]["dur"]:
            around.pop()
        if around:
            inside[around[-1]] += event["dur"]
        around.append(place)
    for place, event in enumerate(listed):
        yield event, max(0.0, float(event["dur"]) - inside[place])


def _note(nodes: dict[str, _Node], event: Mapping[str, Any], run: int, own: float) -> None:
    args = event["args"]
    name = str(event["name"]).removesuffix(_SUFFIX)
    node = nodes.setdefault(name, _Node(str(args.get("op_name", name)), args))
    node.us[run] += own
    node.starts.setdefault(run, float(event["ts"]))


def _operator(name: str, node: _Node, made: Mapping[str, tuple[str, ...]], runs: int, first: float) -> OperatorTime:
    renamed = _NCHWC.sub("", name)
    return OperatorTime(
        name=name,
        kind=node.kind,
        nodes=(name,),
        tensors=made.get(name, ()) if renamed == name else (renamed,),
        us=tuple(node.us[run] for run in range(runs)),
        # A node that a branch leaves out of a run has no start there; such a node is not drawn.
        starts_us=tuple(node.starts[run] - first for run in range(runs)) if len(node.starts) == runs else (),
        bytes_moved=_bytes(node),
        matrix=is_arithmetic(node.kind),
    )


def _bytes(node: _Node) -> int | None:
    """What the executed node reads and writes, by the sizes that the runtime notes.

    None for matrix work: weights that the runtime has packed are missing from its sizes.
    """
    if is_arithmetic(node.kind):
        return None
    if node.kind in _VIEWS:
        return 0
    sizes = [node.args.get(key) for key in ("activation_size", "parameter_size", "output_size")]
    if any(size is None for size in sizes):
        return None
    return 2 * int(str(sizes[2])) if node.kind in _CHOOSING else sum(int(str(size)) for size in sizes)
