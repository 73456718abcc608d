"""Open what a user names with `--data`: a folder, an `.npz`, or `module:function`. `zoo:NAME` is opened by
`hasten.zoo`.

`.npz`: one array for each input, sample axis first, and optionally `labels`. A folder holds such files, joined in the
order of their names, and optionally `dataset.toml` with `name`, `metric` and `class_names`. Pickled arrays are refused.
"""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hasten.data.dataset import Dataset
from hasten.data.metrics import Metric, metric_named
from hasten.errors import ConfigError, DataError, HastenError, UsageError
from hasten.spec.values import Value

__all__ = ["load_attribute", "open_data", "open_metric"]


class _DatasetToml(Value, frozen=True):
    name: str | None = None
    metric: str | None = None
    class_names: tuple[str, ...] = ()


def open_data(source: str, *, metric: str | None = None) -> Dataset:
    """Open representative data. Raises `DataError` that names the file and the remedy."""
    path = Path(source)
    if path.is_dir():
        return _folder(path, metric)
    if path.suffix == ".npz":
        return _from_archives([path], path.stem, metric)
    if ":" in source and not path.exists():
        return _from_function(source, metric)
    what = "is not something hasten can open as data" if path.exists() else "does not exist"
    raise DataError(f"{source} {what}.", remedy="Give a folder of .npz files, an .npz, zoo:NAME or module:function.")


def open_metric(text: str) -> Metric:
    """Return a built-in metric by name, or the one that `module:attribute` names."""
    if ":" not in text:
        return metric_named(text)
    found = load_attribute(text)
    made = found if isinstance(found, Metric) else found()
    if not isinstance(made, Metric):
        raise UsageError(f"{text} is not a hasten.data.Metric.", remedy="Return one from the function.")
    return made


def load_attribute(text: str) -> Any:
    """Import `module:attribute`, looking in the current folder first. Raises `UsageError`."""
    module, _, attribute = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except HastenError:
        raise
    except Exception as error:
        raise UsageError(
            f"{text} cannot be loaded: {type(error).__name__}: {error}.",
            remedy="Write it as module:name, with the module in this folder or installed.",
        ) from error


def _from_function(source: str, metric: str | None) -> Dataset:
    function = load_attribute(source)
    try:
        dataset = function() if callable(function) else function
    except HastenError:
        raise
    except Exception as error:
        raise DataError(
            f"{source}() failed: {type(error).__name__}: {error}.", remedy="Mend the function and try again."
        ) from error
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{source}() returned {type(dataset).__name__}.", remedy="Return a hasten.data.Dataset from it."
        )
    if metric:
        dataset.metrics = (open_metric(metric), *dataset.metrics[1:])
    return dataset


def _folder(path: Path, metric: str | None) -> Dataset:
    settings = _settings(path / "dataset.toml")
    try:
        archives = sorted(path.glob("*.npz"))
        next(path.iterdir(), None)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", remedy="Check its permissions.") from error
    if not archives:
        raise DataError(
            f"{path} holds no .npz file.",
            remedy="Save each input with the sample axis first: numpy.savez('part0.npz', x=..., labels=...).",
        )
    return _from_archives(archives, settings.name or path.name, metric or settings.metric, settings.class_names)


def _settings(path: Path) -> _DatasetToml:
    if not path.exists():
        return _DatasetToml()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=_DatasetToml)
    except (msgspec.MsgspecError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}.", remedy="It takes the keys name, metric and class_names.") from error


def _from_archives(paths: list[Path], name: str, metric: str | None, class_names: Sequence[str] = ()) -> Dataset:
    parts = [_archive(path) for path in paths]
    keys = set(parts[0])
    for path, part in zip(paths, parts, strict=True):
        if set(part) != keys:
            raise DataError(
                f"{path} holds {sorted(part)}, {paths[0].name} holds {sorted(keys)}.",
                remedy="Give every file the same arrays.",
            )
    try:
        columns = {key: np.concatenate([part[key] for part in parts]) for key in keys}
    except ValueError as error:
        raise DataError(
            f"The files of {name} do not join: {error}.",
            remedy="Give arrays equal shapes after the sample axis.",
        ) from error
    labels = columns.pop("labels", None)
    return Dataset(
        inputs=columns,
        labels=None if labels is None else list(labels),
        metric=open_metric(metric) if metric else None,
        class_names=class_names,
        name=name,
    )


def _archive(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        # Opened here, because numpy leaves a file open that it cannot read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", remedy="Save it with numpy.savez, without object arrays."
        ) from error
    if not set(arrays) - {"labels"}:
        raise DataError(f"{path} holds no inputs.", remedy="Name each array after an input of the model.")
    return arrays
