"""What a turn is worth: the same model in two processes, with the others spinning or at rest (docs/decisions/0016).

One command: make bench-turns. Every other round lets whoever is not timed rest, so that both ways are measured in the
same minutes. Prints a table; the ratio of a model to itself should be 1, in a short interval.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hasten.data.feed import feed, one_of_each_shape, sample_for
from hasten.engine.base import engines, reference_engine
from hasten.engine.isolate import IsolatedSession, load_isolated
from hasten.measure.turns import WARMUP
from hasten.model.open import open_model
from hasten.spec.target import Target
from hasten.stats.ratio import speedup
from hasten.zoo.open import zoo_data, zoo_model

SAMPLES, RUNS = 16, 4
WAYS = ("spinning", "at rest")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["magika", "minilm", "face-detector", "ppocr-rec"])
    parser.add_argument("--rounds", type=int, default=30, help="of each way")
    given = parser.parse_args()
    print("| model | contestant | " + " | ".join(WAYS) + " |\n|---|---|---|---|")
    for name in given.models:
        model = zoo_model(name)
        for label, ratios in measured(name, model, given.rounds).items():
            print(f"| {name} | {label} | " + " | ".join(ratios) + " |", flush=True)
    return 0


def measured(name: str, model: Path, rounds: int) -> dict[str, list[str]]:
    """Ratios of each contestant to the reference, told for each way."""
    engine = reference_engine(open_model(model).format)
    targets = {"reference": Target(engine=engine), "reference again": Target(engine=engine)}
    cpu = engines.get("openvino").probe().device("CPU")
    for precision in ("bf16", "f32"):
        if cpu is not None and precision in cpu.precisions:
            targets[f"openvino {precision}"] = Target(engine="openvino", precision=precision, threads=2)
    rng, data = np.random.default_rng(0), zoo_data(name)
    samples = data.subset(rng.permutation(len(data))[:SAMPLES])
    times: dict[str, dict[str, list[float]]] = {way: {label: [] for label in targets} for way in WAYS}
    with ExitStack() as stack:
        arms = {label: stack.enter_context(load_isolated(model, target)) for label, target in targets.items()}
        for arm in arms.values():
            _put(arm, [sample_for(arm.signature, samples, at) for at in range(SAMPLES)])
        for number in range(2 * rounds):
            way = WAYS[number % 2]
            slots = [int(slot) for slot in rng.choice(SAMPLES, RUNS)]
            for label in rng.permutation(list(arms)):
                found = arms[str(label)].time_ms(slots, warmup=WARMUP)
                times[way][str(label)].append(float(np.mean(found)))
                if way == "at rest":
                    arms[str(label)].rest()
    return {
        label: [_ratio(times[way]["reference"], times[way][label]) for way in WAYS]
        for label in targets
        if label != "reference"
    }


def _put(arm: IsolatedSession, samples: list[dict[str, np.ndarray]]) -> None:
    for slot, sample in enumerate(samples):
        arm.put(slot, feed(arm.signature, [sample]))
    arm.time_ms(one_of_each_shape(samples))


def _ratio(before: list[float], after: list[float]) -> str:
    found = speedup(before, after, seed=0)
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
