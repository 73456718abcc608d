"""Open a specimen as model and data: what `zoo:NAME` stands for, as MODEL and as `--data`.

`zoo:NAME/VIEW` stands for the same model with another of its sets of data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hasten.data.dataset import Dataset
from hasten.data.open import load_attribute
from hasten.errors import UsageError
from hasten.spec.progress import Listener, ignore
from hasten.zoo.catalog import specimen
from hasten.zoo.fetch import fetch, obtain
from hasten.zoo.items import View

__all__ = ["PREFIX", "zoo_data", "zoo_model"]

PREFIX = "zoo:"


def zoo_model(name: str, listener: Listener = ignore) -> Path:
    """Return the model file of `name` (with or without the prefix `zoo:`), fetching it on first use.

    Raises `UsageError` for an unknown name and for data without a model.
    """
    plain, view = _parts(name)
    _view(plain, view)
    return fetch(plain, listener)


def zoo_data(name: str, listener: Listener = ignore) -> Dataset:
    """Return the labelled data of `name` (with or without the prefix), fetching it on first use."""
    view = _view(*_parts(name))
    make: Callable[[Mapping[str, Path]], Dataset] = load_attribute(view.maker)
    return make({need: obtain(need, listener) for need in view.needs})


def _parts(name: str) -> tuple[str, str]:
    plain, _, view = name.removeprefix(PREFIX).partition("/")
    return plain, view


def _view(plain: str, view: str) -> View:
    views = specimen(plain).views
    if view not in views:
        known = ", ".join(f"{plain}/{one}" if one else plain for one in views)
        raise UsageError(f"The zoo has no data {plain}/{view}.", remedy=f"Choose one of: {known}.")
    return views[view]
