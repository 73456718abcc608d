"""What every zoo model reaches on its data, with intervals, beside what was known. Writes the table of docs/zoo.md.

One command: make zoo-base. Each trained model answers every sample of each of its sets of data, on the usual engine of
its format, in f32. Exit status 1 where a figure is further than a point from the known one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hasten.data.dataset import Dataset
from hasten.data.feed import feed, unbatch
from hasten.engine.base import engines, reference_engine
from hasten.model.open import open_model
from hasten.spec.measurement import Figure
from hasten.spec.target import Target
from hasten.stats.change import share, statistic
from hasten.zoo.catalog import CATALOG
from hasten.zoo.open import zoo_data, zoo_model

PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
BEGIN, END = "<!-- base: written by make zoo-base -->", "<!-- end of base -->"
TOLERANCE = 0.01
# The one figure that was known only roughly ("about 0.90").
ROUGHLY = {"ppocr-rec exact_match": 0.025}
# Known figures of further metrics; those of first metrics stand in the catalog.
KNOWN = {"ppocr-rec char_error_rate": 0.0057}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="zoo names, such as minilm/lee; writes no page")
    given = parser.parse_args()
    rows = ["| data | samples | metric | base | 95 % interval | known before |", "|---|---|---|---|---|---|"]
    far = 0
    for name in given.only or names():
        started = time.monotonic()
        for metric, figure in measured(name):
            label = f"{name} {metric}"
            known = known_before(name, metric)
            far += known is not None and abs((figure.value or 0.0) - known) > ROUGHLY.get(label, TOLERANCE)
            rows.append(row(name, metric, figure, known))
            print(rows[-1], flush=True)
        print(f"  {name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    if not given.only:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text("\n".join([before + BEGIN, *rows, END + rest.partition(END)[2]]))
    return int(far > 0)


def names() -> Iterator[str]:
    """Every set of data that has a model, as `zoo:` names it."""
    for entry in CATALOG.values():
        for view in entry.views if entry.model else ():
            yield f"{entry.name}/{view}" if view else entry.name


def known_before(name: str, metric: str) -> float | None:
    plain, _, view = name.partition("/")
    base = CATALOG[plain].views[view].base
    return base.wanted if base and base.metric == metric else KNOWN.get(f"{name} {metric}")


def measured(name: str) -> list[tuple[str, Figure]]:
    path, data = zoo_model(name), zoo_data(name)
    engine = reference_engine(open_model(path).format)
    session = engines.get(engine).load(path, Target(engine=engine))
    answers = []
    for index in range(len(data)):
        sample = data.inputs(index)
        outputs = session.run(feed(session.signature, [sample]))
        answers.append(data.decode(unbatch(session.signature, sample, outputs)))
    session.close()
    return [(metric.name, figure(data, metric, answers)) for metric in data.metrics]


def figure(data: Dataset, metric, answers: list) -> Figure:
    scores = np.array([metric.row(a, data.label(i)) for i, a in enumerate(answers)], dtype=np.float64)
    return share(scores[:, 0]) if metric.kind == "binary" else statistic(scores, metric.aggregate)


def row(name: str, metric: str, figure: Figure, known: float | None) -> str:
    interval = f"{figure.low:.4f} to {figure.high:.4f}"
    return f"| {name} | {figure.n:,} | {metric} | {figure.value:.4f} | {interval} | {known or '-'} |"


if __name__ == "__main__":
    sys.exit(main())
