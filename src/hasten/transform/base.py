"""What a transform is: it requires, it applies, it promises. The extension point `hasten.transform`.

A transform never judges itself: whether it pays and what it costs is measured by others. The base checks what can be
checked without timing: the requirement before; afterwards that the result is a valid model with the same signature, and
that its answers on calibration samples are as close to those of its own input as the transform promises.

Where they are not, the base does not give up: it bisects over the technique's sites (nodes, as `sites` names them),
finds those that break the promise, leaves just these alone and says so. A recipe can name sites to leave alone, too:
that is how a search reverts what did not pay.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from hasten.data.dataset import Arrays, Samples
from hasten.errors import EngineError, HastenError, MissingError, StorageError
from hasten.model.base import SUFFIXES, Model
from hasten.model.open import open_model
from hasten.registry import Entry, Registry
from hasten.spec.applied import Applied, Skipped
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision
from hasten.transform.numerics import Answers, answers_of, compare, probes_for

__all__ = ["Options", "Promise", "Task", "Transform", "TransformFailed", "transforms"]

Option = str | int | float | bool
Options = Mapping[str, Option]
# How close the answers must stay to those of the input model: to rounding; to a few percent of each output's norm
# (narrower number formats, cheaper functions); or merely finite and of the same shape (quantization).
Promise = Literal["exact", "close", "approximate"]

# Each try of the bisection builds and runs the model once.
_MOST_TRIES = 48


class TransformFailed(HastenError):
    """A transform does not apply to this model, or broke its promise. The message is the reason that a report
    shows.
    """

    status = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One application: read `model`, write `out`, look at `calibration` if need be, leave the sites in `skip` alone.

    `options` holds every option, defaults filled in. Sentences put into `notes` reach the evidence.
    """

    model: Model
    out: Path
    calibration: Samples
    options: Options
    skip: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list[str])


class Transform(ABC):
    """One technique. Subclasses are final; they implement `requires` and `apply`, and `sites` where they act on nodes.

    `defaults` names every option with its default; others are refused. `formats` are the model formats it takes,
    `result` the one it gives (None: the same). `deterministic` False says that equal recipes may give other bytes.
    `runs_in` is the precision in which the result is to run and its answers are compared. `changes_interface` is for
    techniques whose very point is another input; `adapt` then says what takes the place of a sample.
    """

    name: str
    promise: Promise
    defaults: Options = {}
    formats: frozenset[Format] = frozenset({"onnx"})
    result: Format | None = None
    deterministic: bool = True
    runs_in: Precision = "f32"
    changes_interface: bool = False

    @abstractmethod
    def requires(self, model: Model, options: Options) -> str | None:
        """Say in words why the technique does not apply to `model`, or return None."""

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """Names of the places where it would act, in graph order; empty for a technique that acts on the whole."""
        return ()

    def result_format(self, model: Model, options: Options) -> Format:
        """The format of the result for this source."""
        return self.result or model.format

    def promised(self, options: Options) -> Promise:
        """What it promises with these options."""
        return self.promise

    def adapt(self, sample: Arrays, options: Options) -> Arrays:
        """What the transformed model takes in place of `sample`."""
        return sample

    @abstractmethod
    def apply(self, task: Task) -> None:
        """Write the transformed model to `task.out` (files that it refers to, beside it). Never touches `task.skip`."""

    @final
    def run(
        self, source: Path, folder: Path, calibration: Samples, options: Options, skip: Sequence[str] = ()
    ) -> tuple[Path, Applied]:
        """Check, apply, check; bisect where the promise breaks.

        Writes into the empty `folder` and returns the model file there and what was done. Raises `TransformFailed`
        with a reason; leaves no file behind then.
        """
        try:
            return _Application(self, source, folder, calibration, self._complete(options), skip).run()
        except (TransformFailed, MissingError, StorageError):
            _empty(folder)
            raise
        except HastenError as error:
            # Whatever else goes wrong while a technique works is a reason not to use it, not the end of a search.
            _empty(folder)
            raise TransformFailed(f"{self.name} failed: {error.message}", remedy=error.remedy) from error
        except Exception as error:
            _empty(folder)
            raise TransformFailed(
                f"{self.name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error

    @final
    def errors(
        self, source: Path, folder: Path, calibration: Samples, options: Options, skips: Sequence[Sequence[str]]
    ) -> list[float | None]:
        """Return the error of the outputs with each of `skips` left alone; None where the technique fails so.

        Keeps nothing in the empty `folder`. Raises `TransformFailed` where the technique does not apply at all.
        """
        return _Application(self, source, folder, calibration, self._complete(options), ()).errors(skips)

    def _complete(self, options: Options) -> Options:
        unknown = sorted(set(options) - set(self.defaults))
        if unknown:
            raise TransformFailed(
                f"{self.name} has no option {unknown[0]!r}.",
                remedy=f"It takes: {', '.join(sorted(self.defaults)) or 'none'}.",
            )
        return {**self.defaults, **options}


class _Application:
    """One run of a transform: what its steps share."""

    def __init__(
        self,
        transform: Transform,
        source: Path,
        folder: Path,
        calibration: Samples,
        options: Options,
        skip: Sequence[str],
    ) -> None:
        self._transform = transform
        self._model = open_model(source)
        self._calibration = calibration
        self._options = options
        self._given_skip = frozenset(skip)
        self._out = folder / f"model{SUFFIXES[transform.result_format(self._model, options)]}"
        self._tries = 0
        self._notes: list[str] = []
        self._wanted: Answers | None = None

    def run(self) -> tuple[Path, Applied]:
        reason = self._refusal()
        if reason:
            raise TransformFailed(f"{self._transform.name} does not apply: {reason}")
        sites = list(self._transform.sites(self._model, self._options))
        unknown = sorted(self._given_skip - set(sites))
        if unknown:
            raise TransformFailed(f"{self._transform.name} has no site {unknown[0]!r} to skip in this model.")
        skipped = {site: "the recipe says so" for site in sites if site in self._given_skip}
        problem = self._problem(frozenset(skipped))
        if problem:
            skipped |= self._bisected([site for site in sites if site not in skipped], problem, frozenset(skipped))
        after = open_model(self._out)
        return self._out, Applied(
            transform=self._transform.name,
            sites=len(sites),
            skipped=tuple(Skipped(site=site, reason=skipped[site]) for site in sites if site in skipped),
            operators_before=dict(sorted(self._model.operators().items())),
            operators_after=dict(sorted(after.operators().items())),
            error=self._error,
            notes=tuple(dict.fromkeys(self._notes)),
            deterministic=self._transform.deterministic,
        )

    def errors(self, skips: Sequence[Sequence[str]]) -> list[float | None]:
        reason = self._refusal()
        if reason:
            raise TransformFailed(f"{self._transform.name} does not apply: {reason}")
        try:
            return [self._error_with(frozenset(skip)) for skip in skips]
        finally:
            _empty(self._out.parent)

    def _error_with(self, skip: frozenset[str]) -> float | None:
        try:
            return None if self._problem(skip) else self._error
        except StorageError:
            raise
        except Exception:  # whatever a library does with odd sites is an answer too
            return None

    def _refusal(self) -> str | None:
        transform = self._transform
        if self._model.format not in transform.formats:
            known = " or ".join(sorted(transform.formats))
            return f"it works on {known} models; this one is {self._model.format}."
        return transform.requires(self._model, self._options)

    def _problem(self, skip: frozenset[str]) -> str | None:
        """Apply with `skip` and say in words how the promise is broken, or return None."""
        self._tries += 1
        self._error: float | None = None
        self._notes = []
        _empty(self._out.parent)
        self._transform.apply(
            Task(
                model=self._model,
                out=self._out,
                calibration=self._calibration,
                options=self._options,
                skip=skip,
                notes=self._notes,
            )
        )
        after = open_model(self._out)
        if not self._transform.changes_interface and _interface(after.signature) != _interface(self._model.signature):
            return "the model's inputs or outputs changed."
        promise = self._transform.promised(self._options)
        probes = probes_for(promise)
        if self._wanted is None:
            self._wanted = answers_of(self._model, self._calibration, lambda sample: sample, probes=probes)
        try:
            got = answers_of(
                after,
                self._calibration,
                lambda sample: self._transform.adapt(sample, self._options),
                self._transform.runs_in,
                probes,
            )
        except EngineError as error:
            return f"the result does not run: {error.message}"
        self._error, problem = compare(self._wanted, got, promise)
        return problem

    def _bisected(self, sites: list[str], problem: str, skip: frozenset[str]) -> dict[str, str]:
        """Find the sites that break the promise. The model at `out` is afterwards the one without them."""
        if len(sites) < 2:
            raise TransformFailed(f"{self._transform.name} broke its promise: {problem}")
        reasons: dict[str, str] = {}
        everything = frozenset(sites)

        def search(part: list[str], why: str | None) -> None:
            """Only the sites in `part`, of those under suspicion, are touched; `why` is known for the whole."""
            found = why or self._problem(skip | (everything - frozenset(part)))
            if found is None:
                return
            if len(part) == 1:
                reasons[part[0]] = found
            elif self._tries < _MOST_TRIES:
                half = len(part) // 2
                search(part[:half], None)
                search(part[half:], None)
            else:
                reasons.update(dict.fromkeys(part, f"one of {len(part)} nodes that were not tried apart: {found}"))

        search(sites, problem)
        if len(reasons) == len(sites):
            raise TransformFailed(f"{self._transform.name} broke its promise at every node: {problem}")
        left = self._problem(skip | frozenset(reasons))
        if left:
            raise TransformFailed(f"{self._transform.name} broke its promise: {left}")
        return reasons


def _interface(signature: Signature) -> list[tuple[str, str]]:
    return [(spec.name, spec.dtype) for spec in (*signature.inputs, *signature.outputs)]


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _row(name: str, attribute: str, requires: str | None = None, extra: str | None = None) -> Entry:
    return Entry(name=name, target=f"hasten.transform.{name}:{attribute}", requires=requires, extra=extra)


transforms: Registry[Transform] = Registry(
    "transform",
    [
        _row("export_onnx", "ExportOnnx", requires="torch", extra="torch"),
        _row("raise_opset", "RaiseOpset"),
        _row("fold", "Fold"),
        _row("slim", "Slim", requires="onnxslim", extra="slim"),
        _row("fuse", "Fuse"),
        _row("layout", "Layout"),
        _row("fold_preprocess", "FoldPreprocess"),
        _row("replace_operators", "ReplaceOperators"),
        _row("flush_subnormals", "FlushSubnormals"),
        _row("deduplicate", "Deduplicate"),
        _row("cast_f16", "CastF16"),
        _row("cast_bf16", "CastBf16"),
        _row("compute_bf16", "ComputeBf16", requires="openvino", extra="openvino"),
        _row("quantize_dynamic", "QuantizeDynamic"),
        _row("quantize_static", "QuantizeStatic"),
        _row("quantize_nncf", "QuantizeNncf", requires="nncf", extra="nncf"),
        _row("quantize_weights", "QuantizeWeights"),
        _row("reduce_resolution", "ReduceResolution"),
        _row("reduce_length", "ReduceLength"),
        _row("trim_padding", "TrimPadding"),
        _row("cascade", "Cascade"),
    ],
)
