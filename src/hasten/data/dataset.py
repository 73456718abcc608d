"""A dataset: samples without a batch axis, labels if there are any, the metric, and how an answer is read off the
outputs.

Samples may be arrays (one row each) or anything indexable that makes a sample on demand, so that a large set need
not be in memory. The digest of each sample is what splitting and leakage checks go by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hasten.data.metrics import Metric, metric_named
from hasten.errors import DataError
from hasten.spec.preprocess import Preprocess

__all__ = ["Arrays", "Dataset", "Decode", "Samples", "Subset"]

Arrays = Mapping[str, np.ndarray[Any, Any]]
Decode = Callable[[Arrays], Any]


class Dataset:
    """Representative data.

    `inputs`: either a mapping from input name to an array with the sample axis first, or a sequence of mappings
    from input name to one sample's array (no batch axis). `labels`: one for each sample, or None, in which case
    the metric is agreement with the reference model. `metric`: a built-in name, a `Metric`, or several of which
    the first is the one that objectives apply to. `decode`: turns the outputs of one sample (without batch axis)
    into an answer that the metric compares with the label; by default the arg max over the last axis of the first
    output. `preprocess`: where the inputs are raw pixels, how they become what the model takes; `inputs(i)` then
    gives the model's input and `raw(i)` the pixels. `groups`: samples of one group stay in one split (frames of
    one video, lines of one document). For people who read a report: `class_names` says what labels are called, by
    label, and `describe(i)` puts a sample into words (the sentence behind its tokens).

    Raises `DataError` where lengths differ or there is nothing.
    """

    def __init__(
        self,
        *,
        inputs: Mapping[str, Any] | Sequence[Arrays],
        labels: Sequence[Any] | None = None,
        metric: str | Metric | Sequence[str | Metric] | None = None,
        decode: Decode | None = None,
        preprocess: Preprocess | None = None,
        groups: Sequence[Any] | None = None,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        describe: Callable[[int], str] | None = None,
        name: str = "data",
    ) -> None:
        self.name = name
        self.describe = describe
        named = class_names or {}
        self._class_names = named if isinstance(named, Mapping) else dict(enumerate(named))
        self.preprocess = preprocess
        self._samples: Sequence[Arrays] = _Columns(inputs) if isinstance(inputs, Mapping) else inputs
        self.labels = labels
        self.groups = groups
        self.metrics = _metrics(metric, labels)
        self.decode: Decode = decode or first_arg_max
        self._digests: list[str] | None = None
        self._check()

    def __len__(self) -> int:
        return len(self._samples)

    def inputs(self, index: int) -> Arrays:
        """Return the inputs of one sample, without batch axis, as the trained model takes them."""
        sample = self._samples[index]
        if self.preprocess is None:
            return sample
        name = self.preprocess.input
        return {**sample, name: self.preprocess.apply(np.asarray(sample[name]))}

    def raw(self, index: int) -> Arrays:
        """Return the inputs of one sample before preprocessing."""
        return self._samples[index]

    def label(self, index: int) -> Any:
        """Return the label of one sample; None where there are none."""
        return None if self.labels is None else self.labels[index]

    def class_name(self, label: Any) -> str | None:
        """Return what the class of a label, or of an answer, is called; None where nobody said."""
        value = np.asarray(label)
        return self._class_names.get(value.item()) if self._class_names and value.size == 1 else None

    @property
    def metric(self) -> Metric:
        """The metric that objectives apply to."""
        return self.metrics[0]

    @property
    def labelled(self) -> bool:
        """Whether the metric compares with labels, and not with the reference model."""
        return self.labels is not None and self.metric.name != "agreement"

    def digests(self) -> list[str]:
        """SHA-256 of each sample's inputs; equal inputs have equal digests."""
        if self._digests is None:
            self._digests = [_digest(self._samples[index]) for index in range(len(self))]
        return self._digests

    def digest(self) -> str:
        """SHA-256 over all samples and labels, in order."""
        whole = hashlib.sha256()
        for index, one in enumerate(self.digests()):
            whole.update(f"{one}:{self.label(index)!r}\n".encode())
        return whole.hexdigest()

    def subset(self, indices: Sequence[int]) -> Subset:
        """Return a view on some samples."""
        return Subset(self, indices)

    def _check(self) -> None:
        if len(self) == 0:
            raise DataError(f"The data {self.name!r} has no samples.", remedy="Give at least a few hundred.")
        for what, values in (("labels", self.labels), ("groups", self.groups)):
            if values is not None and len(values) != len(self):
                raise DataError(
                    f"The data {self.name!r} has {len(self)} samples but {len(values)} {what}.",
                    remedy=f"Give one entry of {what} for each sample.",
                )


class Samples(Protocol):
    """Inputs of samples by position: all that whoever calibrates may see. No labels."""

    def __len__(self) -> int: ...

    def inputs(self, position: int, /) -> Arrays:
        """Return the inputs of one sample, without batch axis."""
        ...


class Subset:
    """Some samples of a dataset, by index. Indices are positions in the whole, so that answers can be traced."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def first(self, count: int) -> Subset:
        """The first `count` samples, or all where there are no more."""
        return self if count >= len(self) else Subset(self.dataset, self.indices[:count])

    def inputs(self, position: int) -> Arrays:
        """Return the inputs of the sample at `position` of this subset."""
        return self.dataset.inputs(self.indices[position])

    def raw(self, position: int) -> Arrays:
        """Return the inputs of the sample at `position` of this subset, before preprocessing."""
        return self.dataset.raw(self.indices[position])

    def label(self, position: int) -> Any:
        """Return the label of the sample at `position` of this subset."""
        return self.dataset.label(self.indices[position])


class _Columns(Sequence[Arrays]):
    """Arrays by input name, sample axis first, seen as a sequence of samples."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = {name: np.asarray(column) for name, column in columns.items()}
        sizes = {name: len(column) for name, column in self._columns.items() if column.ndim}
        flat = sorted(set(self._columns) - set(sizes))
        if flat:
            raise DataError(f"The input {flat[0]!r} has no sample axis.", remedy="Stack samples on axis 0.")
        if len(set(sizes.values())) > 1:
            raise DataError(f"Inputs differ in their number of samples: {sizes}.", remedy="Give as many of each.")
        self._size = next(iter(sizes.values()), 0)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        # Indexing takes single texts and numbers out of their array; the element type must stay that of the input.
        return {name: np.asarray(column[index], column.dtype) for name, column in self._columns.items()}


def first_arg_max(outputs: Arrays) -> Any:
    """Return the arg max over the last axis of the first output; integers, booleans and strings as they are."""
    first = np.asarray(next(iter(outputs.values())))
    if first.dtype.kind != "f" or first.ndim == 0 or first.shape[-1] == 1:
        return first
    return first.argmax(-1)


def _metrics(metric: str | Metric | Sequence[str | Metric] | None, labels: Sequence[Any] | None) -> tuple[Metric, ...]:
    if metric is None:
        return (_default_metric(labels),)
    chosen = [metric] if isinstance(metric, str | Metric) else list(metric)
    found = tuple(metric_named(item) if isinstance(item, str) else item for item in chosen)
    if labels is None and found[0].name != "agreement":
        raise DataError(
            f"The metric {found[0].name!r} needs labels, and the data has none.",
            remedy="Add labels, or leave the metric out to measure agreement with the reference model.",
        )
    return found


def _default_metric(labels: Sequence[Any] | None) -> Metric:
    """Integer labels mean classes; anything else needs a word from the user."""
    if labels is None:
        return metric_named("agreement")
    if np.asarray(labels).dtype.kind in "iub" and np.asarray(labels).ndim == 1:
        return metric_named("top1")
    raise DataError(
        "The data has labels that are no classes, and no metric.",
        remedy="Name one, for example metric='exact_match'.",
    )


def _digest(sample: Arrays) -> str:
    whole = hashlib.sha256()
    for name in sorted(sample):
        array = np.asarray(sample[name])
        whole.update(f"{name}:{array.dtype}:{array.shape}:".encode())
        whole.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
    return whole.hexdigest()
