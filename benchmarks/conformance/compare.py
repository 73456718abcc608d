"""Which answers differ, and which of these differences are meant.

The reviewed list is `differences.toml`. A row names probes, what each server does, and why hasten does otherwise. It
excuses exactly that: another status on either side is a difference that nobody has reviewed, and a row for a difference
that is gone is out of date. Both are failures.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.probe import Outcome

__all__ = ["Difference", "Found", "compare", "read_differences"]

REVIEWED = Path(__file__).parent / "differences.toml"


@dataclass(frozen=True, slots=True)
class Difference:
    """A reviewed difference: `probes` that show it, the status (or the whole words) of both servers, and the reason."""

    probes: tuple[str, ...]
    hasten: str
    triton: str
    reason: str

    def excuses(self, ours: Outcome, theirs: Outcome) -> bool:
        """Whether this is what was reviewed."""
        return self.hasten in (ours.status, str(ours)) and self.triton in (theirs.status, str(theirs))


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a probe: `difference` where the answers differ as reviewed; `problem` where they should not."""

    probe: str
    ours: Outcome
    theirs: Outcome
    difference: Difference | None = None
    problem: str = ""

    @property
    def same(self) -> bool:
        return self.ours == self.theirs


def read_differences(path: Path = REVIEWED) -> list[Difference]:
    """Read the list. Raises `ValueError` for a probe that is listed twice and for a row without a reason."""
    rows = [
        Difference(tuple(row["probes"]), row["hasten"], row["triton"], row["reason"])
        for row in tomllib.loads(path.read_text())["difference"]
    ]
    listed = [probe for row in rows for probe in row.probes]
    twice = sorted({probe for probe in listed if listed.count(probe) > 1})
    if twice:
        raise ValueError(f"{path.name} lists more than once: {', '.join(twice)}")
    for row in rows:
        if not row.reason.strip() or not row.probes:
            raise ValueError(f"{path.name}: the row of {', '.join(row.probes)} needs probes and a reason.")
    return rows


def compare(ours: Mapping[str, Outcome], theirs: Mapping[str, Outcome], reviewed: Sequence[Difference]) -> list[Found]:
    """Judge every probe, in the order asked, and then every row that names a probe which was not asked."""
    rows = {probe: row for row in reviewed for probe in row.probes}
    found = [_judged(probe, mine, theirs[probe], rows.get(probe)) for probe, mine in ours.items()]
    nothing = Outcome("not asked")
    missing = [probe for probe in rows if probe not in ours]
    return found + [Found(probe, nothing, nothing, problem="reviewed, but there is no such probe") for probe in missing]


def _judged(probe: str, ours: Outcome, theirs: Outcome, row: Difference | None) -> Found:
    if row is None:
        return Found(probe, ours, theirs, problem="" if ours == theirs else "differs, and nobody has reviewed it")
    if ours == theirs:
        return Found(probe, ours, theirs, problem="reviewed as a difference, but the answers are the same")
    if not row.excuses(ours, theirs):
        return Found(probe, ours, theirs, problem=f"reviewed as {row.hasten} against {row.triton}")
    return Found(probe, ours, theirs, difference=row)
