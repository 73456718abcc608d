"""What a search wants to try: a target and a list of techniques, of which some may turn out not to apply.

`compose` turns a wish into a variant: it builds step by step, leaves out what does not apply or fails, and remembers
why. A technique that the wish is about (`required`) makes the whole wish fail instead.
"""

from __future__ import annotations

from hasten.errors import MissingError
from hasten.optimize.build import Builder
from hasten.spec.applied import Build, LeftOut
from hasten.spec.target import Target
from hasten.spec.values import Value
from hasten.spec.variant import Step, Variant
from hasten.transform.base import TransformFailed

__all__ = ["Composed", "Want", "Wish", "compose"]


class Want(Value, frozen=True):
    """A step, and whether the wish makes sense without it."""

    step: Step
    required: bool = True


class Wish(Value, frozen=True):
    """A candidate before anything was built. `id` becomes the variant's."""

    id: str
    target: Target
    wants: tuple[Want, ...] = ()

    @property
    def variant(self) -> Variant:
        """The variant that this becomes if everything applies."""
        return Variant(id=self.id, target=self.target, recipe=tuple(want.step for want in self.wants))


class Composed(Value, frozen=True):
    """A variant whose model is built, and how it came about."""

    variant: Variant
    build: Build


def compose(wish: Wish, builder: Builder) -> Composed:
    """Build `wish`. Raises `TransformFailed` or `MissingError` where a required technique cannot be applied."""
    recipe: tuple[Step, ...] = ()
    left_out: list[LeftOut] = []
    for want in wish.wants:
        try:
            builder.build_recipe((*recipe, want.step))
        except (TransformFailed, MissingError) as error:
            if want.required:
                raise
            left_out.append(LeftOut(transform=want.step.transform, reason=error.message))
        else:
            recipe = (*recipe, want.step)
    return composed(Variant(id=wish.id, target=wish.target, recipe=recipe), builder, tuple(left_out))


def composed(variant: Variant, builder: Builder, left_out: tuple[LeftOut, ...] = ()) -> Composed:
    """Describe a variant whose recipe is built."""
    build = Build(variant=variant.id, applied=builder.applied(variant.recipe), left_out=left_out)
    return Composed(variant=variant, build=build)
