"""What things are called on the page: figures, metrics, objectives, variants.

Keys of the JSON files are for machines; a reader gets words. Names that hasten does not know keep their own letters,
with underscores as spaces. The other modules of `hasten.report` call this.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from hasten.report.format import MINUS, Unit, amount, unit_of
from hasten.spec.measurement import MetricInfo
from hasten.spec.slo import Goal
from hasten.spec.variant import REFERENCE, Variant

__all__ = [
    "FIGURE_OF_OBJECTIVE",
    "asked_for",
    "clean",
    "figure_label",
    "metric_words",
    "minimize_words",
    "objective_text",
    "plainly",
    "variant_names",
]

METRICS = {
    "agreement": "agreement with the reference",
    "auc": "area under the ROC curve",
    "char_error_rate": "character error rate",
    "exact_match": "exact match",
    "f1": "F1 score",
    "spearman": "Spearman correlation",
    "top1": "top-1 accuracy",
}
FIGURES = {
    "latency_p50_ms": "p50 latency",
    "latency_p95_ms": "p95 latency",
    "latency_p99_ms": "p99 latency",
    "throughput_rps": "throughput",
    "speedup": "speedup",
    "memory_peak_mb": "peak memory",
    "load_ms": "load time",
    "energy_per_prediction_j": "energy per prediction",
    "cost_per_million_usd": "cost per million predictions",
}
MINIMIZE = {"cost_per_million": "cost per million predictions", "memory_mb": "peak memory"}
# The figure that each objective bounds, where the two have different names.
FIGURE_OF_OBJECTIVE = {
    "accuracy_drop_max": "accuracy_change",
    "accuracy": "accuracy_change",
    "memory_max_mb": "memory_peak_mb",
}
_NEGATIVE = re.compile(r"(?<![\w.-])-(\d+(?:\.\d+)?)(?![\w-])")
AT_LEAST = ("throughput_rps", "speedup")


def clean(text: str) -> str:
    """Return `text` on one line, with control and direction-override characters made visible as "�"."""
    hidden = ("Cc", "Cs")
    override = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    one_line = text.replace("\n", " ").replace("\t", " ")
    return "".join("\ufffd" if unicodedata.category(c) in hidden or c in override else c for c in one_line)


def metric_words(metric: MetricInfo) -> str:
    """Return the metric's name as prose."""
    return METRICS.get(metric.name) or clean(metric.name).replace("_", " ")


def plainly(reason: str) -> str:
    """Return a reason with the keys of figures and metrics put into words and with minus signs; the rest stays."""
    words = {**METRICS, **FIGURES}
    known = re.compile(rf"\b({'|'.join(sorted(words, key=len, reverse=True))})\b")
    said = clean(reason).strip()
    text = _NEGATIVE.sub(lambda found: found[1] if float(found[1]) == 0 else MINUS + found[1], said)
    text = known.sub(lambda found: words[found[1]], text)
    return text[:1].upper() + text[1:] if known.match(said) else text


def figure_label(name: str, metric: MetricInfo) -> str:
    """Return what a figure is called in a table."""
    if name == "accuracy":
        return metric_words(metric)
    if name == "accuracy_change":
        return f"{metric_words(metric)}, change"
    stem = name.removesuffix("_change")
    words = FIGURES.get(name) or METRICS.get(stem) or clean(stem).replace("_", " ")
    return words if stem == name else f"{words}, change"


def objective_text(objective: str, bound: float, metric: MetricInfo) -> str:
    """Return an objective as a reader would say it: "p99 latency ≤ 20 ms", "exact match drop ≤ 0.5 points"."""
    if objective == "gain":
        return f"faster than the reference by ≥ {amount(bound - 1, Unit(suffix=' %', scale=100, most=1))}"
    figure = FIGURE_OF_OBJECTIVE.get(objective, objective)
    if figure == "accuracy_change":
        way = "drop" if metric.higher_is_better else "rise"
        return f"{metric_words(metric)} {way} ≤ {_unsigned(abs(bound), metric)}"
    sign = "≥" if figure in AT_LEAST else "≤"
    return f"{figure_label(figure, metric)} {sign} {amount(bound, unit_of(figure, metric))}"


def _unsigned(bound: float, metric: MetricInfo) -> str:
    return amount(bound, unit_of("accuracy_change", metric)).lstrip("+")


def minimize_words(goal: Goal) -> str:
    """Return what was minimized."""
    name = goal.objective.minimize
    return MINIMIZE.get(name) or FIGURES.get(name, name.replace("_", " "))


def asked_for(goal: Goal, metric: MetricInfo) -> tuple[str, ...]:
    """Return every objective that was set, and what to minimize."""
    slo = goal.slo
    bounds = {
        "latency_p50_ms": slo.latency_p50_ms,
        "latency_p95_ms": slo.latency_p95_ms,
        "latency_p99_ms": slo.latency_p99_ms,
        "throughput_rps": slo.throughput_rps,
        "accuracy_drop_max": slo.accuracy_drop_max,
        "memory_max_mb": slo.memory_max_mb,
    }
    texts = [objective_text(name, bound, metric) for name, bound in bounds.items() if bound is not None]
    return (*texts, f"lowest {minimize_words(goal)}")


def variant_names(variants: Iterable[Variant]) -> dict[str, str]:
    """Name each variant by the fewest words that tell it from the others: engine and precision, threads, recipe, id."""
    unique = {variant.id: variant for variant in variants}
    spelled = {id_: _spellings(variant) for id_, variant in unique.items()}
    names: dict[str, str] = {}
    for level in range(max((len(words) for words in spelled.values()), default=0)):
        shown = {id_: words[min(level, len(words) - 1)] for id_, words in spelled.items()}
        taken = [names.get(id_, shown[id_]) for id_ in spelled]
        names |= {i: text for i, text in shown.items() if i not in names and taken.count(text) == 1}
    return {id_: clean(names.get(id_, id_)) for id_ in unique}


def _spellings(variant: Variant) -> tuple[str, ...]:
    target = variant.target
    short = f"{target.engine} {target.precision}"
    if variant.id == REFERENCE:
        return (f"reference, {short}",)
    plural = "s" if target.threads != 1 else ""
    threaded = f"{short}, {target.threads} thread{plural}" if target.threads else f"{short}, default threads"
    steps = " + ".join(step.transform for step in variant.recipe) or "as trained"
    return (short, threaded, f"{short}, {steps}", f"{threaded}, {steps}", variant.id)
