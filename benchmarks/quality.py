"""What `search.py` found, and its page. Pure: everything that is said comes in."""

from __future__ import annotations

from collections.abc import Sequence

from hasten.spec.environment import Environment
from hasten.spec.measurement import NOT_MEASURED, Figure
from hasten.spec.values import Value

__all__ = ["Found", "Quality", "page", "share_of_time", "spread"]

# The search must come so close to the sweep's best, in so small a share of its time; seeds must agree so closely.
CLOSE, SHARE, AGREE = 0.97, 0.25, 0.05


class Found(Value, frozen=True):
    """What one run found: seconds until its picks were fixed, measured candidates, and the first pick's speed as a
    multiple of that of the sweep's best, and of the fastest pick of all seeds.
    """

    tuning_s: float
    ran: int
    verdict: str
    variant: str
    against_sweep: Figure = NOT_MEASURED
    against_fastest: Figure = NOT_MEASURED


class Quality(Value, frozen=True):
    """One model: the sweep, and the search with each seed."""

    model: str
    sweep: Found
    runs: tuple[Found, ...]


def share_of_time(quality: Quality, run: Found) -> float:
    """The time of a search as a share of that of the sweep."""
    return run.tuning_s / quality.sweep.tuning_s


def spread(quality: Quality) -> float:
    """By how much the slowest pick of all seeds falls behind the fastest: 0.05 is 5 %."""
    return 1 - min(run.against_fastest.value or 0.0 for run in quality.runs)


def page(results: Sequence[Quality], host: Environment, budget_s: float) -> str:
    """The whole page."""
    where = f"{host.processor}, {host.cores_physical} cores, {' '.join(host.features)}{', virtual' * host.virtual}"
    lines = [
        "# How good is the search?",
        "",
        "Made by `make bench-search`. The sweep (`hasten optimize --exhaustive`) measures every candidate in full, "
        f"with the rounds and samples of a budget of {budget_s:.0f} s. The search knows nothing of earlier runs and "
        "has a budget of which nine tenths of a quarter of the sweep's time go to trying, since what is begun is "
        "finished. Time is until the picks are fixed. The bests then race in the same rounds; a ratio above 1 means "
        "that the search's is faster, exactly 1 that both are the same variant. Seeds draw the orders of measuring; "
        "all choose on the same data (decision 0029).",
        "",
        f"Machine: {where}.",
        "",
        "| model | best | candidates | time | share of the sweep's time | against the sweep's best | "
        "against the fastest of all seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for quality in results:
        sweep = quality.sweep
        lines.append(f"| {quality.model}, sweep | `{sweep.variant}` | {sweep.ran} | {sweep.tuning_s:.0f} s | 1 | 1 | |")
        lines += [_row(quality, seed, run) for seed, run in enumerate(quality.runs)]
    lines += ["", "| model | within 3 % of the sweep's best | in a quarter of its time | seeds within 5 % |"]
    lines += ["|---|---|---|---|", *(_verdict(quality) for quality in results), ""]
    return "\n".join(lines)


def _row(quality: Quality, seed: int, run: Found) -> str:
    return (
        f"| {quality.model}, seed {seed} | `{run.variant}` | {run.ran} | {run.tuning_s:.0f} s | "
        f"{share_of_time(quality, run):.0%} | {_text(run.against_sweep)} | {_text(run.against_fastest)} |"
    )


def _verdict(quality: Quality) -> str:
    close = [run for run in quality.runs if (run.against_sweep.high or 0.0) >= CLOSE]
    surely = [run for run in quality.runs if (run.against_sweep.low or 0.0) >= CLOSE]
    quick = [run for run in quality.runs if share_of_time(quality, run) <= SHARE]
    every = len(quality.runs)
    return (
        f"| {quality.model} | surely {len(surely)}, possibly {len(close)} of {every} | {len(quick)} of {every} | "
        f"{'yes' if spread(quality) <= AGREE else 'no'}: {spread(quality):.1%} |"
    )


def _text(figure: Figure) -> str:
    if figure.value is None:
        return f"not measured: {figure.reason}"
    if figure.low == figure.high:
        return f"{figure.value:.2f}"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
