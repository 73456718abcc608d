"""The report says how each model was made, which nodes were left alone, and what was left out."""

from __future__ import annotations

import msgspec
import pytest

from hasten.report import render
from hasten.report.making import making
from hasten.spec.applied import Applied, Build, LeftOut, Skipped
from hasten.spec.evidence import Record


@pytest.fixture
def built(accepted: Record) -> Record:
    variant = accepted.tuning[-1].variant.id
    steps = (
        Applied(transform="fold", operators_before={"Conv": 3, "Identity": 2}, operators_after={"Conv": 3}),
        Applied(
            transform="cast_f16",
            sites=40,
            skipped=tuple(Skipped(site=f"norm{n}", reason="the output 'y' is no longer finite.") for n in range(6)),
            error=0.004,
            notes=("2 constants were kept in f32.",),
        ),
    )
    out = LeftOut(transform="layout", reason="does not pay: 0.93 times (0.91 to 0.95) as fast with it as without.")
    return msgspec.structs.replace(accepted, builds=(Build(variant=variant, applied=steps, left_out=(out,)),))


def test_each_step_tells_what_it_changed_and_what_it_left_alone(built: Record) -> None:
    assert making(built, built.tuning[-1].variant.id) == (
        "fold: Identity 2 → 0.",
        "cast_f16: the same operators; answers moved by 0.004 of their norm.",
        "cast_f16: 2 constants were kept in f32.",
        "cast_f16 left alone norm0, norm1, norm2, norm3 and 2 more: the output 'y' is no longer finite.",
        "left out: layout does not pay: 0.93 times (0.91 to 0.95) as fast with it as without.",
    )


def test_the_page_names_the_nodes_that_were_left_alone(built: Record) -> None:
    page = render(built, title="model")
    assert "norm0, norm1, norm2, norm3 and 2 more" in page
    assert "layout does not pay" in page


def test_a_model_as_trained_has_nothing_to_tell(built: Record) -> None:
    assert making(built, "reference") == ()
