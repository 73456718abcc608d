"""The serving stage: serving defaults for what was picked, tried on the real server, held to objectives at a load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hasten.data.dataset import Subset
from hasten.errors import EngineError, RequestError, UsageError
from hasten.measure.contention import Watch
from hasten.measure.service import batch_sizes
from hasten.optimize.build import Builder
from hasten.optimize.deploy import Deployer, ask, deployment_line
from hasten.optimize.pack import Packer
from hasten.optimize.record import Found
from hasten.optimize.trial import Loader
from hasten.optimize.trials import TrialLog
from hasten.spec.evidence import Record
from hasten.spec.progress import Listener, Progress
from hasten.spec.serving import Deployment
from hasten.spec.signature import Signature
from hasten.spec.slo import Goal
from hasten.spec.variant import Variant
from hasten.verify.judge import judge_load

__all__ = ["ServingStage"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingStage:
    """What the stage needs. `record` concludes from what was found and the deployments so far; without a `deployer`
    variants are served as they were measured. `data` are tuning samples, `max_batch` the rows that may be stacked.
    """

    deployer: Deployer | None
    builder: Builder
    packer: Packer
    record: Callable[[Found, tuple[Deployment, ...]], Record]
    log: TrialLog
    loader: Loader
    data: Subset
    signature: Signature
    watch: Watch
    goal: Goal
    seed: int
    listener: Listener
    max_batch: int

    def deployed(self, found: Found) -> Record:
        """The record with serving defaults of the picked variant, held to the objectives at their load. Where it fails
        there, a spare that may stand in is asked, and the reference last.
        """
        record = self.record(found, ())
        done: dict[str, Deployment | None] = {}
        while record.verdict != "infeasible" and record.picked not in done:
            found, done[record.picked] = self._rehearsed(found, record)
            record = self.record(found, tuple(item for item in done.values() if item is not None))
        return record

    def _rehearsed(self, found: Found, record: Record) -> tuple[Found, Deployment | None]:
        id_ = record.picked
        item = next(item for item in found.claimed if item.variant.id == id_)
        deployment = self.log.get(f"deployment/{id_}", Deployment)
        if deployment is None:
            deployment = self._deploy(item.variant, found)
        if deployment is not None:
            self.log.put(f"deployment/{id_}", deployment)
            self.listener(Progress(stage=f"deployment/{id_}", note=deployment_line(deployment)))
        judged = judge_load(item, deployment.rehearsed if deployment else None, self.goal)
        claimed = [judged if other is item else other for other in found.claimed]
        return replace(found, claimed=claimed), deployment

    def _deploy(self, variant: Variant, found: Found) -> Deployment | None:
        """Choose serving defaults by simulation, pack a bundle with them aside, and try the real server on it. None
        where nobody is there to do that, or the engine failed on the way: the variant is then served as measured.
        """
        deployer = self.deployer
        if deployer is None:
            return None
        self.listener(Progress(stage=f"serving: measuring batches of {variant.id}"))
        model = self.builder.build(variant)
        try:
            asked = ask(
                variant,
                lambda target: self.loader(model, target),
                self.data,
                self.signature,
                batch_sizes(self.max_batch),
                self.watch,
                self.goal,
                self.seed,
            )
        except EngineError as error:
            self.listener(Progress(stage="serving", note=f"no serving defaults: {error.message}"))
            return None
        deployment = deployer.choose(asked)
        load = f"{deployment.predicted.load_rps:.4g} requests/s"
        self.listener(Progress(stage=f"serving: rehearsing {variant.id} at {load}"))
        aside = self.log.folder / "rehearsal.bundle"
        self.packer.write(aside, self.record(found, (deployment,)), self.max_batch, report="")
        try:
            return deployer.rehearse(asked, deployment, aside)
        except (EngineError, RequestError, UsageError) as error:
            # The defaults stand; objectives at a load stay open without a rehearsal.
            self.listener(Progress(stage="serving", note=f"not rehearsed: {error.message}"))
            return deployment
