"""Build a variant's model by its recipe; equal beginnings of recipes are built once.

Each step is a folder: the model, the files that it refers to, and `applied.json`, what was done. Steps run in a process
of their own, so that a library's crash or leak costs that candidate and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from hasten.data.dataset import Samples
from hasten.errors import HastenError, MissingError, StorageError
from hasten.optimize.trials import fingerprint
from hasten.spec.applied import Applied
from hasten.spec.values import Value
from hasten.spec.variant import Step, Variant
from hasten.transform.base import TransformFailed
from hasten.transform.isolate import TIMEOUT_S, apply_isolated, errors_isolated
from hasten.transform.samples import store

__all__ = ["Apply", "Builder", "Weigh"]


class Apply(Protocol):
    """Applies a step to the model at `source`, into the empty `folder`, with the samples stored at `samples`. Raises
    `TransformFailed`, after `timeout_s` seconds at the latest.
    """

    def __call__(
        self, step: Step, source: Path, folder: Path, samples: Path, *, timeout_s: float
    ) -> tuple[Path, Applied]:
        """Return the model file and what was done."""
        ...


class Weigh(Protocol):
    """Applies a step to the model at `source` with each of `skips`, and returns the errors of its outputs."""

    def __call__(
        self, step: Step, source: Path, samples: Path, skips: Sequence[Sequence[str]], *, timeout_s: float
    ) -> list[float | None]:
        """Return an error for each of `skips`; None where the step fails."""
        ...


class _Built(Value, frozen=True):
    model: str
    applied: Applied


class Builder:
    """Turns recipes into model files below `folder`. It is given calibration data and nothing else. `limit_s` says how
    long a step may take that begins now.
    """

    def __init__(
        self,
        source: Path,
        calibration: Samples,
        folder: Path,
        apply: Apply = apply_isolated,
        limit_s: Callable[[], float] = lambda: TIMEOUT_S,
        weigh: Weigh = errors_isolated,
    ) -> None:
        self._source = source
        self._calibration = calibration
        self._folder = folder
        self._apply = apply
        self._limit_s = limit_s
        self._weigh = weigh
        self._failed: dict[str, TransformFailed | MissingError] = {}

    def build(self, variant: Variant) -> Path:
        """Return the model file of `variant`. Raises `TransformFailed`, again and at once for a recipe that
        failed before, and `MissingError` where a technique's library is not installed.
        """
        return self.build_recipe(variant.recipe)

    def build_recipe(self, recipe: tuple[Step, ...]) -> Path:
        """Return the model file that `recipe` makes."""
        current = self._source
        for length in range(1, len(recipe) + 1):
            current = self._step(current, recipe[:length])
        return current

    def applied(self, recipe: tuple[Step, ...]) -> tuple[Applied, ...]:
        """Return what each step of a recipe that was built did."""
        return tuple(self._read(self._place(recipe[:length])).applied for length in range(1, len(recipe) + 1))

    def errors(self, recipe: tuple[Step, ...], skips: Sequence[Sequence[str]]) -> list[float | None]:
        """Return the error that the last step of `recipe` causes with each of `skips` as its own; the models are not
        kept. Raises `TransformFailed` where what comes before it cannot be built.
        """
        source = self.build_recipe(recipe[:-1])
        return self._weigh(recipe[-1], source, self._samples(), skips, timeout_s=self._limit_s())

    def _place(self, recipe: tuple[Step, ...]) -> Path:
        return self._folder / "models" / fingerprint(recipe)[:16]

    def _step(self, source: Path, recipe: tuple[Step, ...]) -> Path:
        place = self._place(recipe)
        if place.name in self._failed:
            raise self._failed[place.name]
        if not place.exists():
            try:
                self._make(source, recipe[-1], place)
            except (TransformFailed, MissingError) as error:
                self._failed[place.name] = error
                raise
        return place / self._read(place).model

    def _make(self, source: Path, step: Step, place: Path) -> None:
        partial = place.with_name(place.name + ".partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            model, applied = self._apply(step, source, partial, self._samples(), timeout_s=self._limit_s())
            (partial / "applied.json").write_bytes(msgspec.json.encode(_Built(model=model.name, applied=applied)))
            os.replace(partial, place)
        except OSError as error:
            raise StorageError(f"{place} cannot be written: {error.strerror}.", remedy="Free some space.") from error
        except HastenError:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _samples(self) -> Path:
        """The calibration samples on disk; written once."""
        folder = self._folder / "calibration"
        if not folder.exists():
            partial = folder.with_name("calibration.partial")
            shutil.rmtree(partial, ignore_errors=True)
            store(self._calibration, partial)
            os.replace(partial, folder)
        return folder

    def _read(self, place: Path) -> _Built:
        return msgspec.json.decode((place / "applied.json").read_bytes(), type=_Built)
