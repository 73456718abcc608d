"""Does the main job agree with itself? Optimize ppocr-rec twice; compare verdicts, picks and speedup intervals.

One command: make bench. Prints one line a run and the answer; exit status 1 where the runs disagree.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import hasten
from hasten.spec.slo import Goal, Slo

RUNS = 2


def main() -> int:
    goal = Goal(slo=Slo(accuracy_drop_max=0.01))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            result = hasten.optimize("zoo:ppocr-rec", slo=goal, out=Path(folder) / f"{number}.bundle")
            picked = {e.variant.id: e for e in result.record.holdout}.get(result.record.picked)
            figure = picked.measurement.speedup if picked else result.record.reference.measurement.speedup
            rows.append((result.verdict, result.record.picked, figure))
            print(f"run {number + 1}: {result.summary}\n       {figure.method}", flush=True)
    verdicts = {(verdict, picked) for verdict, picked, _ in rows}
    lows, highs = [f.low or 0.0 for *_, f in rows], [f.high or 0.0 for *_, f in rows]
    overlap = max(lows) <= min(highs)
    print(f"verdict and pick agree: {len(verdicts) == 1}; intervals overlap: {overlap}")
    return 0 if len(verdicts) == 1 and overlap else 1


if __name__ == "__main__":
    sys.exit(main())
