"""The public face: what the command line does, as functions. Each verb of `hasten.cli` is a few lines over this."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hasten.bundle.check import problems
from hasten.bundle.manifest import Manifest
from hasten.bundle.read import Bundle
from hasten.bundle.read import open_bundle as _open_bundle
from hasten.data.dataset import Dataset
from hasten.data.open import load_attribute, open_data, open_metric
from hasten.deployment import RealDeployer
from hasten.engine.isolate import load_isolated
from hasten.errors import ConfigError, DataError, UsageError
from hasten.measure.energy import why_no_energy
from hasten.observe.session import counting
from hasten.optimize.job import BUDGET_S, Job
from hasten.optimize.run import run
from hasten.profile.run import profile_of
from hasten.profile.subject import Wish, open_subject
from hasten.report import render
from hasten.serve.server import Options, Running, serve_bundle, serve_forever
from hasten.serve.telemetry import Telemetry
from hasten.spec.evidence import Record, Verdict
from hasten.spec.profile import Profile
from hasten.spec.progress import Listener, Progress, ignore
from hasten.spec.slo import Goal, Prices
from hasten.spec.target import Precision
from hasten.spec.variant import Step
from hasten.zoo.files import cache_folder
from hasten.zoo.open import PREFIX, zoo_data, zoo_model

__all__ = [
    "BundleHandle",
    "Result",
    "load_goal",
    "load_prices",
    "model_file",
    "open_bundle",
    "optimize",
    "profile",
    "serve",
]

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What `optimize` found. `bundle` is None where the objectives cannot be met; `report` is there in any case."""

    record: Record
    bundle: Path | None
    report: Path

    @property
    def verdict(self) -> Verdict:
        """accepted, keep_reference or infeasible."""
        return self.record.verdict

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        return self.record.summary


def optimize(
    model: Any,
    *,
    out: str | Path,
    data: str | Dataset | None = None,
    slo: str | Path | Goal | None = None,
    metric: str | None = None,
    name: str | None = None,
    seed: int = 0,
    split_seed: int = 0,
    budget_s: float = BUDGET_S,
    fold_preprocess: bool = False,
    rehearse: bool = True,
    exhaustive: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = ignore,
) -> Result:
    """Find the fastest deployment of `model` that provably meets `slo`, and write it as a bundle to `out`.

    `model`: a file (ONNX, TFLite, OpenVINO, or a PyTorch program), `zoo:NAME`, a `torch.nn.Module`, or
    `module:function` that gives one. `data`: a `Dataset`, or a folder, `.npz`, `zoo:NAME` or `module:function`; by
    default the data of the zoo model. `slo`: a `Goal` or the path of an slo.toml; by default an accuracy drop of
    at most 0.005. `seed` draws the orders in which sides and samples are measured, and arrivals; which samples choose
    and which make the claim stays the same. `split_seed` deals them anew: another experiment, which the record names.
    `fold_preprocess` moves the data's preprocessing into the graph, so that clients send raw pixels. `rehearse` chooses
    serving defaults for the answer and tries the real server with them, which takes up to a minute beside the budget;
    without it, objectives at a load stay open. `exhaustive` tries every candidate in full instead of what promises
    most, however long that takes: to check the search itself. Raises `UserError` for bad input, `MissingError` for what
    this machine lacks, `StorageError` for a full disk.
    """
    if min(seed, split_seed) < 0:
        raise UsageError("A seed is a whole number from 0.", remedy="Write --seed 0.")
    if data is None and not str(model).startswith(PREFIX):
        raise DataError(
            "No data was given.",
            remedy="Give representative data with --data (folder, .npz, module:function).",
        )
    dataset = data if isinstance(data, Dataset) else _open(data or str(model), metric, listener)
    path = model_file(model, dataset, Path(out), listener)
    goal = slo if isinstance(slo, Goal) else load_goal(slo)
    title = name or plain_name(_said(model))
    chosen = {"--fold-preprocess": fold_preprocess, "--no-rehearse": not rehearse, "--exhaustive": exhaustive}
    job = Job(
        model=path,
        data=dataset,
        goal=goal,
        out=Path(out),
        name=title,
        render=lambda record: render(record, title=title),
        prepare=_preparation(dataset) if fold_preprocess else (),
        seed=seed,
        split_seed=split_seed,
        budget_s=budget_s,
        exhaustive=exhaustive,
        resume=resume,
        overwrite=overwrite,
        command=_command(_said(model), data, slo, metric, out, (seed, split_seed), budget_s, chosen),
        listener=listener,
        history=_history_file(),
        deployer=RealDeployer() if rehearse else None,
    )
    outcome = run(job)
    _export_of(Path(out)).unlink(missing_ok=True)
    return Result(record=outcome.record, bundle=outcome.bundle, report=outcome.report)


def profile(
    model: str | Path,
    *,
    data: str | Dataset | None = None,
    engine: str | None = None,
    threads: int | None = None,
    precision: Precision | None = None,
    seed: int = 0,
    listener: Listener = ignore,
) -> Profile:
    """Find where the time of a prediction goes: times of operators, their roofline, the bottlenecks and remedies.

    `model`: a file, `zoo:NAME`, or the folder of a bundle, which stands for its picked variant. `data` as for
    `optimize`; bundles bring golden samples, zoo models their own data. Raises `UserError` for bad input,
    `MissingError` for an engine that is not installed, `EngineError` where it fails.
    """
    wish = Wish(engine=engine, threads=threads, precision=precision)
    return profile_of(open_subject(str(model), data, wish, listener), seed=seed, listener=listener)


def open_bundle(path: str | Path) -> BundleHandle:
    """Open a bundle after checking every file of it. Raises `BundleError` naming what is wrong."""
    return BundleHandle(_open_bundle(path))


def serve(bundles: Sequence[str | Path], *, host: str = "127.0.0.1", port: int = 8000, insecure: bool = False) -> None:
    """Serve bundles until SIGTERM or Ctrl-C. GET /metrics tells how that goes."""
    opened = [_open_bundle(path) for path in bundles]
    serve_forever(opened, Options(telemetry=_telemetry()), host=host, port=port, insecure=insecure)


class BundleHandle:
    """An opened bundle: look at it, check it here, predict with it, serve it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @property
    def manifest(self) -> Manifest:
        """What the bundle is made of."""
        return self.bundle.manifest

    def record(self) -> Record:
        """The evidence."""
        return self.bundle.record()

    def problems(self) -> list[str]:
        """What speaks against serving it on this machine; golden samples are run again."""
        return problems(self.bundle)

    def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[Running]:
        """Serve in the background while a `with` block runs; port 0 takes a free one."""
        return serve_bundle(self.bundle, Options(telemetry=_telemetry()), host=host, port=port)

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run the picked variant once, in a process of its own. For many predictions, `serve`."""
        picked = self.manifest.picked
        with load_isolated(self.bundle.model_path(picked), self.bundle.entry(picked).variant.target) as session:
            return session.run(inputs)


def _telemetry() -> Telemetry:
    metrics = counting()
    return Telemetry(sink=metrics, page=metrics.page)


def load_goal(path: str | Path | None) -> Goal:
    """Read slo.toml; without a path, the defaults. Raises `ConfigError` naming the file, the place and the remedy."""
    if path is None:
        return Goal()
    goal = _read_goal(Path(path))
    _check_objective(path, goal)
    return goal


def _read_goal(path: Path) -> Goal:
    import msgspec

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    try:
        return msgspec.toml.decode(raw, type=Goal)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path}: {error}.", remedy=_known_keys()) from error


def load_prices(path: str | Path) -> Prices:
    """Read the `[prices]` table of a file that has just that, or of an slo.toml. Raises `ConfigError`."""
    prices = _read_goal(Path(path)).prices
    if prices == Prices():
        raise ConfigError(f"{path}: there is no price in it.", remedy="Write [prices] machine_hour_usd = 0.10.")
    return prices


def plain_name(model: str) -> str:
    """A bundle name from a path or zoo name: letters, digits, dot, dash, underscore."""
    stem = model.removeprefix(PREFIX) if model.startswith(PREFIX) else Path(model).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100] or "model"


def model_file(model: Any, dataset: Dataset, out: Path, listener: Listener = ignore) -> Path:
    """Return the file that `model` stands for; a PyTorch module is exported to one beside `out`, and checked."""
    text = str(model) if isinstance(model, str | Path) else ""
    if text.startswith(PREFIX):
        return zoo_model(text, listener)
    if text and (":" not in text or Path(text).exists()):
        return Path(text)
    module = load_attribute(text) if text else model
    made = module() if text and callable(module) and not hasattr(module, "forward") else module
    if isinstance(made, str | Path):
        return Path(made)
    from hasten.model.torch_export import export_module

    path = _export_of(out)
    listener(Progress(stage="exporting the PyTorch module"))
    path.parent.mkdir(parents=True, exist_ok=True)
    for note in export_module(made, [dataset.inputs(0)], path):
        listener(Progress(stage="export", note=note))
    return path


def _history_file() -> Path | None:
    """Where the lessons of earlier runs are kept; HASTEN_HISTORY=off keeps none."""
    return None if os.environ.get("HASTEN_HISTORY") == "off" else cache_folder() / "history.sqlite"


def _export_of(out: Path) -> Path:
    """Where a module is exported to while a run needs it: the same place for a resumed run."""
    return out.parent / f".{out.name}.export.pt2"


def _said(model: Any) -> str:
    """The model as the command line names it; a module made in Python by its class."""
    return str(model) if isinstance(model, str | Path) else f"<the module {type(model).__name__}>"


def _preparation(dataset: Dataset) -> tuple[Step, ...]:
    """The step that moves the data's preprocessing into the graph. Raises `UsageError` where there is none."""
    if dataset.preprocess is None:
        raise UsageError(
            f"The data {dataset.name!r} does not say how pixels become the model's input.",
            remedy="Give a hasten.data.Dataset with preprocess=..., or leave --fold-preprocess out.",
        )
    return (Step(transform="fold_preprocess", options={**dataset.preprocess.options()}),)


def _open(source: str, metric: str | None, listener: Listener) -> Dataset:
    if not source.startswith(PREFIX):
        return open_data(source, metric=metric)
    dataset = zoo_data(source, listener)
    if metric:
        dataset.metrics = (open_metric(metric), *dataset.metrics[1:])
    return dataset


def _check_objective(path: str | Path, goal: Goal) -> None:
    if goal.objective.minimize == "energy_per_prediction_j":
        absent = why_no_energy(goal.prices)
        if absent is not None:
            remedy = absent.remedy[:1].upper() + absent.remedy[1:]
            raise ConfigError(
                f"{path}: energy cannot be minimized here: {absent.reason}.",
                remedy=f"{remedy}; or minimize latency_p50_ms, latency_p99_ms, cost_per_million or memory_mb.",
            )
    if goal.objective.minimize == "cost_per_million" and goal.prices.machine_hour_usd is None:
        raise ConfigError(f"{path}: cost needs a price.", remedy="Add [prices] machine_hour_usd = 0.10.")


def _known_keys() -> str:
    import msgspec

    parts = {field.name: field.type for field in msgspec.structs.fields(Goal)}
    lines = [f"[{name}] {', '.join(f.name for f in msgspec.structs.fields(kind))}" for name, kind in parts.items()]
    return "Known keys: " + "; ".join(lines) + "."


def _command(
    model: str,
    data: str | Dataset | None,
    slo: str | Path | Goal | None,
    metric: str | None,
    out: str | Path,
    seeds: tuple[int, int],
    budget_s: float,
    chosen: Mapping[str, bool],
) -> str:
    """The command line that runs this again; a dataset or goal made in Python is named as such."""
    words = ["hasten optimize", model]
    if data is not None:
        words.append(f"--data {data}" if isinstance(data, str) else f"--data <the dataset {data.name!r}>")
    if slo is not None:
        words.append("--slo <a goal made in Python>" if isinstance(slo, Goal) else f"--slo {slo}")
    if metric:
        words.append(f"--metric {metric}")
    words += [flag for flag, is_chosen in chosen.items() if is_chosen]
    words += [f"--split-seed {seeds[1]}"] if seeds[1] else []
    return " ".join([*words, f"--out {out}", f"--budget {budget_s:g}s", f"--seed {seeds[0]}"])
