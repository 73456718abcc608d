"""What a user names to be profiled, opened: a model file, how it runs, and where its samples come from.

MODEL is a file, `zoo:NAME`, or the folder of a bundle, which stands for its picked variant as it would serve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hasten.bundle.read import open_bundle
from hasten.data.dataset import Dataset
from hasten.data.feed import check_fits, feed, sample_for
from hasten.data.open import open_data
from hasten.engine.base import Tensors, engines, reference_engine, why_unprofiled
from hasten.errors import DataError, UsageError
from hasten.model.base import Model
from hasten.model.open import open_model
from hasten.spec.progress import Listener, ignore
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target
from hasten.zoo.open import PREFIX, zoo_data, zoo_model

__all__ = ["Subject", "Wish", "open_subject", "typical"]

# Samples that are looked at to find the usual size; reading more may take long and tells little.
_LOOKED_AT = 64
_MOST_SAMPLES = 8
Supply = Callable[[Signature], Sequence[Tensors]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How the user wants the model to run; None leaves it to the bundle or to the defaults."""

    engine: str | None = None
    threads: int | None = None
    precision: Precision | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is profiled. `supply` gives batches that a model of a signature takes; `notes` are for the reader."""

    name: str
    model: Model
    target: Target
    supply: Supply
    notes: tuple[str, ...] = ()


def open_subject(name: str, data: str | Dataset | None, wish: Wish, listener: Listener = ignore) -> Subject:
    """Open what `name` stands for. Raises `UserError` for what is wrong, `MissingError` for what is not installed."""
    if Path(name).is_dir():
        return _from_bundle(name, data, wish)
    model = open_model(zoo_model(name, listener) if name.startswith(PREFIX) else Path(name))
    source = data if data is not None else name if name.startswith(PREFIX) else None
    if source is None:
        raise DataError("No data was given.", remedy="Give representative data with --data.")
    engine, notes = _engine(model.format, wish.engine)
    target = Target(engine=engine, threads=wish.threads or 0, precision=wish.precision or "f32")
    return Subject(name=name, model=model, target=target, supply=_supply(source, listener), notes=notes)


def typical(samples: Sequence[Tensors]) -> list[Tensors]:
    """Those samples whose shapes are the usual ones: of the size that half of them do not exceed."""
    sizes = sorted(sum(array.size for array in sample.values()) for sample in samples)
    middle = sizes[len(sizes) // 2]
    first = next(sample for sample in samples if sum(array.size for array in sample.values()) == middle)
    return [sample for sample in samples if _shapes(sample) == _shapes(first)][:_MOST_SAMPLES]


def _from_bundle(name: str, data: str | Dataset | None, wish: Wish) -> Subject:
    bundle = open_bundle(name)
    picked = bundle.manifest.picked
    model, served = open_model(bundle.model_path(picked)), bundle.entry(picked).variant.target
    engine, notes = _engine(model.format, wish.engine or served.engine)
    threads = served.threads if wish.threads is None else wish.threads
    precision = wish.precision or served.precision
    if engine == served.engine:
        # One prediction at a time.
        alone = msgspec.structs.replace(served.runtime, instances=1, share_weights=False)
        target = msgspec.structs.replace(served, threads=threads, precision=precision, runtime=alone)
    else:
        # Device, options and knobs belong to the engine that they were found for.
        target = Target(engine=engine, threads=threads, precision=precision)
    golden = bundle.golden(picked).inputs

    def supply(_signature: Signature) -> Sequence[Tensors]:
        return golden

    source = supply if data is None else _supply(data, ignore)
    title = f"{name} ({picked})"
    return Subject(name=title, model=model, target=target, supply=source, notes=notes)


def _engine(format_: Format, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """The engine asked for, or the usual one of the format; where that has no profiler, the first one that has."""
    usual = wanted or reference_engine(format_)
    able = [entry.name for entry in engines.entries() if entry.installed and _profiles(entry.name, format_)]
    instead = f"Choose one that does: --engine {' or '.join(able)}." if able else "No engine here profiles such models."
    engine = engines.get(usual)
    if format_ not in engine.formats:
        raise UsageError(f"The engine {usual} does not load {format_} models.", remedy=instead)
    reason = why_unprofiled(engine)
    if reason is None:
        return usual, ()
    if wanted or not able:
        raise UsageError(reason, remedy=instead)
    return able[0], (f"{reason} Profiled on {able[0]} instead.",)


def _profiles(name: str, format_: Format) -> bool:
    try:
        engine = engines.get(name)
    except Exception:
        # A plugin that cannot be loaded is no choice; whoever names it is told why.
        return False
    return format_ in engine.formats and why_unprofiled(engine) is None


def _supply(source: str | Dataset, listener: Listener) -> Supply:
    """Batches of one, evenly spread over the data. Raises `DataError` for a sample that does not fit."""
    if isinstance(source, Dataset):
        dataset = source
    else:
        dataset = zoo_data(source, listener) if source.startswith(PREFIX) else open_data(source)

    def supply(signature: Signature) -> Sequence[Tensors]:
        count = min(_LOOKED_AT, len(dataset))
        places = [number * len(dataset) // count for number in range(count)]
        data = dataset.subset(places)
        samples = [sample_for(signature, data, position) for position in range(count)]
        for place, sample in zip(places, samples, strict=True):
            check_fits(signature, sample, f"Sample {place} of {dataset.name!r}")
        return [feed(signature, [sample]) for sample in samples]

    return supply


def _shapes(sample: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in sample.items()}
