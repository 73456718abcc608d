"""How good is the search, and does it agree with itself? Writes docs/search.md.

One command: make bench-search. For each model an exhaustive sweep measures every candidate in full. Then the search
runs once for each of several seeds, on the same data, with a budget of which nine tenths of a quarter of the sweep's
time go to trying; and all that was picked races in the same rounds. What earlier runs taught is not used. `--resume`
takes what an earlier run finished below `--work`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

import hasten
from hasten.data.split import split
from hasten.engine.host import environment
from hasten.engine.isolate import load_isolated
from hasten.measure.base import Plan
from hasten.measure.contention import Watch
from hasten.measure.latency import race_times
from hasten.model.open import open_model
from hasten.optimize.build import Builder
from hasten.optimize.plan import reference_variant
from hasten.spec.measurement import Figure
from hasten.spec.progress import Progress
from hasten.spec.slo import Goal, Slo
from hasten.spec.values import Value
from hasten.spec.variant import Variant
from hasten.stats.ratio import speedup
from hasten.transform.isolate import apply_isolated
from hasten.zoo.open import zoo_data, zoo_model
from quality import SHARE, Found, Quality, page

PAGE = Path(__file__).parent.parent / "docs" / "search.md"
MODELS = ("magika", "ppocr-rec", "face-detector")
BOUND = 0.01
PLAN = Plan(rounds=40, runs=4, samples=64, seed=17)
PATIENCE_S = 60.0
# The share of a budget that goes to trying; and what is tried in it, with the trial that is under way when it is spent.
TRYING = 0.75
BEGUN = 0.9


class Run(Value, frozen=True):
    """One optimization: the seconds until its picks were fixed, how many candidates ran, and the first pick."""

    tuning_s: float
    ran: int
    verdict: str
    best: Variant


def main() -> int:
    given = _arguments()
    os.environ["HASTEN_HISTORY"] = "off"
    results: list[Quality] = []
    for name in given.models:
        folder = given.work / name
        folder.mkdir(parents=True, exist_ok=True)
        results.append(_measured(name, folder, given))
        given.page.write_text(page(results, environment(), given.budget))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The search against an exhaustive sweep and itself.")
    parser.add_argument("--models", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds, for the sweep's rounds and samples")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("work") / "search")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def _measured(name: str, folder: Path, given: argparse.Namespace) -> Quality:
    sweep = _run(name, folder / "sweep", given, given.budget, seed=0, exhaustive=True)
    budget_s = BEGUN * SHARE * sweep.tuning_s / TRYING
    runs = [_run(name, folder / f"seed{seed}", given, budget_s, seed=seed) for seed in range(given.seeds)]
    times = _race(name, folder, {"sweep": sweep.best, **{str(seed): run.best for seed, run in enumerate(runs)}})
    against = [_ratio(times["sweep"], times[str(seed)]) for seed in range(given.seeds)]
    fastest = max(range(given.seeds), key=lambda seed: against[seed].value or 0.0)
    return Quality(
        model=name,
        sweep=Found(tuning_s=sweep.tuning_s, ran=sweep.ran, verdict=sweep.verdict, variant=sweep.best.id),
        runs=tuple(
            Found(
                tuning_s=run.tuning_s,
                ran=run.ran,
                verdict=run.verdict,
                variant=run.best.id,
                against_sweep=against[seed],
                against_fastest=_ratio(times[str(fastest)], times[str(seed)]),
            )
            for seed, run in enumerate(runs)
        ),
    )


def _run(
    name: str, folder: Path, given: argparse.Namespace, budget_s: float, *, seed: int, exhaustive: bool = False
) -> Run:
    kept = folder.with_suffix(".json")
    if given.resume and kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=Run)
    started, picked = time.monotonic(), [0.0]

    def listen(progress: Progress) -> None:
        if progress.stage.startswith(("run-off:", "picked on tuning data")) and not picked[0]:
            picked[0] = time.monotonic() - started
        if progress.note:
            print(f"{name} {folder.name} {time.monotonic() - started:6.0f} s  {progress.note}", file=sys.stderr)

    result = hasten.optimize(
        f"zoo:{name}",
        slo=Goal(slo=Slo(accuracy_drop_max=BOUND)),
        out=folder,
        seed=seed,
        budget_s=budget_s,
        rehearse=False,
        exhaustive=exhaustive,
        overwrite=folder.exists(),
        listener=listen,
    )
    record = result.record
    best = record.holdout[0].variant if record.holdout else reference_variant(open_model(zoo_model(name)))
    run = Run(tuning_s=picked[0], ran=len(record.tuning), verdict=record.verdict, best=best)
    kept.write_bytes(msgspec.json.encode(run))
    return run


def _race(name: str, folder: Path, variants: dict[str, Variant]) -> dict[str, list[float]]:
    """Milliseconds by round of each distinct variant; equal ones run once, and so are equally fast."""
    splits = split(zoo_data(name), seed=0)
    builder = Builder(zoo_model(name), splits.calibration, folder / "models", apply_isolated)
    keys = {who: msgspec.json.encode((v.target, v.recipe)).decode() for who, v in variants.items()}
    with ExitStack() as stack:
        arms = {
            keys[who]: stack.enter_context(load_isolated(builder.build(variant), variant.target))
            for who, variant in {keys[who]: (who, variant) for who, variant in variants.items()}.values()
        }
        times = race_times(arms, splits.tuning, PLAN, Watch(PATIENCE_S))
    return {who: times[key] for who, key in keys.items()}


def _ratio(before: Sequence[float], after: Sequence[float]) -> Figure:
    """How many times as fast the second is; exactly 1 for one and the same."""
    if before is after:
        return Figure(value=1.0, low=1.0, high=1.0, n=len(before), method="the same variant")
    return speedup(before, after, seed=PLAN.seed)


if __name__ == "__main__":
    sys.exit(main())
