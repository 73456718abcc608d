"""Open a specimen as model and data: what `zoo:NAME` stands for, as MODEL and as `--data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hasten.data.dataset import Dataset
from hasten.data.open import load_attribute
from hasten.spec.progress import Listener, ignore
from hasten.zoo.catalog import specimen
from hasten.zoo.fetch import fetch

__all__ = ["PREFIX", "zoo_data", "zoo_model"]

PREFIX = "zoo:"


def zoo_model(name: str, listener: Listener = ignore) -> Path:
    """Return the model file of `name` (with or without the prefix `zoo:`), fetching it on first use."""
    return fetch(name.removeprefix(PREFIX), listener)


def zoo_data(name: str, listener: Listener = ignore) -> Dataset:
    """Return the labelled data of `name` (with or without the prefix)."""
    item = specimen(name.removeprefix(PREFIX))
    make: Callable[[Path], Dataset] = load_attribute(item.data)
    return make(fetch(item.name, listener))
