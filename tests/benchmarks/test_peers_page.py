"""The page of the benchmark against peers says what was measured, and what was not."""

from __future__ import annotations

import msgspec

from hasten.engine.host import environment
from hasten.spec.measurement import Figure, MetricInfo
from peers.outcome import Result, Row
from peers.page import page


def figure(value: float, spread: float = 0.1) -> Figure:
    return Figure(value=value, low=value - spread, high=value + spread, n=40)


def measured(id_: str, ratio: float, against: float, bound: str = "accepted") -> Row:
    return Row(
        id=id_, label=id_, settings=f"`{id_}()`", p50_ms=figure(12.345), ratio=figure(ratio), against=figure(against),
        change=figure(-0.001, 0.002), bound=bound, instances="1 × 2", rps=figure(80.0), rps_against=figure(against),
    )  # fmt: skip


RESULT = Result(
    model="reader",
    about="Lines",
    reference="usual",
    metric=MetricInfo(name="exact_match", higher_is_better=True),
    samples=1560,
    rounds=40,
    waited_s=0.0,
    date="2026-01-02",
    budget_s=300.0,
    hasten="3 times as fast.",
    rows=(
        measured("usual", 1.0, 3.0),
        measured("careless", 4.0, 0.75, "rejected"),
        Row(id="broken", label="broken", settings="", reason="failed: it | said no"),
        measured("hasten", 3.0, 1.0),
    ),
)


def lines_of(*results: Result) -> list[str]:
    return page(results, environment(), {"hasten": "1"}, "hasten").splitlines()


def test_the_summary_names_the_best_peer_within_the_bound_and_the_lead_over_it() -> None:
    summary = next(line for line in lines_of(RESULT) if line.startswith("| reader |"))
    assert "| usual | 3.00 (2.90 to 3.10) | reached |" in summary


def test_a_faster_peer_is_listed_even_where_its_accuracy_is_rejected() -> None:
    text = "\n".join(lines_of(RESULT))
    section = text.split("## Where a peer is faster than hasten")[1].split("## reader")[0]
    assert "| reader | careless | 0.75 (0.65 to 0.85) | -0.10 points (-0.30 to +0.10) | rejected |" in section


def test_the_fastest_stands_first_and_who_is_out_is_said_with_the_reason() -> None:
    lines = lines_of(RESULT)
    rows = [line.split(" | ")[0] for line in lines[lines.index("## reader") :] if line.count("|") > 8]
    assert rows[2:] == ["| careless", "| **hasten**", "| usual"]
    assert "Not in the race: broken: failed: it \\| said no." in lines


def test_means_are_held_to_their_bars() -> None:
    text = "\n".join(lines_of(RESULT))
    assert "| latency against the usual engine | 3.00 (2.90 to 3.10) | 2.00 | reached |" in text
    assert "| latency against the best peers | 3.00 (2.90 to 3.10) | 1.15 | reached |" in text


def test_models_without_a_result_are_named_with_the_reason_before_any_mean() -> None:
    missing = {"magika": "", "minilm": "the reference | failed"}
    text = page([RESULT], environment(), {"hasten": "1"}, "hasten", missing)
    assert "**Not measured: magika, minilm (the reference \\| failed).**" in text
    assert text.index("Not measured") < text.index("geometric mean")
    assert "Not measured" not in "\n".join(lines_of(RESULT))


def test_a_gain_that_is_a_repair_is_told_and_means_are_given_without_it() -> None:
    repaired = msgspec.structs.replace(RESULT, model="padded", repair="hasten cuts the padding off.", rows=(
        measured("usual", 1.0, 12.0), measured("hasten", 12.0, 1.0),
    ))  # fmt: skip
    text = "\n".join(lines_of(RESULT, repaired))
    assert "| latency against the usual engine | 6.00" in text
    assert "| latency against the usual engine without padded | 3.00 (2.90 to 3.10) | 2.00 | reached |" in text
    assert "padded: hasten cuts the padding off." in text
    assert "without" not in "\n".join(lines_of(RESULT))
