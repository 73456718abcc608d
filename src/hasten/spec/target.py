"""Where and how a model runs: engine, device, precision, threads, and the runtime's own knobs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hasten.spec.values import Value

__all__ = ["RUNTIME_KNOBS", "SHAPE_KNOBS", "Format", "Precision", "Runtime", "Target"]

# Kinds of model file.
Format = Literal["onnx", "tflite", "openvino", "torch"]
Precision = Literal["f32", "f16", "bf16", "int8", "int4"]
Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrDefault = Annotated[int, msgspec.Meta(ge=0)]


class Runtime(Value, frozen=True):
    """Knobs that engines share, so that a search can turn them without knowing the engine.

    The defaults are what each runtime does when it is left alone. Which knobs an engine obeys is in `Engine.honours`;
    one that is turned on an engine that ignores it is refused at load, never dropped silently.

    `instances`: callers that may run at the same time, each with working memory of its own (streams in OpenVINO).
    `execution`: "parallel" runs independent branches of the graph side by side, on `inter_threads` threads.
    `arena`: keep a pool of memory between runs instead of giving it back. `memory_pattern`: plan all buffers of a
    run at once, for inputs of one shape. `io_binding`: write outputs into buffers that were allocated before.
    `share_weights`: instances use one copy of packed weights. `flush_denormals`: compute with subnormal numbers as
    zero. `spin`: threads wait for work busily, which answers sooner and burns a core. `batch`: compile for exactly
    this batch; 0 leaves it open. `cascade_below`: rows whose two highest scores lie closer than this are computed again
    in f32; 0 leaves all as they are. `single_row`: requests of one row run in a graph compiled for one row, batches in
    the graph of open shape. `lengths`: single rows of tokens run at the next of these lengths, each with a
    graph compiled for it: padded with masked zeros, or with their own padding cut off.
    """

    instances: Count = 1
    execution: Literal["sequential", "parallel"] = "sequential"
    inter_threads: CountOrDefault = 0
    arena: bool = True
    memory_pattern: bool = True
    io_binding: bool = False
    share_weights: bool = False
    flush_denormals: bool = False
    spin: bool = True
    batch: CountOrDefault = 0
    cascade_below: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    single_row: bool = False
    lengths: tuple[Count, ...] = ()

    def turned(self) -> frozenset[str]:
        """The knobs that do not stand at their default."""
        return frozenset(name for name in RUNTIME_KNOBS if getattr(self, name) != getattr(_LEFT_ALONE, name))


RUNTIME_KNOBS: tuple[str, ...] = tuple(field.name for field in msgspec.structs.fields(Runtime))
# Knobs that say what graphs there are, and not how they run.
SHAPE_KNOBS = frozenset({"cascade_below", "lengths", "single_row"})
_LEFT_ALONE = Runtime()


class Target(Value, frozen=True):
    """One way to run a model.

    `device` is the engine's own name for a device (`Probe.devices`). `threads` are those of one instance; 0 leaves the
    number to the engine.
    `pin` keeps each thread on a core of its own: left to chance, a scheduler may run two spinning threads on one
    core for minutes, and the same model takes twice as long. `precision` says what the arithmetic of the model is
    expected in; engines read back what they really do. `options` are the engine's own settings, by its own names.
    """

    engine: str
    device: str = "CPU"
    precision: Precision = "f32"
    threads: int = 0
    pin: bool = True
    runtime: Runtime = Runtime()
    options: dict[str, str | int | bool] = {}

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads else "default threads"
        knobs = "".join(f", {name}={_said(getattr(self.runtime, name))}" for name in sorted(self.runtime.turned()))
        return f"{self.engine} on {self.device}, {self.precision}, {threads}{knobs}"


def _said(value: str | float | tuple[int, ...]) -> str:
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return f"{value:.3g}" if type(value) is float else str(value)
