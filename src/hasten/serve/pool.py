"""What runs batches: variants of a bundle, loaded and warm beside each other, in a process of their own or in this one.

`Runner` is all that the driver knows of either. Everything is called on the event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.engine.frames import Frame
from hasten.engine.process import WorkerProcess
from hasten.errors import EngineCrashed, EngineError, EngineRunError
from hasten.serve import warmup
from hasten.serve.batch import Outcome, Tensors, parts_of, together_or_alone
from hasten.serve.events import Warmed
from hasten.serve.link import WorkerLink
from hasten.spec.serving import Serving
from hasten.spec.target import Target

__all__ = ["Died", "Done", "Isolation", "Loading", "ProcessRunner", "Runner"]

_log = logging.getLogger("hasten.serve")
# Below, one copy of a batch takes less time than a copy for each of its requests.
_LARGE_BYTES = 64 * 2**10

Isolation = Literal["process", "none"]
Done = Callable[[Sequence[Outcome] | EngineCrashed], None]
Died = Callable[[EngineCrashed], None]
Args = Mapping[str, str]
Steps = Generator[Sequence[Tensors], Outcome, list[Outcome]]


class Loading:
    """What is loaded: the model file and target of each variant, samples to warm up on, and the largest batch."""

    def __init__(self, bundle: Bundle, variants: Sequence[str], serving: Serving, max_batch: int) -> None:
        self.name = bundle.manifest.name
        self.models: Mapping[str, tuple[Path, Target]] = {
            id_: (bundle.model_path(id_), serving.one(bundle.entry(id_).variant.target)) for id_ in variants
        }
        self.max_batch = max_batch
        self.samples: Sequence[Tensors] = warmup.distinct(bundle.golden(variants[0]).inputs)

    @property
    def engine(self) -> str:
        """The engines by name."""
        return " and ".join(dict.fromkeys(target.engine for _, target in self.models.values()))


class Runner(Protocol):
    """Loaded variants that run one batch at a time."""

    @property
    def pid(self) -> int | None:
        """Process id of the engine, where it has a process of its own."""
        ...

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when the engine has something to say, where it has a process of its own."""
        ...

    async def start(self) -> list[Warmed]:
        """Load and warm up, anew where it was loaded before; returns how long that took. Raises `EngineError`."""
        ...

    def submit(self, variant: str, batch: Sequence[Tensors], done: Done) -> None:
        """Run requests as one batch of a variant and call `done` with each one's outcome, or with the crash that took
        them all.
        """
        ...

    async def close(self) -> None:
        """End it at once, whatever it is doing; nobody is told. Safe to call twice."""
        ...


class ProcessRunner:
    """The engine in a worker process. `died` is called where the process ends while nothing runs."""

    def __init__(self, loading: Loading, limits: WorkerLimits, died: Died) -> None:
        self._loading = loading
        self._limits = limits
        self._died = died
        self._link: WorkerLink | None = None
        # A worker with one variant need not be told which.
        several = len(loading.models) > 1
        self._args = {id_: {"variant": id_} if several else {} for id_ in loading.models}

    @property
    def pid(self) -> int | None:
        """The worker's process id, while there is one."""
        return None if self._link is None else self._link.pid

    @property
    def descriptor(self) -> int | None:
        """The worker's socket, while there is one."""
        return None if self._link is None else self._link.descriptor

    async def start(self) -> list[Warmed]:
        """Start a worker, load and warm up. Raises `EngineError`."""
        await self.close()
        loading = self._loading
        try:
            process = WorkerProcess(loading.engine, self._limits)
        except OSError as error:
            raise EngineCrashed(f"No process can be started for the engine: {error.strerror}.") from error
        link = self._link = WorkerLink(process, self._died)
        watch = warmup.Stopwatch()
        for id_, (model, target) in loading.models.items():
            args = {"model": str(model.resolve()), "target": msgspec.to_builtins(target), **self._args[id_]}
            await link.asked("load", timeout_s=self._limits.load_s, args=args)
            for batch in warmup.batches(loading.samples, loading.max_batch):
                # What runs for the first time may compile, which is a part of loading.
                parts, began = parts_of(batch), time.monotonic()
                await link.asked("run", timeout_s=self._limits.load_s, args=self._args[id_], parts=parts)
                watch.ran(id_, batch, time.monotonic() - began)
        memory = await link.asked("memory", timeout_s=self._limits.load_s)
        fields = {
            "event": "engine loaded",
            "model": loading.name,
            "variants": list(loading.models),
            "memory_peak_mb": memory["peak_mb"],
        }
        _log.info("An engine of %s is loaded.", loading.name, extra={"fields": fields})
        return watch.found()

    def submit(self, variant: str, batch: Sequence[Tensors], done: Done) -> None:
        """Run a batch; where it fails, its requests one by one."""
        steps = together_or_alone(batch)
        self._step(self._args[variant], steps, next(steps), done)

    async def close(self) -> None:
        """End the worker process."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _step(self, args: Args, steps: Steps, batch: Sequence[Tensors], done: Done) -> None:
        def answered(answer: Frame | EngineError) -> None:
            if isinstance(answer, EngineCrashed):
                done(answer)
                return
            large = _large(answer)
            # What is large stays where it is, if it may, or is copied request by request: each answer is then a piece
            # of its own.
            stays = large is not None and isinstance(answer, Frame) and answer.lasts
            apart = large is not None and not stays and len(batch) > 1
            try:
                following = steps.send(large if large is not None and (stays or apart) else _outcome(answer))
            except StopIteration as end:
                done([_kept(one) for one in end.value] if apart else end.value)
            else:
                self._step(args, steps, following, done)

        assert self._link is not None, "start it first"
        self._link.ask("run", answered, timeout_s=self._limits.run_s, args=args, parts=parts_of(batch))


def _large(answer: Frame | EngineError) -> Tensors | None:
    """The outputs as they lie in shared memory, where they are large."""
    if isinstance(answer, EngineError) or sum(array.nbytes for array in answer.tensors.values()) <= _LARGE_BYTES:
        return None
    return answer.tensors


def _kept(outputs: Tensors) -> Tensors:
    """Copies that last. Large ones lie in bytes, which go out without a further copy and can only be read."""
    return {
        name: np.ndarray(array.shape, array.dtype, array.tobytes())
        if array.nbytes > _LARGE_BYTES and array.dtype != object
        else array.copy()
        for name, array in outputs.items()
    }


def _outcome(answer: Frame | EngineError) -> Outcome:
    """Copy the outputs once: the next batch overwrites them while these are still on their way to clients."""
    if isinstance(answer, Frame):
        return _kept(answer.tensors)
    return answer if isinstance(answer, EngineRunError) else EngineRunError(answer.message, code=answer.code)
