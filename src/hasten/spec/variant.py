"""A variant: a recipe of transforms applied to the trained model, and the target that runs the result."""

from __future__ import annotations

from hasten.spec.target import Target
from hasten.spec.values import Value

__all__ = ["REFERENCE", "Step", "Variant"]

REFERENCE = "reference"


class Step(Value, frozen=True):
    """One transform with its options. Recipes are values: the same recipe on the same model gives the same bytes.

    `skip` names sites (nodes, as `Transform.sites` names them) that the transform leaves alone, because touching them
    was found to cost accuracy or speed.
    """

    transform: str
    options: dict[str, str | int | float | bool] = {}
    skip: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"{key}={value}" for key, value in sorted(self.options.items())]
        if self.skip:
            words.append(f"skipping {', '.join(self.skip) if len(self.skip) < 3 else f'{len(self.skip)} nodes'}")
        return f"{self.transform}({', '.join(words)})" if words else self.transform


class Variant(Value, frozen=True):
    """A candidate deployment. `id` is unique in a bundle and safe as a folder name."""

    id: str
    target: Target
    recipe: tuple[Step, ...] = ()

    @property
    def recipe_text(self) -> str:
        """The recipe in one line; "as trained" if it is empty."""
        return " → ".join(str(step) for step in self.recipe) or "as trained"
