"""How the figures came about: model, data, machine, method, and what to type to repeat it.

The record's `model` and `data` are open dictionaries; what they lack is left out, and what is unknown here is shown
under its own name. Pure; `hasten.report.page` calls it.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from hasten.report.format import bytes_text, count, duration, figure_text, is_measured, unit_of
from hasten.report.verdict import held_out, model_name
from hasten.report.words import clean
from hasten.spec.evidence import Record

__all__ = ["Command", "Share", "commands", "facts_of", "method_of", "shares"]

_PURPOSES = {
    "calibration": "shapes candidates, such as the scales of int8",
    "tuning": "picks among them",
    "holdout": "makes the claim; opened once, after the pick was fixed",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One of the three splits; `percent` is its part of all samples."""

    name: str
    samples: str
    percent: float
    purpose: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A line to type, and what it does."""

    text: str
    purpose: str


def shares(record: Record) -> tuple[Share, ...]:
    """Return the splits whose sizes the record knows."""
    sizes = {name: size for name in _PURPOSES if isinstance(size := record.data.get(name), int)}
    total = sum(sizes.values()) or 1
    return tuple(
        Share(name=name, samples=count(size), percent=round(100 * size / total, 2), purpose=_PURPOSES[name])
        for name, size in sizes.items()
    )


def commands(record: Record) -> tuple[Command, ...]:
    """Return what to type: the run itself, and what to do with the bundle, which an infeasible goal does not leave."""
    run = Command(text=clean(record.command), purpose="Repeat the search, with the same splits.")
    again = (run,) if record.command.strip() else ()
    if record.verdict == "infeasible":
        return again
    bundle = shlex.quote(_bundle(record.command))
    check = "Check hashes, evidence and golden samples on the machine that will serve."
    return (
        *again,
        Command(text=f"hasten verify {bundle}", purpose=check),
        Command(text=f"hasten serve {bundle}", purpose="Serve the bundle over HTTP."),
    )


def _bundle(command: str) -> str:
    """The folder that the command wrote to, as far as the command says."""
    try:
        words = shlex.split(command)
    except ValueError:
        return "BUNDLE"
    joined = next((word.partition("=")[2] for word in words if word.startswith("--out=")), "")
    after = next((word for flag, word in itertools.pairwise(words) if flag == "--out"), "")
    return clean(joined or after or "BUNDLE")


def facts_of(record: Record, title: str) -> Iterable[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield what is known of model, data, machine and run, as (name, text) under a heading each."""
    env, model, data = record.environment, record.model, record.data
    yield "Model", tuple(_known({"name": model_name(record, title), **model}))
    yield "Data", tuple(_known({key: value for key, value in data.items() if key not in _PURPOSES}))
    packages = ", ".join(f"{name} {version}" for name, version in env.packages.items())
    yield (
        "Machine",
        (
            ("processor", clean(env.processor) + (" (virtual machine)" if env.virtual else "")),
            ("instruction sets", ", ".join(env.features) or "not known"),
            ("cores", f"{env.cores_logical} logical, {env.cores_physical} physical"),
            ("memory", f"{env.memory_mb / 1024:.1f} GiB"),
            ("system", f"{env.system}, {env.architecture}, Python {env.python}"),
            ("versions", packages),
        ),
    )
    yield "Run", (("seed", str(record.seed)), ("time taken", duration(record.elapsed_s)))


def _known(values: dict[str, str | int]) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        label = {"sha256": "SHA-256", "bytes": "size"}.get(key, key.replace("_", " "))
        if key == "bytes" and isinstance(value, int):
            yield label, bytes_text(value)
        else:
            yield label, count(value) if isinstance(value, int) else clean(str(value))


def method_of(record: Record) -> Iterable[str]:
    """Yield the method in sentences."""
    samples = held_out(record, record.reference.measurement.accuracy_change)
    yield (
        "Speedups are paired: reference and candidate each run in a process of their own and take turns on the same "
        "samples in random order, one ratio a round, so that drift of the machine cancels. The interval is a "
        "studentized bootstrap over rounds."
    )
    yield (
        "Accuracy changes are paired by sample. Calibration data shaped the candidates, tuning data picked among them, "
        f"and the claim was computed once on {samples or 'the'} holdout samples that no step had seen; speed was "
        "measured anew for it."
    )
    yield (
        "Every interval covers 95 %. A percentile is shown only where the sample is large enough for it. What was not "
        "measured says why."
    )
    own = record.reference.measurement.speedup
    if is_measured(own):
        text = figure_text(own, unit_of("speedup", record.reference.measurement.metric)).full
        yield f"Noise check, the reference against a second process of itself: {text}."
