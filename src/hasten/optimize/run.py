"""The main job: plan, try, pick, claim, pack.

plan ─> try each on tuning data (`tuning`) ─> pick ─> break the seal ─> claim on holdout data (`claims`) ─>
serving defaults (`serving`) ─> verdict ─> bundle
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from hasten.bundle.write import check_destination
from hasten.data.dataset import Dataset, Subset
from hasten.data.feed import check_fits, sample_for
from hasten.data.lengths import typical_lengths
from hasten.data.split import Splits, split
from hasten.engine.host import environment
from hasten.errors import EngineError, MissingError, ModelError, StorageError
from hasten.measure.base import AnswerBook, Arm, Plan
from hasten.measure.batching import max_batch
from hasten.measure.contention import Watch
from hasten.model.base import Model
from hasten.model.open import open_model
from hasten.optimize.build import Builder
from hasten.optimize.claims import ClaimStage
from hasten.optimize.effort import TUNING_SHARE, Effort, effort_for
from hasten.optimize.explain import with_operators
from hasten.optimize.forecast import Forecast
from hasten.optimize.history import History
from hasten.optimize.job import Job, Outcome
from hasten.optimize.lengths import lengths_for
from hasten.optimize.pack import Packer
from hasten.optimize.pick import by_speed
from hasten.optimize.plan import Planned, plan, probe_all, reference_variant, smaller_inputs
from hasten.optimize.record import Found, Recorder
from hasten.optimize.serving import ServingStage
from hasten.optimize.stories import shown_samples
from hasten.optimize.trial import Bench
from hasten.optimize.trials import TrialLog, fingerprint
from hasten.optimize.tuning import Tuning
from hasten.spec.applied import Build
from hasten.spec.evidence import Record, Rejection
from hasten.spec.measurement import Split
from hasten.spec.progress import Progress
from hasten.spec.target import Format, Target
from hasten.spec.variant import Step, Variant
from hasten.transform.base import TransformFailed
from hasten.transform.isolate import TIMEOUT_S

__all__ = ["Job", "Outcome", "run"]

# Shares of the budget that may be spent waiting for a machine that gives all its cores.
_PATIENCE = {"tuning": 0.05, "holdout": 0.1}
_SHORTEST_BUILD_S = 30.0


def run(job: Job) -> Outcome:
    """Do the job. Raises `UserError` for bad input before any long work; keeps finished trials on Ctrl-C."""
    started = job.clock.now()
    check_destination(job.out, overwrite=job.overwrite)
    trained = open_model(job.model)
    if not job.prepare:
        _check_data(trained, job.data)
    splits = split(job.data, seed=job.split_seed)
    log = TrialLog(job.out, _run_key(job, trained), resume=job.resume)
    try:
        model = _prepared(job, trained, splits, log.folder / "prepared")
        outcome = _Run(job, model, splits, log, started).outcome()
    except BaseException:
        log.close()
        raise
    log.discard()
    return outcome


class _Run:
    """One run of a job: holds what its stages share."""

    def __init__(self, job: Job, model: Model, splits: Splits, log: TrialLog, started: float) -> None:
        self._job = job
        self._model = model
        self._splits = splits
        self._log = log
        self._started = started
        self._tuning_s = job.budget_s * TUNING_SHARE
        self._builder = Builder(model.path, splits.calibration, log.folder, job.apply, self._for_a_build_s)
        self._reference = reference_variant(model)
        self._packer = Packer(
            name=job.name,
            signature=model.signature,
            data=splits.tuning,
            build=self._builder.build,
            loader=job.loader,
        )
        self._recorder = Recorder(job, model, splits)
        self._book = AnswerBook()
        self._builds: dict[str, Build] = {}
        self._history = History(job.history)
        # The same model on much longer samples is another one to a forecast.
        lengths = typical_lengths(model.signature, splits.tuning)
        self._known_as = fingerprint(model.digest, *lengths) if lengths else model.digest
        self._forecast = Forecast(self._known_as, self._history.lessons())
        self._watches: dict[str, Watch] = {
            name: Watch(job.budget_s * share, probe=job.cores_given) for name, share in _PATIENCE.items()
        }

    def outcome(self) -> Outcome:
        job = self._job
        wishes, impossible = self._plan()
        with self._open_reference() as arm:
            effort = effort_for(arm, self._splits, len(wishes), job.budget_s, job.goal.slo, seed=job.seed)
            self._tuning_s = effort.tuning_s
            tuned = self._tuning(arm, effort).run(self._reference, wishes)
            self._builds |= tuned.builds
            self._history.keep(self._known_as, self._forecast.lessons)
            measured = [trial.evidence for trial in tuned.trials if trial.evidence is not None]
            claimed = self._claims(arm, effort).run(self._reference, measured)
            batch = max_batch(arm, self._splits.tuning)
            refused = [trial.rejection for trial in tuned.trials if trial.rejection is not None]
            stories = [story for trial in tuned.trials for story in trial.stories]
            found = Found(
                claimed=claimed.evidence,
                tuned=measured,
                rejected=[*impossible, *refused, *claimed.rejected],
                stories=stories,
                picks=claimed.picks,
                classes=[trial.classes for trial in claimed.trials if trial.classes is not None],
                shown=shown_samples(job.data, stories, [item.variant.id for item in claimed.picks]),
            )
            record = self._explained(self._serving(batch).deployed(found), arm)
        return self._pack(record, batch)

    def _for_a_build_s(self) -> float:
        """A build that begins now may take what is left for trying, and a minimum, so that the first are not cut off
        where loading took long.
        """
        return min(TIMEOUT_S, max(_SHORTEST_BUILD_S, self._tuning_s - self._gone_s()))

    def _gone_s(self) -> float:
        return self._job.clock.now() - self._started

    def _serving(self, batch: int) -> ServingStage:
        job = self._job
        return ServingStage(
            deployer=job.deployer,
            builder=self._builder,
            packer=self._packer,
            record=lambda found, deployments: self._recorder.record(
                found, tuple(self._builds.values()), deployments, self._gone_s()
            ),
            log=self._log,
            loader=job.loader,
            data=self._splits.tuning,
            signature=self._model.signature,
            watch=self._watches["tuning"],
            goal=job.goal,
            seed=job.seed,
            listener=job.listener,
            max_batch=batch,
        )

    def _explained(self, record: Record, arm: Arm) -> Record:
        self._say("profiling what was picked")
        return with_operators(
            record,
            arm,
            lambda variant: self._job.loader(self._builder.build(variant), variant.target),
            self._splits.tuning,
            log=self._log,
            clock=self._job.clock,
        )

    def _plan(self) -> Planned:
        """The wishes for the model as it is and, for a PyTorch program, for its export to ONNX."""
        exported: set[Format] = {"onnx"} if self._model.format == "torch" else set()
        formats: set[Format] = {self._model.format, *exported}
        probes = self._job.probe() if self._job.probe else probe_all(formats)
        samples = self._splits.calibration
        goal = self._job.goal
        # Graphs for single rows cost memory: not where that counts.
        single = by_speed(goal) and goal.slo.memory_max_mb is None
        lengths = lengths_for(self._model, samples) if single else ()
        wishes, impossible = plan(self._model, probes, lengths=lengths, single_row=single)
        if self._model.format == "torch":
            export = (Step(transform="export_onnx"),)
            self._say("exporting to ONNX")
            try:
                onnx = open_model(self._builder.build_recipe(export))
                lengths = lengths_for(onnx, samples) if single else ()
                more, other = plan(onnx, probes, export, lengths, single_row=single)
            except (TransformFailed, MissingError) as error:
                variant = Variant(id="onnx-export", target=Target(engine="onnxruntime"), recipe=export)
                impossible.append(Rejection(variant=variant, stage="build", reason=error.message))
            else:
                wishes, impossible = [*more, *wishes], [*impossible, *other]
        return wishes, impossible

    def _tuning(self, arm: Arm, effort: Effort) -> Tuning:
        job = self._job
        return Tuning(
            bench=self._bench(arm, "tuning", effort.tuning, self._splits.choosing.first(effort.tuning_samples)),
            builder=self._builder,
            log=self._log,
            loader=job.loader,
            data=self._splits.choosing,
            plan=effort.tuning,
            watch=self._watches["tuning"],
            goal=job.goal,
            holdout_samples=effort.holdout_samples,
            spent=lambda: self._gone_s() / effort.tuning_s,
            listener=job.listener,
            budget_text="1 minute" if job.budget_s == 60 else f"{job.budget_s / 60:.3g} minutes",
            smaller=smaller_inputs(self._model),
            forecast=self._forecast,
            exhaustive=job.exhaustive,
            time_s=effort.tuning_s,
        )

    def _claims(self, arm: Arm, effort: Effort) -> ClaimStage:
        job = self._job
        return ClaimStage(
            arm=arm,
            bench=lambda plan_, data: self._bench(arm, "holdout", plan_, data),
            splits=self._splits,
            effort=effort,
            builder=self._builder,
            log=self._log,
            loader=job.loader,
            watch=self._watches["tuning"],
            goal=job.goal,
            budget_s=job.budget_s,
            gone_s=self._gone_s,
            seed=job.seed,
            counts_answers=job.data.metrics[0].kind == "binary",
            listener=job.listener,
        )

    def _open_reference(self) -> AbstractContextManager[Arm]:
        self._say("loading the reference: " + str(self._reference.target))
        try:
            return self._job.loader(self._model.path, self._reference.target)
        except EngineError as error:
            raise ModelError(
                f"The model does not run on the reference engine: {error.message}",
                remedy="hasten needs a working reference; check the model with: hasten inspect",
            ) from error

    def _bench(self, arm: Arm, split_: Split, plan_: Plan, data: Subset) -> Bench:
        return Bench(
            split=split_,
            watch=self._watches[split_],
            data=data,
            reference=arm,
            plan=plan_,
            goal=self._job.goal,
            loader=self._job.loader,
            listener=self._job.listener,
            book=self._book,
            clock=self._job.clock,
        )

    def _pack(self, record: Record, batch: int) -> Outcome:
        job = self._job
        if record.verdict == "infeasible":
            report = job.out.with_name(job.out.name + ".report.html")
            try:
                report.write_text(job.render(record))
            except OSError as error:
                raise StorageError(
                    f"{report} cannot be written: {error.strerror}.", remedy="Choose another --out."
                ) from error
            return Outcome(record=record, bundle=None, report=report)
        self._say("packing the bundle")
        self._packer.write(job.out, record, batch, report=job.render(record))
        return Outcome(record=record, bundle=job.out, report=job.out / "report.html")

    def _say(self, stage: str, done: float = 0, total: float = 0) -> None:
        self._job.listener(Progress(stage=stage, done=done, total=total))


def _prepared(job: Job, trained: Model, splits: Splits, folder: Path) -> Model:
    """The model whose interface the bundle has. Raises `ModelError` where it cannot be made."""
    if not job.prepare:
        return trained
    job.listener(Progress(stage="preparing the model: " + ", ".join(step.transform for step in job.prepare)))
    try:
        path = Builder(trained.path, splits.calibration, folder, job.apply).build_recipe(job.prepare)
    except TransformFailed as error:
        raise ModelError(f"The model cannot be prepared: {error.message}", remedy=error.remedy) from error
    model = open_model(path)
    _check_data(model, job.data)
    return model


def _check_data(model: Model, data: Dataset) -> None:
    """The first, a middle and the last sample must fit; lazily made data cannot all be looked at."""
    whole = data.subset(range(len(data)))
    for index in sorted({0, len(data) // 2, len(data) - 1}):
        sample = sample_for(model.signature, whole, index)
        check_fits(model.signature, sample, f"Sample {index} of {data.name!r}")


def _run_key(job: Job, model: Model) -> str:
    asked = (job.goal, job.seed, job.split_seed, job.budget_s, job.exhaustive, job.prepare)
    return fingerprint(model.digest, job.data.digest(), *asked, environment())
