"""The JSON documents of the contract, made from records. Keys are stable and every figure has the same four."""

from __future__ import annotations

from typing import Any

import msgspec

from hasten.spec.evidence import Evidence, Record
from hasten.spec.measurement import FIGURE_NAMES, Figure
from hasten.spec.serving import Deployment

__all__ = ["deployment_document", "evidence_document", "figure_document", "optimize_document"]

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
