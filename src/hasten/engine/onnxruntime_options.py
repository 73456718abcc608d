"""A `Target` in ONNX Runtime's own words: session options, provider options, and the sizes that open axes get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hasten.engine.denormals import can_flush
from hasten.engine.host import cores_for, environment
from hasten.engine.onnx_head import leading_axes
from hasten.engine.onnxruntime_providers import PROVIDERS, Provider, available, provider_for
from hasten.errors import EngineLoadError
from hasten.spec.target import Target

__all__ = ["PROVIDER_OPTION", "caller_core", "provider_options", "provider_row", "session_options", "threads_of"]

# Options of a target that begin with this are the provider's; all others are entries of the session's configuration.
PROVIDER_OPTION = "ep."


def threads_of(target: Target) -> int:
    """Threads of one instance. The runtime's own default is one for each physical core."""
    return target.threads or environment().cores_physical


def caller_core(target: Target) -> int | None:
    """The core on which whoever calls `run` should stay, because it works on an equal footing with the pinned
    threads; None where nothing is pinned.

    Callers of several instances take whichever is free, so that these are left to the scheduler.
    """
    cores = _cores(target)
    return cores[0] if cores else None


def provider_row(target: Target) -> Provider:
    """The provider that the target names. Raises `EngineLoadError` where it is unknown, missing or too imprecise."""
    row = provider_for(target.device)
    if row is None:
        known = ", ".join(item.device for item in PROVIDERS)
        raise EngineLoadError(f"onnxruntime has no device {target.device!r}.", remedy=f"It knows: {known}.")
    missing = available(row)
    if missing:
        raise EngineLoadError(missing, remedy=row.remedy)
    # On the CPU the graph alone decides, and is asked afterwards.
    if row.device != "CPU" and target.precision not in row.precisions:
        raise EngineLoadError(
            f"{row.name} cannot be held to {target.precision}.",
            remedy=f"Choose one of: {', '.join(row.precisions)}.",
        )
    return row


def provider_options(row: Provider, target: Target) -> dict[str, str]:
    """The options that pin the provider's precision, and the target's own."""
    own = {
        key.removeprefix(PROVIDER_OPTION): str(value)
        for key, value in target.options.items()
        if key.startswith(PROVIDER_OPTION)
    }
    return {**row.options, **row.precisions.get(target.precision, {}), **own}


def session_options(model: Path, target: Target, row: Provider) -> Any:
    """Session options with every knob of `target.runtime`. Raises `EngineLoadError` for one that cannot be obeyed."""
    import onnxruntime as ort

    knobs = target.runtime
    options: Any = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads_of(target) * (knobs.instances if knobs.share_weights else 1)
    options.enable_cpu_mem_arena = knobs.arena
    options.enable_mem_pattern = knobs.memory_pattern and row.memory_pattern
    _execution(options, target)
    _entries(options, target, row)
    if knobs.batch:
        for axis in _open_axes(model):
            options.add_free_dimension_override_by_name(axis, knobs.batch)
    return options


def _execution(options: Any, target: Target) -> None:
    import onnxruntime as ort

    if target.runtime.execution == "parallel":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = target.runtime.inter_threads
    elif target.runtime.inter_threads:
        raise EngineLoadError(
            "onnxruntime uses inter_threads only for branches that run side by side.",
            remedy='Set execution = "parallel" too, or leave inter_threads at 0.',
        )


def _entries(options: Any, target: Target, row: Provider) -> None:
    """Settings that have no attribute of their own."""
    entries: dict[str, str] = {}
    cores = _cores(target)
    if cores:
        # The calling thread works too and is not the runtime's to pin (`caller_core`). Cores are counted from 1 here.
        entries["session.intra_op_thread_affinities"] = ";".join(str(core + 1) for core in cores[1:])
    if not target.runtime.spin:
        entries |= {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
    if target.runtime.flush_denormals:
        if not can_flush():
            raise EngineLoadError(
                "Subnormal numbers cannot be flushed on this system.", remedy="Leave flush_denormals off."
            )
        entries["session.set_denormal_as_zero"] = "1"
    if row.device != "CPU":
        entries["session.record_ep_graph_assignment_info"] = "1"
    own = {key: str(value) for key, value in target.options.items() if not key.startswith(PROVIDER_OPTION)}
    for key, value in (entries | own).items():
        options.add_session_config_entry(key, value)


def _cores(target: Target) -> list[int]:
    alone = target.runtime.instances == 1
    return cores_for(threads_of(target)) if target.pin and alone else []


def _open_axes(model: Path) -> set[str]:
    """The names of the inputs' open leading axes. Raises `EngineLoadError` where one has no name to be set by."""
    try:
        axes = leading_axes(model)
    except (OSError, ValueError) as error:
        raise EngineLoadError(f"{model.name} is no ONNX file: {error}", remedy="Check the file.") from error
    nameless = sorted(name for name, axis in axes.items() if axis is None)
    if nameless:
        raise EngineLoadError(
            f"The input {nameless[0]!r} of {model.name} has no named leading axis that a batch could fix.",
            remedy="Export the model with a name for the batch axis, or leave batch at 0.",
        )
    return {axis for axis in axes.values() if isinstance(axis, str)}
