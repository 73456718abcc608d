"""The main job: plan, try, pick, claim, pack.

    plan ─> try each on tuning data ─> pick ─> break the seal ─> claim on holdout data ─> verdict ─> bundle

The order is the honesty: the pick is fixed before the holdout split is opened, each picked variant is then
measured anew (speed included, so that the luckiest of many noisy timings is not the claim), and a pick whose
claim fails is not replaced by the next: that would make holdout data choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hasten.bundle.write import Part, check_destination, write_bundle
from hasten.clock import Clock, MonotonicClock
from hasten.data.dataset import Dataset, Subset
from hasten.data.feed import check_fits, feed, sample_for
from hasten.data.split import Splits, split
from hasten.engine.base import Probe
from hasten.engine.host import environment
from hasten.errors import EngineError, MissingError, ModelError, RequestError, StorageError, UsageError
from hasten.measure.base import AnswerBook, Arm
from hasten.measure.batching import max_batch
from hasten.measure.contention import Watch, cores_given
from hasten.measure.latency import race
from hasten.measure.service import batch_sizes, measure_service, shape_keys
from hasten.model.base import Model
from hasten.model.open import open_model
from hasten.optimize.build import Apply, Builder
from hasten.optimize.deploy import Asked, Deployer, deployment_line
from hasten.optimize.effort import Effort, effort_for
from hasten.optimize.forecast import Forecast
from hasten.optimize.history import History
from hasten.optimize.pick import finalists, pick, why_not
from hasten.optimize.plan import Planned, plan, probe_all, reference_variant, smaller_inputs
from hasten.optimize.trial import Bench, Loader, load_arm, try_variant
from hasten.optimize.trials import Trial, TrialLog, fingerprint
from hasten.optimize.tuning import Tuning, line
from hasten.optimize.verdict import conclude
from hasten.spec.applied import Build
from hasten.spec.evidence import Evidence, Record, Rejection, Story
from hasten.spec.progress import Listener, Progress, ignore
from hasten.spec.serving import Deployment
from hasten.spec.slo import Goal
from hasten.spec.target import Format, Target
from hasten.spec.variant import REFERENCE, Step, Variant
from hasten.transform.base import TransformFailed
from hasten.transform.isolate import apply_isolated
from hasten.verify.judge import judge_load

__all__ = ["BUDGET_S", "GOLDEN_SAMPLES", "Job", "Outcome", "run"]

BUDGET_S = 600.0
GOLDEN_SAMPLES = 3
# Different requests that a rehearsal sends: enough for the times to vary as the data does.
_SENT = 64
# Shares of the budget that may be spent waiting for a machine that gives all its cores.
_PATIENCE = {"tuning": 0.05, "holdout": 0.1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything that one optimization is asked for. `render` makes the report page; `command` is how to run it
    again. `prepare` changes the model's interface first, for reference and candidates alike. `history` is the file
    with what earlier runs taught (`hasten.optimize.history`); `deployer` chooses serving defaults and rehearses them.
    """

    model: Path
    data: Dataset
    goal: Goal
    out: Path
    name: str
    render: Callable[[Record], str]
    prepare: tuple[Step, ...] = ()
    seed: int = 0
    budget_s: float = BUDGET_S
    resume: bool = False
    overwrite: bool = False
    command: str = ""
    listener: Listener = ignore
    loader: Loader = load_arm
    apply: Apply = apply_isolated
    probe: Callable[[], list[Probe]] | None = None
    history: Path | None = None
    deployer: Deployer | None = None
    clock: Clock = field(default_factory=MonotonicClock)
    cores_given: Callable[[], float] = cores_given


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The record, and the bundle folder; an infeasible goal has a report but no bundle."""

    record: Record
    bundle: Path | None
    report: Path


def run(job: Job) -> Outcome:
    """Do the job. Raises `UserError` for bad input before any long work; keeps finished trials on Ctrl-C."""
    started = job.clock.now()
    check_destination(job.out, overwrite=job.overwrite)
    trained = open_model(job.model)
    if not job.prepare:
        _check_data(trained, job.data)
    splits = split(job.data, seed=job.seed)
    log = TrialLog(job.out, _run_key(job, trained), resume=job.resume)
    try:
        model = _prepared(job, trained, splits, log.folder / "prepared")
        outcome = _Run(job, model, splits, log, started).outcome()
    except BaseException:
        log.close()
        raise
    log.discard()
    return outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What the stages found, to be concluded from: claims on holdout data, trials on tuning data, and why not."""

    claimed: Sequence[Evidence]
    tuned: Sequence[Evidence]
    rejected: Sequence[Rejection]
    stories: Sequence[Story]
    picks: Sequence[Evidence]


class _Run:
    """One run of a job: holds what its stages share."""

    def __init__(self, job: Job, model: Model, splits: Splits, log: TrialLog, started: float) -> None:
        self._job = job
        self._model = model
        self._splits = splits
        self._log = log
        self._started = started
        self._builder = Builder(model.path, splits.calibration, log.folder, job.apply)
        self._reference = reference_variant(model)
        self._book = AnswerBook()
        self._builds: dict[str, Build] = {}
        self._history = History(job.history)
        self._forecast = Forecast(model.digest, self._history.lessons())
        self._watches: dict[str, Watch] = {
            name: Watch(job.budget_s * share, probe=job.cores_given) for name, share in _PATIENCE.items()
        }

    def outcome(self) -> Outcome:
        job = self._job
        wishes, impossible = self._plan()
        with self._open_reference() as arm:
            effort = effort_for(arm, self._splits, len(wishes), job.budget_s, job.goal.slo)
            tuned = self._tuning(arm, effort).run(self._reference, wishes)
            self._builds |= tuned.builds
            self._history.keep(self._model.digest, self._forecast.lessons)
            candidates = tuned.evidence()
            raced = self._run_off(arm, finalists(candidates, job.goal, effort.holdout_samples), effort)
            picks = pick(candidates, job.goal, effort.holdout_samples, raced)
            claims = self._claim(arm, [item.variant for item in picks], effort)
            batch = max_batch(arm, self._splits.tuning)
            claimed = [trial.evidence for trial in claims if trial.evidence is not None]
            measured = [trial.evidence for trial in tuned.trials if trial.evidence is not None]
            rejected = [
                *impossible,
                *(trial.rejection for trial in (*tuned.trials, *claims) if trial.rejection is not None),
                *self._losers(measured, picks, effort),
            ]
            stories = [story for trial in tuned.trials for story in trial.stories]
            found = _Found(claimed=claimed, tuned=measured, rejected=rejected, stories=stories, picks=picks)
            record = self._deployed(found, batch)
        return self._pack(record, batch)

    def _deployed(self, found: _Found, batch: int) -> Record:
        """The record with serving defaults of the picked variant, held to the objectives at their load. Where it fails
        there, the reference is asked, and no other: what was claimed is claimed.
        """
        record = self._record(found, ())
        deployer, done = self._job.deployer, dict[str, Deployment | None]()
        while deployer and record.verdict != "infeasible" and record.picked not in done:
            found, done[record.picked] = self._rehearsed(deployer, found, record, batch)
            record = self._record(found, tuple(item for item in done.values() if item is not None))
        return record

    def _rehearsed(
        self, deployer: Deployer, found: _Found, record: Record, batch: int
    ) -> tuple[_Found, Deployment | None]:
        id_ = record.picked
        item = next(item for item in found.claimed if item.variant.id == id_)
        deployment = self._log.get(f"deployment/{id_}", Deployment)
        if deployment is None:
            deployment = self._deploy(deployer, item.variant, found, batch)
            self._log.put(f"deployment/{id_}", deployment)
        if deployment is not None:
            self._job.listener(Progress(stage=f"deployment/{id_}", note=deployment_line(deployment)))
        judged = judge_load(item, deployment.rehearsed if deployment else None, self._job.goal)
        claimed = [judged if other is item else other for other in found.claimed]
        return replace(found, claimed=claimed), deployment

    def _deploy(self, deployer: Deployer, variant: Variant, found: _Found, batch: int) -> Deployment | None:
        """Choose serving defaults by simulation, pack a bundle with them aside, and try the real server on it. None
        where the engine failed on the way: the variant is then served as it was measured.
        """
        self._say(f"serving: measuring batches of {variant.id}")
        try:
            asked = self._asked(variant, batch)
        except EngineError as error:
            self._job.listener(Progress(stage="serving", note=f"no serving defaults: {error.message}"))
            return None
        deployment = deployer.choose(asked)
        self._say(f"serving: rehearsing {variant.id} at {deployment.predicted.load_rps:.4g} requests/s")
        aside = self._log.folder / "rehearsal.bundle"
        self._write(aside, self._record(found, (deployment,)), batch, report="")
        try:
            return deployer.rehearse(asked, deployment, aside)
        except (EngineError, RequestError, UsageError) as error:
            # The defaults stand; objectives at a load stay open without a rehearsal.
            self._job.listener(Progress(stage="serving", note=f"not rehearsed: {error.message}"))
            return deployment

    def _asked(self, variant: Variant, batch: int) -> Asked:
        model, data, signature = self._builder.build(variant), self._splits.tuning, self._model.signature
        times = measure_service(
            lambda target: self._job.loader(model, target),
            variant.target,
            data,
            batch_sizes(batch),
            environment().cores_physical,
            self._watches["tuning"],
            seed=self._job.seed,
        )
        inputs = [feed(signature, [sample_for(signature, data, at)]) for at in range(min(_SENT, len(data)))]
        return Asked(
            variant=variant.id,
            times=times,
            keys=shape_keys(signature, data),
            inputs=inputs,
            goal=self._job.goal,
            seed=self._job.seed,
        )

    def _plan(self) -> Planned:
        """The wishes for the model as it is and, for a PyTorch program, for its export to ONNX."""
        exported: set[Format] = {"onnx"} if self._model.format == "torch" else set()
        formats: set[Format] = {self._model.format, *exported}
        probes = self._job.probe() if self._job.probe else probe_all(formats)
        wishes, impossible = plan(self._model, probes)
        if self._model.format == "torch":
            export = (Step(transform="export_onnx"),)
            self._say("exporting to ONNX")
            try:
                more, other = plan(open_model(self._builder.build_recipe(export)), probes, export)
            except (TransformFailed, MissingError) as error:
                variant = Variant(id="onnx-export", target=Target(engine="onnxruntime"), recipe=export)
                impossible.append(Rejection(variant=variant, stage="build", reason=error.message))
            else:
                wishes, impossible = [*more, *wishes], [*impossible, *other]
        return wishes, impossible

    def _tuning(self, arm: Arm, effort: Effort) -> Tuning:
        job = self._job
        return Tuning(
            bench=self._bench(arm, "tuning", effort),
            builder=self._builder,
            log=self._log,
            loader=job.loader,
            data=self._splits.tuning,
            plan=effort.tuning,
            watch=self._watches["tuning"],
            goal=job.goal,
            holdout_samples=effort.holdout_samples,
            spent=lambda: (job.clock.now() - self._started) / (job.budget_s * effort.tuning_share),
            listener=job.listener,
            budget_text=f"{job.budget_s / 60:.3g} minutes",
            smaller=smaller_inputs(self._model),
            forecast=self._forecast,
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

    def _run_off(self, arm: Arm, best: Sequence[Evidence], effort: Effort) -> dict[str, float]:
        """Race the finalists in the same rounds: trials took place at different moments of a machine that changes."""
        if len(best) < 2:
            return {}
        kept = self._log.get("run-off", dict[str, float])
        if kept is not None:
            return kept
        self._say("run-off: " + ", ".join(item.variant.id for item in best))
        try:
            with ExitStack() as stack:
                arms = {
                    item.variant.id: stack.enter_context(
                        self._job.loader(self._builder.build(item.variant), item.variant.target)
                    )
                    for item in best
                }
                figures = race(arm, arms, self._splits.tuning, effort.tuning, self._watches["tuning"])
        except EngineError as error:
            # The figures of the trials stand; they only were not taken in the same rounds.
            self._job.listener(Progress(stage="run-off", note=f"run-off given up: {error.message}"))
            return {}
        speeds = {name: figure.value or 0.0 for name, figure in figures.items()}
        self._log.put("run-off", speeds)
        order = sorted(speeds, key=lambda name: -speeds[name])
        words = ", ".join(f"{name} {speeds[name]:.2f}×" for name in order)
        self._job.listener(Progress(stage="run-off", note=f"run-off: {words}"))
        return speeds

    def _claim(self, arm: Arm, variants: Sequence[Variant], effort: Effort) -> list[Trial]:
        """Open the holdout split for the picks and measure them, and the reference against itself, anew."""
        ids = [variant.id for variant in variants]
        self._say(f"picked on tuning data: {', '.join(ids) or 'nothing'}; opening the holdout data")
        holdout = self._splits.holdout.open(ids)
        bench = self._bench(arm, "holdout", effort, holdout)
        trials: list[Trial] = []
        for number, variant in enumerate((self._reference, *variants)):
            self._say(f"claim {number + 1} of {len(variants) + 1}: {variant.id}", number, len(variants) + 1)
            trials.append(self._tried(f"holdout/{variant.id}", bench, variant))
        return trials

    def _tried(self, key: str, bench: Bench, variant: Variant) -> Trial:
        """A finished trial from the log, or a new one that is put there."""
        trial = self._log.get(key, Trial)
        if trial is None:
            trial = try_variant(bench, variant, self._builder.build)
            self._log.put(key, trial)
        self._job.listener(Progress(stage=key, note=line(trial)))
        return trial

    def _bench(self, arm: Arm, split_: str, effort: Effort, holdout: Subset | None = None) -> Bench:
        whole = self._splits.tuning if holdout is None else holdout
        samples = effort.tuning_samples if holdout is None else effort.holdout_samples
        return Bench(
            split="tuning" if holdout is None else "holdout",
            watch=self._watches[split_],
            data=_first(whole, samples),
            reference=arm,
            plan=effort.tuning if holdout is None else effort.holdout,
            goal=self._job.goal,
            loader=self._job.loader,
            listener=self._job.listener,
            book=self._book,
            clock=self._job.clock,
        )

    def _losers(self, tuned: Sequence[Evidence], picks: Sequence[Evidence], effort: Effort) -> list[Rejection]:
        """Why each measured candidate that was not picked was not."""
        taken = {item.variant.id for item in picks}
        kinds = {(p.variant.target.engine, p.variant.target.precision): p.variant.id for p in picks}
        losers: list[Rejection] = []
        for item in tuned:
            if item.variant.id in taken or item.variant.id == REFERENCE:
                continue
            kind = (item.variant.target.engine, item.variant.target.precision)
            better = kinds.get(kind, picks[0].variant.id if picks else "")
            reason = why_not(item, self._job.goal, effort.holdout_samples) or f"{better} does the same job better."
            losers.append(Rejection(variant=item.variant, stage="tuning", reason=reason, evidence=item))
        return losers

    def _record(self, found: _Found, deployments: tuple[Deployment, ...]) -> Record:
        job, model = self._job, self._model
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
            model={
                "name": job.name,
                "file": job.model.name,
                "sha256": model.digest,
                "bytes": model.bytes_on_disk,
                "parameters": model.parameters(),
                "format": model.format,
                "opset": model.opset,
                **({"prepared": ", ".join(str(step) for step in job.prepare)} if job.prepare else {}),
            },
            data={
                "name": job.data.name,
                "sha256": job.data.digest(),
                "samples": len(job.data),
                "calibration": len(self._splits.calibration),
                "tuning": len(self._splits.tuning),
                "holdout": len(self._splits.holdout),
                "metric": job.data.metric.name,
                "labels": "yes" if job.data.labelled else "no: agreement with the reference",
            },
            seed=job.seed,
            elapsed_s=job.clock.now() - self._started,
            command=job.command,
            stories=tuple(found.stories),
            builds=tuple(self._builds.values()),
            deployments=deployments,
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
        self._write(job.out, record, batch, report=job.render(record))
        return Outcome(record=record, bundle=job.out, report=job.out / "report.html")

    def _write(self, out: Path, record: Record, batch: int, *, report: str) -> None:
        inputs = [
            feed(self._model.signature, [sample_for(self._model.signature, self._splits.tuning, i)])
            for i in range(min(GOLDEN_SAMPLES, len(self._splits.tuning)))
        ]
        parts = [self._part(evidence, inputs) for evidence in _ladder_evidence(record)]
        write_bundle(
            out,
            name=self._job.name,
            signature=self._model.signature,
            record=record,
            parts=parts,
            golden_inputs=inputs,
            max_batch=batch,
            report=report,
        )

    def _part(self, evidence: Evidence, inputs: Sequence[dict[str, np.ndarray[Any, Any]]]) -> Part:
        model = self._builder.build(evidence.variant)
        with self._job.loader(model, evidence.variant.target) as arm:
            return Part(evidence=evidence, model=model, outputs=[arm.run(sample) for sample in inputs])

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
    return fingerprint(model.digest, job.data.digest(), job.goal, job.seed, job.budget_s, job.prepare, environment())


def _first(subset: Subset, count: int) -> Subset:
    """The first `count` samples; the split has shuffled them by group already."""
    return subset if count >= len(subset) else subset.dataset.subset(subset.indices[:count])


def _ladder_evidence(record: Record) -> list[Evidence]:
    """Evidence of every variant in the bundle: the ladder, and the reference even where it is no step."""
    everything = {item.variant.id: item for item in (record.reference, *record.holdout)}
    return [everything[id_] for id_ in dict.fromkeys((*record.ladder, REFERENCE))]
