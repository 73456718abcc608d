"""Does the simulated server predict the real one? Writes docs/calibration.md.

One command: make bench-calibration. Each model is optimized once, with serving defaults chosen by simulation. Then its
bundle is served, and turns follow each other: a look at the server under other loads, predictions made with it, and
open loops of Poisson arrivals at 85, 60 and 30 % of what the look says that the server carries.

Below `--work` lie bundles and what was found for each model; `--resume` takes both and does only what is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

import hasten
from hasten.data.feed import feed, sample_for
from hasten.data.split import split
from hasten.deployment import rehearsing
from hasten.engine.host import environment
from hasten.fleet.capacity import Question
from hasten.measure.contention import Watch
from hasten.measure.service import shape_keys
from hasten.rehearsal import Rehearsing, Stretch, conclude
from hasten.spec.evidence import Record
from hasten.spec.slo import Goal, Slo
from hasten.zoo.open import zoo_data
from predicted import Row, page

PAGE = Path(__file__).parent.parent / "docs" / "calibration.md"
MODELS = ("face-detector", "magika", "ppocr-rec")
# Shares of what the server carries, and seconds of a turn: near saturation a server forgets a look the soonest, and
# with few requests a percentile needs the longest.
SHARES = {0.85: 2.0, 0.6: 3.0, 0.3: 4.0}
SENT = 64
PATIENCE_S = 30.0
# Fewer quiet turns tell no percentile; a busy machine is given up to so many times as long to have them.
FEWEST_QUIET, LONGER = 5, 2.0


def main() -> int:
    given = _arguments()
    given.work.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in given.models:
        found = given.work / f"{name}.json"
        if not (given.resume and found.exists()):
            bundle = given.work / f"{name}.bundle"
            if not (given.resume and bundle.exists()):
                _say(f"{name}: a search of {given.budget:.0f} s and its rehearsal")
                goal = Goal(slo=Slo(accuracy_drop_max=0.01))
                hasten.optimize(f"zoo:{name}", slo=goal, out=bundle, budget_s=given.budget, overwrite=bundle.exists())
            found.write_bytes(msgspec.json.encode(_measured(name, bundle, given.seconds)))
        rows += msgspec.json.decode(found.read_bytes(), type=list[Row])
        given.page.write_text(page(rows, environment()))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Predictions of the simulated server against the real one.")
    parser.add_argument("--models", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of a search")
    parser.add_argument("--seconds", type=float, default=240.0, help="for the turns of one model")
    parser.add_argument("--work", type=Path, default=Path("work") / "calibration")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def _measured(name: str, bundle: Path, seconds: float) -> list[Row]:
    opened = hasten.open_bundle(bundle).bundle
    record: Record = opened.record()
    deployment = next(item for item in record.deployments if item.variant == record.picked)
    signature = opened.manifest.signature
    samples = split(zoo_data(name), seed=0).tuning
    sent = np.linspace(0, len(samples) - 1, min(SENT, len(samples))).astype(int)
    inputs = [feed(signature, [sample_for(signature, samples, int(at))]) for at in sent]
    question = Question(
        variant=record.picked, times=deployment.times, keys=shape_keys(signature, samples), goal=record.goal
    )
    with rehearsing(bundle, question, deployment, inputs) as rehearsal:
        stretches = _turns(name, rehearsal, seconds)
    return [_row(name, rehearsal, share, stretches[share]) for share in SHARES]


def _turns(name: str, rehearsal: Rehearsing, seconds: float) -> dict[float, list[Stretch]]:
    """Turn after turn of all shares, for so many seconds; longer where others disturbed too many."""
    watch, begun, turn = Watch(PATIENCE_S), time.monotonic(), 0
    stretches: dict[float, list[Stretch]] = {share: [] for share in SHARES}
    while (gone_s := time.monotonic() - begun) < seconds or (gone_s < LONGER * seconds and _few(stretches)):
        watch.round_is_quiet()
        carried = rehearsal.look().capacity_rps
        for share, turn_s in SHARES.items():
            stretches[share].append(rehearsal.load(share * carried, turn_s, turn * len(SHARES) + int(share * 100)))
        turn += 1
        _say(
            f"{name}: turn {turn}, {time.monotonic() - begun:.0f} s of {seconds:.0f}, {carried:.4g} requests/s carried"
            + ", disturbed by others" * any(each[-1].disturbed for each in stretches.values())
        )
    for share in SHARES:
        _say(str(_row(name, rehearsal, share, stretches[share])))
    return stretches


def _few(stretches: dict[float, list[Stretch]]) -> bool:
    return any(sum(not one.disturbed for one in each) < FEWEST_QUIET for each in stretches.values())


def _row(name: str, rehearsal: Rehearsing, share: float, stretches: list[Stretch]) -> Row:
    quiet = [one for one in stretches if not one.disturbed]
    predicted, found = conclude(quiet or stretches, rehearsal.serving)
    return Row(
        model=name,
        variant=rehearsal.question.variant,
        serving=str(rehearsal.serving),
        share=share,
        predicted=predicted,
        found=found,
        turns=len(quiet or stretches),
        disturbed=len(stretches) - len(quiet),
        requests=sum(len(one.calls) for one in quiet or stretches),
    )


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
