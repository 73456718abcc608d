"""The JSON documents of the contract, made from records. Keys are stable and every figure has the same four."""

from __future__ import annotations

from typing import Any

import msgspec

from hasten.spec.evidence import Evidence, Record
from hasten.spec.measurement import FIGURE_NAMES, Figure
from hasten.spec.profile import Bottleneck, Operator, Profile
from hasten.spec.serving import Deployment

__all__ = ["deployment_document", "evidence_document", "figure_document", "optimize_document", "profile_document"]

_LOADED = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps")


def figure_document(figure: Figure) -> dict[str, Any]:
    """value, low, high, n; and the reason where there is no value."""
    document: dict[str, Any] = {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
    if figure.reason is not None:
        document["reason"] = figure.reason
    if figure.method is not None:
        document["method"] = figure.method
    return document


def evidence_document(item: Evidence) -> dict[str, Any]:
    """One variant with all its figures."""
    variant, measured = item.variant, item.measurement
    figures = {name: figure_document(measured.figure(name)) for name in (*FIGURE_NAMES, *measured.extra)}
    return {
        "variant": variant.id,
        "engine": variant.target.engine,
        "precision": variant.target.precision,
        "threads": variant.target.threads,
        "recipe": variant.recipe_text,
        "split": measured.split,
        "metric": measured.metric.name,
        "outcome": item.outcome,
        "reasons": list(item.reasons),
        **figures,
    }


def optimize_document(record: Record, bundle: str | None, report: str) -> dict[str, Any]:
    """The document of `hasten optimize --json`."""
    everything = {item.variant.id: item for item in (record.reference, *record.holdout)}
    return {
        "verdict": record.verdict,
        "summary": record.summary,
        "bundle": bundle,
        "report": report,
        "reference": evidence_document(record.reference),
        "picked": evidence_document(everything[record.picked]),
        "variants": [evidence_document(item) for item in everything.values()],
        "tuning": [evidence_document(item) for item in record.tuning],
        "rejected": [
            {"variant": item.variant.id, "stage": item.stage, "reason": item.reason} for item in record.rejected
        ],
        "builds": [msgspec.to_builtins(item) for item in record.builds],
        "deployments": [deployment_document(item) for item in record.deployments],
        "environment": msgspec.to_builtins(record.environment),
    }


def deployment_document(item: Deployment) -> dict[str, Any]:
    """Serving defaults of one variant, with what was predicted and found at the load."""
    return {
        "variant": item.variant,
        "serving": msgspec.to_builtins(item.serving),
        "reason": item.reason,
        "load_rps": item.predicted.load_rps,
        "capacity_rps": figure_document(item.capacity_rps),
        "cost_per_million_usd": figure_document(item.cost_per_million_usd),
        "predicted": {name: figure_document(getattr(item.predicted, name)) for name in _LOADED},
        "utilisation": item.predicted.utilisation,
        "measured": None
        if item.rehearsed is None
        else {
            **{name: figure_document(getattr(item.rehearsed, name)) for name in _LOADED},
            "failed": item.rehearsed.failed,
        },
    }


def profile_document(found: Profile) -> dict[str, Any]:
    """The document of `hasten profile --json`. Operators come slowest first; `position` is that of execution."""
    order = sorted(range(len(found.operators)), key=lambda position: -found.operators[position].share)
    ceilings = found.ceilings
    return {
        "model": found.model,
        "sha256": found.sha256,
        "format": found.format,
        "engine": found.target.engine,
        "device": found.target.device,
        "precision": found.precision,
        "threads": ceilings.threads,
        "shapes": {name: list(shape) for name, shape in found.shapes.items()},
        "samples": found.samples,
        "rounds": found.rounds,
        "latency_p50_ms": figure_document(found.latency_ms),
        "profiled_latency_p50_ms": figure_document(found.profiled_ms),
        "profiler_slowdown": figure_document(found.slowdown),
        "operators_sum_p50_ms": figure_document(found.operators_ms),
        "ceilings": {
            "compute_gflop_per_s": figure_document(ceilings.compute_gflop_per_s),
            "memory": [
                {"working_set_bytes": item.working_set_bytes, "gb_per_s": figure_document(item.gb_per_s)}
                for item in ceilings.memory
            ],
        },
        "operators": [_operator_document(position, found.operators[position]) for position in order],
        "bottlenecks": [_bottleneck_document(item) for item in found.bottlenecks],
        "notes": list(found.notes),
        "environment": msgspec.to_builtins(found.environment),
    }


def _operator_document(position: int, item: Operator) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind,
        "nodes": list(item.nodes),
        "position": position,
        "time_p50_us": figure_document(item.time_us),
        "share": item.share,
        "flops": item.flops,
        "bytes_moved": item.bytes_moved,
        "roofline_share": figure_document(item.roofline_share),
        "bound": item.bound,
        "bound_reason": item.reason,
    }


def _bottleneck_document(item: Bottleneck) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "bound": item.bound,
        "operators": item.count,
        "time_p50_us": figure_document(item.time_us),
        "share": item.share,
        "largest": list(item.largest),
        "remedies": [
            {"transform": r.transform, "after": r.after, "why": r.why, "operators": r.operators} for r in item.remedies
        ],
        "no_remedy_reason": item.why_none,
    }
