"""From what the stages found to the record: the whole story, with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hasten.data.lengths import describe_lengths
from hasten.data.split import Splits
from hasten.engine.host import environment
from hasten.errors import ModelError
from hasten.model.base import Model
from hasten.optimize.job import Job
from hasten.optimize.verdict import conclude
from hasten.spec.applied import Build
from hasten.spec.evidence import ClassChanges, Evidence, Record, Rejection, Shown, Story
from hasten.spec.serving import Deployment
from hasten.spec.variant import REFERENCE

__all__ = ["Found", "Recorder"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the stages found, to be concluded from: claims on holdout data, trials on tuning data, and why not."""

    claimed: Sequence[Evidence]
    tuned: Sequence[Evidence]
    rejected: Sequence[Rejection]
    stories: Sequence[Story]
    picks: Sequence[Evidence]
    classes: Sequence[ClassChanges]
    shown: Sequence[Shown]


class Recorder:
    """Writes records of one job."""

    def __init__(self, job: Job, model: Model, splits: Splits) -> None:
        self._job = job
        self._model = model
        self._splits = splits
        self._lengths = describe_lengths(model.signature, splits.tuning)

    def record(
        self, found: Found, builds: tuple[Build, ...], deployments: tuple[Deployment, ...], elapsed_s: float
    ) -> Record:
        """Conclude, and tell everything. Raises `ModelError` where the reference has no claim."""
        job = self._job
        reference = next((item for item in found.claimed if item.variant.id == REFERENCE), None)
        if reference is None:
            raise ModelError("The reference failed on the holdout data.", remedy="Check the data with: hasten bench")
        others = [item for item in found.claimed if item.variant.id != REFERENCE]
        conclusion = conclude(reference, others, found.picks, job.goal, found.tuned)
        return Record(
            verdict=conclusion.verdict,
            summary=conclusion.summary,
            goal=job.goal,
            picked=conclusion.picked,
            ladder=conclusion.ladder,
            reference=reference,
            holdout=tuple(others),
            tuning=tuple(found.tuned),
            rejected=(*found.rejected, *conclusion.rejected),
            environment=environment(),
            model=self._about_the_model(),
            data=self._about_the_data(),
            seed=job.seed,
            elapsed_s=elapsed_s,
            command=job.command,
            stories=tuple(found.stories),
            builds=builds,
            deployments=deployments,
            classes=tuple(found.classes),
            shown=tuple(found.shown),
        )

    def _about_the_model(self) -> dict[str, str | int]:
        job, model = self._job, self._model
        return {
            "name": job.name,
            "file": job.model.name,
            "sha256": model.digest,
            "bytes": model.bytes_on_disk,
            "parameters": model.parameters(),
            "format": model.format,
            "opset": model.opset,
            **({"prepared": ", ".join(str(step) for step in job.prepare)} if job.prepare else {}),
        }

    def _about_the_data(self) -> dict[str, str | int]:
        data = self._job.data
        return {
            "name": data.name,
            "sha256": data.digest(),
            "samples": len(data),
            "calibration": len(self._splits.calibration),
            "tuning": len(self._splits.tuning),
            "holdout": len(self._splits.holdout),
            "split_seed": self._job.split_seed,
            "metric": data.metric.name,
            **({"lengths": self._lengths} if self._lengths else {}),
            "labels": "yes" if data.labelled else "no: agreement with the reference",
        }
