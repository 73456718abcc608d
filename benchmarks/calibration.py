"""Does the simulated server predict the real one? Writes docs/calibration.md.

One command: make bench-calibration. Each model is optimized once, with serving defaults chosen by simulation. Then, for
30, 60 and 85 % of what the real server carries, in turn and several times over: an idle and a saturated phase, the
prediction made with them, and an open loop of Poisson arrivals on the real server. `--resume` takes the bundles of an
earlier run below `--work`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from urllib.parse import urlsplit

import hasten
from hasten.data.feed import feed, sample_for
from hasten.data.split import split
from hasten.deployment import measure_beside, predict_beside, rehearse_at, served
from hasten.engine.host import environment
from hasten.fleet.capacity import Question
from hasten.measure.contention import Watch
from hasten.measure.service import shape_keys
from hasten.spec.evidence import Record
from hasten.spec.slo import Goal, Slo
from hasten.targets import UrlTarget
from hasten.wire.oip_http import encode_request
from hasten.zoo.open import zoo_data
from predicted import Row, page

PAGE = Path(__file__).parent.parent / "docs" / "calibration.md"
MODELS = ("face-detector", "magika", "ppocr-rec")
SHARES = (0.3, 0.6, 0.85)
REQUESTS, LONGEST_S = 2000, 30.0
SENT = 64
PATIENCE_S = 60.0


def main() -> int:
    given = _arguments()
    rows: list[Row] = []
    for name in given.models:
        bundle = given.work / f"{name}.bundle"
        if not (given.resume and bundle.exists()):
            bundle.parent.mkdir(parents=True, exist_ok=True)
            goal = Goal(slo=Slo(accuracy_drop_max=0.01))
            hasten.optimize(f"zoo:{name}", slo=goal, out=bundle, budget_s=given.budget, overwrite=bundle.exists())
        rows += _measured(name, bundle, given.repeats)
        given.page.write_text(page(rows, environment()))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Predictions of the simulated server against the real one.")
    parser.add_argument("--models", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of a search")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("work") / "calibration")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def _measured(name: str, bundle: Path, repeats: int) -> list[Row]:
    opened = hasten.open_bundle(bundle).bundle
    record: Record = opened.record()
    deployment = next(item for item in record.deployments if item.variant == record.picked)
    signature = opened.manifest.signature
    samples = split(zoo_data(name), seed=0).tuning
    inputs = [feed(signature, [sample_for(signature, samples, at)]) for at in range(min(SENT, len(samples)))]
    bodies = [encode_request(one, signature) for one in inputs]
    question = Question(
        variant=record.picked, times=deployment.times, keys=shape_keys(signature, samples), goal=record.goal
    )
    watch, rows = Watch(PATIENCE_S), []
    with served(bundle) as url:
        target = UrlTarget(urlsplit(url).netloc, f"/v2/models/{opened.manifest.name}", bodies)
        with contextlib.closing(target):
            for repeat in range(repeats):
                for share in SHARES:
                    watch.round_is_quiet()
                    beside = measure_beside(target, deployment)
                    load = share * (beside.capacity_rps.value or 1.0)
                    predicted = predict_beside(question, deployment.serving, load, beside)
                    found = rehearse_at(target, load, min(REQUESTS / load, LONGEST_S), seed=repeat)
                    row = Row(
                        model=name,
                        variant=record.picked,
                        serving=str(deployment.serving),
                        share=share,
                        predicted=predicted,
                        found=found,
                    )
                    print(row, file=sys.stderr)
                    rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
