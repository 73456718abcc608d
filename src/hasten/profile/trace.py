"""A profile as a trace: JSON in the Trace Event Format, which Perfetto (ui.perfetto.dev) and Chrome open. Pure.

One track has predictions, one has operators. Where the engine keeps no starts, operators are laid end to end by their
typical times, and the trace says so. Source: Trace Event Format (Google, 2016): complete events "X" with `ts` and `dur`
in microseconds, metadata events "M" for names.
"""

from __future__ import annotations

from typing import Any

from hasten.spec.profile import Operator, Profile

__all__ = ["trace_document"]

_PID = 1
_PREDICTIONS, _OPERATORS = 1, 2
# Between runs that have no clock of their own.
_GAP_US = 10.0


def trace_document(profile: Profile) -> dict[str, Any]:
    """The trace as a document, ready to be written as JSON."""
    how = "starts measured by the engine" if profile.timelines[0].measured else "typical times laid end to end"
    events = [
        _name("process_name", _PREDICTIONS, f"{profile.model}: {profile.target}"),
        _name("thread_name", _PREDICTIONS, "predictions"),
        _name("thread_name", _OPERATORS, f"operators ({how})"),
    ]
    offset = 0.0
    for number, timeline in enumerate(profile.timelines, start=1):
        if not timeline.slices:
            continue
        first = min(start for _, start, _ in timeline.slices)
        last = max(start + duration for _, start, duration in timeline.slices)
        shift = offset - first
        events.append(_slice(f"prediction {number}", "prediction", _PREDICTIONS, offset, last - first, {}))
        for index, start, duration in timeline.slices:
            item = profile.operators[index]
            events.append(_slice(item.label, item.kind, _OPERATORS, start + shift, duration, _about(item)))
        offset += last - first + _GAP_US
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"tool": "hasten profile", "model": profile.model, "sha256": profile.sha256, "starts": how},
    }


def _name(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": _PID, "tid": thread, "name": what, "args": {"name": name}}


def _slice(name: str, kind: str, thread: int, start: float, duration: float, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "ph": "X", "pid": _PID, "tid": thread, "ts": round(start, 3), "dur": round(max(duration, 0.0), 3),
        "name": name, "cat": kind, "args": about,
    }  # fmt: skip


def _about(item: Operator) -> dict[str, Any]:
    return {
        "engine_name": item.name,
        "nodes": list(item.nodes),
        "median_us": item.time_us.value,
        "flops": item.flops,
        "bytes_moved": item.bytes_moved,
        "bound": item.bound,
        "roofline_share": item.roofline_share.value,
    }
